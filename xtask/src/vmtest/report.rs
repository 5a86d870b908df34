//! What the machines said, as results; the table of kernels; and the page it is written to.
//!
//! Invariant: a test that a machine did not come to is no pass.

use super::Suite;
use super::kernels::Debian;
use super::machine::END;
use crate::workspace;
use anyhow::{Context, Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

const PAGE: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- written by `cargo xtask vmtest`: begin -->";
const FINISH: &str = "<!-- written by `cargo xtask vmtest`: end -->";

pub(super) struct KernelReport {
    pub(super) debian: &'static Debian,
    pub(super) results: Result<Results>,
}

/// Behind the name of a case that is run a second time (`Tally::run_timed`).
const AGAIN: &str = ", again";

/// Of one kernel, all suites.
#[derive(Debug, Default)]
pub(super) struct Results {
    facts: Vec<(String, String)>,
    cases: Vec<Case>,
    /// Machines that did not come to their end.
    broken: Vec<String>,
}

#[derive(Debug)]
struct Case {
    name: String,
    passed: bool,
    /// It failed once and was run again.
    retried: bool,
    /// What it measured, or how it failed.
    lines: Vec<String>,
}

impl Results {
    /// Takes over what a machine said: `--- NAME`, lines, `ok  NAME` or `FAILED  NAME`; `--- NAME, again` after the first try of two.
    pub(super) fn read(&mut self, said: &str) {
        let mut running: Option<Case> = None;
        for line in said.lines() {
            if let Some(name) = line.strip_prefix("--- ") {
                let (name, retried) = name.strip_suffix(AGAIN).map_or((name, false), |name| (name, true));
                let first = running.take().filter(|_| retried).map(|first| first.lines);
                let mut lines = first.unwrap_or_default();
                lines.extend(retried.then(|| "once more:".to_owned()));
                running = Some(Case { name: name.to_owned(), passed: false, retried, lines });
            } else if line.starts_with("ok  ") || line.starts_with("FAILED  ") {
                let Some(mut case) = running.take() else { continue };
                case.passed = line.starts_with("ok  ");
                self.finish(case);
            } else if let (Some(case), Some(detail)) = (running.as_mut(), line.strip_prefix("    ")) {
                case.lines.push(detail.to_owned());
            }
        }
        if let Some(case) = running {
            self.finish(case);
        }
        if !said.contains(END) {
            self.broken.push("a machine said no end".to_owned());
        }
    }

    fn finish(&mut self, case: Case) {
        if [super::facts::ENGINE, super::facts::SHAPER].contains(&case.name.as_str()) {
            let pairs = case.lines.iter().filter_map(|line| line.split_once(": "));
            self.facts.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        self.cases.push(case);
    }

    pub(super) fn broke_off(&mut self, suite: Suite, error: &Error) {
        println!("{error:?}");
        self.broken.push(format!("{}: {error:#}", suite.name()));
    }

    fn failures(&self) -> usize {
        self.cases.iter().filter(|case| !case.passed).count() + self.broken.len()
    }
}

/// Rows: facts, then tests; columns: kernels.
pub(super) fn table(reports: &[KernelReport]) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut places = BTreeMap::new();
    let count = reports.len();
    let mut enter = |name: &str, column: usize, text: String| {
        let at = *places.entry(name.to_owned()).or_insert_with(|| {
            rows.push((name.to_owned(), vec!["not run".to_owned(); count]));
            rows.len() - 1
        });
        rows[at].1[column] = text;
    };
    for (column, report) in reports.iter().enumerate() {
        let Ok(results) = &report.results else { continue };
        results.facts.iter().for_each(|(key, value)| enter(key, column, value.clone()));
    }
    for (column, report) in reports.iter().enumerate() {
        let Ok(results) = &report.results else { continue };
        for case in &results.cases {
            let result = match (case.passed, case.retried) {
                (true, false) => "passed",
                (true, true) => "passed when run again",
                (false, _) => "**failed**",
            };
            enter(&case.name, column, result.to_owned());
        }
        for broken in &results.broken {
            enter(
                "machine",
                column,
                format!("**broke off** ({})", broken.lines().next().unwrap_or_default()),
            );
        }
    }
    let title =
        |report: &KernelReport| format!("{} (Linux {})", report.debian.release, report.debian.version);
    let titles: Vec<String> = reports.iter().map(title).collect();
    let mut text = format!("| | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(count));
    for (name, cells) in rows {
        text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    text.push_str(&figures(reports));
    text
}

/// What the shaper's cases measured, by kernel.
fn figures(reports: &[KernelReport]) -> String {
    let mut text = String::new();
    for report in reports {
        let Ok(results) = &report.results else { continue };
        text.push_str(&format!("\nMeasured on Linux {}:\n\n```text\n", report.debian.version));
        let measuring = |case: &&Case| case.name.starts_with("shaper: ") && case.name != super::facts::SHAPER;
        for case in results.cases.iter().filter(measuring) {
            text.push_str(&format!("{}\n", case.name));
            case.lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
        text.push_str("```\n");
    }
    text
}

/// Replaces the part of the page between the markers.
pub(super) fn write(table: &str) -> Result<()> {
    let path = workspace::root()?.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    fs::write(&path, replaced(&page, table)?).with_context(|| format!("write {PAGE}"))?;
    println!("written to {PAGE}");
    Ok(())
}

fn replaced(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} lacks {BEGIN}"))?;
    let (_, after) = rest.split_once(FINISH).with_context(|| format!("{PAGE} lacks {FINISH}"))?;
    Ok(format!("{before}{BEGIN}\n{}\n{FINISH}{after}", table.trim_end()))
}

/// The closing line, and whether all is well. `asked`: the kernels were named, so that one that cannot be had is a
/// failure.
pub(super) fn verdict(reports: &[KernelReport], asked: bool) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for report in reports {
        match &report.results {
            Ok(results) => {
                passed += results.cases.iter().filter(|case| case.passed).count();
                failed += results.failures();
            }
            Err(error) if asked => {
                println!("failed: Linux {}: {error:?}", report.debian.version);
                failed += 1;
            }
            Err(error) => {
                println!("skipped: Linux {}: {error:?}", report.debian.version);
                skipped += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    // Without a single kernel nothing was tested.
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::KERNELS;
    use super::*;

    fn results(said: &str) -> Results {
        let mut results = Results::default();
        results.read(said);
        results
    }

    #[test]
    fn what_a_machine_says_becomes_facts_and_results() {
        let said = format!(
            "--- {}\n    engine: io_uring (it is there)\nok  {0} (1.0 s)\n--- one\n    figure\nok  one (2.0 s)\n\
             --- two\nFAILED  two (0.1 s)\nwhy\n1 passed, 1 failed, 0 skipped\n{END} (1)\n",
            super::super::facts::ENGINE
        );
        let results = results(&said);
        assert_eq!(results.facts, [("engine".to_owned(), "io_uring (it is there)".to_owned())]);
        let passed: Vec<bool> = results.cases.iter().map(|case| case.passed).collect();
        assert_eq!((passed, results.failures()), (vec![true, true, false], 1));
        assert_eq!(results.cases[1].lines, ["figure"]);
    }

    #[test]
    fn a_test_that_was_run_again_is_one_with_both_tries() {
        let said = format!(
            "--- one\n    1\nFAILED once  one\nwhy\n--- one, again\n    2\nok  one (1 s)\n{END} (0)\n"
        );
        let reports = [KernelReport { debian: &KERNELS[0], results: Ok(results(&said)) }];
        assert!(table(&reports).contains("| one | passed when run again |"), "{}", table(&reports));
        let Ok(results) = &reports[0].results else { unreachable!() };
        assert_eq!((results.cases.len(), results.failures()), (1, 0));
        assert_eq!(results.cases[0].lines, ["1", "once more:", "2"]);
    }

    #[test]
    fn a_test_that_a_machine_did_not_come_to_the_end_of_has_failed() {
        let results = results("--- one\n    figure\n");
        assert_eq!(results.failures(), 2, "the test, and the machine");
    }

    #[test]
    fn the_table_has_a_column_for_each_kernel() {
        let good = results(&format!("--- one\nok  one (1 s)\n{END} (0)\n"));
        let bad = results(&format!("--- two\nFAILED  two (1 s)\n{END} (1)\n"));
        let reports = [
            KernelReport { debian: &KERNELS[0], results: Ok(good) },
            KernelReport { debian: &KERNELS[1], results: Ok(bad) },
        ];
        let text = table(&reports);
        assert!(
            text.contains("| one | passed | not run |") && text.contains("| two | not run | **failed** |"),
            "{text}"
        );
        let page = replaced(&format!("# Title\n{BEGIN}\nold\n{FINISH}\nend\n"), &text).unwrap();
        assert!(page.starts_with("# Title\n") && page.ends_with("end\n") && !page.contains("old"), "{page}");
        assert!(replaced("# Title\n", &text).is_err());
    }
}
