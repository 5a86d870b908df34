//! What a route is: its name, who may call it, and its handler with method, path and description. The one place
//! where all of that comes together.
//!
//! Invariant: a handler gets onto the router through [`Route`] only, and that has a guard.

use super::guard::{self, Gate};
use crate::manager::Parts;
use crate::manager::rights::Permission;
use axum::Router;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use std::sync::Arc;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{RefOr, Schema};
use utoipa_axum::router::UtoipaMethodRouter;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Nobody needs to be known: signing in, and what tells that the manager lives.
    Anyone,
    /// Whoever is signed in, or has a token that is good for anything at all.
    SignedIn,
    /// Whoever signed in himself: no personal access token.
    Session,
    May(Permission),
    /// As `May`, and `{id}` in the path is a cluster that the account is for.
    InCluster(Permission),
}

/// One method of one path.
pub(super) struct Route {
    pub(super) info: RouteInfo,
    pub(super) guard: Guard,
    pub(super) operation: Operation,
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
    handler: MethodRouter<Parts>,
}

/// A route, for those who list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its operation id in the OpenAPI document, and what the audit log calls it: `clusters.create`.
    pub name: &'static str,
    pub method: Method,
    /// With `{id}` where an id goes.
    pub path: Arc<str>,
    pub needs_token: bool,
    /// What a caller must have, where that is more than being signed in.
    pub permission: Option<Permission>,
    /// `{id}` is a cluster.
    pub in_cluster: bool,
}

impl RouteInfo {
    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }
}

impl Guard {
    pub(super) fn permission(self) -> Option<Permission> {
        match self {
            Self::May(permission) | Self::InCluster(permission) => Some(permission),
            Self::Anyone | Self::SignedIn | Self::Session => None,
        }
    }
}

/// A line of the table of routes: `declared` is `routes!(handler)`, which has method, path and description from the
/// handler's `#[utoipa::path(…)]`.
pub(super) fn route(name: &'static str, guard: Guard, declared: UtoipaMethodRouter<Parts>) -> Route {
    let (schemas, paths, handler) = declared;
    let mut declared = paths.paths.into_iter().flat_map(|(path, item)| {
        operations(item).into_iter().map(move |(method, operation)| (method, path.clone(), operation))
    });
    let (Some((method, path, operation)), None) = (declared.next(), declared.next()) else {
        unreachable!("`{name}` is one method of one path: routes!(…) was given one handler")
    };
    let info = RouteInfo {
        name,
        method,
        path: path.into(),
        needs_token: guard != Guard::Anyone,
        permission: guard.permission(),
        in_cluster: matches!(guard, Guard::InCluster(_)),
    };
    Route { info, guard, operation, schemas, handler }
}

fn operations(item: PathItem) -> Vec<(Method, Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let methods = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];
    let found = methods.into_iter().zip([get, put, post, delete, patch]);
    found.filter_map(|(method, operation)| Some((method, operation?))).collect()
}

impl Route {
    /// Puts it onto the router, behind its guard.
    pub(super) fn add(self, router: Router<Parts>, gate: &Gate) -> Router<Parts> {
        let path = Arc::clone(&self.info.path);
        let gate = gate.at(self.info, self.guard);
        router.route(&path, self.handler.layer(from_fn_with_state(gate, guard::pass)))
    }
}
