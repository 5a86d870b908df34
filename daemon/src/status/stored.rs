//! The store by the local API, on the unix socket alone: `/v1/blobs`.
//!
//! Not how blobs are kept (that is behind [`Stored`]).
//!
//! Invariant: whoever may open the socket may remove blobs; nobody else reaches this.

use crate::store::StoreError;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use hawker_api::task::{TaskId, TaskIdError};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What this node stores.
pub trait Stored: Send + Sync + 'static {
    /// Everything, last used first.
    fn list(&self) -> Vec<StoredReport>;
    /// # Errors
    /// [`RemoveError`]; then it is still there.
    fn remove(&self, task: &TaskId, pinned_too: bool) -> Result<(), RemoveError>;
    /// Keeps a blob from being evicted, or lets it go again. `false`: it is not wholly here.
    ///
    /// # Errors
    /// The mark cannot be written.
    fn pin(&self, task: &TaskId, pinned: bool) -> Result<bool, StoreError>;
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoredReport {
    pub task: String,
    pub size: u64,
    pub complete: bool,
    pub pinned: bool,
    pub in_use: bool,
    pub last_used_unix_ms: u64,
}

/// Why a blob was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("it is not stored here")]
    NotHere,
    #[error("it is pinned: unpin it, or force it")]
    Pinned,
    #[error("it is being downloaded")]
    Downloading,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Force {
    force: bool,
}

pub(super) fn routes(stored: Arc<dyn Stored>) -> Router {
    Router::new()
        .route("/v1/blobs", get(list))
        .route("/v1/blobs/{task}", get(show).delete(remove))
        .route("/v1/blobs/{task}/pin", put(pin).delete(unpin))
        .with_state(stored)
}

async fn list(State(stored): State<Arc<dyn Stored>>) -> Response {
    Json(stored.list()).into_response()
}

async fn show(State(stored): State<Arc<dyn Stored>>, Path(task): Path<String>) -> Response {
    let found = stored.list().into_iter().find(|blob| blob.task == task);
    found.map_or_else(not_here, |blob| Json(blob).into_response())
}

async fn remove(
    State(stored): State<Arc<dyn Stored>>,
    Path(task): Path<String>,
    Query(Force { force }): Query<Force>,
) -> Response {
    let task = match parse(&task) {
        Ok(task) => task,
        Err(refusal) => return *refusal,
    };
    let removed = tokio::task::spawn_blocking(move || stored.remove(&task, force)).await;
    match removed {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(error)) => {
            let status = match &error {
                RemoveError::NotHere => StatusCode::NOT_FOUND,
                RemoveError::Pinned | RemoveError::Downloading => StatusCode::CONFLICT,
                RemoveError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, format!("{error}\n")).into_response()
        }
        Err(_ended) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn pin(state: State<Arc<dyn Stored>>, task: Path<String>) -> Response {
    mark(&state, &task, true)
}

async fn unpin(state: State<Arc<dyn Stored>>, task: Path<String>) -> Response {
    mark(&state, &task, false)
}

fn mark(stored: &Arc<dyn Stored>, task: &str, pinned: bool) -> Response {
    match parse(task).map(|task| stored.pin(&task, pinned)) {
        Ok(Ok(true)) => StatusCode::NO_CONTENT.into_response(),
        Ok(Ok(false)) => not_here(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(refusal) => *refusal,
    }
}

fn not_here() -> Response {
    (StatusCode::NOT_FOUND, format!("{}\n", RemoveError::NotHere)).into_response()
}

fn parse(task: &str) -> Result<TaskId, Box<Response>> {
    task.parse().map_err(|error: TaskIdError| {
        Box::new((StatusCode::BAD_REQUEST, format!("{error}\n")).into_response())
    })
}
