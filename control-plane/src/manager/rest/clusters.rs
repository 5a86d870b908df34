//! `/api/v1/clusters`: clusters as JSON.

use super::extract::{Body, Id, Query};
use super::page::{Page, PageQuery};
use super::problem::Problem;
use crate::manager::Parts;
use crate::manager::cluster::{Cluster, ClusterEdit, ScopesEdit};
use crate::manager::clusters::EditError;
use crate::manager::directory::Listed;
use crate::manager::store::Caller;
use crate::placement::RawScopes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Serialize)]
pub(super) struct ClusterView {
    id: u64,
    name: String,
    bio: String,
    is_default: bool,
    scopes: RawScopes,
    scheduler_cluster_id: u64,
    seed_peer_cluster_id: u64,
    config: Map<String, Value>,
    /// Seconds since 1970.
    created_at: i64,
    updated_at: i64,
}

/// A new cluster, or what to change of one: scopes field by field, `config` as a whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterBody {
    name: Option<String>,
    bio: Option<String>,
    is_default: Option<bool>,
    #[serde(default)]
    scopes: ScopesBody,
    config: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopesBody {
    cidrs: Option<Vec<String>>,
    idc: Option<String>,
    location: Option<String>,
    hostnames: Option<Vec<String>>,
}

pub(super) async fn list(
    State(parts): State<Parts>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ClusterView>>, Problem> {
    let window = query.window()?;
    let clusters = parts.directory.clusters();
    let total = clusters.len();
    let items = clusters.into_iter().skip(window.skip()).take(window.limit()).collect();
    Ok(Json(window.page(Listed { items, total }, ClusterView::from)))
}

pub(super) async fn create(
    State(parts): State<Parts>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<ClusterBody>,
) -> Result<Response, Problem> {
    let cluster = parts.clusters.create(body.into()).await?;
    tracing::info!(user = caller.name, cluster = cluster.id, name = cluster.spec.name, "cluster created");
    let location = HeaderValue::try_from(format!("/api/v1/clusters/{}", cluster.id)).ok();
    let mut response = (StatusCode::CREATED, Json(ClusterView::from(cluster))).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn show(State(parts): State<Parts>, Id(id): Id) -> Result<Json<ClusterView>, Problem> {
    let cluster = parts.directory.cluster(id).ok_or(EditError::Unknown { id })?;
    Ok(Json(cluster.into()))
}

pub(super) async fn update(
    State(parts): State<Parts>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    Body(body): Body<ClusterBody>,
) -> Result<Json<ClusterView>, Problem> {
    let cluster = parts.clusters.update(id, body.into()).await?;
    tracing::info!(user = caller.name, cluster = id, name = cluster.spec.name, "cluster changed");
    Ok(Json(cluster.into()))
}

pub(super) async fn remove(
    State(parts): State<Parts>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    parts.clusters.delete(id).await?;
    tracing::info!(user = caller.name, cluster = id, "cluster deleted");
    Ok(StatusCode::NO_CONTENT)
}

impl From<Cluster> for ClusterView {
    fn from(cluster: Cluster) -> Self {
        Self {
            id: cluster.id,
            scheduler_cluster_id: cluster.scheduler_cluster_id(),
            seed_peer_cluster_id: cluster.seed_peer_cluster_id(),
            scopes: cluster.spec.scopes.to_raw(),
            name: cluster.spec.name,
            bio: cluster.spec.bio,
            is_default: cluster.spec.is_default,
            config: cluster.spec.config,
            created_at: cluster.created_at,
            updated_at: cluster.updated_at,
        }
    }
}

impl From<ClusterBody> for ClusterEdit {
    fn from(body: ClusterBody) -> Self {
        let ScopesBody { cidrs, idc, location, hostnames } = body.scopes;
        Self {
            name: body.name,
            bio: body.bio,
            is_default: body.is_default,
            scopes: ScopesEdit { cidrs, idc, location, hostnames },
            config: body.config,
        }
    }
}
