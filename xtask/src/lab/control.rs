//! The control plane in the lab: manager and the first cluster's scheduler in one process, one more
//! scheduler for each further cluster.

use super::data_dir;
use super::network::{CONTROL, Cluster};
use super::processes::Process;
use crate::netns;
use crate::{http, interrupt};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const REST_PORT: u16 = 8080;
const MANAGER_PORT: u16 = 65003;
const START_LIMIT: Duration = Duration::from_secs(20);
const NAME: &str = "control";
/// Of the lab alone; it exists only as long as the lab.
const PASSWORD: &str = "only-for-the-lab";

pub(crate) struct Control {
    program: PathBuf,
    pub(crate) manager: Process,
    pub(crate) schedulers: Vec<(Cluster, Process)>,
}

impl Control {
    /// Starts the manager, tells it the clusters' scopes, then starts the schedulers.
    pub(crate) fn start(program: &Path, clusters: &[Cluster]) -> Result<Self> {
        let dir = data_dir(NAME);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        fs::write(dir.join("root-password"), PASSWORD).context("write the root password")?;
        let manager = start_manager(program)?;
        let mut control = Self { program: program.to_owned(), manager, schedulers: Vec::new() };
        control.wait_for_manager()?;
        for cluster in clusters {
            control.declare(*cluster)?;
        }
        for cluster in clusters {
            let process = start_scheduler(program, *cluster)?;
            control.schedulers.push((*cluster, process));
        }
        control.wait_for_schedulers(clusters.len())?;
        Ok(control)
    }

    pub(crate) fn restart_manager(&mut self) -> Result<()> {
        self.manager = start_manager(&self.program)?;
        self.wait_for_manager()
    }

    pub(crate) fn restart_scheduler(&mut self, cluster: Cluster) -> Result<()> {
        let process = start_scheduler(&self.program, cluster)?;
        self.schedulers.retain(|(of, _)| *of != cluster);
        self.schedulers.push((cluster, process));
        Ok(())
    }

    /// Asks the REST API, from beside the manager.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let answer =
            inside(|| http::get(&rest(path), &[("authorization", &format!("Bearer {}", token()?))]))?;
        if answer.status != 200 {
            bail!("GET {path}: {} {}", answer.status, answer.text());
        }
        answer.json()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<http::Answer> {
        inside(|| http::post(&rest(path), &token()?, body))
    }

    /// How a person gets in.
    pub(crate) fn how_to_sign_in() -> String {
        let body = json!({ "name": "root", "password": PASSWORD });
        format!(
            "REST API: {}\nsign in:  cargo xtask lab exec {NAME} -- curl -s -H 'content-type: application/json' -d '{body}' {}",
            rest("/api/v1"),
            rest("/api/v1/users/signin")
        )
    }

    fn declare(&self, cluster: Cluster) -> Result<()> {
        let scopes = json!({ "cidrs": [cluster.cidr()] });
        let answer = if cluster == Cluster::A {
            let path = format!("/api/v1/clusters/{}", cluster.id());
            inside(|| http::patch(&rest(&path), &token()?, &json!({ "scopes": scopes })))?
        } else {
            self.post("/api/v1/clusters", &json!({ "name": cluster.name(), "scopes": scopes }))?
        };
        if !(200..300).contains(&answer.status) {
            bail!("declare {}: {} {}", cluster.name(), answer.status, answer.text());
        }
        let id = answer.json()?["id"].as_u64();
        if id != Some(cluster.id()) {
            bail!("{} got id {id:?}, not {}", cluster.name(), cluster.id());
        }
        Ok(())
    }

    fn wait_for_manager(&mut self) -> Result<()> {
        let manager = &mut self.manager;
        inside(|| {
            interrupt::poll("the manager answers", START_LIMIT, || {
                manager.check()?;
                http::get(&rest("/healthz"), &[]).map(drop)
            })
        })
    }

    fn wait_for_schedulers(&self, count: usize) -> Result<()> {
        interrupt::poll("the schedulers register", START_LIMIT, || {
            let listed = self.get("/api/v1/schedulers")?;
            let items = listed["items"].as_array().or(listed.as_array()).map_or(0, Vec::len);
            if items < count { bail!("{items} of {count} schedulers registered: {listed}") } else { Ok(()) }
        })
    }

    pub(crate) fn leave(&mut self) {
        self.manager.leave();
        for (_, process) in &mut self.schedulers {
            process.leave();
        }
    }
}

fn inside<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    netns::within(&netns::name(NAME), work)
}

fn rest(path: &str) -> String {
    format!("http://{CONTROL}:{REST_PORT}{path}")
}

fn token() -> Result<String> {
    let answer =
        http::post(&rest("/api/v1/users/signin"), "", &json!({ "name": "root", "password": PASSWORD }))?;
    let token = answer.json()?["token"].as_str().map(str::to_owned);
    token.with_context(|| format!("sign in: {} {}", answer.status, answer.text()))
}

fn start_manager(program: &Path) -> Result<Process> {
    let dir = data_dir(NAME);
    let text = format!(
        "manager: {{ rest: \"0.0.0.0:{REST_PORT}\", grpc: \"0.0.0.0:{MANAGER_PORT}\", \
         database: \"sqlite://{}\", rootPasswordFile: {} }}\nmetrics: {{ addr: \"0.0.0.0:8000\" }}\n",
        dir.join("manager.db").display(),
        dir.join("root-password").display()
    );
    start(program, "manager", &dir.join("manager.yaml"), &text)
}

fn start_scheduler(program: &Path, cluster: Cluster) -> Result<Process> {
    let (dir, id) = (data_dir(NAME), cluster.id());
    let (port, metrics) = (8001 + id, 8100 + id);
    let text = format!(
        "scheduler: {{ grpc: \"0.0.0.0:{port}\", advertiseAddr: \"{CONTROL}:{port}\", clusterID: {id}, \
         managerAddrs: [\"http://{CONTROL}:{MANAGER_PORT}\"] }}\nmetrics: {{ addr: \"0.0.0.0:{metrics}\" }}\n"
    );
    start(program, "scheduler", &dir.join(format!("scheduler-{id}.yaml")), &text)
}

fn start(program: &Path, role: &str, config: &Path, text: &str) -> Result<Process> {
    fs::write(config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = netns::command(&netns::name(NAME), program);
    command.arg(role).arg("--config").arg(config);
    Process::start(&format!("hawker-control {role}"), &mut command, &config.with_extension("log"))
}
