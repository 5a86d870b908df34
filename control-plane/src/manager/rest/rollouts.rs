//! `/api/v1/rollouts`: who of a cluster's nodes has an image, as JSON.

use super::extract::Query;
use super::jobs::clusters_of;
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::directory::Listed;
use crate::manager::rights::Caller;
use crate::manager::rollouts::Rollout;
use crate::manager::{Parts, unix_seconds};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

/// Of which cluster.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RolloutsQuery {
    page: Option<usize>,
    per_page: Option<usize>,
    cluster_id: Option<u64>,
}

/// An image on its way into a cluster.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rollout)]
pub(super) struct RolloutView {
    name: String,
    /// Digest of the manifest.
    manifest: String,
    cluster_id: u64,
    bytes: u64,
    nodes_done: u64,
    nodes_wanted: u64,
    nodes_total: u64,
    started_at: Timestamp,
    updated_at: Timestamp,
    /// Until the last node that moves has it; null: nothing moves, or nothing is left.
    eta_seconds: Option<i64>,
    stragglers: Vec<StragglerView>,
}

/// A node that is behind, and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Straggler)]
struct StragglerView {
    host_id: String,
    /// Its id where it is not live.
    hostname: String,
    reason: String,
    bytes_done: u64,
}

/// Which nodes have an image, which are behind, and why; those with news first.
#[utoipa::path(get, path = "/api/v1/rollouts", params(RolloutsQuery),
    responses((status = 200, body = Page<RolloutView>)))]
pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<RolloutsQuery>,
) -> Result<Json<Page<RolloutView>>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    if let Some(id) = query.cluster_id.filter(|id| !caller.sees(*id)) {
        return Err(Problem::forbidden(format!("cluster {id} is none of your account's")));
    }
    let clusters = query.cluster_id.map(|id| vec![id]).or_else(|| clusters_of(&caller));
    let (items, total) = parts.store.rollouts(clusters.as_deref(), window.skip(), window.limit()).await?;
    let mut names: BTreeMap<u64, BTreeMap<String, String>> = BTreeMap::new();
    let now = unix_seconds(SystemTime::now());
    let view = |rollout: Rollout| {
        let names = names.entry(rollout.cluster_id).or_insert_with(|| {
            let nodes = parts.directory.nodes_of(rollout.cluster_id);
            nodes.into_iter().map(|node| (node.host_id, node.hostname)).collect()
        });
        let stragglers = rollout.stragglers.into_iter().map(|straggler| StragglerView {
            hostname: names.get(&straggler.host_id).unwrap_or(&straggler.host_id).clone(),
            host_id: straggler.host_id,
            reason: straggler.reason,
            bytes_done: straggler.bytes_done,
        });
        RolloutView {
            name: rollout.name,
            manifest: rollout.manifest,
            cluster_id: rollout.cluster_id,
            bytes: rollout.bytes,
            nodes_done: rollout.nodes_done,
            nodes_wanted: rollout.nodes_wanted,
            nodes_total: rollout.nodes_total,
            started_at: Timestamp(rollout.started_at),
            updated_at: Timestamp(rollout.updated_at),
            eta_seconds: rollout.eta_at.map(|at| at.saturating_sub(now).max(0)),
            stragglers: stragglers.collect(),
        }
    };
    Ok(Json(window.page(Listed { items, total }, view)))
}
