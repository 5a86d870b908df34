//! Every test there is, with everything it needs: what CI runs.
//!
//! Invariant: the last line says how many passed, failed and were skipped; a skip that CI did not
//! announce (`CI_EXPECTED_SKIPS`) is a failure there.

use crate::postgres::{self, Postgres};
use crate::setup::{self, Ability};
use crate::{
    alerts, command, console, deb, docs, e2e, ebpf, image, interrupt, kube, openid, shaper, tidy, workspace,
};
use anyhow::{Context, Result};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Results so far.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<String>,
    flaky: Vec<String>,
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

    /// As [`Self::run`], for what runs against real time on a machine that others may use, too: what fails is tried once more,
    /// both are shown, and what passes only then is named at the end. A flaky case is a bug to be found, not a green one.
    pub(crate) fn run_timed(&mut self, name: &str, work: impl Fn() -> Result<()>) {
        let (failed, mut again) = (self.failed.len(), false);
        self.run(name, || {
            work().or_else(|error| {
                interrupt::check()?;
                println!("FAILED once  {name}\n{error:?}\n--- {name}, again");
                again = true;
                work()
            })
        });
        if again && self.failed.len() == failed {
            self.flaky.push(name.to_owned());
        }
    }

    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        println!("skipped  {name}: {why}");
        self.skipped.push(format!("{name}: {why}"));
    }

    pub(crate) fn finish(self) -> ExitCode {
        for name in &self.failed {
            println!("failed: {name}");
        }
        for name in &self.flaky {
            println!("flaky, passed at the second try: {name}");
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
    // First: it is embedded in what is built below.
    console::build_if_possible()?;
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
        console::check(&mut tally);
        if std::env::var_os("HAWKER_SKIP_IO_URING").is_some() {
            tally.skip("the io_uring engine's tests, where there is none", "HAWKER_SKIP_IO_URING is set");
        }
        tally.run("unit and integration tests", || cargo(&["test", "--workspace"]));
        let provider = openid::possible();
        if !provider {
            tally.skip("signing in with an OpenID provider", "there is no node with npm");
        }
        // They are ignored above: what `cargo test` alone cannot know is where the servers are.
        tally.run("tests on PostgreSQL, and with an OpenID provider", || {
            postgres::need()?;
            let server = Postgres::start()?;
            let mut tests = cargo_command(&["test", "-p", "hawker-control", "--", "--ignored"])?;
            if provider {
                tests.env("TEST_OIDC", openid::install()?);
            } else {
                tests.args(["--skip", openid::TESTS]);
            }
            let succeeded = command::show(tests.env("TEST_POSTGRES", server.url()))?;
            anyhow::ensure!(succeeded, "tests with servers failed");
            Ok(())
        });
    }
    kube::run(&ability, only, &mut tally);
    image::cases(&ability, only, &mut tally);
    deb::cases(&ability, only, &mut tally);
    docs::run(&ability, only, &mut tally)?;
    if only.is_none_or(|only| alerts::NAME.contains(only)) {
        alerts::run(&mut tally);
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

fn cargo_command(words: &[&str]) -> Result<Command> {
    let mut cargo = workspace::cargo()?;
    cargo.args(words);
    Ok(cargo)
}

fn cargo(words: &[&str]) -> Result<()> {
    let succeeded = command::show(&mut cargo_command(words)?)?;
    anyhow::ensure!(succeeded, "cargo {} failed", words.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_second_try_is_named_and_two_failures_are_one() {
        let (mut tally, tries) = (Tally::default(), Cell::new(0));
        let fails = |times: u32| {
            tries.set(0);
            let tries = &tries;
            move || {
                tries.set(tries.get() + 1);
                anyhow::ensure!(tries.get() > times, "try {}", tries.get());
                Ok(())
            }
        };
        for (name, times) in [("sound", 0), ("flaky", 1), ("broken", 9)] {
            tally.run_timed(name, fails(times));
        }
        assert_eq!(
            (tally.passed, tally.failed, tally.flaky),
            (2, vec!["broken".into()], vec!["flaky".into()])
        );
    }
}
