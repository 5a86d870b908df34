//! `hawker cluster ls|show|add|edit|rm`.
//!
//! Invariant: an edit changes the version that was looked at, or nothing.

use super::{Output, OutputArguments};
use crate::manager::{Manager, ManagerArguments};
use crate::table;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

const PATH: &str = "/api/v1/clusters";

#[derive(Subcommand)]
pub(crate) enum ClusterCommand {
    /// List them.
    Ls(OutputArguments),
    /// Show one.
    Show {
        /// Id or name.
        cluster: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Add one.
    Add {
        name: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Change what is named, and leave the rest.
    Edit {
        /// Id or name.
        cluster: String,
        /// Another name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Remove one. Its nodes move to the cluster that matches them then.
    Rm {
        /// Id or name.
        cluster: String,
        /// Without asking.
        #[arg(short, long)]
        yes: bool,
    },
}

/// What a cluster is, besides its name.
#[derive(Args, Default)]
pub(crate) struct Fields {
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    bio: Option<String>,
    /// The one for nodes that no scope matches.
    #[arg(long)]
    default: bool,
    /// Nodes in this network; more than once for several, `""` for none.
    #[arg(long = "cidr", value_name = "CIDR")]
    cidrs: Vec<String>,
    /// Nodes of this IDC, or of several: `a|b`.
    #[arg(long)]
    idc: Option<String>,
    /// Nodes in this location: `asia|cn|hangzhou`.
    #[arg(long)]
    location: Option<String>,
    /// Nodes with such a name; more than once for several, `""` for none.
    #[arg(long = "hostname", value_name = "PATTERN")]
    hostnames: Vec<String>,
    /// File with what its nodes are told, as JSON (`{"shaper": {"uploadLimit": "2Gbps"}}`); replaces what was there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(arguments: &ManagerArguments, command: &ClusterCommand) -> Result<()> {
    let manager = Manager::signed_in(arguments)?;
    match command {
        ClusterCommand::Ls(output) => ls(&manager, output.output),
        ClusterCommand::Show { cluster, output } => {
            show(&manager.get(&path(&manager, cluster)?, &[])?, output.output)
        }
        ClusterCommand::Add { name, fields, output } => {
            let body = fields.body(Some(name))?;
            show(&manager.post(PATH, &body)?, output.output)
        }
        ClusterCommand::Edit { cluster, name, fields, output } => {
            let path = path(&manager, cluster)?;
            let body = fields.body(name.as_deref())?;
            ensure!(body.as_object().is_some_and(|body| !body.is_empty()), "nothing to change was named");
            let version = manager.version(&path)?;
            show(&manager.patch(&path, &body, version.as_deref())?, output.output)
        }
        ClusterCommand::Rm { cluster, yes } => rm(&manager, cluster, *yes),
    }
}

fn ls(manager: &Manager, output: Output) -> Result<()> {
    let columns = [
        ("ID", "/id"),
        ("NAME", "/name"),
        ("DEFAULT", "/is_default"),
        ("CIDRS", "/scopes/cidrs"),
        ("IDC", "/scopes/idc"),
        ("LOCATION", "/scopes/location"),
        ("HOSTNAMES", "/scopes/hostnames"),
        ("BIO", "/bio"),
    ];
    table::documents(output, &manager.list(PATH, &[])?, &columns)
}

fn show(cluster: &Value, output: Output) -> Result<()> {
    let lines = [
        ("id", "/id"),
        ("name", "/name"),
        ("bio", "/bio"),
        ("default", "/is_default"),
        ("CIDRs", "/scopes/cidrs"),
        ("IDC", "/scopes/idc"),
        ("location", "/scopes/location"),
        ("hostnames", "/scopes/hostnames"),
        ("scheduler cluster", "/scheduler_cluster_id"),
        ("seed peer cluster", "/seed_peer_cluster_id"),
        ("config", "/config"),
    ];
    table::document(output, cluster, &lines)
}

fn rm(manager: &Manager, cluster: &str, yes: bool) -> Result<()> {
    let (id, name) = find(manager, cluster)?;
    if !yes {
        ensure!(std::io::stdin().is_terminal(), "remove cluster {name}? say so with --yes");
        write!(std::io::stderr(), "Remove cluster {name} (id {id})? [y/N] ")?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("read the answer")?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was removed");
        }
    }
    manager.delete(&format!("{PATH}/{id}"))?;
    writeln!(std::io::stdout(), "removed cluster {name} (id {id})")?;
    Ok(())
}

fn path(manager: &Manager, cluster: &str) -> Result<String> {
    Ok(format!("{PATH}/{}", find(manager, cluster)?.0))
}

/// Id and name of a cluster that is named by one of them.
pub(crate) fn find(manager: &Manager, cluster: &str) -> Result<(u64, String)> {
    let clusters = manager.list(PATH, &[])?;
    let known = |found: &&Value| table::text(found, "/id") == cluster || found["name"] == cluster;
    let Some(found) = clusters.iter().find(known) else {
        let names: Vec<_> = clusters.iter().map(|known| table::text(known, "/name")).collect();
        bail!("there is no cluster `{cluster}`; there are {}", names.join(", "));
    };
    Ok((found["id"].as_u64().context("a cluster without an id")?, table::text(found, "/name")))
}

impl Fields {
    /// What was named, as the API takes it.
    fn body(&self, name: Option<&str>) -> Result<Value> {
        let mut scopes = Map::new();
        // One empty word is how an option that may be repeated says "none".
        let list =
            |words: &[String]| words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>();
        for (key, words) in [("cidrs", &self.cidrs), ("hostnames", &self.hostnames)] {
            if !words.is_empty() {
                scopes.insert(key.to_owned(), json!(list(words)));
            }
        }
        for (key, text) in [("idc", &self.idc), ("location", &self.location)] {
            scopes.extend(text.as_ref().map(|text| (key.to_owned(), json!(text))));
        }
        let mut body = Map::new();
        body.extend(name.map(|name| ("name".to_owned(), json!(name))));
        body.extend(self.bio.as_ref().map(|bio| ("bio".to_owned(), json!(bio))));
        body.extend(self.default.then(|| ("is_default".to_owned(), json!(true))));
        if !scopes.is_empty() {
            body.insert("scopes".to_owned(), scopes.into());
        }
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let config: Map<String, Value> = serde_json::from_str(&text)
                .with_context(|| format!("{} is no JSON object", path.display()))?;
            body.insert("config".to_owned(), config.into());
        }
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_named_is_sent() {
        assert_eq!(Fields::default().body(None).unwrap(), json!({}));
        let fields = Fields {
            cidrs: vec!["10.0.0.0/8".to_owned()],
            hostnames: vec![String::new()],
            idc: Some(String::new()),
            ..Fields::default()
        };
        let expected = json!({"name": "b", "scopes": {"cidrs": ["10.0.0.0/8"], "hostnames": [], "idc": ""}});
        assert_eq!(fields.body(Some("b")).unwrap(), expected);
    }

    #[test]
    fn a_configuration_that_is_no_object_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        let fields = Fields { config: Some(file.path().to_owned()), ..Fields::default() };
        let error = format!("{:#}", fields.body(None).unwrap_err());
        assert!(error.contains("no JSON object"), "{error}");
    }
}
