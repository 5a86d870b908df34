//! What people read: columns, sizes, ages; and JSON for programs.

use crate::commands::Output;
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Rows of documents, or the documents themselves: each column is its heading and a pointer (RFC 6901) into a document.
pub(crate) fn documents(output: Output, items: &[Value], columns: &[(&str, &str)]) -> Result<()> {
    if output == Output::Json {
        return json(&items);
    }
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let row = |item| columns.iter().map(|(_, pointer)| text(item, pointer)).collect();
    print(&headings, &items.iter().map(row).collect::<Vec<Vec<String>>>())
}

/// One document, a line for each pointer that leads somewhere.
pub(crate) fn document(output: Output, item: &Value, lines: &[(&str, &str)]) -> Result<()> {
    if output == Output::Json {
        return json(item);
    }
    let line = |(name, pointer): &(&str, &str)| {
        let text = text(item, pointer);
        (!text.is_empty()).then(|| vec![(*name).to_owned(), text])
    };
    print(&["", ""], &lines.iter().filter_map(line).collect::<Vec<_>>())
}

/// What is at `pointer`, as people write it: lists with commas, what is missing as nothing.
pub(crate) fn text(document: &Value, pointer: &str) -> String {
    fn plain(value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
            Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
            Value::Object(fields) if fields.is_empty() => String::new(),
            other => other.to_string(),
        }
    }
    document.pointer(pointer).map_or_else(String::new, plain)
}

/// Bytes at `pointer`; nothing where there is no number.
pub(crate) fn size(document: &Value, pointer: &str) -> String {
    document.pointer(pointer).and_then(Value::as_u64).map_or_else(String::new, bytes)
}

/// Between two columns.
const GAP: usize = 2;

/// Rows under their headings, each column as wide as it must be.
pub(crate) fn print(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    std::io::stdout().write_all(render(headings, rows).as_bytes())?;
    Ok(())
}

pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let named = headings.iter().any(|heading| !heading.is_empty());
    // Names come from other machines, and a terminal obeys control characters.
    let tame = |cell: &String| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(tame).collect()).collect();
    let all = || named.then_some(&head).into_iter().chain(&rows);
    let width =
        |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..headings.len()).map(|column| width(column).unwrap_or(0) + GAP).collect();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

/// `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// How long ago, in its largest unit.
pub(crate) fn age(unix_ms: u64, now: SystemTime) -> String {
    let since = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    let passed = since.and_then(|then| now.duration_since(then).ok()).unwrap_or_default().as_secs();
    match passed {
        0..60 => format!("{passed} s ago"),
        60..3600 => format!("{} min ago", passed / 60),
        3600..86_400 => format!("{} h ago", passed / 3600),
        _ => format!("{} d ago", passed / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_headings() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), String::new()]];
        assert_eq!(render(&["X", "Y"], &rows), "X    Y\na    1\nbcd\n");
        assert_eq!(render(&["", ""], &rows), "a    1\nbcd\n");
    }

    #[test]
    fn names_of_others_cannot_move_the_cursor() {
        assert_eq!(render(&["X"], &[vec!["a\u{1b}[2J\nb".to_owned()]]), "X\na?[2J?b\n");
    }

    #[test]
    fn documents_are_read_by_pointer() {
        let item = serde_json::json!({"a": {"b": ["x", "y"], "c": true, "d": {}}, "n": 1536});
        assert_eq!(text(&item, "/a/b"), "x, y");
        assert_eq!(
            (text(&item, "/a/c"), text(&item, "/a/d"), text(&item, "/z")),
            ("yes".into(), "".into(), "".into())
        );
        assert_eq!((size(&item, "/n"), size(&item, "/a/c")), ("1.50 KiB".to_owned(), String::new()));
    }

    #[test]
    fn ages() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, expected) in [
            (1_000_000, "0 s ago"),
            (999_880, "2 min ago"),
            (990_000, "2 h ago"),
            (0, "11 d ago"),
            (2_000_000, "0 s ago"),
        ] {
            assert_eq!(age(seconds * 1000, now), expected);
        }
    }
}
