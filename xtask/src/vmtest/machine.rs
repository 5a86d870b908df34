//! An emulated machine: QEMU without hardware's help, so that it runs wherever the repository is built.
//!
//! Invariant: it has no network card and no folder of the host; it ends with the value, or when its time is over.

use super::Suite;
use super::kernels::Kernel;
use crate::interrupt;
use crate::lab::processes::Process;
use anyhow::{Context, Result, bail, ensure};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The host gives what is touched; the engine's suite has its disk in there.
const MEMORY_MIB: u32 = 4096;
/// The emulator does a string instruction byte by byte: a processor without fast ones has the kernel copy by words.
const PROCESSOR: &str = "max,-erms,-fsrm";
/// How often what it says is shown.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without a word for this long it hangs: the slowest tests say something after some minutes. In the emulator's processor
/// time, which a machine that hangs uses as well, waiting for the next timer after timer.
const SILENCE_LIMIT: Duration = Duration::from_secs(420);
/// What the guest says last.
pub(super) const END: &str = "the machine's tests are over";

pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) suite: Suite,
    pub(super) only: Option<&'a str>,
}

/// Where a machine's words are; of a part of a suite they are beside those of the whole.
pub(super) fn said(folder: &Path, suite: Suite, only: Option<&str>) -> PathBuf {
    file(folder, suite, only, "said")
}

fn file(folder: &Path, suite: Suite, only: Option<&str>, kind: &str) -> PathBuf {
    let part = if only.is_some() { "-part" } else { "" };
    folder.join(format!("{}{part}.{kind}", suite.name()))
}

impl Machine<'_> {
    /// Starts it, shows what it says and returns that when it has switched itself off.
    pub(super) fn run(&self) -> Result<String> {
        let what = format!("the machine of Linux {} ({})", self.kernel.name, self.suite.name());
        let (said, console) = (said(self.folder, self.suite, self.only), self.file("console"));
        for file in [&said, &console] {
            File::create(file).with_context(|| format!("make {}", file.display()))?;
        }
        let mut qemu = self.command(&said, &console)?;
        let mut process = Process::start(&what, &mut qemu, &self.file("qemu"))?;
        let (mut file, mut text, mut heard) = (File::open(&said)?, String::new(), Duration::ZERO);
        loop {
            let ended = process.check();
            let before = text.len();
            listen(&mut file, &mut text)?;
            print!("{}", &text[before..]);
            let now = if ended.is_ok() { computed(process.pid()?)? } else { heard };
            if text.len() > before {
                heard = now;
            }
            if let Err(ended) = ended {
                process.leave();
                let end = tail(&console);
                ensure!(text.contains(END), "{what} broke off: {ended:#}\nits console's last lines:\n{end}");
                return Ok(text);
            }
            if now.saturating_sub(heard) > SILENCE_LIMIT {
                let end = tail(&console);
                bail!(
                    "{what} was silent for {} s of computing; its console's last lines:\n{end}",
                    SILENCE_LIMIT.as_secs()
                );
            }
            interrupt::check()?;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn file(&self, kind: &str) -> PathBuf {
        file(self.folder, self.suite, self.only, kind)
    }

    fn command(&self, said: &Path, console: &Path) -> Result<Command> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-accel",
            "tcg",
            "-cpu",
            PROCESSOR,
            "-smp",
            "1",
        ]);
        qemu.args(["-m", &MEMORY_MIB.to_string()]);
        qemu.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(self.initramfs);
        // The kernel's words on the first line, the tests' on the second.
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        qemu.arg("-serial").arg(format!("file:{}", said.display()));
        let mut words = format!(
            "console=ttyS0 rdinit=/init panic=-1 loglevel=4 random.trust_cpu=on hawker.suite={}",
            self.suite.name()
        );
        if let Some(only) = self.only {
            words.push_str(&format!(" hawker.only=\"{only}\""));
        }
        qemu.arg("-append").arg(words);
        // Time is counted in instructions and jumps where nobody computes: what has a deadline is early or late by what
        // the kernel and the programs do, not by what else this machine is doing.
        qemu.args(["-icount", &format!("shift={},sleep=off", instruction_shift(self.suite))]);
        Ok(qemu)
    }
}

/// An instruction takes 2 to this power nanoseconds: the engine's suite, which computes most, gets the fastest processor
/// there is, the shaper's one that limits and costs were measured on.
fn instruction_shift(suite: Suite) -> u8 {
    match suite {
        Suite::Engine => 0,
        Suite::Shaper => 1,
    }
}

/// Processor time that a process has used.
fn computed(pid: i32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).context("find the emulator's clock")?;
    Ok(clock.now().context("read the emulator's clock")?.into())
}

/// Adds what was said since to `text`.
fn listen(file: &mut File, text: &mut String) -> Result<()> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("read what the machine says")?;
    // Whole lines only: the rest is read again with the next.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    file.seek(SeekFrom::Current(whole as i64 - bytes.len() as i64))?;
    text.push_str(&String::from_utf8_lossy(&bytes[..whole]).replace('\r', ""));
    Ok(())
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
