//! Every test there is, with everything it needs: what CI runs.
//!
//! Invariant: the last line says how many passed, failed and were skipped; a skip that CI did not
//! announce (`CI_EXPECTED_SKIPS`) is a failure there.

use crate::setup::{self, Ability};
use crate::{command, e2e, ebpf, interrupt, shaper, tidy, workspace};
use anyhow::{Context, Result};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Results so far.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Tally {
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        if interrupt::requested() {
            return;
        }
        println!("--- {name}");
        let started = Instant::now();
        let result = work();
        let took = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("ok  {name} ({took:.1} s)");
                self.passed += 1;
            }
            Err(error) => {
                println!("FAILED  {name} ({took:.1} s)\n{error:?}");
                self.failed.push(name.to_owned());
            }
        }
    }

    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        println!("skipped  {name}: {why}");
        self.skipped.push(format!("{name}: {why}"));
    }

    fn finish(self) -> ExitCode {
        for name in &self.failed {
            println!("failed: {name}");
        }
        for skipped in &self.skipped {
            println!("skipped: {skipped}");
        }
        let expected = std::env::var("CI_EXPECTED_SKIPS").ok().and_then(|text| text.parse::<usize>().ok());
        let unexpected = std::env::var_os("CI").is_some() && self.skipped.len() > expected.unwrap_or(0);
        if unexpected {
            println!("skips that CI did not expect: {}", self.skipped.len() - expected.unwrap_or(0));
        }
        let (passed, failed, skipped) = (self.passed, self.failed.len(), self.skipped.len());
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        let bad = failed > 0 || unexpected || interrupt::requested();
        if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Runs everything, or only the end-to-end cases whose name contains `only`.
pub(crate) fn run(only: Option<&str>) -> Result<ExitCode> {
    let ability = setup::run()?;
    let mut tally = Tally::default();
    if only.is_none() {
        tally.run("formatting", || {
            cargo(&["fmt", "--all", "--check"])?;
            cargo(&["fmt", "--manifest-path", "daemon-ebpf/Cargo.toml", "--check"])
        });
        ebpf::verify(&mut tally);
        tally.run("tidy", || {
            let problems = tidy::problems()?;
            anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
            Ok(())
        });
        tally.run("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
        if std::env::var_os("HAWKER_SKIP_IO_URING").is_some() {
            tally.skip("the io_uring engine's tests, where there is none", "HAWKER_SKIP_IO_URING is set");
        }
        tally.run("unit and integration tests", || cargo(&["test", "--workspace"]));
    }
    shaper::run(&ability, only, &mut tally)?;
    e2e::run(&ability, only, &mut tally)?;
    if matches!(ability, Ability::NoLab(_)) && only.is_none() {
        tally.run("demo without root", || {
            crate::demo::run(true).map(drop).context("the demo on loopback addresses")
        });
    }
    Ok(tally.finish())
}

fn cargo(words: &[&str]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let succeeded = command::show(cargo.current_dir(workspace::root()?).args(words))?;
    anyhow::ensure!(succeeded, "cargo {} failed", words.join(" "));
    Ok(())
}
