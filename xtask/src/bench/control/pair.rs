//! The manager and the scheduler under measurement, and what is asked of the manager.

use crate::bench::footprint::Footprint;
use crate::command::{self, LONG, SHORT};
use crate::lab::processes::Process;
use crate::{http, interrupt};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const PASSWORD: &str = "only-for-the-benchmark";
pub(super) const REST: &str = "http://127.0.0.1:18080";
pub(super) const MANAGER: &str = "http://127.0.0.1:18003";
pub(super) const SCHEDULER: &str = "127.0.0.1:18002";
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);
/// History of the hosts in the database before the load: as much as it keeps of fine steps.
const HISTORY_STEPS: u32 = 48;
const STEP_S: u64 = 10;

/// A manager on SQLite and a scheduler, each a process.
pub(super) struct Pair {
    pub(super) manager: Process,
    pub(super) scheduler: Process,
}

impl Pair {
    pub(super) fn start(control: &Path, dir: &Path) -> Result<Self> {
        let manager = format!(
            "manager: {{ rest: \"{}\", grpc: \"{}\", database: \"sqlite://{}\", rootPasswordFile: {} }}\n\
             metrics: {{ addr: \"127.0.0.1:0\" }}\n",
            REST.trim_start_matches("http://"),
            MANAGER.trim_start_matches("http://"),
            dir.join("manager.db").display(),
            dir.join("password").display()
        );
        let scheduler = format!(
            "scheduler: {{ grpc: \"{SCHEDULER}\", advertiseAddr: \"{SCHEDULER}\", clusterID: 1, \
             managerAddrs: [\"{MANAGER}\"] }}\nmetrics: {{ addr: \"127.0.0.1:0\" }}\n"
        );
        let manager = start(control, dir, "manager", &manager)?;
        let scheduler = start(control, dir, "scheduler", &scheduler)?;
        let mut pair = Self { manager, scheduler };
        interrupt::poll("manager and scheduler serve", START_LIMIT, || {
            pair.manager.check()?;
            pair.scheduler.check()?;
            ensure!(http::get(&format!("{REST}/healthz"), &[])?.status == 200, "the manager is not healthy");
            Ok(())
        })?;
        Ok(pair)
    }

    pub(super) fn mebibytes(&self) -> Result<f64> {
        Ok(mebibytes(self.manager.pid()?)? + mebibytes(self.scheduler.pid()?)?)
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.scheduler.stop()?;
        self.manager.stop()
    }
}

fn start(control: &Path, dir: &Path, role: &str, text: &str) -> Result<Process> {
    let config = dir.join(format!("{role}.yaml"));
    std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = Command::new(control);
    command.arg(role).arg("--config").arg(&config);
    Process::start(role, &mut command, &config.with_extension("log"))
}

pub(super) fn mebibytes(pid: i32) -> Result<f64> {
    Ok(Footprint::of(&[pid])?.resident_kib as f64 / 1024.0)
}

pub(super) fn token() -> Result<String> {
    let body = json!({ "name": "root", "password": PASSWORD });
    let answer = http::post(&format!("{REST}/api/v1/users/signin"), "", &body)?;
    let token = answer.json()?["token"].as_str().map(str::to_owned);
    token.with_context(|| format!("sign in: {} {}", answer.status, answer.text()))
}

pub(super) fn get(token: &str, path: &str) -> Result<Value> {
    let answer = http::get(&format!("{REST}{path}"), &[("authorization", &format!("Bearer {token}"))])?;
    if answer.status != 200 {
        bail!("GET {path}: {} {}", answer.status, answer.text());
    }
    answer.json()
}

/// Bytes uploaded in the cluster, by the history.
pub(super) fn uploaded(token: &str) -> Result<u64> {
    let history = get(token, "/api/v1/bandwidth?step=86400&cluster_id=1")?;
    let items = history["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().filter_map(|item| item.pointer("/classes/upload/sent_bytes")?.as_u64()).sum())
}

/// Ten-second steps of every host and of their cluster, as if they had been here for a while.
pub(super) fn fill_history(database: &Path, hosts: u32) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock")?.as_secs();
    let first = (now / STEP_S - u64::from(HISTORY_STEPS)) * STEP_S;
    let figures = vec!["1000"; 15].join(", ");
    let sql = format!(
        "WITH RECURSIVE step(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM step WHERE n + 1 < {HISTORY_STEPS}), \
         host(n) AS (SELECT -1 UNION ALL SELECT n + 1 FROM host WHERE n + 1 < {hosts}) \
         INSERT INTO bandwidth SELECT {STEP_S}, {first} + {STEP_S} * step.n, 1, \
         CASE host.n WHEN -1 THEN '' ELSE printf('bench-%06d', host.n) END, {figures} FROM step, host;"
    );
    command::check(Command::new("sqlite3").arg(database).arg(sql), LONG)?;
    let rows =
        command::check(Command::new("sqlite3").arg(database).arg("SELECT COUNT(*) FROM bandwidth"), SHORT)?;
    println!("{} rows of history in the database before the load", rows.stdout.trim());
    Ok(())
}
