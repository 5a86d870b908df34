//! The origin: docker-registry behind the shaped link, and what its own log says it sent.
//!
//! Invariant: bytes are counted from the registry's access log, nowhere else.

use super::processes::Process;
use super::{REGISTRY_NAME, data_dir, network};
use crate::command::{LONG, check};
use crate::netns;
use crate::{http, interrupt};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PORT: u16 = 5000;
/// Time for the registry to listen.
const START_LIMIT: Duration = Duration::from_secs(15);

pub(crate) struct Registry {
    process: Process,
    log: PathBuf,
    ip: Ipv4Addr,
}

impl Registry {
    pub(crate) fn start() -> Result<Self> {
        Self::serve("origin", network::ORIGIN)
    }

    /// The same content from a registry directly on a cluster's bridge.
    pub(crate) fn start_near(cluster: network::Cluster) -> Result<Self> {
        Self::serve(&network::build_near(cluster)?, cluster.near_registry())
    }

    fn serve(name: &str, ip: Ipv4Addr) -> Result<Self> {
        let dir = data_dir(name);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let (config, log) = (dir.join("config.yml"), dir.join("registry.log"));
        let storage = data_dir("origin").join("storage");
        fs::write(&config, configuration(&storage)).with_context(|| format!("write {}", config.display()))?;
        let mut command = netns::command(&netns::name(name), "docker-registry");
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::start("docker-registry", &mut command, &log)?;
        let url = format!("http://{ip}:{PORT}/v2/");
        netns::within(&netns::name(name), || {
            interrupt::poll("docker-registry answers", START_LIMIT, || {
                process.check()?;
                http::get(&url, &[]).map(drop)
            })
        })?;
        Ok(Self { process, log, ip })
    }

    /// `http://host:port` as nodes reach it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}:{PORT}", self.ip)
    }

    /// Pushes an image from an OCI layout, from beside the registry, not over the shaped link.
    pub(crate) fn push(&self, layout: &Path, tag: &str, name: &str) -> Result<()> {
        let mut skopeo = netns::command(&netns::name("origin"), "skopeo");
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        skopeo.arg(format!("oci:{}:{tag}", layout.display()));
        skopeo.arg(format!("docker://127.0.0.1:{PORT}/lab/{name}:latest"));
        check(&mut skopeo, LONG).map(drop).with_context(|| format!("push image {name}"))
    }

    /// The reference a node pulls `name` by.
    pub(crate) fn reference(name: &str) -> String {
        format!("{REGISTRY_NAME}/lab/{name}:latest")
    }

    /// Bytes of bodies sent to any of `ips`, by the access log.
    pub(crate) fn sent_to(&self, ips: &[Ipv4Addr]) -> Result<u64> {
        Ok(self.entries()?.iter().filter(|entry| ips.contains(&entry.to)).map(|entry| entry.bytes).sum())
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let text = fs::read_to_string(&self.log).context("read the registry's log")?;
        Ok(text.lines().filter_map(Entry::parse).collect())
    }

    pub(crate) fn leave(&mut self) {
        self.process.leave();
    }
}

/// One answered request.
struct Entry {
    to: Ipv4Addr,
    bytes: u64,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let entry: Value = serde_json::from_str(line).ok()?;
        if entry["msg"] != "response completed" && entry["msg"] != "response completed with error" {
            return None;
        }
        let remote = entry["http.request.remoteaddr"].as_str()?;
        let to = remote.rsplit_once(':')?.0.parse().ok()?;
        if entry["http.request.method"] != "GET" {
            return Some(Self { to, bytes: 0 });
        }
        Some(Self { to, bytes: entry["http.response.written"].as_u64()? })
    }
}

fn configuration(storage: &Path) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: info, formatter: json, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: \"0.0.0.0:{PORT}\"}}\n",
        storage.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_who_got_how_much() {
        let line = r#"{"http.request.method":"GET","http.request.remoteaddr":"10.71.1.11:4711",
            "http.response.written":42,"msg":"response completed"}"#;
        let entry = Entry::parse(&line.replace('\n', "")).unwrap();
        assert_eq!((entry.to, entry.bytes), (Ipv4Addr::new(10, 71, 1, 11), 42));
        assert!(Entry::parse("listening on 0.0.0.0").is_none());
    }
}
