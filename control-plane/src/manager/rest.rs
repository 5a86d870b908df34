//! The REST API (DESIGN §4.3). JSON stops here.
//!
//! A route is one line of the table below: a name, who may call it, and its handler, whose `#[utoipa::path(…)]` says
//! method, path, parameters and answers.
//!
//! Invariants: every route comes from this table and stands behind its guard; every refusal is
//! `application/problem+json`; what is served is described at `/api/v1/openapi.json`.

#![expect(unused_qualifications, reason = "the attribute that describes a route writes them")]

mod accounts;
mod audit;
mod bandwidth;
mod clusters;
mod cookie;
mod etag;
mod extract;
mod guard;
mod hosts;
mod jobs;
mod oidc;
mod openapi;
mod page;
mod placements;
mod problem;
mod rollouts;
mod route;
mod savings;
mod tasks;
mod timestamp;
mod tokens;
mod users;
mod values;

pub(super) use audit::Budget;
pub use route::RouteInfo;

use super::rights::Permission::{
    AuditRead, BandwidthRead, ClustersRead, ClustersWrite, HostsRead, JobsRead, JobsWrite, TasksRead,
    TokensRead, TokensWrite, UsersRead, UsersWrite,
};
use super::{Parts, console};
use crate::http::{self, Limits};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use extract::MAX_BODY_BYTES;
use guard::Gate;
use problem::Problem;
use route::Guard::{Anyone, InCluster, May, Session, SignedIn};
use route::{Route, route};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::routes;

/// Every route there is.
fn routes() -> Vec<Route> {
    vec![
        route("health.show", Anyone, routes!(healthz)),
        route("openapi.show", SignedIn, routes!(openapi::document)),
        route("users.signin", Anyone, routes!(users::sign_in)),
        route("oidc.list", Anyone, routes!(oidc::list)),
        route("oidc.login", Anyone, routes!(oidc::login)),
        route("oidc.callback", Anyone, routes!(oidc::callback)),
        route("users.signout", Session, routes!(users::sign_out)),
        route("users.me", SignedIn, routes!(users::me)),
        route("users.password", Session, routes!(users::set_password)),
        route("users.list", May(UsersRead), routes!(accounts::list)),
        route("users.create", May(UsersWrite), routes!(accounts::create)),
        route("users.show", May(UsersRead), routes!(accounts::show)),
        route("users.update", May(UsersWrite), routes!(accounts::update)),
        route("users.delete", May(UsersWrite), routes!(accounts::remove)),
        route("tokens.list", May(TokensRead), routes!(tokens::list)),
        route("tokens.create", May(TokensWrite), routes!(tokens::create)),
        route("tokens.delete", May(TokensWrite), routes!(tokens::remove)),
        route("audit.list", May(AuditRead), routes!(audit::list)),
        route("clusters.list", May(ClustersRead), routes!(clusters::list)),
        route("clusters.create", May(ClustersWrite), routes!(clusters::create)),
        route("clusters.show", InCluster(ClustersRead), routes!(clusters::show)),
        route("clusters.update", InCluster(ClustersWrite), routes!(clusters::update)),
        route("clusters.delete", InCluster(ClustersWrite), routes!(clusters::remove)),
        route("clusters.values", InCluster(ClustersRead), routes!(values::show)),
        route("schedulers.list", May(HostsRead), routes!(hosts::schedulers)),
        route("seed-peers.list", May(HostsRead), routes!(hosts::seed_peers)),
        route("peers.list", May(HostsRead), routes!(hosts::peers)),
        route("jobs.list", May(JobsRead), routes!(jobs::list)),
        route("jobs.create", May(JobsWrite), routes!(jobs::create)),
        route("jobs.show", May(JobsRead), routes!(jobs::show)),
        route("jobs.cancel", May(JobsWrite), routes!(jobs::cancel)),
        route("rollouts.list", May(JobsRead), routes!(rollouts::list)),
        route("bandwidth.show", May(BandwidthRead), routes!(bandwidth::show)),
        route("tasks.list", May(TasksRead), routes!(tasks::list)),
        route("tasks.show", May(TasksRead), routes!(tasks::show)),
        route("placements.show", May(HostsRead), routes!(placements::show)),
    ]
}

/// The routes of the API, as they are served.
pub fn registered_routes() -> Vec<RouteInfo> {
    routes().into_iter().map(|route| route.info).collect()
}

/// Serves until cancelled, the requests under way are answered, and the changes under way are made.
pub(super) async fn serve(listener: TcpListener, parts: Parts, cancel: CancellationToken) {
    let writes = TaskTracker::new();
    http::serve(listener, router(parts, writes.clone()), Limits::default(), cancel).await;
    writes.close();
    writes.wait().await;
}

fn router(parts: Parts, writes: TaskTracker) -> Router {
    let gate = Gate::new(parts.clone(), writes);
    let router = routes().into_iter().fold(Router::new(), |router, route| route.add(router, &gate));
    router
        .fallback(elsewhere)
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(harden))
        .with_state(parts)
}

/// What is no route: the console's, or nothing.
async fn elsewhere(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let nothing = || Problem::not_found("there is nothing at this path").into_response();
    console::EMBEDDED.answer(&method, uri.path(), &headers).unwrap_or_else(nothing)
}

/// Whether this manager can do its work; the process's own health is on the metrics' address.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
async fn healthz(State(parts): State<Parts>) -> Result<&'static str, Problem> {
    parts.health.check(&parts.store).await?;
    Ok("ok\n")
}

/// What browsers are told of every answer: it is what it says it is, it is nobody's to frame or to keep.
async fn harden(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        // What a handler says of itself holds.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
