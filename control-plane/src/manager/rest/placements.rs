//! `GET /api/v1/placements?ip=&idc=&location=&hostname=`: which cluster, and why.

use super::extract::Query;
use super::problem::Problem;
use crate::manager::Parts;
use crate::manager::directory::{Assigned, Endpoint};
use crate::manager::host::Wish;
use crate::manager::rights::Caller;
use crate::placement::Node;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What a node would say of itself; empty is the same as missing.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NodeQuery {
    ip: String,
    idc: String,
    location: String,
    hostname: String,
}

/// The cluster that a node belongs to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Placement)]
pub(super) struct PlacementView {
    cluster_id: u64,
    cluster_name: String,
    reason: String,
    scheduler_cluster_id: u64,
    seed_peer_cluster_id: u64,
    /// Live ones; empty: a daemon follows its `cluster.fallback`.
    schedulers: Vec<EndpointView>,
}

/// Where a scheduler is reached.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Endpoint)]
struct EndpointView {
    id: u64,
    hostname: String,
    addr: String,
}

/// Which cluster a node with these properties would get, and why.
#[utoipa::path(get, path = "/api/v1/placements", params(NodeQuery),
    responses((status = 200, body = PlacementView)))]
pub(super) async fn show(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<NodeQuery>,
) -> Result<Json<PlacementView>, Problem> {
    let node = query.node()?;
    let assigned = parts.directory.assign(&node, &Wish::default())?;
    if !caller.sees(assigned.cluster_id) {
        return Err(Problem::forbidden("it gets a cluster that your account is not for"));
    }
    Ok(Json(assigned.into()))
}

impl NodeQuery {
    fn node(self) -> Result<Node, Problem> {
        let bad_ip = |_| {
            let problem = format!("`{}`: is not an IP address", self.ip);
            Problem::field(StatusCode::BAD_REQUEST, "ip", problem)
        };
        let ip = if self.ip.is_empty() { None } else { Some(self.ip.parse().map_err(bad_ip)?) };
        Ok(Node { ip, idc: self.idc, location: self.location, hostname: self.hostname })
    }
}

impl From<Assigned> for PlacementView {
    fn from(assigned: Assigned) -> Self {
        Self {
            cluster_id: assigned.cluster_id,
            cluster_name: assigned.cluster_name,
            reason: assigned.reason,
            scheduler_cluster_id: assigned.scheduler_cluster_id,
            seed_peer_cluster_id: assigned.seed_peer_cluster_id,
            schedulers: assigned.schedulers.into_iter().map(EndpointView::from).collect(),
        }
    }
}

impl From<Endpoint> for EndpointView {
    fn from(endpoint: Endpoint) -> Self {
        Self { id: endpoint.id, hostname: endpoint.hostname, addr: endpoint.addr }
    }
}
