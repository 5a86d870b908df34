//! `GET /api/v1/bandwidth?since=&step=&by=&cluster_id=`: what the nodes moved, step by step.

use super::extract::Query;
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::savings::SavedView;
use crate::manager::bandwidth::{
    LIST_STEP_S, LIVE_FOR_S, LIVE_STEP_S, ListKind, ListQuery, Query as Asked, STEP_S,
};
use crate::manager::directory::Listed;
use crate::manager::rights::Caller;
use crate::manager::store::{Entry, Step};
use crate::manager::{Parts, unix_seconds};
use crate::usage::{Delivered, Moved, Usage};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

/// Without `since`, seconds back from now.
const DEFAULT_SPAN_S: i64 = 3600;
const DEFAULT_STEP_S: i64 = 60;
const MAX_STEP_S: i64 = 24 * 3600;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BandwidthQuery {
    /// Seconds since 1970.
    since: Option<i64>,
    /// Seconds, a multiple of 10; or 1 to 9 for the live view of the last 15 minutes, of whole clusters alone. Lists
    /// (`by=zone|peer|task`) are kept in steps of 300 and summed up.
    step: Option<i64>,
    #[serde(default)]
    #[param(inline)]
    by: By,
    cluster_id: Option<u64>,
    page: Option<usize>,
    per_page: Option<usize>,
}

/// What is summed up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Cluster,
    Host,
    /// From zone to zone.
    Zone,
    /// The hosts that moved most.
    Peer,
    /// The tasks that most was moved of.
    Task,
}

/// What the nodes moved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bandwidth)]
pub(super) struct BandwidthView {
    /// As used: `since` is cut to a multiple of `step`.
    since: i64,
    step: i64,
    #[serde(flatten)]
    page: Page<ItemView>,
    /// Since `since`, in the clusters asked for.
    saved: SavedView,
}

/// What an item is depends on `by`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BandwidthItem)]
enum ItemView {
    Step(Box<StepView>),
    Zones(ZonesView),
    Peer(PeerView),
    Task(TaskView),
}

/// Uploaded from nodes of one zone to nodes of another, or of the same. A zone is a location and an IDC, empty where it is
/// not known.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ZoneTraffic)]
struct ZonesView {
    cluster_id: u64,
    from: String,
    to: String,
    bytes: u64,
}

/// Uploaded, downloaded and fetched from origins by one host.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PeerTraffic)]
struct PeerView {
    cluster_id: u64,
    host_id: String,
    /// Empty: it is not live now.
    hostname: String,
    bytes: u64,
    origin_bytes: u64,
}

/// What hosts got of one task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskTraffic)]
struct TaskView {
    cluster_id: u64,
    task: String,
    bytes: u64,
    origin_bytes: u64,
}

/// Bytes in one step. What is older than a day, or was too much to be kept finely, comes in steps of 300 s.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BandwidthStep)]
struct StepView {
    /// Where the step begins, seconds since 1970.
    at: i64,
    cluster_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<String>,
    classes: ClassesView,
    /// Given to runtimes, by where the bytes came from.
    delivered: DeliveredView,
}

/// On the wire where the kernel counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Classes)]
struct ClassesView {
    upload: MovedView,
    download: MovedView,
    origin: MovedView,
    control: MovedView,
    /// On the nodes' uplinks and not Hawker's.
    others: MovedView,
}

/// Bytes one way and the other.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Moved)]
struct MovedView {
    sent_bytes: u64,
    received_bytes: u64,
}

/// Bytes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivered)]
struct DeliveredView {
    local: u64,
    peer_same_zone: u64,
    peer_cross_zone: u64,
    seed: u64,
    origin: u64,
}

/// What the nodes moved, step by step.
#[utoipa::path(get, path = "/api/v1/bandwidth", params(BandwidthQuery),
    responses((status = 200, body = BandwidthView)))]
pub(super) async fn show(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<BandwidthQuery>,
) -> Result<Json<BandwidthView>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    match query.cluster_id {
        Some(id) if !caller.sees(id) => {
            return Err(Problem::forbidden(format!("your account is not for cluster {id}")));
        }
        None if !caller.sees_all() => {
            return Err(Problem::forbidden("your account is for some clusters only: name one, `cluster_id`"));
        }
        _ => {}
    }
    let now = unix_seconds(SystemTime::now());
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (skip, limit) = (number(window.skip()), number(window.limit()));
    let (since, step) = query.span(now)?;
    let cluster_id = query.cluster_id;
    let page = match query.by.list() {
        None => {
            let by_host = query.by == By::Host;
            let asked = Asked { since, step, cluster_id, by_host, skip, limit };
            let (items, total) = parts.store.bandwidth(&asked).await?;
            window.page(Listed { items, total }, |step| ItemView::Step(Box::new(step.into())))
        }
        Some(kind) => {
            let asked = ListQuery { since, kind, cluster_id, skip, limit };
            let (items, total) = parts.store.list(&asked).await?;
            window.page(Listed { items, total }, |entry| ItemView::of(kind, entry, &parts))
        }
    };
    let saved = SavedView::since(since, cluster_id, &parts).await?;
    Ok(Json(BandwidthView { since, step, page, saved }))
}

impl By {
    fn list(self) -> Option<ListKind> {
        match self {
            Self::Cluster | Self::Host => None,
            Self::Zone => Some(ListKind::Zone),
            Self::Peer => Some(ListKind::Host),
            Self::Task => Some(ListKind::Task),
        }
    }
}

impl ItemView {
    fn of(kind: ListKind, entry: Entry, parts: &Parts) -> Self {
        let Entry { cluster_id, name, other, bytes, origin_bytes } = entry;
        match kind {
            ListKind::Zone => Self::Zones(ZonesView { cluster_id, from: name, to: other, bytes }),
            ListKind::Host => {
                let hostname = parts.directory.hostname(&name).unwrap_or_default();
                Self::Peer(PeerView { cluster_id, host_id: name, hostname, bytes, origin_bytes })
            }
            ListKind::Task => Self::Task(TaskView { cluster_id, task: name, bytes, origin_bytes }),
        }
    }
}

impl BandwidthQuery {
    fn span(&self, now: i64) -> Result<(i64, i64), Problem> {
        let refuse = |field, problem: String| Err(Problem::field(StatusCode::BAD_REQUEST, field, problem));
        let step = match self.by.list() {
            Some(_) => LIST_STEP_S,
            None => self.step.unwrap_or(DEFAULT_STEP_S),
        };
        let is_live = (LIVE_STEP_S..STEP_S).contains(&step);
        if !is_live && (!(STEP_S..=MAX_STEP_S).contains(&step) || step % STEP_S != 0) {
            return refuse(
                "step",
                format!(
                    "`{step}`: must be a multiple of {STEP_S} s, at most {MAX_STEP_S}, or less than {STEP_S}"
                ),
            );
        }
        if is_live && self.by == By::Host {
            return refuse("step", format!("`{step}`: hosts are kept in steps of {STEP_S} s"));
        }
        let since = self.since.unwrap_or(now - DEFAULT_SPAN_S);
        if since < 0 {
            return refuse("since", format!("`{since}`: must be seconds since 1970"));
        }
        // What the live view holds.
        let since = if is_live { since.max(now - LIVE_FOR_S) } else { since };
        Ok((since - since % step, step))
    }
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        let Usage { upload, download, origin, control, others, delivered } = step.usage;
        let moved = |Moved { sent, received }| MovedView { sent_bytes: sent, received_bytes: received };
        let classes = ClassesView {
            upload: moved(upload),
            download: moved(download),
            origin: moved(origin),
            control: moved(control),
            others: moved(others),
        };
        let Delivered { local, peer_same_zone, peer_cross_zone, seed, origin } = delivered;
        let delivered = DeliveredView { local, peer_same_zone, peer_cross_zone, seed, origin };
        Self { at: step.at, cluster_id: step.cluster_id, host_id: step.host, classes, delivered }
    }
}
