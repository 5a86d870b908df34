//! TOML with line numbers, and lines between two marks. Text in, text out.
//!
//! Invariant: an error names the file and the line; text outside the marks is never touched.

use crate::plan::PlanError;
use std::ops::Range;
use std::path::Path;
use toml_edit::{Document, Item, TableLike};

pub(crate) const BEGIN: &str = "# >>> hawker: written by `hawkerd init-runtime`, taken out by `--revert`";
pub(crate) const END: &str = "# <<< hawker";

/// A parsed file that still knows its lines.
pub(crate) struct Parsed {
    text: String,
    document: Document<String>,
}

impl Parsed {
    pub(crate) fn new(path: &Path, text: &str) -> Result<Self, PlanError> {
        let document = Document::parse(text.to_owned()).map_err(|error| PlanError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_at(text, span.start)),
            format: "TOML",
            message: first_line(error.message()),
        })?;
        Ok(Self { text: text.to_owned(), document })
    }

    pub(crate) fn table(&self) -> &toml_edit::Table {
        self.document.as_table()
    }

    pub(crate) fn line(&self, span: Option<Range<usize>>) -> usize {
        span.map_or(1, |span| line_at(&self.text, span.start))
    }

    /// The item at a path of keys.
    pub(crate) fn get(&self, keys: &[&str]) -> Option<&Item> {
        keys.iter().try_fold(self.document.as_item(), |item, key| item.as_table_like()?.get(key))
    }

    pub(crate) fn get_table(&self, keys: &[&str]) -> Option<&dyn TableLike> {
        self.get(keys)?.as_table_like()
    }

    /// The string at a path of keys, and its line.
    pub(crate) fn string(&self, keys: &[&str]) -> Option<(String, usize)> {
        let item = self.get(keys)?;
        Some((item.as_str()?.to_owned(), self.line(item.span())))
    }
}

/// Line of a byte, counted from 1.
pub(crate) fn line_at(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count() + 1
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// `text` without the marked lines; `None` where there are no marks.
pub(crate) fn without_marked(text: &str) -> Option<String> {
    let begin = text.find(BEGIN)?;
    let after = &text[begin..];
    let end = begin + after.find(END)? + END.len();
    let end = end + usize::from(text[end..].starts_with('\n'));
    Some(format!("{}{}", &text[..begin], &text[end..]))
}

/// `block` between marks.
pub(crate) fn marked(block: &str) -> String {
    format!("{BEGIN}\n{block}{END}\n")
}

/// With a line end, unless empty.
pub(crate) fn ended(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_and_line() {
        let error = Parsed::new(Path::new("/etc/x.toml"), "a = 1\nb = [\nc").err().unwrap().to_string();
        assert!(error.starts_with("/etc/x.toml:3: ") || error.starts_with("/etc/x.toml:2: "), "{error}");
    }

    #[test]
    fn marks_come_out_as_they_went_in() {
        let whole = format!("a = 1\n{}b = 2\n", marked("x = 1\n"));
        assert_eq!(without_marked(&whole).as_deref(), Some("a = 1\nb = 2\n"));
        assert_eq!(without_marked("a = 1\n"), None);
        assert_eq!(without_marked(BEGIN), None);
    }
}
