//! What stands before every handler: who is it, may he, is it counted and written down.
//!
//! Invariants: a handler of a guarded route runs only for a [`Caller`] that passed; a request that changes something
//! is carried through even if whoever asked hangs up half-way.

use super::audit::{self, Ask, Audit};
use super::cookie;
use super::extract::bearer;
use super::problem::Problem;
use super::route::{Guard, RouteInfo};
use crate::manager::Parts;
use crate::manager::rights::{Caller, Credential, Permission};
use axum::extract::{ConnectInfo, RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

/// Longest time for one request, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What all guards work with; `at` makes one for a route.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    parts: Parts,
    writes: TaskTracker,
    route: Option<Arc<(RouteInfo, Guard)>>,
}

impl Gate {
    pub(super) fn new(parts: Parts, writes: TaskTracker) -> Self {
        Self { parts, writes, route: None }
    }

    pub(super) fn at(&self, info: RouteInfo, guard: Guard) -> Self {
        Self { route: Some(Arc::new((info, guard))), ..self.clone() }
    }
}

/// Lets a request pass to its handler, or answers it with what is missing.
pub(super) async fn pass(
    State(gate): State<Gate>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let Some(route) = gate.route.clone() else { return Problem::unauthorized().into_response() };
    let (info, guard) = &*route;
    let (parts, began) = (&gate.parts, Instant::now());
    let response = match caller(parts, info, *guard, request.headers()).await {
        Err(problem) => problem.into_response(),
        Ok(who) => {
            let allowed = who.as_ref().map_or(Ok(()), |caller| allowed(caller, info, *guard, &params));
            let from = remote(parts, &request);
            let ask = Ask { name: info.name, path: request.uri().path().to_owned(), who, from };
            match allowed {
                Ok(()) if info.writes() => gate.carry_through(ask, request, next).await,
                Ok(()) => in_time(ask.on(request), next).await,
                Err(problem) => refused(parts, info, ask, problem).await,
            }
        }
    };
    parts.metrics.rest(&info.path, response.status().as_u16(), began.elapsed());
    response
}

/// Where a request comes from, for whoever counts or writes it down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub(super) IpAddr);

fn remote(parts: &Parts, request: &Request) -> Remote {
    let unknown = IpAddr::from([0, 0, 0, 0]);
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(unknown, |info| info.0.ip());
    Remote(parts.web.client(from, request.headers()))
}

impl Ask {
    /// The request with what handlers ask the guard for.
    fn on(&self, mut request: Request) -> Request {
        request.extensions_mut().insert(self.from);
        if let Some(caller) = self.who.clone() {
            request.extensions_mut().insert(caller);
        }
        request
    }
}

/// What a known caller may not do is written down too.
async fn refused(parts: &Parts, info: &RouteInfo, ask: Ask, problem: Problem) -> Response {
    let response = problem.into_response();
    if info.writes() {
        let ended = audit::note(parts, &ask, &Audit::default(), response.status()).await;
        if let Err(error) = ended {
            tracing::error!(%error, user = ask.user(), action = ask.name, "write down a refusal");
        }
    }
    response
}

/// Who asks; `None` where nobody needs to be known.
async fn caller(
    parts: &Parts,
    info: &RouteInfo,
    guard: Guard,
    headers: &HeaderMap,
) -> Result<Option<Caller>, Problem> {
    if info.writes() && cookie::is_cross_site(headers) {
        return Err(Problem::forbidden("another site made your browser send this"));
    }
    if guard == Guard::Anyone {
        return Ok(None);
    }
    // A header wins over a cookie: whoever sends it means it.
    let found = if let Some(token) = bearer(headers) {
        parts.sign_in.bearer(token).await?
    } else if let Some(token) = cookie::session(headers) {
        parts.sign_in.cookie(token).await?
    } else {
        None
    };
    let caller = found.ok_or_else(Problem::unauthorized)?;
    match &caller.credential {
        Credential::Cookie { csrf } if info.writes() && !cookie::is_meant(headers, csrf) => {
            Err(Problem::forbidden("with the cookie of a session, `X-CSRF-Token` must carry its CSRF token"))
        }
        _ => Ok(Some(caller)),
    }
}

fn allowed(caller: &Caller, info: &RouteInfo, guard: Guard, params: &RawPathParams) -> Result<(), Problem> {
    match guard {
        Guard::Anyone => Ok(()),
        Guard::SignedIn => {
            // A token without scopes is good for nothing, not even for this.
            let good = Permission::ALL.into_iter().any(|permission| caller.may(permission));
            if good { Ok(()) } else { Err(Problem::forbidden("this token has no scope")) }
        }
        Guard::Session => match caller.credential {
            Credential::AccessToken { .. } => {
                Err(Problem::forbidden("this needs a sign-in: a personal access token is not enough"))
            }
            Credential::Bearer | Credential::Cookie { .. } => Ok(()),
        },
        Guard::May(permission) if caller.may(permission) => Ok(()),
        Guard::InCluster(permission) if caller.may(permission) => {
            let id = params.iter().find_map(|(name, value)| (name == "id").then_some(value));
            match id.and_then(|id| id.parse().ok()) {
                Some(id) if !caller.sees(id) => {
                    Err(Problem::forbidden(format!("your account is not for cluster {id}")))
                }
                // What is no id at all the handler refuses by name.
                _ => Ok(()),
            }
        }
        Guard::May(permission) | Guard::InCluster(permission) => {
            tracing::debug!(user = caller.name, route = info.name, "refused");
            Err(Problem::lacks(permission))
        }
    }
}

impl Gate {
    /// As [`in_time`], on a task of its own: a client that hangs up ends its waiting, not the change. It is written
    /// down before it is made, and what came of it afterwards.
    async fn carry_through(&self, ask: Ask, request: Request, next: Next) -> Response {
        let (parts, note) = (self.parts.clone(), Audit::default());
        let mut request = ask.on(request);
        request.extensions_mut().insert(note.clone());
        let working = self.writes.spawn(async move {
            // Where nobody is known yet anybody could fill the log: those are written down when they ended.
            let begun = match ask.who {
                Some(_) => match audit::begin(&parts, &ask).await {
                    Ok(begun) => Some(begun),
                    Err(error) => return Problem::from(error).into_response(),
                },
                None => None,
            };
            let response = in_time(request, next).await;
            let ended = match begun {
                Some(begun) => audit::end(&parts, begun, &note, response.status()).await,
                None => audit::note(&parts, &ask, &note, response.status()).await,
            };
            if let Err(error) = ended {
                tracing::error!(%error, user = ask.user(), action = ask.name, "write down what came of a change");
            }
            response
        });
        working.await.unwrap_or_else(|_| Problem::failed().into_response())
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the request took too long").into_response(),
    }
}
