//! Two managers on one PostgreSQL: one is killed, then the database vanishes and returns.

use super::{MIB, has_all, image, origin_ratio};
use crate::command::{LONG, check};
use crate::interrupt;
use crate::lab::containerd::Via;
use crate::lab::control::SECOND;
use crate::lab::images::Image;
use crate::lab::network::Cluster;
use crate::lab::{Lab, Plan};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A daemon looks for another manager within seconds; a registration without a manager is forgotten after 15 s.
const MOVE_LIMIT: Duration = Duration::from_secs(40);
/// The lease of a part ends 15 s after its manager; then the rest is fetched.
const JOBS_LIMIT: Duration = Duration::from_secs(90);
/// A request is told within 2 s that the database is away, and finds it again as soon.
const NOTICE_LIMIT: Duration = Duration::from_secs(15);
/// What was asked of both managers' histories is in the database within two seconds.
const COUNT_LIMIT: Duration = Duration::from_secs(30);
/// Two peers, a seed, a scheduler.
const ALL: (u64, u64, u64) = (2, 1, 1);

pub(super) fn plan() -> Plan {
    Plan { peers: vec![2], seeds: true, ..Plan::default() }
}

pub(super) fn one_dies(lab: &mut Lab) -> Result<()> {
    let image = image(lab, "before", &[8])?;
    lab.node("a1")?.containerd.pull(&image.reference, Via::Hawker)?;
    // A token of the first is good at the second, and what is registered at the first is known there.
    let token = lab.control.token(0)?;
    interrupt::poll("the second manager knows all", MOVE_LIMIT, || {
        let hosts = hosts(lab, &token)?;
        ensure!(hosts == ALL, "it knows {hosts:?} peers, seeds, schedulers");
        Ok(())
    })?;
    let (jobs, before) = (Jobs::begin(lab)?, lab.origin_bytes(Cluster::A)?);
    jobs.under_way(lab, &token)?;
    lab.control.manager.crash()?;
    moved_over(lab, &token)?;
    jobs.finish(lab, &token, before)?;
    ensure!(hosts(lab, &token)? == ALL, "{:?} after a while", hosts(lab, &token)?);

    database_is_away(lab, &token)?;
    lab.control.restart_manager()?;
    interrupt::poll("the first manager knows all", MOVE_LIMIT, || {
        let peers = total(&lab.control.get("/api/v1/peers")?);
        ensure!(peers == ALL.0, "it knows {peers} peers");
        Ok(())
    })
}

/// Sign-ins go on at the other manager, daemons and scheduler register there, and nobody is forgotten meanwhile.
fn moved_over(lab: &Lab, token: &str) -> Result<()> {
    let killed = Instant::now();
    ensure!(lab.control.sign_in(SECOND)?.status == 200, "no sign-in at the manager that lives");
    interrupt::poll("daemons and schedulers move over", MOVE_LIMIT, || {
        let listed = hosts(lab, token)?;
        ensure!(listed == ALL, "somebody was forgotten meanwhile: {listed:?}");
        for node in &lab.nodes {
            let status = node.daemon.status()?;
            ensure!(status["scheduler"]["connected"] == true, "{} lost its scheduler", node.name);
            let manager = &status["manager"];
            let is_second = manager["addr"].as_str().is_some_and(|addr| addr.ends_with(":65004"));
            ensure!(manager["connected"] == true && is_second, "{}: {manager}", node.name);
        }
        Ok(())
    })?;
    println!(
        "    all daemons are at the other manager {:.1} s after the kill",
        killed.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Preheats that the first manager works on when it is killed.
struct Jobs {
    ids: Vec<u64>,
    images: Vec<Image>,
}

impl Jobs {
    fn begin(lab: &Lab) -> Result<Self> {
        let images = [image(lab, "first-job", &[50])?, image(lab, "second-job", &[50])?];
        let mut ids = Vec::new();
        for image in &images {
            let mut tool = lab.control.tool(&lab.binaries.tool)?;
            let done = check(
                tool.args(["preheat", &image.reference, "--scope", "all", "--detach", "-o", "json"]),
                LONG,
            )?;
            let job: Value = serde_json::from_str(&done.stdout).context("read what the tool printed")?;
            ids.push(job["id"].as_u64().with_context(|| format!("a job without id: {job}"))?);
        }
        Ok(Self { ids, images: images.into() })
    }

    /// Waits until both have moved something, and makes sure that it is the first manager's doing.
    fn under_way(&self, lab: &Lab, token: &str) -> Result<()> {
        interrupt::poll("the jobs are under way", MOVE_LIMIT, || {
            for id in &self.ids {
                let job = body(lab, token, &format!("/api/v1/jobs/{id}"))?;
                let nodes = job["nodes"].as_array().map_or(&[][..], Vec::as_slice);
                let done: u64 = nodes.iter().filter_map(|node| node["bytes_done"].as_u64()).sum();
                ensure!(done >= 4 * MIB as u64, "job {id}: {done} bytes so far");
            }
            Ok(())
        })?;
        let taken = [0, SECOND].map(|which| taken(lab, which));
        ensure!(taken == [self.ids.len(), 0], "parts of jobs that the managers took on: {taken:?}");
        Ok(())
    }

    /// The other manager goes on with them, and with one that it is given meanwhile.
    fn finish(mut self, lab: &Lab, token: &str, before: u64) -> Result<()> {
        let image = image(lab, "third-job", &[4])?;
        let spec = json!({ "type": "preheat", "args": { "image": image.reference, "scope": "all" } });
        let answer = lab.control.post_with(SECOND, token, "/api/v1/jobs", &spec)?;
        let id = answer.json()?["id"].as_u64();
        self.ids.push(id.with_context(|| format!("a job: {} {}", answer.status, answer.text()))?);
        self.images.push(image);
        interrupt::poll("the other manager finishes the jobs", JOBS_LIMIT, || {
            for id in &self.ids {
                let job = body(lab, token, &format!("/api/v1/jobs/{id}"))?;
                ensure!(job["state"] == "succeeded", "job {id}: {} {}", job["state"], job["error"]);
                ensure!(job["nodes"].as_array().map(Vec::len) == Some(3), "not three nodes: {job}");
            }
            Ok(())
        })?;
        // Each part came to its end once, at the manager that lives; the origin sent each image once.
        let ended = [0, SECOND].map(|which| lines(lab, which, "a job's part ended"));
        ensure!(ended == [0, self.ids.len()], "ends of parts that the managers logged: {ended:?}");
        let taken = [0, SECOND].map(|which| taken(lab, which));
        println!("    parts taken on by the managers: {taken:?}, ended: {ended:?}");
        ensure!(taken == [2, 3], "parts of jobs that the managers took on: {taken:?}");
        let layers = self.images.iter().flat_map(|image| image.layers.clone()).collect();
        let all = Image { layers, ..self.images.remove(0) };
        let ratio = origin_ratio(lab, &all, before)?;
        ensure!(ratio <= 1.01, "the origin sent {ratio:.4} x what the jobs were for");
        Ok(())
    }
}

/// Requests are refused by name, pulls go on, and nothing is lost.
fn database_is_away(lab: &mut Lab, token: &str) -> Result<()> {
    let before = delivered(lab, token)?;
    ensure!(before > 0, "no bandwidth was counted");
    let edited =
        lab.control.patch_with(SECOND, token, "/api/v1/clusters/1", &json!({ "bio": "written last" }))?;
    ensure!(edited.status == 200, "an edit: {} {}", edited.status, edited.text());
    let clusters = body(lab, token, "/api/v1/clusters")?;
    let image = image(lab, "meanwhile", &[8])?;
    lab.control.shared.as_mut().context("two managers")?.server.crash()?;
    interrupt::poll("the manager says that its database is away", NOTICE_LIMIT, || {
        let health = lab.control.get_with(SECOND, "", "/healthz")?;
        ensure!(
            health.status == 503 && health.text().contains("database"),
            "{} {}",
            health.status,
            health.text()
        );
        Ok(())
    })?;
    let asked = Instant::now();
    for refused in [
        lab.control.sign_in(SECOND)?,
        lab.control.get_with(SECOND, token, "/api/v1/clusters")?,
        lab.control.patch_with(SECOND, token, "/api/v1/clusters/1", &json!({ "bio": "lost" }))?,
    ] {
        ensure!(refused.status == 503, "without a database: {} {}", refused.status, refused.text());
        let problem = refused.json()?;
        ensure!(problem["detail"].as_str().is_some_and(|detail| detail.contains("database")), "{problem}");
    }
    println!("    three requests refused by name in {:.1} s", asked.elapsed().as_secs_f64());
    // Daemons and schedulers need no manager for this.
    lab.node("a2")?.containerd.pull(&image.reference, Via::Hawker)?;
    has_all(lab.node("a2")?, &image)?;
    // Longer than a silent registration is believed in: streams are not dropped.
    std::thread::sleep(Duration::from_secs(18));
    for node in &lab.nodes {
        let manager = &node.daemon.status()?["manager"];
        ensure!(manager["connected"] == true, "{} lost its manager: {manager}", node.name);
    }

    lab.control.shared.as_mut().context("two managers")?.server.restart()?;
    let back = Instant::now();
    interrupt::poll("the database is found again", NOTICE_LIMIT, || {
        let health = lab.control.get_with(SECOND, "", "/healthz")?;
        ensure!(health.status == 200, "health is {} {}", health.status, health.text());
        Ok(())
    })?;
    println!("    the database was found again within {:.1} s", back.elapsed().as_secs_f64());
    ensure!(body(lab, token, "/api/v1/clusters")? == clusters, "the clusters are others now");
    ensure!(hosts(lab, token)? == ALL, "{:?} after the database came back", hosts(lab, token)?);
    // What was moved while it was away is counted all the same.
    interrupt::poll("what was pulled meanwhile is counted", COUNT_LIMIT, || {
        let (now, wanted) = (delivered(lab, token)?, before + image.bytes());
        ensure!(now >= wanted, "{now} bytes counted, of {wanted}");
        Ok(())
    })
}

/// How many parts of jobs a manager took on.
fn taken(lab: &Lab, which: u16) -> usize {
    lines(lab, which, "working on a job")
}

fn lines(lab: &Lab, which: u16, text: &str) -> usize {
    lab.control.log(which).lines().filter(|line| line.contains(text)).count()
}

fn body(lab: &Lab, token: &str, path: &str) -> Result<Value> {
    let answer = lab.control.get_with(SECOND, token, path)?;
    ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
    answer.json()
}

fn total(list: &Value) -> u64 {
    list["total"].as_u64().unwrap_or(0)
}

/// Peers, seed peers and schedulers that the second manager knows.
fn hosts(lab: &Lab, token: &str) -> Result<(u64, u64, u64)> {
    let count = |path| Ok::<_, anyhow::Error>(total(&body(lab, token, path)?));
    Ok((count("/api/v1/peers")?, count("/api/v1/seed-peers")?, count("/api/v1/schedulers")?))
}

/// Bytes given to runtimes, by the second manager's history.
fn delivered(lab: &Lab, token: &str) -> Result<u64> {
    let history = body(lab, token, "/api/v1/bandwidth?step=86400")?;
    let items = history["items"].as_array().cloned().unwrap_or_default();
    let given = items.iter().filter_map(|item| item["delivered"].as_object());
    Ok(given.flat_map(|given| given.values().filter_map(Value::as_u64)).sum())
}
