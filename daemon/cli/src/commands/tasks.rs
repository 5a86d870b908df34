//! `hawker tasks`: what the clusters hold and fetch; of one, where it lies.

use super::{Output, cluster};
use crate::manager::{Manager, ManagerArguments};
use crate::table::{self, size};
use anyhow::Result;
use clap::Args;
use serde_json::Value;

const PATH: &str = "/api/v1/tasks";

#[derive(Args)]
pub(crate) struct TasksArguments {
    /// One task, by its digest: which nodes have how much of it.
    task: Option<String>,
    /// Only those of this cluster (id or name).
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(crate) fn run(arguments: &ManagerArguments, tasks: &TasksArguments) -> Result<()> {
    let manager = Manager::signed_in(arguments)?;
    if let Some(task) = &tasks.task {
        let found: Value = manager.get(&format!("{PATH}/{task}"), &[])?;
        if tasks.output == Output::Json {
            return table::json(&found);
        }
        let columns = [("HOSTNAME", "/hostname"), ("IP", "/ip"), ("STATE", "/state"), ("PIECES", "/pieces")];
        let none = Vec::new();
        return table::documents(tasks.output, found["hosts"].as_array().unwrap_or(&none), &columns);
    }
    let id = tasks.cluster.as_ref().map(|wanted| cluster::find(&manager, wanted)).transpose()?;
    let id = id.map(|(id, _)| id.to_string());
    let query: Vec<(&str, &str)> = id.iter().map(|id| ("cluster_id", id.as_str())).collect();
    let found = manager.list(PATH, &query)?;
    if tasks.output == Output::Json {
        return table::json(&found);
    }
    let headings = ["TASK", "CLUSTER", "SIZE", "PIECES", "HOLDERS", "FETCHING", "FROM ORIGIN", "LAST SEEN"];
    table::print(&headings, &found.iter().map(row).collect::<Vec<_>>())
}

fn row(task: &Value) -> Vec<String> {
    let text = |pointer| table::text(task, pointer);
    vec![
        text("/task"),
        text("/cluster_id"),
        size(task, "/bytes"),
        text("/pieces"),
        text("/holders"),
        text("/downloading"),
        size(task, "/origin_bytes"),
        text("/last_seen"),
    ]
}
