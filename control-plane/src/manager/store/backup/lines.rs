//! The file of a backup, line by line, and values on their way into a database and out of it.
//!
//! Invariant: whatever a line holds, it is understood or named by its number.

use super::BackupError;
use crate::manager::store::{StoreError, failed};
use serde_json::Value;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, Row, ValueRef};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The file, line by line.
pub(super) struct Lines<'a> {
    file: &'a Path,
    lines: std::io::Lines<BufReader<File>>,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn open(file: &'a Path) -> std::io::Result<Self> {
        Ok(Self { file, lines: BufReader::new(File::open(file)?).lines(), number: 0 })
    }

    pub(super) fn next(&mut self) -> Result<Value, BackupError> {
        self.number += 1;
        let file = || self.file.to_owned();
        let line = self.lines.next().ok_or_else(|| self.problem("the file ends early"))?;
        let line = line.map_err(|source| BackupError::File { act: "read", file: file(), source })?;
        serde_json::from_str(&line).map_err(|error| self.problem(&error.to_string()))
    }

    pub(super) fn next_as<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BackupError> {
        let value = self.next()?;
        serde_json::from_value(value).map_err(|error| self.problem(&error.to_string()))
    }

    pub(super) fn problem(&self, problem: &str) -> BackupError {
        BackupError::Line { file: self.file.to_owned(), line: self.number, problem: problem.to_owned() }
    }
}

pub(super) fn values(row: &AnyRow) -> Result<Value, StoreError> {
    let value = |place: usize| -> sqlx::Result<Value> {
        let raw = row.try_get_raw(place)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        if let Ok(number) = row.try_get::<i64, _>(place) {
            return Ok(number.into());
        }
        if let Ok(number) = row.try_get::<f64, _>(place) {
            return Ok(number.into());
        }
        row.try_get::<String, _>(place).map(Value::from)
    };
    let values = (0..row.len()).map(value).collect::<sqlx::Result<Vec<_>>>();
    values.map(Value::Array).map_err(failed("back up"))
}

type Insert<'q> = Query<'q, Any, AnyArguments<'q>>;

pub(super) fn bind(query: Insert<'_>, value: Value) -> Result<Insert<'_>, &'static str> {
    match value {
        Value::Null => Ok(query.bind(None::<i64>)),
        Value::String(text) => Ok(query.bind(text)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Ok(query.bind(number)),
            (None, Some(number)) => Ok(query.bind(number)),
            (None, None) => Err("a number that is none"),
        },
        _ => Err("a value that is neither text nor number"),
    }
}
