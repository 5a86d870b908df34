//! `/api/v1/jobs`: preheat jobs as JSON.

use super::audit::Audit;
use super::extract::{Body, Id, Query};
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::Parts;
use crate::manager::directory::Listed;
use crate::manager::jobs::spec::{Preheat, RawPreheat};
use crate::manager::jobs::state::State as JobState;
use crate::manager::jobs::{Detailed, JobError};
use crate::manager::rights::Caller;
use crate::manager::store::{Job, JobFilter, NodeCounts, NodeOf};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The one type of job there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum JobType {
    Preheat,
}

/// A job to take on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobBody {
    #[serde(rename = "type")]
    _type: JobType,
    args: RawPreheat,
}

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JobsQuery {
    page: Option<usize>,
    per_page: Option<usize>,
    state: Option<String>,
    #[serde(rename = "type")]
    #[param(inline)]
    _type: Option<JobType>,
}

/// A job and how far it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct JobView {
    id: u64,
    #[serde(rename = "type")]
    kind: JobType,
    args: RawPreheat,
    state: JobState,
    /// Somebody wants it to end, and it has not yet.
    cancel_requested: bool,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    created_by: String,
    error: Option<String>,
    nodes_total: u64,
    nodes_succeeded: u64,
    nodes_failed: u64,
}

/// A job with what it consists of and its nodes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobWithNodes)]
pub(super) struct DetailedView {
    #[serde(flatten)]
    job: JobView,
    tasks: Vec<TaskView>,
    nodes: Vec<NodeView>,
}

/// One thing to get.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobTask)]
struct TaskView {
    task: String,
    bytes: u64,
}

/// How far a node is with a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobNode)]
struct NodeView {
    host_id: String,
    hostname: String,
    cluster_id: u64,
    state: JobState,
    bytes_done: u64,
    /// 0: not known yet.
    bytes_total: u64,
    error: Option<String>,
}

/// Jobs, the newest first.
#[utoipa::path(get, path = "/api/v1/jobs", params(JobsQuery), responses((status = 200, body = Page<JobView>)))]
pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<JobsQuery>,
) -> Result<Json<Page<JobView>>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    let state = query.state.as_deref().map(str::parse).transpose();
    let state = state.map_err(|error: crate::manager::jobs::state::StateError| {
        Problem::field(StatusCode::BAD_REQUEST, "state", error.to_string())
    })?;
    let filter = JobFilter { state, clusters: clusters_of(&caller) };
    let (jobs, total) = parts.jobs.list(&filter, window.skip(), window.limit()).await?;
    Ok(Json(window.page(Listed { items: jobs, total }, |(job, counts)| JobView::new(job, counts))))
}

/// Puts an image or a file on nodes before anybody pulls it.
#[utoipa::path(post, path = "/api/v1/jobs", request_body = JobBody,
    responses((status = 201, body = DetailedView)))]
pub(super) async fn create(
    State(parts): State<Parts>,
    caller: Caller,
    audit: Audit,
    Body(body): Body<JobBody>,
) -> Result<Response, Problem> {
    let spec = Preheat::check(&body.args).map_err(JobError::from)?;
    if let Some(id) = spec.cluster_ids.iter().find(|id| !caller.sees(**id)) {
        return Err(Problem::forbidden(format!("cluster {id} is none of your account's")));
    }
    let reach = clusters_of(&caller);
    let id = parts.jobs.add(spec, &caller.name, reach.as_deref()).await?;
    let image = body.args.image.or(body.args.url);
    audit.object(format!("job {id}")).detail("preheat", image).detail("scope", body.args.scope);
    let view = DetailedView::from(parts.jobs.show(id).await?);
    let location = HeaderValue::try_from(format!("/api/v1/jobs/{id}")).ok();
    let mut response = (StatusCode::CREATED, Json(view)).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// How far a job is on each node.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = DetailedView)))]
pub(super) async fn show(
    State(parts): State<Parts>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<DetailedView>, Problem> {
    visible(&parts, &caller, id).await?;
    Ok(Json(parts.jobs.show(id).await?.into()))
}

/// Ends a job; nodes leave what they have not got yet.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", params(("id" = u64, Path)),
    responses((status = 200, body = DetailedView)))]
pub(super) async fn cancel(
    State(parts): State<Parts>,
    caller: Caller,
    audit: Audit,
    Id(id): Id,
) -> Result<Json<DetailedView>, Problem> {
    audit.object(format!("job {id}"));
    visible(&parts, &caller, id).await?;
    parts.jobs.cancel(id).await?;
    Ok(Json(parts.jobs.show(id).await?.into()))
}

/// The clusters somebody's account is for; `None`: all.
pub(super) fn clusters_of(caller: &Caller) -> Option<Vec<u64>> {
    (!caller.sees_all()).then(|| caller.reach.ids())
}

/// A job of a cluster that is not the caller's is none for him.
async fn visible(parts: &Parts, caller: &Caller, id: u64) -> Result<(), Problem> {
    let clusters = parts.store.job_clusters(id).await?;
    if clusters.iter().all(|cluster| caller.sees(*cluster)) {
        return Ok(());
    }
    Err(JobError::Unknown { id }.into())
}

impl JobView {
    fn new(job: Job, counts: NodeCounts) -> Self {
        Self {
            id: job.id,
            kind: JobType::Preheat,
            args: job.spec.to_raw(),
            state: job.state,
            cancel_requested: job.cancel && !job.state.has_ended(),
            created_at: Timestamp(job.created_at),
            started_at: job.started_at.map(Timestamp),
            ended_at: job.ended_at.map(Timestamp),
            created_by: job.created_by,
            error: Some(job.error).filter(|error| !error.is_empty()),
            nodes_total: counts.total,
            nodes_succeeded: counts.succeeded,
            nodes_failed: counts.failed,
        }
    }
}

impl From<Detailed> for DetailedView {
    fn from(detailed: Detailed) -> Self {
        let Detailed { job, counts, tasks, nodes } = detailed;
        let tasks = tasks.into_iter().map(|task| TaskView { task: task.task, bytes: task.bytes });
        let node = |NodeOf { cluster_id, host_id, node }: NodeOf| NodeView {
            host_id,
            hostname: node.hostname,
            cluster_id,
            state: node.state,
            bytes_done: node.bytes_done,
            bytes_total: node.bytes_total,
            error: Some(node.error).filter(|error| !error.is_empty()),
        };
        Self {
            job: JobView::new(job, counts),
            tasks: tasks.collect(),
            nodes: nodes.into_iter().map(node).collect(),
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        let status = match error {
            JobError::Unknown { .. } => StatusCode::NOT_FOUND,
            JobError::UnknownCluster { .. } | JobError::Spec(_) => StatusCode::UNPROCESSABLE_ENTITY,
            JobError::Nobody { .. } | JobError::Ended { .. } | JobError::TooMany { .. } => {
                StatusCode::CONFLICT
            }
            JobError::Store(error) => return error.into(),
        };
        Self::new(status, error.to_string())
    }
}
