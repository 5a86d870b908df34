//! Inside the emulated machine: its first process, and the tests that this one starts.
//!
//! Invariant: the first process never ends but by switching the machine off, and says so last.

use super::machine::END;
use super::{Suite, engine, facts};
use crate::command::{LONG, SHORT, check};
use crate::shaper::{self, Programs};
use crate::test::Tally;
use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Small, because the processor is slow at checking it.
const BLOB_BYTES: u64 = 16 << 20;
/// A few more than the maps hold; each takes it some milliseconds.
const CROWD: u32 = 20_000;
/// Where what the tests say goes; the kernel talks on the first line.
const VOICE: &str = "/dev/ttyS1";
/// MiB; kept; by a timer, 0.1 ms after it was asked; what is deleted is given back.
const DISK: [(&str, &str); 6] = [
    ("size", "3072"),
    ("memory_backed", "1"),
    ("irqmode", "2"),
    ("completion_nsec", "100000"),
    ("discard", "1"),
    ("power", "1"),
];
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Sets the machine up, starts the tests as another process, and switches it off.
pub(crate) fn init() -> Result<ExitCode> {
    ensure!(std::process::id() == 1, "only the first process of an emulated machine may be this");
    let result =
        set_up().and_then(|()| File::options().write(true).open(VOICE).context("open the serial line"));
    match result.and_then(|voice| watch(&voice)) {
        Ok(()) => {}
        Err(error) => eprintln!("{error:?}"),
    }
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Err(error) => bail!("switch the machine off: {error}"),
    }
}

fn set_up() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {kind} on {place}"))?;
    }
    nix::unistd::sethostname("vm").context("name the machine")
}

/// Runs the tests, and buries every process that lost its parent meanwhile.
fn watch(voice: &File) -> Result<()> {
    let mut tests = Command::new("/proc/self/exe");
    tests.arg("vm-run").stdin(Stdio::null()).stdout(voice.try_clone()?).stderr(voice.try_clone()?);
    tests.env("PATH", "/usr/bin").env("HOME", "/").env("TMPDIR", "/tmp").env("RUST_BACKTRACE", "0");
    let tests = tests.spawn().context("start the tests")?;
    let pid = Pid::from_raw(i32::try_from(tests.id())?);
    let mut voice = voice;
    loop {
        match wait().context("wait for the tests")? {
            WaitStatus::Exited(ended, code) if ended == pid => {
                return writeln!(voice, "{END} ({code})").context("say the end");
            }
            WaitStatus::Signaled(ended, signal, _) if ended == pid => bail!("the tests ended by {signal}"),
            _ => {}
        }
    }
}

/// The tests of the suite that the kernel's command line names.
pub(crate) fn run() -> Result<ExitCode> {
    let words = fs::read_to_string("/proc/cmdline")?;
    let (suite, only) = asked(&words)?;
    check(Command::new("ip").args(["link", "set", "lo", "up"]), SHORT)?;
    let mut tally = Tally::default();
    let programs = Programs {
        hawkerd: "/bin/hawkerd".into(),
        fill: "/bin/bench-fill".into(),
        blob_bytes: BLOB_BYTES,
        crowd: CROWD,
    };
    let wanted = |name: &str| only.as_deref().is_none_or(|only| name.contains(only));
    match suite {
        Suite::Engine => {
            disk()?;
            if wanted(facts::ENGINE) {
                tally.run(facts::ENGINE, || facts::engine(&programs));
            }
            engine::run_suites(only.as_deref(), &mut tally);
        }
        Suite::Shaper => {
            if wanted(facts::SHAPER) {
                tally.run(facts::SHAPER, || facts::shaper(&programs));
            }
            shaper::run_with(&programs, only.as_deref(), &mut tally);
            shaper::run_on_queues(&programs, only.as_deref(), &mut tally);
        }
    }
    Ok(tally.finish())
}

fn asked(words: &str) -> Result<(Suite, Option<String>)> {
    let after = |key: &str| words.split_once(key).map(|(_, rest)| rest.trim());
    let suite = after("hawker.suite=").and_then(|rest| rest.split_whitespace().next());
    let only = after("hawker.only=\"").and_then(|rest| rest.split('"').next()).map(str::to_owned);
    Ok((Suite::named(suite.unwrap_or_default())?, only))
}

/// A disk becomes `/tmp`. It lies in the machine's memory and answers after a while of the machine's own time, which
/// a disk on the host would not know.
fn disk() -> Result<()> {
    check(Command::new("modprobe").args(["null_blk", "nr_devices=0"]), SHORT)?;
    mount(Some("configfs"), "/sys/kernel/config", Some("configfs"), MsFlags::empty(), None::<&str>)
        .context("mount configfs")?;
    let settings = Path::new("/sys/kernel/config/nullb/nullb0");
    fs::create_dir(settings).context("make a disk")?;
    for (setting, value) in DISK {
        fs::write(settings.join(setting), value).with_context(|| format!("set the disk's {setting}"))?;
    }
    let device = Path::new("/dev/nullb0");
    check(Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(device), LONG)?;
    mount(Some(device), "/tmp", Some("ext4"), MsFlags::empty(), Some("discard")).context("mount the disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_suite_and_filter() {
        let (suite, only) = asked("console=ttyS0 hawker.suite=engine hawker.only=\"a b\"\n").unwrap();
        assert_eq!((suite, only.as_deref()), (Suite::Engine, Some("a b")));
        assert!(matches!(asked("hawker.suite=shaper"), Ok((Suite::Shaper, None))));
        assert!(asked("quiet").is_err());
    }
}
