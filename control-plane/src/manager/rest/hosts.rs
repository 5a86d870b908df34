//! `/api/v1/peers`, `/api/v1/seed-peers`, `/api/v1/schedulers`: the live hosts as JSON.

use super::extract::Query;
use super::page::{Page, PageQuery};
use super::problem::Problem;
use crate::manager::directory::{LivePeer, LiveScheduler};
use crate::manager::host::PeerKind;
use crate::manager::{Parts, unix_seconds};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::net::IpAddr;

#[derive(Debug, Serialize)]
pub(super) struct PeerView {
    id: String,
    hostname: String,
    ip: IpAddr,
    piece_port: u16,
    idc: String,
    location: String,
    kind: PeerKind,
    version: String,
    engine: String,
    shaper: String,
    /// The cluster that serves it, and why.
    cluster_id: u64,
    cluster_name: String,
    reason: String,
    /// The cluster its scopes match; another one only where `fell_back`.
    matched_cluster_id: u64,
    fell_back: bool,
    /// Seconds since 1970.
    registered_at: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct SchedulerView {
    id: u64,
    hostname: String,
    addr: String,
    scheduler_cluster_id: u64,
    version: String,
    /// Seconds since 1970.
    registered_at: i64,
}

pub(super) async fn peers(
    State(parts): State<Parts>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<PeerView>>, Problem> {
    daemons(&parts, PeerKind::Peer, &query)
}

pub(super) async fn seed_peers(
    State(parts): State<Parts>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<PeerView>>, Problem> {
    daemons(&parts, PeerKind::Seed, &query)
}

pub(super) async fn schedulers(
    State(parts): State<Parts>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<SchedulerView>>, Problem> {
    let window = query.window()?;
    let live = parts.directory.schedulers(window.skip(), window.limit());
    Ok(Json(window.page(live, SchedulerView::from)))
}

fn daemons(parts: &Parts, kind: PeerKind, query: &PageQuery) -> Result<Json<Page<PeerView>>, Problem> {
    let window = query.window()?;
    let live = parts.directory.peers(kind, window.skip(), window.limit());
    Ok(Json(window.page(live, PeerView::from)))
}

impl From<LivePeer> for PeerView {
    fn from(live: LivePeer) -> Self {
        let LivePeer { peer, assigned, registered_at } = live;
        Self {
            id: peer.id,
            hostname: peer.hostname,
            ip: peer.ip,
            piece_port: peer.piece_port,
            idc: peer.idc,
            location: peer.location,
            kind: peer.kind,
            version: peer.version,
            engine: peer.engine,
            shaper: peer.shaper,
            cluster_id: assigned.cluster_id,
            cluster_name: assigned.cluster_name,
            reason: assigned.reason,
            matched_cluster_id: assigned.matched_cluster_id,
            fell_back: assigned.fell_back,
            registered_at: unix_seconds(registered_at),
        }
    }
}

impl From<LiveScheduler> for SchedulerView {
    fn from(live: LiveScheduler) -> Self {
        Self {
            id: live.id,
            hostname: live.host.hostname,
            addr: live.host.addr,
            scheduler_cluster_id: live.host.scheduler_cluster_id,
            version: live.host.version,
            registered_at: unix_seconds(live.registered_at),
        }
    }
}
