//! Programs that stay: started with their output in a file, stopped by their own pid.
//!
//! Invariant: a [`Process`] that is dropped has ended, unless it was [left](Process::leave) running.

use crate::interrupt;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time to end after SIGTERM before SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(15);

pub(crate) struct Process {
    what: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output added to `log`.
    pub(crate) fn start(what: &str, command: &mut Command, log: &Path) -> Result<Self> {
        interrupt::check()?;
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let open = || File::options().create(true).append(true).open(log);
        let out = open().with_context(|| format!("open log {}", log.display()))?;
        let err = out.try_clone().context("duplicate the log's descriptor")?;
        // HAWKER_… variables of whoever runs this are not the lab's.
        let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HAWKER_"));
        for (name, _) in ours {
            command.env_remove(name);
        }
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.with_context(|| format!("start {what}"))?;
        Ok(Self { what: what.to_owned(), child: Some(child), log: log.to_owned() })
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Result<i32> {
        let Some(child) = &self.child else { bail!("{} is not running", self.what) };
        i32::try_from(child.id()).context("a pid")
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid()?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.what))
    }

    /// Ends it with SIGKILL, as a crash would.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        if let Some(mut child) = self.child.take() {
            child.wait().with_context(|| format!("wait for {}", self.what))?;
        }
        Ok(())
    }

    /// Ends it with SIGTERM, and after a while with SIGKILL.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.child.is_none() {
            return Ok(());
        }
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            if self.has_ended()? {
                self.child = None;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} did not end within {} s of SIGTERM", self.what, END_LIMIT.as_secs());
        self.crash()
    }

    /// An error, with the end of its log, once it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.has_ended()? {
            bail!("{} ended:\n{}", self.what, self.log_tail());
        }
        Ok(())
    }

    /// Waits for it to end by itself.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.has_ended()? {
            if Instant::now() > deadline {
                bail!("{} did not end within {} s:\n{}", self.what, limit.as_secs(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = None;
        Ok(())
    }

    fn has_ended(&mut self) -> Result<bool> {
        match &mut self.child {
            None => Ok(true),
            Some(child) => {
                Ok(child.try_wait().with_context(|| format!("look after {}", self.what))?.is_some())
            }
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Lets it run on when this value goes.
    pub(crate) fn leave(&mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.crash()
        {
            eprintln!("{error:?}");
        }
    }
}
