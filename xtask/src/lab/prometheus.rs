//! Prometheus in the lab, with the repository's rules: scrapes every daemon and the control plane, and is asked as Grafana would.
//!
//! Invariant: what it is told to scrape is what operators would, by the job names that the alerts know.

use super::network::CONTROL;
use super::processes::Process;
use super::{Node, data_dir};
use crate::{http, interrupt, netns, workspace};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::time::Duration;

const PORT: u16 = 9090;
/// Where the lab's daemons tell their metrics when they are to be scraped from elsewhere.
pub(crate) const DAEMON_PORT: u16 = 4003;
const START_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Prometheus {
    process: Process,
}

impl Prometheus {
    /// `control`: ports of the control plane's metrics.
    pub(crate) fn start<'n>(nodes: impl Iterator<Item = &'n Node>, control: &[u16]) -> Result<Self> {
        let dir = data_dir("prometheus");
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let daemons: Vec<String> = nodes.map(|node| format!("\"{}:{DAEMON_PORT}\"", node.ip)).collect();
        let control: Vec<String> = control.iter().map(|port| format!("\"{CONTROL}:{port}\"")).collect();
        let rules = workspace::root()?.join("deploy/prometheus");
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{rules}/hawker-rules.yaml\", \"{rules}/hawker-alerts.yaml\"]\n\
             scrape_configs:\n\
             - {{ job_name: hawker-daemon, static_configs: [{{ targets: [{}] }}] }}\n\
             - {{ job_name: hawker-control, static_configs: [{{ targets: [{}] }}] }}\n",
            daemons.join(", "),
            control.join(", "),
            rules = rules.display(),
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut command = netns::command(&netns::name("control"), "prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
        let mut process = Process::start("prometheus", &mut command, &dir.join("prometheus.log"))?;
        interrupt::poll("prometheus answers", START_LIMIT, || {
            process.check()?;
            let ready = asked("/-/ready")?;
            ensure!(ready.status == 200, "{}", ready.text());
            Ok(())
        })?;
        Ok(Self { process })
    }

    /// One of the API's documents: its `data`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let answer = asked(path)?;
        let document = answer.json()?;
        ensure!(answer.status == 200 && document["status"] == "success", "{path}: {}", answer.text());
        Ok(document["data"].clone())
    }

    /// The samples of an instant query: labels and value.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let data = self.get(&format!("/api/v1/query?query={}", escaped(expression)))?;
        let samples =
            data["result"].as_array().with_context(|| format!("`{expression}` gives no vector: {data}"))?;
        let sample = |sample: &Value| {
            let value = sample["value"][1].as_str().context("a sample without a value")?;
            Ok((sample["metric"].clone(), value.parse().with_context(|| format!("read `{value}`"))?))
        };
        samples.iter().map(sample).collect()
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.stop()
    }
}

fn asked(path: &str) -> Result<http::Answer> {
    netns::within(&netns::name("control"), || http::get(&format!("http://127.0.0.1:{PORT}{path}"), &[]))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
