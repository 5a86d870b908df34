//! `/api/v1/peers`, `/api/v1/seed-peers`, `/api/v1/schedulers`: the live hosts as JSON.

use super::extract::Query;
use super::page::{Page, PageQuery, Window};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::directory::{Assigned, LivePeer, LiveScheduler};
use crate::manager::host::{Peer, PeerKind, SchedulerHost};
use crate::manager::rights::Caller;
use crate::manager::{Parts, unix_seconds};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::{IntoParams, ToSchema};

/// A live daemon.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Peer)]
pub(super) struct PeerView {
    id: String,
    hostname: String,
    #[schema(value_type = String)]
    ip: IpAddr,
    piece_port: u16,
    idc: String,
    location: String,
    /// `peer` or `seed`.
    #[schema(value_type = String)]
    kind: PeerKind,
    version: String,
    engine: String,
    /// Why this one, in the daemon's words.
    engine_reason: String,
    shaper: String,
    shaper_reason: String,
    /// The cluster that serves it, and why.
    cluster_id: u64,
    cluster_name: String,
    reason: String,
    /// The cluster its scopes match; another one only where `fell_back`.
    matched_cluster_id: u64,
    fell_back: bool,
    registered_at: Timestamp,
}

/// A live scheduler.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Scheduler)]
pub(super) struct SchedulerView {
    id: u64,
    hostname: String,
    addr: String,
    scheduler_cluster_id: u64,
    version: String,
    registered_at: Timestamp,
}

/// Which hosts are asked for; what is empty does not matter.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HostQuery {
    /// The cluster that serves them.
    cluster_id: Option<u64>,
    /// Part of the host name, the address or the id, whatever its case.
    q: String,
    version: String,
    engine: String,
    shaper: String,
    page: Option<usize>,
    per_page: Option<usize>,
}

/// Which schedulers are asked for; what is empty does not matter.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SchedulerQuery {
    cluster_id: Option<u64>,
    /// Part of the host name or the address, whatever its case.
    q: String,
    page: Option<usize>,
    per_page: Option<usize>,
}

/// The live peers, by id.
#[utoipa::path(get, path = "/api/v1/peers", params(HostQuery), responses((status = 200, body = Page<PeerView>)))]
pub(super) async fn peers(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<HostQuery>,
) -> Result<Json<Page<PeerView>>, Problem> {
    daemons(&parts, &caller, PeerKind::Peer, query)
}

/// The live seed peers, by id.
#[utoipa::path(get, path = "/api/v1/seed-peers", params(HostQuery), responses((status = 200, body = Page<PeerView>)))]
pub(super) async fn seed_peers(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<HostQuery>,
) -> Result<Json<Page<PeerView>>, Problem> {
    daemons(&parts, &caller, PeerKind::Seed, query)
}

/// The live schedulers, by address.
#[utoipa::path(get, path = "/api/v1/schedulers", params(SchedulerQuery),
    responses((status = 200, body = Page<SchedulerView>)))]
pub(super) async fn schedulers(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<SchedulerQuery>,
) -> Result<Json<Page<SchedulerView>>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    let part = query.q.to_lowercase();
    let wanted = |host: &SchedulerHost| {
        let id = host.scheduler_cluster_id;
        caller.sees(id)
            && query.cluster_id.is_none_or(|wanted| wanted == id)
            && (part.is_empty()
                || [&host.hostname, &host.addr].iter().any(|text| text.to_lowercase().contains(&part)))
    };
    let live = parts.directory.schedulers(wanted, window.skip(), window.limit());
    Ok(Json(window.page(live, SchedulerView::from)))
}

fn daemons(
    parts: &Parts,
    caller: &Caller,
    kind: PeerKind,
    query: HostQuery,
) -> Result<Json<Page<PeerView>>, Problem> {
    let window: Window = PageQuery::new(query.page, query.per_page).window()?;
    let query = HostQuery { q: query.q.to_lowercase(), ..query };
    let wanted =
        |peer: &Peer, assigned: &Assigned| caller.sees(assigned.cluster_id) && query.fits(peer, assigned);
    let live = parts.directory.peers(kind, wanted, window.skip(), window.limit());
    Ok(Json(window.page(live, PeerView::from)))
}

impl HostQuery {
    /// `q` is in lower case.
    fn fits(&self, peer: &Peer, assigned: &Assigned) -> bool {
        let is = |wanted: &str, text: &str| wanted.is_empty() || wanted == text;
        let names = || [peer.hostname.to_lowercase(), peer.ip.to_string(), peer.id.to_lowercase()];
        self.cluster_id.is_none_or(|id| id == assigned.cluster_id)
            && is(&self.version, &peer.version)
            && is(&self.engine, &peer.engine)
            && is(&self.shaper, &peer.shaper)
            && (self.q.is_empty() || names().iter().any(|name| name.contains(&self.q)))
    }
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
            engine_reason: peer.engine_reason,
            shaper: peer.shaper,
            shaper_reason: peer.shaper_reason,
            cluster_id: assigned.cluster_id,
            cluster_name: assigned.cluster_name,
            reason: assigned.reason,
            matched_cluster_id: assigned.matched_cluster_id,
            fell_back: assigned.fell_back,
            registered_at: Timestamp(unix_seconds(registered_at)),
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
            registered_at: Timestamp(unix_seconds(live.registered_at)),
        }
    }
}
