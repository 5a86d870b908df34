//! `hawker placement explain`: which cluster a node gets, and why.

use super::OutputArguments;
use crate::manager::{Manager, ManagerArguments};
use crate::table;
use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

#[derive(Subcommand)]
pub(crate) enum PlacementCommand {
    /// Ask the manager about a node that need not exist.
    Explain(ExplainArguments),
}

#[derive(Args)]
pub(crate) struct ExplainArguments {
    #[arg(long)]
    ip: Option<String>,
    #[arg(long)]
    idc: Option<String>,
    /// `asia|cn|hangzhou`
    #[arg(long)]
    location: Option<String>,
    #[arg(long)]
    hostname: Option<String>,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &ManagerArguments, command: &PlacementCommand) -> Result<()> {
    let PlacementCommand::Explain(node) = command;
    let fields =
        [("ip", &node.ip), ("idc", &node.idc), ("location", &node.location), ("hostname", &node.hostname)];
    let query: Vec<(&str, &str)> =
        fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    ensure!(!query.is_empty(), "say something of the node: --ip, --idc, --location or --hostname");
    let placed: Value = Manager::signed_in(arguments)?.get("/api/v1/placements", &query)?;
    let schedulers: Vec<String> = placed["schedulers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|scheduler| {
            format!("{} ({})", table::text(scheduler, "/addr"), table::text(scheduler, "/hostname"))
        })
        .collect();
    table::document(
        node.output.output,
        &placed,
        &[
            ("cluster", "/cluster_name"),
            ("id", "/cluster_id"),
            ("why", "/reason"),
            ("scheduler cluster", "/scheduler_cluster_id"),
            ("seed peer cluster", "/seed_peer_cluster_id"),
        ],
    )?;
    if node.output.output == super::Output::Table {
        let none = "none live: the node's cluster.fallback decides".to_owned();
        let live = if schedulers.is_empty() { none } else { schedulers.join(", ") };
        table::print(&["", ""], &[vec!["schedulers".to_owned(), live]])?;
    }
    Ok(())
}
