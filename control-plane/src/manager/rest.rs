//! The REST API (DESIGN §4.3). JSON stops here.
//!
//! Invariants: every route comes from the one table below and needs a token unless the table says
//! otherwise; every refusal is `application/problem+json`.

mod clusters;
mod extract;
mod hosts;
mod page;
mod placements;
mod problem;
mod users;

use super::Parts;
use super::store::Caller;
use crate::http::{self, Limits};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, patch, post};
use problem::Problem;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Largest request body, bytes: a cluster with all its lists at their limits fits.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Longest time for one request, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Anyone,
    /// Whoever shows a live bearer token.
    Token,
}

struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Parts>,
}

/// A route, for those who list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    pub method: Method,
    /// With `{id}` where an id goes.
    pub path: &'static str,
    pub needs_token: bool,
}

/// Every route there is.
fn routes() -> Vec<Route> {
    use Access::{Anyone, Token};
    let route = |method, path, access, handler| Route { method, path, access, handler };
    vec![
        route(Method::GET, "/healthz", Anyone, get(healthz)),
        route(Method::POST, "/api/v1/users/signin", Anyone, post(users::sign_in)),
        route(Method::GET, "/api/v1/clusters", Token, get(clusters::list)),
        route(Method::POST, "/api/v1/clusters", Token, post(clusters::create)),
        route(Method::GET, "/api/v1/clusters/{id}", Token, get(clusters::show)),
        route(Method::PATCH, "/api/v1/clusters/{id}", Token, patch(clusters::update)),
        route(Method::DELETE, "/api/v1/clusters/{id}", Token, delete(clusters::remove)),
        route(Method::GET, "/api/v1/schedulers", Token, get(hosts::schedulers)),
        route(Method::GET, "/api/v1/seed-peers", Token, get(hosts::seed_peers)),
        route(Method::GET, "/api/v1/peers", Token, get(hosts::peers)),
        route(Method::GET, "/api/v1/placements", Token, get(placements::show)),
    ]
}

/// The routes of the API, as they are served.
pub fn registered_routes() -> Vec<RouteInfo> {
    let info = |route: Route| RouteInfo {
        method: route.method,
        path: route.path,
        needs_token: route.access == Access::Token,
    };
    routes().into_iter().map(info).collect()
}

/// Serves until cancelled and the requests under way are answered.
pub(super) async fn serve(listener: TcpListener, parts: Parts, cancel: CancellationToken) {
    http::serve(listener, router(parts), Limits::default(), cancel).await;
}

fn router(parts: Parts) -> Router {
    let mut router = Router::new();
    for Route { path, access, handler, .. } in routes() {
        let handler = match access {
            Access::Anyone => handler,
            Access::Token => handler.layer(from_fn_with_state(parts.clone(), require_token)),
        };
        let counted = from_fn_with_state((parts.clone(), path), count);
        router = router.route(path, handler.layer(counted));
    }
    router
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(in_time))
        .with_state(parts)
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Lets a request pass that carries a live token, and tells the handler whose it is.
async fn require_token(
    State(parts): State<Parts>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let token = bearer(request.headers()).ok_or_else(Problem::unauthorized)?;
    let caller: Caller = parts.sign_in.caller(token).await?.ok_or_else(Problem::unauthorized)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn count(
    State((parts, route)): State<(Parts, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    parts.metrics.rest(route, response.status().as_u16());
    response
}

async fn in_time(request: Request, next: Next) -> Result<Response, Problem> {
    let late = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the request took too long");
    tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await.map_err(late)
}
