//! Messages of `manager.proto` to and from our own types.

use super::unusable;
use crate::manager::directory::Assigned;
use crate::manager::host::{MAX_HOST_TEXT_BYTES, Peer, PeerKind, Pin, SchedulerHost, Wish, refused};
use crate::manager::peer_key::PeerKeys;
use crate::manager::rollouts::{Rollout, Straggler};
use crate::manager::tasks::{KnownTask, MAX_TASK_BYTES, MAX_TASK_HOSTS, TaskHost};
use crate::manager::unix_seconds;
use crate::usage::Usage;
use hawker_api::node_policy::RegistryRule;
use hawker_api::pieces::MAX_TASK_SIZE;
use hawker_api::policy::{ClusterPolicy, PeerRule, ShaperPolicy};
use hawker_api::protocol::Protocol;
use hawker_api::task::TaskId;
use hawker_api::v1;
use std::time::SystemTime;
use tonic::Status;

/// Most images taken from one message, and most stragglers of each.
const MAX_ROLLOUTS: usize = 64;
const MAX_STRAGGLERS: usize = 20;

pub(super) fn peer(request: v1::PlaceRequest) -> Result<(Peer, Wish), Status> {
    fits(request.protocol, "daemon")?;
    let host = request.host.ok_or_else(|| Status::invalid_argument("the request has no host"))?;
    let wish = Wish {
        pin: pin(request.cluster_id, request.seed_peer_cluster_id)?,
        accept_default: request.accept_default,
    };
    let bad = |field, problem| unusable(&refused(&host.hostname, field, problem));
    let ip = host.ip.parse().map_err(|_| {
        let shown: String = host.ip.chars().take(64).collect();
        bad("host.ip", format!("`{shown}` is not an IP address"))
    })?;
    let piece_port = u16::try_from(host.piece_port)
        .map_err(|_| bad("host.piece_port", format!("{} is not a TCP port", host.piece_port)))?;
    let kind = match v1::HostKind::try_from(host.kind) {
        Ok(v1::HostKind::Peer) => PeerKind::Peer,
        Ok(v1::HostKind::Seed) => PeerKind::Seed,
        Err(_) => return Err(bad("host.kind", format!("{} is not known", host.kind))),
    };
    let peer = Peer {
        id: host.id,
        hostname: host.hostname,
        ip,
        piece_port,
        idc: host.idc,
        location: host.location,
        kind,
        version: host.version,
        engine: host.engine,
        engine_reason: host.engine_reason,
        shaper: host.shaper,
        shaper_reason: host.shaper_reason,
    };
    Ok((peer.checked().map_err(|error| unusable(&error))?, wish))
}

pub(super) fn scheduler(registration: v1::SchedulerRegistration) -> Result<SchedulerHost, Status> {
    fits(registration.protocol, "scheduler")?;
    let host = SchedulerHost {
        hostname: registration.hostname,
        addr: registration.advertise_addr,
        scheduler_cluster_id: registration.scheduler_cluster_id,
        version: registration.version,
    };
    host.checked().map_err(|error| unusable(&error))
}

/// Whether a program's version works with this one.
fn fits(announced: Option<v1::Protocol>, who: &'static str) -> Result<(), Status> {
    let fits = Protocol::spoken().works_with(Protocol::announced(announced), who);
    fits.map_err(|error| Status::failed_precondition(error.to_string()))
}

pub(super) fn placement(assigned: Assigned, keys: &PeerKeys) -> v1::Placement {
    // Who really serves the node, also where it fell back: its peers are there.
    let peer_key = keys.of(assigned.scheduler_cluster_id).to_vec();
    let endpoints = assigned.schedulers.into_iter().map(|endpoint| v1::SchedulerEndpoint {
        id: endpoint.id,
        hostname: endpoint.hostname,
        addr: endpoint.addr,
    });
    v1::Placement {
        cluster_id: assigned.cluster_id,
        cluster_name: assigned.cluster_name,
        reason: assigned.reason,
        scheduler_cluster_id: assigned.scheduler_cluster_id,
        seed_peer_cluster_id: assigned.seed_peer_cluster_id,
        schedulers: endpoints.collect(),
        fell_back: assigned.fell_back,
        matched_cluster_id: assigned.matched_cluster_id,
        config: Some(config(&assigned.policy)),
        peer_key,
        protocol: Some(Protocol::spoken().into()),
    }
}

fn config(policy: &ClusterPolicy) -> v1::ClusterConfig {
    let ShaperPolicy { upload_limit, per_peer_limit, download_limit, origin_limit, yield_to_others, peers } =
        &policy.shaper;
    let peer = |rule: &PeerRule| v1::PeerPolicy {
        network: rule.network.to_string(),
        limit: rule.limit.0,
        weight: rule.weight,
    };
    let shaper = v1::ShaperPolicy {
        upload_limit: upload_limit.0,
        per_peer_limit: per_peer_limit.0,
        download_limit: download_limit.0,
        origin_limit: origin_limit.0,
        r#yield: *yield_to_others,
        peers: peers.iter().map(peer).collect(),
    };
    let rule =
        |rule: &RegistryRule| v1::RegistryRule { host: rule.host.clone(), server: rule.server.clone() };
    let list = |rules: &Vec<RegistryRule>| v1::RegistryList { rules: rules.iter().map(rule).collect() };
    v1::ClusterConfig {
        shaper: Some(shaper),
        registries: policy.nodes.registries.as_ref().map(list),
        engine: policy.nodes.engine.name().to_owned(),
    }
}

/// What hosts moved; those without a usable name, or who moved nothing, are left out.
pub(super) fn bandwidth(report: v1::BandwidthReport) -> impl Iterator<Item = (String, Usage)> {
    report.hosts.into_iter().filter_map(|v1::HostUsage { host_id, usage }| {
        let named = !host_id.is_empty()
            && host_id.len() <= MAX_HOST_TEXT_BYTES
            && !host_id.chars().any(char::is_control);
        named.then_some((host_id, usage?.into()))
    })
}

/// What moved from zone to zone.
pub(super) fn zones(report: &v1::BandwidthReport) -> impl Iterator<Item = (String, String, u64)> + '_ {
    let sane = report.zones.iter().filter(|cell| is_text(&cell.from) && is_text(&cell.to));
    sane.map(|cell| (cell.from.clone(), cell.to.clone(), cell.bytes))
}

/// Tasks of a cluster; those without a usable name are left out.
pub(super) fn tasks(
    report: &v1::BandwidthReport,
    cluster_id: u64,
    now: i64,
) -> impl Iterator<Item = KnownTask> + '_ {
    let named = |task: &&v1::TaskSummary| {
        !task.task.is_empty() && task.task.len() <= MAX_TASK_BYTES && is_text(&task.task)
    };
    report.tasks.iter().filter(named).map(move |task| KnownTask {
        cluster_id,
        task: task.task.clone(),
        bytes: task.size,
        pieces: task.pieces,
        holders: task.holders,
        downloading: task.downloading,
        moved_bytes: task.moved_bytes,
        origin_bytes: task.origin_bytes,
        last_seen: now,
        hosts: task
            .hosts
            .iter()
            .filter(|host| is_text(&host.host_id))
            .take(MAX_TASK_HOSTS)
            .map(task_host)
            .collect(),
    })
}

fn task_host(host: &v1::TaskHost) -> TaskHost {
    TaskHost { host_id: host.host_id.clone(), complete: host.complete, pieces: host.pieces }
}

/// A text that any database takes.
fn is_text(text: &str) -> bool {
    text.len() <= 2 * MAX_HOST_TEXT_BYTES + 3 && !text.chars().any(char::is_control)
}

/// How images come into a cluster; those without a sane digest are left out.
pub(super) fn rollouts(
    scheduler_cluster_id: u64,
    told: v1::Rollouts,
    now: SystemTime,
) -> impl Iterator<Item = Rollout> {
    let (nodes_total, at) = (told.nodes_total.into(), unix_seconds(now));
    let seconds = |millis: u64| i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    let short =
        |text: String| text.chars().filter(|c| !c.is_control()).take(MAX_HOST_TEXT_BYTES).collect::<String>();
    told.rollouts.into_iter().take(MAX_ROLLOUTS).filter_map(move |rollout| {
        let manifest: TaskId = rollout.manifest.parse().ok()?;
        let straggler = |straggler: v1::Straggler| Straggler {
            host_id: short(straggler.host_id),
            bytes_done: straggler.bytes_done,
            reason: short(straggler.reason),
        };
        Some(Rollout {
            // A cluster and its scheduler cluster have the same id.
            cluster_id: scheduler_cluster_id,
            manifest: manifest.to_string(),
            name: short(rollout.name),
            bytes: rollout.bytes.min(MAX_TASK_SIZE),
            nodes_done: rollout.nodes_done.into(),
            nodes_wanted: rollout.nodes_wanted.into(),
            nodes_total,
            started_at: at.saturating_sub(seconds(rollout.age_ms)),
            eta_at: rollout.eta_ms.map(|left| at.saturating_add(seconds(left).saturating_add(1))),
            stragglers: rollout.stragglers.into_iter().take(MAX_STRAGGLERS).map(straggler).collect(),
            updated_at: at,
        })
    })
}

fn pin(cluster_id: u64, seed_peer_cluster_id: u64) -> Result<Option<Pin>, Status> {
    match (cluster_id, seed_peer_cluster_id) {
        (0, 0) => Ok(None),
        (0, seed) => Ok(Some(Pin::SeedPeerCluster(seed))),
        // A cluster and its seed peer cluster have the same id.
        (id, seed) if seed == 0 || seed == id => Ok(Some(Pin::Cluster(id))),
        (id, seed) => Err(Status::invalid_argument(format!(
            "pinned to two clusters: cluster.id {id} and seedPeer.clusterID {seed}"
        ))),
    }
}
