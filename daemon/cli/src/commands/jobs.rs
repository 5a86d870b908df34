//! `hawker jobs ls|show|cancel`.

use super::{Output, OutputArguments};
use crate::manager::{Manager, ManagerArguments};
use crate::table::{self, size};
use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/jobs";

#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// List them, the newest first.
    Ls {
        /// Only those that are: pending, running, succeeded, failed or cancelled.
        #[arg(long)]
        state: Option<String>,
        /// Only those of this type.
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Show one, node by node.
    Show {
        id: u64,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// End one that is not done.
    Cancel { id: u64 },
}

pub(crate) fn run(arguments: &ManagerArguments, command: &JobsCommand) -> Result<()> {
    let manager = Manager::signed_in(arguments)?;
    match command {
        JobsCommand::Ls { state, kind, output } => {
            let filters = [("state", state), ("type", kind)];
            let query: Vec<(&str, &str)> =
                filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
            let columns = [
                ("ID", "/id"),
                ("TYPE", "/type"),
                ("STATE", "/state"),
                ("CREATED", "/created_at"),
                ("BY", "/created_by"),
                ("ARGUMENTS", "/args"),
                ("ERROR", "/error"),
            ];
            table::documents(output.output, &manager.list(PATH, &query)?, &columns)
        }
        JobsCommand::Show { id, output } => show(&manager.get(&format!("{PATH}/{id}"), &[])?, output.output),
        JobsCommand::Cancel { id } => {
            manager.post(&format!("{PATH}/{id}/cancel"), &json!({}))?;
            table::print(&["", ""], &[vec![format!("job {id}"), "cancelled".to_owned()]])
        }
    }
}

/// A job: its state, then how far each node is.
pub(crate) fn show(job: &Value, output: Output) -> Result<()> {
    let lines = [
        ("id", "/id"),
        ("type", "/type"),
        ("arguments", "/args"),
        ("state", "/state"),
        ("created", "/created_at"),
        ("by", "/created_by"),
        ("started", "/started_at"),
        ("ended", "/ended_at"),
        ("error", "/error"),
    ];
    table::document(output, job, &lines)?;
    let nodes = job["nodes"].as_array().filter(|nodes| output == Output::Table && !nodes.is_empty());
    let Some(nodes) = nodes else { return Ok(()) };
    table::print(
        &["NODE", "CLUSTER", "STATE", "DONE", "OF", "ERROR"],
        &nodes.iter().map(row).collect::<Vec<_>>(),
    )
}

fn row(node: &Value) -> Vec<String> {
    let text = |pointer| table::text(node, pointer);
    vec![
        text("/hostname"),
        text("/cluster_id"),
        text("/state"),
        size(node, "/bytes_done"),
        size(node, "/bytes_total"),
        text("/error"),
    ]
}
