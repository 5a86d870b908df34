//! `hawker status`: the daemon's own document, or its main points.

use super::Output;
use crate::daemon::Daemon;
use crate::table::{self, bytes};
use anyhow::Result;
use clap::Args;
use serde_json::Value;

#[derive(Args)]
pub(crate) struct StatusArguments {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(crate) fn run(daemon: &Daemon, arguments: &StatusArguments) -> Result<()> {
    let status = daemon.status()?;
    match arguments.output {
        Output::Json => table::json(&status),
        Output::Table => table::print(&["", ""], &rows(&status)),
    }
}

fn rows(status: &Value) -> Vec<Vec<String>> {
    let text = |path: &str| match status.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let link = |name: &str| {
        let connected = status.pointer(&format!("/{name}/connected")).and_then(Value::as_bool) == Some(true);
        let error = text(&format!("/{name}/error"));
        let state = if connected { "connected".to_owned() } else { format!("not connected {error}") };
        format!("{} {state}", text(&format!("/{name}/addr"))).trim().to_owned()
    };
    let mut rows = vec![
        vec![
            "host".to_owned(),
            format!("{} ({}, {})", text("/host/hostname"), text("/host/ip"), text("/host/kind")),
        ],
        vec!["version".to_owned(), text("/host/version")],
        vec![
            "cluster".to_owned(),
            format!("{} {}", text("/cluster/name"), text("/cluster/reason")).trim().to_owned(),
        ],
        vec!["manager".to_owned(), link("manager")],
        vec!["scheduler".to_owned(), link("scheduler")],
        vec!["engine".to_owned(), format!("{}: {}", text("/engine/name"), text("/engine/reason"))],
        vec!["shaper".to_owned(), format!("{}: {}", text("/shaper/mode"), text("/shaper/reason"))],
        vec![
            "store".to_owned(),
            format!(
                "{} of {} in {}: {} blobs, {} partial",
                bytes(number("/store/used_bytes")),
                bytes(number("/store/capacity_bytes")),
                text("/store/dir"),
                number("/store/complete_blobs"),
                number("/store/partial_blobs"),
            ),
        ],
    ];
    for source in ["local", "peer_same_zone", "peer_cross_zone", "seed", "origin"] {
        rows.push(vec![format!("from {source}"), bytes(number(&format!("/delivered/{source}")))]);
    }
    for warning in status.pointer("/warnings").and_then(Value::as_array).into_iter().flatten() {
        rows.push(vec!["warning".to_owned(), warning.as_str().unwrap_or_default().to_owned()]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_main_points_are_there_and_missing_ones_are_empty() {
        let status = json!({
            "host": {"hostname": "n1", "ip": "10.0.0.1", "kind": "peer", "version": "1"},
            "cluster": null,
            "manager": {"connected": true, "addr": "http://m:1", "error": null},
            "store": {"used_bytes": 1536, "capacity_bytes": 0, "dir": "/d", "complete_blobs": 2},
            "warnings": ["disk full"],
        });
        let rows = rows(&status);
        let value = |name: &str| rows.iter().find(|row| row[0] == name).map(|row| row[1].clone()).unwrap();
        assert_eq!(value("host"), "n1 (10.0.0.1, peer)");
        assert_eq!(value("manager"), "http://m:1 connected");
        assert_eq!(value("scheduler"), "not connected");
        assert_eq!(value("store"), "1.50 KiB of 0 B in /d: 2 blobs, 0 partial");
        assert_eq!(value("warning"), "disk full");
    }
}
