//! `hawker ls|stat|rm|pin|unpin`: the node's store.

use super::Output;
use crate::daemon::{Daemon, Stored};
use crate::table::{self, age, bytes};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::time::SystemTime;

#[derive(Args)]
pub(crate) struct LsArguments {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Args)]
pub(crate) struct StatArguments {
    /// A digest, or what it begins with.
    task: String,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Args)]
pub(crate) struct TasksArguments {
    /// Digests, or what they begin with.
    #[arg(required = true)]
    tasks: Vec<String>,
}

#[derive(Args)]
pub(crate) struct RmArguments {
    /// Digests, or what they begin with.
    #[arg(required = true)]
    tasks: Vec<String>,
    /// Pinned ones, too.
    #[arg(long)]
    force: bool,
}

pub(crate) fn ls(daemon: &Daemon, arguments: &LsArguments) -> Result<()> {
    let stored = daemon.stored()?;
    match arguments.output {
        Output::Json => table::json(&stored),
        Output::Table => {
            let rows: Vec<_> = stored.iter().map(row).collect();
            table::print(&["TASK", "SIZE", "STATE", "USED"], &rows)
        }
    }
}

pub(crate) fn stat(daemon: &Daemon, arguments: &StatArguments) -> Result<()> {
    let stored = daemon.stored()?;
    let blob = find(&stored, &arguments.task)?;
    match arguments.output {
        Output::Json => table::json(blob),
        Output::Table => table::print(&["TASK", "SIZE", "STATE", "USED"], &[row(blob)]),
    }
}

pub(crate) fn rm(daemon: &Daemon, arguments: &RmArguments) -> Result<()> {
    let stored = daemon.stored()?;
    for text in &arguments.tasks {
        let task = &find(&stored, text)?.task;
        daemon.remove(task, arguments.force).with_context(|| format!("remove {task}"))?;
    }
    Ok(())
}

pub(crate) fn pin(daemon: &Daemon, arguments: &TasksArguments, pinned: bool) -> Result<()> {
    let stored = daemon.stored()?;
    for text in &arguments.tasks {
        let task = &find(&stored, text)?.task;
        daemon.pin(task, pinned).with_context(|| format!("pin {task}"))?;
    }
    Ok(())
}

/// The one blob whose digest, with or without the algorithm, begins so.
fn find<'a>(stored: &'a [Stored], text: &str) -> Result<&'a Stored> {
    let begins = |blob: &&Stored| {
        let hex = blob.task.split_once(':').map_or("", |(_, hex)| hex);
        blob.task.starts_with(text) || hex.starts_with(text)
    };
    let mut found = stored.iter().filter(begins);
    let Some(first) = found.next() else { bail!("no blob that begins with `{text}` is stored here") };
    match found.count() {
        0 => Ok(first),
        more => bail!("`{text}` is the beginning of {} blobs", more + 1),
    }
}

fn row(blob: &Stored) -> Vec<String> {
    let mut state = vec![if blob.complete { "complete" } else { "partial" }];
    state.extend(blob.pinned.then_some("pinned"));
    state.extend(blob.in_use.then_some("in use"));
    vec![
        blob.task.clone(),
        bytes(blob.size),
        state.join(", "),
        age(blob.last_used_unix_ms, SystemTime::now()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_named_by_what_only_it_begins_with() {
        let blob = |task: &str| Stored { task: task.to_owned(), ..Stored::default() };
        let stored = [blob("sha256:ab01"), blob("sha256:ab02"), blob("url:cd")];
        assert_eq!(find(&stored, "ab01").unwrap().task, "sha256:ab01");
        assert_eq!(find(&stored, "url:").unwrap().task, "url:cd");
        assert!(find(&stored, "ab").unwrap_err().to_string().contains("2 blobs"));
        assert!(find(&stored, "ff").is_err());
    }
}
