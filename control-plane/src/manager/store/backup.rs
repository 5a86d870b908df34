//! The whole database as one file, and back: what people made and what was counted, not what is live.
//!
//! The file is text, a JSON value a line: a header, then for each table its columns and its rows, then how many rows there
//! were. It does not depend on the kind of database: a backup of SQLite may be restored into PostgreSQL, and the other way.
//!
//! Invariants: a backup is of one moment; a restore is whole or leaves nothing, and never touches a database that holds
//! anything; a file of another version, or one that was cut short, is refused.

mod lines;
mod tables;
#[cfg(test)]
mod tests;

use super::backend::Dialect;
use super::{Database, Store, StoreError};
use futures::TryStreamExt;
use lines::{Lines, bind, values};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tables::{Known, Table, is_truth};

const FORMAT: u32 = 1;
/// It holds password hashes: nobody else reads it.
const FILE_MODE: u32 = 0o600;

/// Why there is no backup, or why it is not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{act} {file}: {source}", file = .file.display())]
    File { act: &'static str, file: PathBuf, source: std::io::Error },
    #[error("{file} is no backup of Hawker: {problem}", file = .file.display())]
    Foreign { file: PathBuf, problem: String },
    #[error(
        "{file} was made by Hawker {made_by} with database version {theirs}; this is version {ours}: \
         restore it with that one, and start this one on the database then", file = .file.display()
    )]
    Version { file: PathBuf, made_by: String, theirs: i64, ours: i64 },
    #[error("{file}, line {line}: {problem}", file = .file.display())]
    Line { file: PathBuf, line: usize, problem: String },
    #[error("database {database} is not empty: restore into a new one")]
    NotEmpty { database: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    hawker_backup: u32,
    made_by: String,
    /// The newest migration.
    schema: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    rows: u64,
}

/// Writes everything to a new file; how many rows that were.
///
/// # Errors
/// The file exists already or cannot be written; the database cannot be used.
pub async fn backup(database: &Database, path: &Path) -> Result<u64, BackupError> {
    let failed = |act| move |source| BackupError::File { act, file: path.to_owned(), source };
    let store = Store::open(database).await?;
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    let mut out = BufWriter::new(file.map_err(failed("create"))?);
    let written = store.write_backup(&mut out, &failed("write")).await;
    let written = match written {
        Ok(rows) => out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map(|()| rows)
            .map_err(failed("write")),
        Err(error) => Err(error),
    };
    if written.is_err() {
        // Half a backup is none; it could not be restored anyway.
        let _ = std::fs::remove_file(path);
    }
    store.close().await;
    written
}

/// Fills a new database from a file; how many rows that were.
///
/// # Errors
/// The file is no whole backup of this version, or the database holds something already.
pub async fn restore(database: &Database, path: &Path) -> Result<u64, BackupError> {
    let failed = |source| BackupError::File { act: "read", file: path.to_owned(), source };
    let mut lines = Lines::open(path).map_err(failed)?;
    // Before the database is made.
    let header: Header = lines.next_as().map_err(|error| match error {
        BackupError::Line { problem, .. } => BackupError::Foreign { file: path.to_owned(), problem },
        other => other,
    })?;
    let ours = newest(database.dialect());
    if header.hawker_backup != FORMAT || header.schema != ours {
        let (file, made_by, theirs) = (path.to_owned(), header.made_by, header.schema);
        return Err(BackupError::Version { file, made_by, theirs, ours });
    }
    let store = Store::open(database).await?;
    if !store.is_new().await? || !store.clusters().await?.is_empty() {
        return Err(BackupError::NotEmpty { database: database.to_string() });
    }
    let restored = store.read_backup(&mut lines).await;
    store.close().await;
    restored
}

fn newest(dialect: Dialect) -> i64 {
    dialect.migrations().iter().map(|migration| migration.version).max().unwrap_or(0)
}

impl Store {
    async fn write_backup(
        &self,
        out: &mut impl Write,
        failed: &impl Fn(std::io::Error) -> BackupError,
    ) -> Result<u64, BackupError> {
        const ACT: &str = "back up";
        let mut moment = self.moment(ACT).await?;
        let made_by = env!("CARGO_PKG_VERSION").to_owned();
        put(out, &Header { hawker_backup: FORMAT, made_by, schema: newest(self.dialect) }).map_err(failed)?;
        let mut rows = 0;
        for (table, known) in self.tables_known(&mut moment).await? {
            let columns: Vec<String> = known.columns.iter().map(|(name, _)| name.clone()).collect();
            let select = known.columns.iter().map(|(name, kind)| match is_truth(kind) {
                true => format!("CAST({name} AS INTEGER) AS {name}"),
                false => name.clone(),
            });
            let select: Vec<String> = select.collect();
            let order: Vec<String> = (1..=columns.len()).map(|place| place.to_string()).collect();
            let sql = format!("SELECT {} FROM {table} ORDER BY {}", select.join(", "), order.join(", "));
            put(out, &Table { table, columns }).map_err(failed)?;
            let mut there = sqlx::query(&sql).fetch(&mut *moment);
            while let Some(row) = there.try_next().await.map_err(super::failed(ACT))? {
                put(out, &values(&row)?).map_err(failed)?;
                rows += 1;
            }
        }
        put(out, &End { rows }).map_err(failed)?;
        Ok(rows)
    }

    async fn read_backup(&self, lines: &mut Lines<'_>) -> Result<u64, BackupError> {
        const ACT: &str = "restore";
        let mut whole = self.begin_write(ACT).await?;
        let known = self.tables_known(&mut whole).await?;
        // What migrations put there themselves is in the backup, too.
        for (table, _) in known.iter().rev() {
            let emptied = sqlx::query(&format!("DELETE FROM {table}")).execute(&mut *whole).await;
            emptied.map_err(super::failed(ACT))?;
        }
        let known: BTreeMap<String, Known> = known.into_iter().collect();
        let mut rows = 0;
        let mut insert: Option<(String, usize)> = None;
        loop {
            let value = lines.next()?;
            if let Value::Array(values) = value {
                let Some((sql, columns)) = &insert else { return Err(lines.problem("a row of no table")) };
                if values.len() != *columns {
                    return Err(
                        lines.problem("a row with another number of values than its table has columns")
                    );
                }
                let query = values.into_iter().try_fold(sqlx::query(sql), bind);
                let query = query.map_err(|problem| lines.problem(problem))?;
                query.execute(&mut *whole).await.map_err(super::failed(ACT))?;
                rows += 1;
            } else if let Ok(table) = serde_json::from_value::<Table>(value.clone()) {
                insert = Some((
                    self.insert_into(&known, &table).map_err(|problem| lines.problem(&problem))?,
                    table.columns.len(),
                ));
            } else if let Ok(end) = serde_json::from_value::<End>(value) {
                if end.rows != rows {
                    return Err(lines.problem("rows are missing"));
                }
                break;
            } else {
                return Err(lines.problem("is no table, row or end"));
            }
        }
        self.go_on_counting(&mut whole, &known).await?;
        whole.commit().await.map_err(super::failed(ACT))?;
        Ok(rows)
    }
}

fn put(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
