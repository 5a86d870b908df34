//! The audit log as the frame keeps it, what a handler adds to its entry, and `GET /api/v1/audit`.
//!
//! Invariants: what a known caller changes is written down before it is done, else it is not done; handlers put
//! names and values in here, never a secret; who is not known cannot push others' entries out.

use super::extract::Query;
use super::guard::Remote;
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::directory::Listed;
use crate::manager::rights::Caller;
use crate::manager::store::{AuditEntry, AuditQuery, StoreError};
use crate::manager::{Parts as Manager, unix_seconds};
use axum::Json;
use axum::extract::FromRequestParts;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

/// Sign-ins by nobody known that are written down per minute; the log has the others.
const MAX_UNKNOWN_PER_MINUTE: u32 = 60;
/// Longest object and detail kept, bytes; what is longer is cut or left out.
const MAX_OBJECT_BYTES: usize = 256;
const MAX_DETAIL_BYTES: usize = 16 << 10;

/// A request that may change something.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) name: &'static str,
    pub(super) path: String,
    pub(super) who: Option<Caller>,
    pub(super) from: Remote,
}

impl Ask {
    pub(super) fn user(&self) -> &str {
        self.who.as_ref().map_or("", |caller| &caller.name)
    }

    fn entry(&self, note: &Note, outcome: u16) -> AuditEntry {
        let Note { object, detail } = note.kept(&self.path);
        AuditEntry {
            id: 0,
            at: unix_seconds(SystemTime::now()),
            user_name: self.user().to_owned(),
            action: self.name.to_owned(),
            object,
            detail: Value::Object(detail).to_string(),
            remote: self.from.0.to_string(),
            outcome: i64::from(outcome),
        }
    }
}

/// An entry that waits for its outcome.
#[derive(Debug)]
pub(super) struct Begun {
    id: i64,
    path: String,
}

pub(super) async fn begin(manager: &Manager, ask: &Ask) -> Result<Begun, StoreError> {
    let id = manager.store.add_audit(&ask.entry(&Note::default(), 0)).await?;
    Ok(Begun { id, path: ask.path.clone() })
}

pub(super) async fn end(
    manager: &Manager,
    begun: Begun,
    audit: &Audit,
    outcome: StatusCode,
) -> Result<(), StoreError> {
    let Note { object, detail } = audit.0.lock().kept(&begun.path);
    let detail = Value::Object(detail).to_string();
    manager.store.end_audit(begun.id, &object, &detail, i64::from(outcome.as_u16())).await
}

/// Writes down at once what is over.
pub(super) async fn note(
    manager: &Manager,
    ask: &Ask,
    audit: &Audit,
    outcome: StatusCode,
) -> Result<(), StoreError> {
    let unknown = ask.who.is_none() && !outcome.is_success();
    if unknown && !manager.unknown.spend(SystemTime::now(), MAX_UNKNOWN_PER_MINUTE) {
        return Ok(());
    }
    let entry = ask.entry(&audit.0.lock().clone(), outcome.as_u16());
    manager.store.add_audit(&entry).await.map(drop)
}

/// What is left to spend in this minute; clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::manager) struct Budget(Arc<Mutex<(i64, u32)>>);

impl Budget {
    fn spend(&self, now: SystemTime, most: u32) -> bool {
        let minute = unix_seconds(now) / 60;
        let mut spent = self.0.lock();
        if spent.0 != minute {
            *spent = (minute, 0);
        }
        spent.1 += 1;
        spent.1 <= most
    }
}

/// Handle to the note of one request; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Audit(Arc<Mutex<Note>>);

/// What was changed, in words and values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Note {
    /// `cluster 7 b`
    pub(super) object: String,
    pub(super) detail: Map<String, Value>,
}

impl Audit {
    /// What is changed: `cluster 7 b`.
    pub(super) fn object(&self, object: impl Into<String>) -> &Self {
        self.0.lock().object = object.into();
        self
    }

    /// A value worth keeping, `null` left out.
    pub(super) fn detail(&self, name: &str, value: impl Into<Value>) -> &Self {
        let value = value.into();
        if !value.is_null() {
            self.0.lock().detail.insert(name.to_owned(), value);
        }
        self
    }

    /// A field before and after, if that differs.
    pub(super) fn change(&self, name: &str, before: impl Into<Value>, after: impl Into<Value>) -> &Self {
        let (before, after) = (before.into(), after.into());
        if before != after {
            self.detail(name, serde_json::json!({ "before": before, "after": after }));
        }
        self
    }
}

impl Note {
    /// Cut to what is kept; without an object, the path is it.
    fn kept(&self, path: &str) -> Self {
        let object = if self.object.is_empty() { path } else { &self.object };
        let end = (0..=object.len().min(MAX_OBJECT_BYTES)).rev().find(|end| object.is_char_boundary(*end));
        let mut detail = self.detail.clone();
        if Value::Object(detail.clone()).to_string().len() > MAX_DETAIL_BYTES {
            let names: Vec<_> = detail.keys().cloned().collect();
            detail = Map::from_iter([("too_long".to_owned(), names.into())]);
        }
        // A path may say `%00`, never the byte itself; an object could not come here with one either.
        Self { object: object[..end.unwrap_or_default()].to_owned(), detail }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Audit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Put there for every request that may change something; elsewhere nobody reads what is said.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Which entries are asked for; what is empty does not matter.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// From this time on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Whoever did it, by name.
    user: String,
    /// `clusters.update`
    action: String,
    page: Option<usize>,
    per_page: Option<usize>,
}

/// Something that was changed, or that somebody tried to change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct AuditView {
    id: i64,
    at: Timestamp,
    /// As the name was then; empty: nobody was signed in.
    user: String,
    action: String,
    object: String,
    #[schema(value_type = Object)]
    detail: Value,
    /// The address it came from.
    remote: String,
    /// The HTTP status it was answered with; 0: the manager ended before.
    outcome: i64,
}

/// What people changed or tried to, the newest first.
#[utoipa::path(get, path = "/api/v1/audit", params(AuditParams), responses((status = 200, body = Page<AuditView>)))]
pub(super) async fn list(
    State(manager): State<Manager>,
    Query(params): Query<AuditParams>,
) -> Result<Json<Page<AuditView>>, Problem> {
    let window = PageQuery::new(params.page, params.per_page).window()?;
    let asked = AuditQuery {
        since: params.since.map_or(0, |time| time.0),
        until: params.until.map_or(i64::MAX, |time| time.0),
        user: params.user,
        action: params.action,
    };
    let (items, total) = manager.store.audit(&asked, window.skip(), window.limit()).await?;
    Ok(Json(window.page(Listed { items, total }, AuditView::from)))
}

impl From<AuditEntry> for AuditView {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: Timestamp(entry.at),
            user: entry.user_name,
            action: entry.action,
            object: entry.object,
            detail: serde_json::from_str(&entry.detail).unwrap_or_default(),
            remote: entry.remote,
            outcome: entry.outcome,
        }
    }
}
