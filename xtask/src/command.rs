//! Runs other programs to their end: captured, timed, never longer than a limit. Not for programs
//! that stay (see [`crate::lab::processes`]).
//!
//! Invariant: when a call returns, the program it ran, and whatever that started in its process group, has ended.

use crate::interrupt;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Limit of a command that only asks or changes something small.
pub(crate) const SHORT: Duration = Duration::from_secs(20);
/// Limit of a command that moves an image or installs packages.
pub(crate) const LONG: Duration = Duration::from_secs(300);
/// Most output kept of one stream, bytes.
const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// Exactness of the time taken.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A program that ended by itself.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// Runs `command` and wants it to succeed.
pub(crate) fn check(command: &mut Command, limit: Duration) -> Result<Finished> {
    let finished = run(command, limit)?;
    if !finished.status.success() {
        bail!("{}: {}\n{}", shown(command), finished.status, tail(&finished));
    }
    Ok(finished)
}

/// Runs `command` and returns however it ended.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    interrupt::check()?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", shown(command)))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let waited = wait(&mut child, started + limit);
    if waited.is_err() {
        end_group(&mut child);
    }
    let took = started.elapsed();
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    let status = waited.with_context(|| shown(command))?;
    Ok(Finished { status, stdout, stderr, took })
}

/// Runs `command` on our own terminal and says whether it succeeded.
pub(crate) fn show(command: &mut Command) -> Result<bool> {
    interrupt::check()?;
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("start {}", shown(command)))?;
    interrupt::check()?;
    Ok(status.success())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Whether `program` is somewhere on the path.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|folder| folder.join(program).is_file())
}

fn wait(child: &mut Child, deadline: Instant) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        interrupt::check()?;
        if Instant::now() > deadline {
            bail!("took longer than its limit");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn end_group(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
            // The rest is read and dropped: a full pipe would block the program.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(reader: JoinHandle<String>) -> String {
    reader.join().unwrap_or_default()
}

fn tail(finished: &Finished) -> String {
    let text = if finished.stderr.trim().is_empty() { &finished.stdout } else { &finished.stderr };
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = check(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]), SHORT).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sh -c") && text.contains("broken") && text.contains('3'), "{text}");
    }

    #[test]
    fn the_limit_ends_the_whole_group() {
        let started = Instant::now();
        let limit = Duration::from_millis(100);
        let error = run(Command::new("sh").args(["-c", "sleep 60 & sleep 60"]), limit).unwrap_err();
        assert!(format!("{error:#}").contains("limit"));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
