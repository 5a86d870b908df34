//! How the lab's control plane is started: configuration files, processes, a database server.

use super::{MANAGER_PORT, NAME, REST_PORT, manager_addrs};
use crate::lab::data_dir;
use crate::lab::network::{CONTROL, Cluster};
use crate::lab::processes::Process;
use crate::netns;
use crate::postgres::{self, Place, Postgres};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// In the namespace of the control plane.
const POSTGRES: &str = "127.0.0.1:5432";

pub(super) fn start_manager(
    program: &Path,
    which: u16,
    database: &str,
    protocol: Option<&str>,
) -> Result<Process> {
    let dir = data_dir(NAME);
    let text = format!(
        "manager: {{ rest: \"0.0.0.0:{}\", grpc: \"0.0.0.0:{}\", database: \"{}\", rootPasswordFile: {} }}\n\
         metrics: {{ addr: \"0.0.0.0:{}\" }}\n",
        REST_PORT + which,
        MANAGER_PORT + which,
        database,
        dir.join("root-password").display(),
        8000 + 10 * which
    );
    start(program, "manager", &dir.join(format!("manager-{which}.yaml")), (&text, protocol))
}

pub(super) fn scheduler_config(cluster: Cluster, use_reports: bool, two: bool, extra: &str) -> String {
    let id = cluster.id();
    let (port, metrics) = (8001 + id, 8100 + id);
    format!(
        "scheduler: {{ grpc: \"0.0.0.0:{port}\", advertiseAddr: \"{CONTROL}:{port}\", clusterID: {id}, \
         useReports: {use_reports}, managerAddrs: [{}] }}\nmetrics: {{ addr: \"0.0.0.0:{metrics}\" }}\n{extra}\n",
        manager_addrs(two)
    )
}

pub(super) fn start_server() -> Result<Postgres> {
    postgres::need()?;
    let (addr, namespace) = (POSTGRES.parse().context("an address")?, Some(netns::name(NAME)));
    Postgres::start_at(Place { addr, namespace })
}

pub(super) fn start(
    program: &Path,
    role: &str,
    config: &Path,
    (text, protocol): (&str, Option<&str>),
) -> Result<Process> {
    fs::write(config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = netns::command(&netns::name(NAME), program);
    command.arg(role).arg("--config").arg(config);
    command.envs(protocol.map(|protocol| ("HAWKERD_TEST_PROTOCOL", protocol)));
    Process::start(&format!("hawker-control {role}"), &mut command, &config.with_extension("log"))
}
