//! `/api/v1/clusters`: clusters as JSON.

use super::audit::Audit;
use super::etag::{IfMatch, Tagged};
use super::extract::{Body, Id, Query};
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::Parts;
use crate::manager::cluster::{Cluster, ClusterEdit, ScopesEdit};
use crate::manager::clusters::EditError;
use crate::manager::directory::{Counts, Listed};
use crate::manager::rights::Caller;
use crate::placement::RawScopes;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;
use utoipa::{IntoParams, ToSchema};

/// Nodes that share what they fetch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
pub(super) struct ClusterView {
    id: u64,
    name: String,
    bio: String,
    is_default: bool,
    #[schema(value_type = ScopesBody)]
    scopes: RawScopes,
    scheduler_cluster_id: u64,
    seed_peer_cluster_id: u64,
    /// What the nodes of the cluster are to do.
    #[schema(value_type = Object)]
    config: Map<String, Value>,
    created_at: Timestamp,
    updated_at: Timestamp,
    live: LiveView,
}

/// Hosts in touch with the manager now; changes without the cluster's ETag.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ClusterLive)]
struct LiveView {
    peers: usize,
    seed_peers: usize,
    schedulers: usize,
}

/// A new cluster, or what to change of one: scopes field by field, `config` as a whole.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ClusterEdit)]
pub(super) struct ClusterBody {
    name: Option<String>,
    bio: Option<String>,
    is_default: Option<bool>,
    #[serde(default)]
    scopes: ScopesBody,
    #[schema(value_type = Option<Object>)]
    config: Option<Map<String, Value>>,
}

/// Which nodes belong to the cluster.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Scopes)]
struct ScopesBody {
    cidrs: Option<Vec<String>>,
    idc: Option<String>,
    location: Option<String>,
    hostnames: Option<Vec<String>>,
}

/// Which clusters are asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ClusterQuery {
    /// Part of the name or the description, whatever its case.
    q: String,
    page: Option<usize>,
    per_page: Option<usize>,
}

/// The clusters that the account is for, by id.
#[utoipa::path(get, path = "/api/v1/clusters", params(ClusterQuery),
    responses((status = 200, body = Page<ClusterView>)))]
pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<ClusterQuery>,
) -> Result<Json<Page<ClusterView>>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    let wanted = query.q.to_lowercase();
    let mut clusters = parts.directory.clusters();
    clusters.retain(|cluster| {
        let spec = &cluster.spec;
        let found = |text: &str| text.to_lowercase().contains(&wanted);
        caller.sees(cluster.id) && (wanted.is_empty() || found(&spec.name) || found(&spec.bio))
    });
    let total = clusters.len();
    let items = clusters.into_iter().skip(window.skip()).take(window.limit()).collect();
    let live = parts.directory.counts_by_cluster();
    Ok(Json(window.page(Listed { items, total }, |cluster| ClusterView::new(cluster, &live))))
}

/// Makes a cluster; only its name is needed.
#[utoipa::path(post, path = "/api/v1/clusters", request_body = ClusterBody,
    responses((status = 201, body = ClusterView)))]
pub(super) async fn create(
    State(parts): State<Parts>,
    caller: Caller,
    audit: Audit,
    Body(body): Body<ClusterBody>,
) -> Result<Response, Problem> {
    if !caller.sees_all() {
        return Err(Problem::forbidden("your account is for some clusters only: it cannot make new ones"));
    }
    audit.object(named(&body));
    let cluster = parts.clusters.create(body.into()).await?;
    audit.object(object(&cluster));
    tracing::info!(user = caller.name, cluster = cluster.id, name = cluster.spec.name, "cluster created");
    let location = HeaderValue::try_from(format!("/api/v1/clusters/{}", cluster.id)).ok();
    let body = (StatusCode::CREATED, Json(ClusterView::now(cluster.clone(), &parts)));
    let mut response = Tagged(cluster.revision, body).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// One cluster.
#[utoipa::path(get, path = "/api/v1/clusters/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = ClusterView, headers(("ETag" = String)))))]
pub(super) async fn show(
    State(parts): State<Parts>,
    Id(id): Id,
) -> Result<Tagged<Json<ClusterView>>, Problem> {
    let cluster = parts.directory.cluster(id).ok_or(EditError::Unknown { id })?;
    Ok(Tagged(cluster.revision, Json(ClusterView::now(cluster, &parts))))
}

/// Changes what the body names of a cluster.
#[utoipa::path(patch, path = "/api/v1/clusters/{id}", 
    params(("id" = u64, Path), ("If-Match" = Option<String>, Header, description = "The ETag that the change was made of; 412 if it is another one.")),
    request_body = ClusterBody, responses((status = 200, body = ClusterView, headers(("ETag" = String)))))]
pub(super) async fn update(
    State(parts): State<Parts>,
    caller: Caller,
    audit: Audit,
    Id(id): Id,
    IfMatch(expected): IfMatch,
    Body(body): Body<ClusterBody>,
) -> Result<Tagged<Json<ClusterView>>, Problem> {
    let before = parts.directory.cluster(id).ok_or(EditError::Unknown { id })?;
    audit.object(object(&before));
    let cluster = parts.clusters.update(id, expected, body.into()).await?;
    tell_changes(&audit, &before, &cluster);
    tracing::info!(user = caller.name, cluster = id, name = cluster.spec.name, "cluster changed");
    Ok(Tagged(cluster.revision, Json(ClusterView::now(cluster, &parts))))
}

/// Deletes a cluster that has no live hosts and is not the default.
#[utoipa::path(delete, path = "/api/v1/clusters/{id}",
    params(("id" = u64, Path), ("If-Match" = Option<String>, Header)), responses((status = 204)))]
pub(super) async fn remove(
    State(parts): State<Parts>,
    caller: Caller,
    audit: Audit,
    Id(id): Id,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    if let Some(cluster) = parts.directory.cluster(id) {
        audit.object(object(&cluster));
    }
    parts.clusters.delete(id, expected).await?;
    tracing::info!(user = caller.name, cluster = id, "cluster deleted");
    Ok(StatusCode::NO_CONTENT)
}

fn named(body: &ClusterBody) -> String {
    format!("cluster {}", body.name.as_deref().unwrap_or_default().chars().take(64).collect::<String>())
}

fn object(cluster: &Cluster) -> String {
    format!("cluster {} {}", cluster.id, cluster.spec.name)
}

fn tell_changes(audit: &Audit, before: &Cluster, after: &Cluster) {
    let (old, new) = (&before.spec, &after.spec);
    audit.change("name", old.name.as_str(), new.name.as_str());
    audit.change("bio", old.bio.as_str(), new.bio.as_str());
    audit.change("is_default", old.is_default, new.is_default);
    let scopes = |raw: RawScopes| serde_json::to_value(raw).unwrap_or_default();
    audit.change("scopes", scopes(old.scopes.to_raw()), scopes(new.scopes.to_raw()));
    audit.change("config", old.config.clone(), new.config.clone());
}

impl ClusterView {
    fn now(cluster: Cluster, parts: &Parts) -> Self {
        Self::new(cluster, &parts.directory.counts_by_cluster())
    }

    fn new(cluster: Cluster, live: &HashMap<u64, Counts>) -> Self {
        let Counts { peers, seed_peers, schedulers } = live.get(&cluster.id).copied().unwrap_or_default();
        Self {
            id: cluster.id,
            scheduler_cluster_id: cluster.scheduler_cluster_id(),
            seed_peer_cluster_id: cluster.seed_peer_cluster_id(),
            scopes: cluster.spec.scopes.to_raw(),
            name: cluster.spec.name,
            bio: cluster.spec.bio,
            is_default: cluster.spec.is_default,
            config: cluster.spec.config,
            created_at: Timestamp(cluster.created_at),
            updated_at: Timestamp(cluster.updated_at),
            live: LiveView { peers, seed_peers, schedulers },
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
