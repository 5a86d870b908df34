//! `/api/v1/tasks`: the clusters' tasks, as their schedulers told of them last.

use super::extract::Query;
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::Parts;
use crate::manager::directory::Listed;
use crate::manager::rights::Caller;
use crate::manager::tasks::{KnownTask, TaskHost, TaskQuery};
use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// As many as one task can be in.
const MAX_CLUSTERS: i64 = 1000;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TasksQuery {
    cluster_id: Option<u64>,
    page: Option<usize>,
    per_page: Option<usize>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OneTaskQuery {
    cluster_id: Option<u64>,
}

/// A blob or file in one cluster.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub(super) struct TaskView {
    task: String,
    cluster_id: u64,
    /// Its size; 0: not known.
    bytes: u64,
    pieces: u32,
    /// Nodes that hold it complete.
    holders: u32,
    /// Nodes that are getting it.
    downloading: u32,
    /// What nodes got of it, and of that from the origin.
    moved_bytes: u64,
    origin_bytes: u64,
    /// When something last happened to it.
    last_seen: Timestamp,
}

/// A task in all clusters asked for, with some of its nodes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskDetail)]
pub(super) struct TaskDetailView {
    task: String,
    clusters: Vec<TaskView>,
    hosts: Vec<TaskHostView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskHost)]
struct TaskHostView {
    cluster_id: u64,
    host_id: String,
    /// Empty, as its address: it is not live now.
    hostname: String,
    ip: String,
    /// `complete` or `downloading`.
    state: &'static str,
    pieces: u32,
}

/// Tasks, the one that something happened to last first.
#[utoipa::path(get, path = "/api/v1/tasks", params(TasksQuery), responses((status = 200, body = Page<TaskView>)))]
pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<TasksQuery>,
) -> Result<Json<Page<TaskView>>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    let cluster_id = allowed(&caller, query.cluster_id)?;
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (skip, limit) = (number(window.skip()), number(window.limit()));
    let (items, total) = parts.store.tasks(&TaskQuery { cluster_id, task: None, skip, limit }).await?;
    Ok(Json(window.page(Listed { items, total }, TaskView::from)))
}

/// One task, and which nodes have it.
#[utoipa::path(get, path = "/api/v1/tasks/{task}", params(("task" = String, Path), OneTaskQuery),
    responses((status = 200, body = TaskDetailView)))]
pub(super) async fn show(
    State(parts): State<Parts>,
    caller: Caller,
    Path(task): Path<String>,
    Query(query): Query<OneTaskQuery>,
) -> Result<Json<TaskDetailView>, Problem> {
    let cluster_id = allowed(&caller, query.cluster_id)?;
    let nothing = || {
        let shown: String = task.chars().take(80).collect();
        Problem::not_found(format!("nothing is known of a task `{shown}`"))
    };
    // No name of a task has these, and PostgreSQL takes no NUL.
    if task.is_empty() || task.chars().any(char::is_control) {
        return Err(nothing());
    }
    let asked = TaskQuery { cluster_id, task: Some(task.clone()), skip: 0, limit: MAX_CLUSTERS };
    let (known, _) = parts.store.tasks(&asked).await?;
    if known.is_empty() {
        return Err(nothing());
    }
    let hosts = known.iter().flat_map(|task| task.hosts.iter().map(|host| (task.cluster_id, host.clone())));
    let hosts = hosts.map(|(cluster_id, host)| TaskHostView::of(cluster_id, host, &parts)).collect();
    Ok(Json(TaskDetailView { task, hosts, clusters: known.into_iter().map(TaskView::from).collect() }))
}

/// The cluster asked for, if the caller may see it.
fn allowed(caller: &Caller, cluster_id: Option<u64>) -> Result<Option<u64>, Problem> {
    match cluster_id {
        Some(id) if !caller.sees(id) => {
            Err(Problem::forbidden(format!("your account is not for cluster {id}")))
        }
        None if !caller.sees_all() => {
            Err(Problem::forbidden("your account is for some clusters only: name one, `cluster_id`"))
        }
        asked => Ok(asked),
    }
}

impl From<KnownTask> for TaskView {
    fn from(task: KnownTask) -> Self {
        Self {
            task: task.task,
            cluster_id: task.cluster_id,
            bytes: task.bytes,
            pieces: task.pieces,
            holders: task.holders,
            downloading: task.downloading,
            moved_bytes: task.moved_bytes,
            origin_bytes: task.origin_bytes,
            last_seen: Timestamp(task.last_seen),
        }
    }
}

impl TaskHostView {
    fn of(cluster_id: u64, host: TaskHost, parts: &Parts) -> Self {
        let live = parts.directory.peer(&host.host_id);
        let (hostname, ip) = live.map(|peer| (peer.hostname, peer.ip.to_string())).unwrap_or_default();
        let state = if host.complete { "complete" } else { "downloading" };
        Self { cluster_id, host_id: host.host_id, hostname, ip, state, pieces: host.pieces }
    }
}
