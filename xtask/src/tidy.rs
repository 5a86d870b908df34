//! House rules that can be counted: lengths of files and functions, a header in every file, no paths of
//! somebody's machine.
//!
//! Invariant: the limits only ever go down.

use crate::command::{SHORT, check};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::process::{Command, ExitCode};

/// Longest file, lines.
const MAX_FILE_LINES: usize = 500;
/// Longest function, lines.
const MAX_FUNCTION_LINES: usize = 70;
/// What must not stand in the repository: paths and hosts of one machine.
const FORBIDDEN: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/fa", "rm"), concat!("/ro", "ot/")];

pub(crate) fn run() -> Result<ExitCode> {
    let problems = problems()?;
    for problem in &problems {
        println!("{problem}");
    }
    println!("tidy: {} problems", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn problems() -> Result<Vec<String>> {
    let root = workspace::root()?;
    let listed =
        check(Command::new("git").current_dir(&root).args(["ls-files", "-co", "--exclude-standard"]), SHORT)?;
    let mut problems = Vec::new();
    for name in listed.stdout.lines() {
        let path = root.join(name);
        if !path.is_file() || name == "Cargo.lock" || name == "LICENSE" {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("read {name}"))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        for word in FORBIDDEN.iter().filter(|word| text.contains(**word)) {
            problems.push(format!("{name}: `{word}` belongs to one machine"));
        }
        if name.ends_with(".rs") {
            problems.extend(check_rust(name, &text));
        }
    }
    Ok(problems)
}

fn check_rust(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES {
        problems.push(format!("{name}: {lines} lines, at most {MAX_FILE_LINES}"));
    }
    if !text.starts_with("//!") {
        problems.push(format!("{name}: no `//!` header"));
    }
    for (function, lines) in functions(text) {
        if lines > MAX_FUNCTION_LINES {
            problems.push(format!("{name}: {function} has {lines} lines, at most {MAX_FUNCTION_LINES}"));
        }
    }
    problems
}

/// Functions and their lengths, by rustfmt's own layout: a function ends at the closing brace in the
/// column it began in.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = code.starts_with("fn ")
            || (code.starts_with("pub") || code.starts_with("async"))
                && code.contains(" fn ")
                && !code.contains("//");
        if !is_function || code.ends_with(';') {
            continue;
        }
        let indent = line.len() - code.len();
        let end = lines[start..].iter().position(|line| {
            line.len() - line.trim_start().len() == indent && line.trim_start().starts_with('}')
        });
        let name = code.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next());
        found.push((name.unwrap_or_default().to_owned(), end.map_or(0, |end| end + 1)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_as_rustfmt_lays_out() {
        let text = "//! x\nimpl A {\n    pub fn one(\n        a: u8,\n    ) {\n        b();\n    }\n}\nfn two() {}\n";
        assert_eq!(functions(text)[0], ("one".to_owned(), 5));
    }

    #[test]
    fn long_files_and_missing_headers_are_found() {
        let text = "fn a() {}\n".repeat(MAX_FILE_LINES + 1);
        assert_eq!(check_rust("x.rs", &text).len(), 2);
    }
}
