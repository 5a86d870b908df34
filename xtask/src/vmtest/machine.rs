//! An emulated machine: QEMU without hardware's help, so that it runs wherever the repository is built.
//!
//! Invariant: it has no network card and no folder of the host; it ends with the value, or when its time is over.

use super::Suite;
use super::kernels::Kernel;
use crate::interrupt;
use crate::lab::processes::Process;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MEMORY_MIB: u32 = 2048;
/// Blobs of the engine's suite; the file on the host stays sparse.
const DISK_BYTES: u64 = 4 << 30;
/// How often what it says is shown.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without a word for this long it hangs: most tests say something every few seconds, the slowest after some minutes.
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
        let (mut file, mut text, mut heard) = (File::open(&said)?, String::new(), Instant::now());
        loop {
            let ended = process.check();
            let before = text.len();
            listen(&mut file, &mut text)?;
            print!("{}", &text[before..]);
            if text.len() > before {
                heard = Instant::now();
            }
            if let Err(ended) = ended {
                process.leave();
                let end = tail(&console);
                ensure!(text.contains(END), "{what} broke off: {ended:#}\nits console's last lines:\n{end}");
                return Ok(text);
            }
            if heard.elapsed() > SILENCE_LIMIT {
                let end = tail(&console);
                bail!(
                    "{what} was silent for {} s; its console's last lines:\n{end}",
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
            "max",
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
        match self.suite {
            // Time is counted in instructions (2 ns each) and jumps where nobody computes: limits are held or missed by
            // what the kernel does, not by what else this machine is doing.
            Suite::Shaper => qemu.args(["-icount", "shift=1,sleep=off"]),
            // A disk answers in the host's time, so time runs as it does there.
            Suite::Engine => {
                qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio", self.disk()?.display()))
            }
        };
        Ok(qemu)
    }

    /// An empty ext4 disk.
    fn disk(&self) -> Result<PathBuf> {
        let path = self.file("disk");
        let _ = fs::remove_file(&path);
        File::create(&path)?.set_len(DISK_BYTES).context("make the machine's disk")?;
        crate::command::check(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path), crate::command::LONG)?;
        Ok(path)
    }
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
