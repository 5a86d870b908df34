//! The control plane in the lab: manager and the first cluster's scheduler in one process, one more
//! scheduler for each further cluster.

mod programs;

use super::data_dir;
use super::network::{CONTROL, Cluster};
use super::processes::Process;
use crate::netns;
use crate::postgres::Postgres;
use crate::{http, interrupt};
use anyhow::{Context, Result, bail};
use programs::{scheduler_config, start, start_manager, start_server};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const REST_PORT: u16 = 8080;
const MANAGER_PORT: u16 = 65003;
const START_LIMIT: Duration = Duration::from_secs(20);
/// Of the second manager, where there is one: its ports are the next ones.
pub(crate) const SECOND: u16 = 1;
const NAME: &str = "control";
/// Of the lab alone; it exists only as long as the lab.
pub(crate) const PASSWORD: &str = "only-for-the-lab";

pub(crate) struct Control {
    program: PathBuf,
    pub(crate) manager: Process,
    pub(crate) schedulers: Vec<(Cluster, Process)>,
    use_reports: bool,
    /// More configuration of schedulers that start from now on, in YAML.
    pub(crate) scheduler_extra: String,
    /// What it announces instead of its own version.
    protocol: Option<&'static str>,
    /// Of the first manager.
    database: String,
    /// Where two managers share a database: the second manager, and the server.
    pub(crate) shared: Option<Shared>,
}

pub(crate) struct Shared {
    pub(crate) second: Process,
    pub(crate) server: Postgres,
}

impl Control {
    /// Starts the manager, or two on one PostgreSQL, tells it the clusters' scopes, then starts the schedulers.
    pub(crate) fn start(program: &Path, clusters: &[Cluster], use_reports: bool, two: bool) -> Result<Self> {
        let dir = data_dir(NAME);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        fs::write(dir.join("root-password"), PASSWORD).context("write the root password")?;
        let server = if two { Some(start_server()?) } else { None };
        let database = match &server {
            Some(server) => server.url(),
            None => format!("sqlite://{}", dir.join("manager.db").display()),
        };
        let manager = start_manager(program, 0, &database, None)?;
        let (program, schedulers) = (program.to_owned(), Vec::new());
        let (scheduler_extra, protocol, shared) = (String::new(), None, None);
        let mut control =
            Self { program, manager, schedulers, use_reports, scheduler_extra, protocol, database, shared };
        control.wait_for_manager()?;
        if let Some(server) = server {
            let second = start_manager(&control.program, SECOND, &control.database, None)?;
            control.shared = Some(Shared { second, server });
        }
        for cluster in clusters {
            control.declare(*cluster)?;
        }
        for cluster in clusters {
            control.restart_scheduler(*cluster)?;
        }
        control.wait_for_schedulers(clusters.len())?;
        Ok(control)
    }

    /// Restarts everything, manager first; it announces this protocol version.
    pub(crate) fn restart_as(&mut self, protocol: Option<&'static str>) -> Result<()> {
        self.protocol = protocol;
        self.manager.stop()?;
        self.restart_manager()?;
        let clusters: Vec<Cluster> = self.schedulers.iter().map(|(cluster, _)| *cluster).collect();
        for cluster in clusters {
            for (_, process) in self.schedulers.iter_mut().filter(|(of, _)| *of == cluster) {
                process.stop()?;
            }
            self.restart_scheduler(cluster)?;
        }
        Ok(())
    }

    pub(crate) fn restart_manager(&mut self) -> Result<()> {
        self.manager = start_manager(&self.program, 0, &self.database, self.protocol)?;
        self.wait_for_manager()
    }

    /// Restarts the manager on another database: `manager.database`.
    pub(crate) fn with_database(&mut self, url: &str) -> Result<()> {
        self.manager.stop()?;
        url.clone_into(&mut self.database);
        self.restart_manager()
    }

    /// A scheduler for a cluster that the manager has learned of by other means.
    pub(crate) fn add_scheduler(&mut self, cluster: Cluster) -> Result<()> {
        self.restart_scheduler(cluster)?;
        self.wait_for_schedulers(self.schedulers.len())
    }

    pub(crate) fn restart_scheduler(&mut self, cluster: Cluster) -> Result<()> {
        let text = scheduler_config(cluster, self.use_reports, self.shared.is_some(), &self.scheduler_extra);
        let file = data_dir(NAME).join(format!("scheduler-{}.yaml", cluster.id()));
        let process = start(&self.program, "scheduler", &file, (&text, self.protocol))?;
        self.schedulers.retain(|(of, _)| *of != cluster);
        self.schedulers.push((cluster, process));
        Ok(())
    }

    /// `hawker` beside the manager, signed in.
    pub(crate) fn tool(&self, tool: &Path) -> Result<std::process::Command> {
        let file = data_dir(NAME).join("token");
        fs::write(&file, inside(token)?).context("write a token")?;
        let mut command = netns::command(&netns::name(NAME), tool);
        command.args(["--manager", &rest("")]).arg("--token-file").arg(file);
        Ok(command)
    }

    /// Signs in at a manager; whatever it answers.
    pub(crate) fn sign_in(&self, which: u16) -> Result<http::Answer> {
        inside(|| sign_in_at(which))
    }

    /// A bearer token, good at every manager of the database.
    pub(crate) fn token(&self, which: u16) -> Result<String> {
        inside(|| token_of(which))
    }

    /// Asks a manager, without a sign-in: with an empty token as nobody.
    pub(crate) fn get_with(&self, which: u16, token: &str, path: &str) -> Result<http::Answer> {
        inside(|| http::get(&rest_of(which, path), &[("authorization", &format!("Bearer {token}"))]))
    }

    pub(crate) fn post_with(
        &self,
        which: u16,
        token: &str,
        path: &str,
        body: &Value,
    ) -> Result<http::Answer> {
        inside(|| http::post(&rest_of(which, path), token, body))
    }

    pub(crate) fn patch_with(
        &self,
        which: u16,
        token: &str,
        path: &str,
        body: &Value,
    ) -> Result<http::Answer> {
        inside(|| http::patch(&rest_of(which, path), token, body))
    }

    /// What a manager logged.
    pub(crate) fn log(&self, which: u16) -> String {
        fs::read_to_string(data_dir(NAME).join(format!("manager-{which}.log"))).unwrap_or_default()
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

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<http::Answer> {
        inside(|| http::patch(&rest(path), &token()?, body))
    }

    /// The namespace of the manager, and where in it REST and console are.
    pub(crate) fn rest_service() -> (String, SocketAddr) {
        (netns::name(NAME), SocketAddr::from((CONTROL, REST_PORT)))
    }

    /// How a person gets in.
    pub(crate) fn how_to_sign_in() -> String {
        let body = json!({ "name": "root", "password": PASSWORD });
        format!(
            "user root, password {PASSWORD}\nREST API: {}\nsign in:  cargo xtask lab exec {NAME} -- curl -s -H 'content-type: application/json' -d '{body}' {}",
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
        if let Some(shared) = &mut self.shared {
            shared.second.leave();
        }
        for (_, process) in &mut self.schedulers {
            process.leave();
        }
    }
}

fn inside<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    netns::within(&netns::name(NAME), work)
}

fn rest(path: &str) -> String {
    rest_of(0, path)
}

fn rest_of(which: u16, path: &str) -> String {
    format!("http://{CONTROL}:{}{path}", REST_PORT + which)
}

/// Where daemons and schedulers register: one manager, or two.
pub(crate) fn manager_addrs(two: bool) -> String {
    let addr = |which: u16| format!("\"http://{CONTROL}:{}\"", MANAGER_PORT + which);
    if two { format!("{}, {}", addr(0), addr(SECOND)) } else { addr(0) }
}

fn sign_in_at(which: u16) -> Result<http::Answer> {
    let body = json!({ "name": "root", "password": PASSWORD });
    http::post(&rest_of(which, "/api/v1/users/signin"), "", &body)
}

fn token() -> Result<String> {
    token_of(0)
}

fn token_of(which: u16) -> Result<String> {
    let answer = sign_in_at(which)?;
    let token = answer.json()?["token"].as_str().map(str::to_owned);
    token.with_context(|| format!("sign in: {} {}", answer.status, answer.text()))
}
