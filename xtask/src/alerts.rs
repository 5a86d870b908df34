//! The alert and recording rules by Prometheus' own tool; and that every alert leads to a runbook that is there.
//!
//! Invariant: an alert without a test of its own is a failure.

use crate::command::{self, SHORT, check};
use crate::test::Tally;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;

pub(crate) const NAME: &str = "alerts: rules by promtool, a runbook and a test for each";
const DIR: &str = "deploy/prometheus";
const RULES: [&str; 2] = ["hawker-rules.yaml", "hawker-alerts.yaml"];
const TESTS: &str = "hawker-tests.yaml";
/// What runbook links begin with; the rest is a path in this repository.
const REPOSITORY: &str = "https://github.com/hawker-project/hawker/blob/main/";

pub(crate) fn run(tally: &mut Tally) {
    if command::exists("promtool") {
        tally.run(NAME, rules);
    } else {
        tally.skip(NAME, "no promtool here (Debian package prometheus)");
    }
}

fn rules() -> Result<()> {
    let root = workspace::root()?;
    let dir = root.join(DIR);
    let promtool = |words: &[&str]| check(Command::new("promtool").current_dir(&dir).args(words), SHORT);
    promtool(&[&["check", "rules"][..], &RULES].concat())?;
    promtool(&["test", "rules", TESTS])?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).with_context(|| format!("read {DIR}/{name}"));
    let (alerts, tests) = (read(RULES[1])?, read(TESTS)?);
    let named = |key: &str| -> Vec<String> {
        alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix(key))
            .map(|value| value.trim().to_owned())
            .collect()
    };
    let (names, links) = (named("- alert:"), named("runbook_url:"));
    ensure!(
        !names.is_empty() && names.len() == links.len(),
        "{} alerts, {} runbooks",
        names.len(),
        links.len()
    );
    for name in &names {
        ensure!(tests.contains(&format!("alertname: {name}\n")), "alert {name} has no test in {DIR}/{TESTS}");
    }
    for link in &links {
        let path =
            link.strip_prefix(REPOSITORY).with_context(|| format!("{link} leads out of the repository"))?;
        ensure!(root.join(path).is_file(), "{path} is not there");
    }
    println!("    {} alerts, each with a test and a runbook", names.len());
    Ok(())
}
