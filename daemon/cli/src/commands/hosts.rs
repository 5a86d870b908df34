//! `hawker peers`: the live nodes, where they are placed and why, and what serves and shapes there.

use super::Output;
use super::cluster;
use crate::manager::{Manager, ManagerArguments};
use crate::table;
use anyhow::Result;
use clap::Args;
use serde_json::Value;

#[derive(Args)]
pub(crate) struct PeersArguments {
    /// Only those of this cluster (id or name).
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Only seed peers.
    #[arg(long)]
    seeds: bool,
    /// Schedulers instead.
    #[arg(long, conflicts_with_all = ["seeds", "cluster"])]
    schedulers: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(crate) fn run(arguments: &ManagerArguments, peers: &PeersArguments) -> Result<()> {
    let manager = Manager::signed_in(arguments)?;
    if peers.schedulers {
        let columns = [
            ("ID", "/id"),
            ("HOSTNAME", "/hostname"),
            ("ADDRESS", "/addr"),
            ("CLUSTER", "/scheduler_cluster_id"),
            ("VERSION", "/version"),
        ];
        return table::documents(peers.output, &manager.list("/api/v1/schedulers", &[])?, &columns);
    }
    let mut hosts = manager.list("/api/v1/seed-peers", &[])?;
    if !peers.seeds {
        hosts.extend(manager.list("/api/v1/peers", &[])?);
    }
    if let Some(wanted) = &peers.cluster {
        let (id, _) = cluster::find(&manager, wanted)?;
        hosts.retain(|host| host["cluster_id"] == id);
    }
    hosts.sort_by_key(|host: &Value| (host["cluster_id"].as_u64(), table::text(host, "/hostname")));
    let columns = [
        ("HOSTNAME", "/hostname"),
        ("IP", "/ip"),
        ("KIND", "/kind"),
        ("CLUSTER", "/cluster_name"),
        ("IDC", "/idc"),
        ("LOCATION", "/location"),
        ("ENGINE", "/engine"),
        ("SHAPER", "/shaper"),
        ("VERSION", "/version"),
        ("WHY THERE", "/reason"),
    ];
    table::documents(peers.output, &hosts, &columns)
}
