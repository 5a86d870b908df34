//! The daemon's own test programs, run on the machine's kernel: the engines' contract and what else is the kernel's to
//! allow, and a cluster in one process. Of the other unit tests none asks the kernel for much, and they would take a
//! quarter of an hour here.

use crate::test::Tally;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Name in the report, test program, and which of its tests.
const SUITES: [(&str, &str, &[&str]); 6] = [
    (
        "engine: the contract on io_uring, zero-copy",
        "/bin/daemon-tests",
        &["engine::contract::io_uring_splice"],
    ),
    (
        "engine: the contract on io_uring, through buffers",
        "/bin/daemon-tests",
        &["engine::contract::io_uring_copy"],
    ),
    ("engine: the contract on portable", "/bin/daemon-tests", &["engine::contract::portable"]),
    (
        "engine: its other tests, among them the differential one",
        "/bin/daemon-tests",
        &["engine::", "--skip", "engine::contract::io_uring", "--skip", "engine::contract::portable"],
    ),
    ("accounting and shaping: their unit tests", "/bin/daemon-tests", &["shaper::", "accounting::"]),
    ("mirror: pulls through a cluster of daemons", "/bin/cluster-tests", &[]),
];

pub(super) fn run_suites(only: Option<&str>, tally: &mut Tally) {
    for (name, program, words) in SUITES {
        if only.is_none_or(|only| name.contains(only)) {
            tally.run(name, || suite(program, words));
        }
    }
}

/// Shows its tests as they end: the host takes silence for a hang.
fn suite(program: &str, words: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    let mut tests = command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let (mut summary, mut said) =
        (String::new(), BufReader::new(tests.stdout.take().context("its output")?).lines());
    while let Some(line) = said.next().transpose()? {
        println!("  {line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            result.clone_into(&mut summary);
        }
    }
    println!("    {summary}");
    let status = tests.wait()?;
    ensure!(status.success(), "{status}");
    ensure!(!summary.contains(" 0 passed"), "no test ran");
    Ok(())
}
