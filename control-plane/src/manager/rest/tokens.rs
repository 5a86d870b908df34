//! `/api/v1/tokens`: personal access tokens, for programs.
//!
//! Invariant: a token is never good for more than whoever makes it may do, nor longer than a year.

use super::audit::Audit;
use super::extract::{Body, Id, Query};
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::account::{MAX_NAME_BYTES, is_unseen};
use crate::manager::directory::Listed;
use crate::manager::rights::{Caller, Permission, UnknownWord};
use crate::manager::sign_in::{ACCESS_TOKEN_PREFIX, digest, random_text};
use crate::manager::store::{AccessToken, MAX_ACCESS_TOKENS_PER_USER};
use crate::manager::{Parts, unix_seconds};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

/// How long a token is good for where nothing is said, and at most, seconds.
const DEFAULT_LIFETIME_S: i64 = 30 * 24 * 3600;
const MAX_LIFETIME_S: i64 = 366 * 24 * 3600;

/// A token, without what it proves itself by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccessToken)]
pub(super) struct TokenView {
    id: u64,
    /// Whose it is.
    user: String,
    name: String,
    /// What it is good for; empty: nothing.
    scopes: Vec<&'static str>,
    created_at: Timestamp,
    expires_at: Timestamp,
    /// To the minute.
    last_used_at: Option<Timestamp>,
}

/// A new token; `token` is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MadeToken {
    id: u64,
    name: String,
    scopes: Vec<&'static str>,
    created_at: Timestamp,
    expires_at: Timestamp,
    token: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TokenQuery {
    /// Those of everybody; needs `users:read` too.
    all: bool,
    page: Option<usize>,
    per_page: Option<usize>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    /// `clusters:read`, …; none: good for nothing.
    scopes: Vec<String>,
    /// 30 days from now where it is missing, at most a year.
    expires_at: Option<Timestamp>,
}

/// One's own tokens, by id.
#[utoipa::path(get, path = "/api/v1/tokens", params(TokenQuery), responses((status = 200, body = Page<TokenView>)))]
pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
    Query(query): Query<TokenQuery>,
) -> Result<Json<Page<TokenView>>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    if query.all && !caller.may(Permission::UsersRead) {
        return Err(Problem::lacks(Permission::UsersRead));
    }
    let tokens = parts.store.access_tokens((!query.all).then_some(caller.user_id)).await?;
    let total = tokens.len();
    let items = tokens.into_iter().skip(window.skip()).take(window.limit()).collect();
    Ok(Json(window.page(Listed { items, total }, TokenView::from)))
}

/// Makes a token of one's own.
#[utoipa::path(post, path = "/api/v1/tokens", request_body = NewToken, responses((status = 201, body = MadeToken)))]
pub(super) async fn create(
    State(parts): State<Parts>,
    caller: Caller,
    audit: Audit,
    Body(body): Body<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let shown: String = body.name.chars().take(64).collect();
    audit.object(format!("token {shown}"));
    let name = read_name(body.name)?;
    let scopes = read_scopes(&caller, &body.scopes)?;
    let now = unix_seconds(SystemTime::now());
    let expires_at = read_expiry(body.expires_at, now)?;
    let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    audit.detail("scopes", names.clone());
    let token = format!("{ACCESS_TOKEN_PREFIX}{}", random_text());
    let kept = parts
        .store
        .add_access_token(caller.user_id, &name, &digest(&token), &scopes, (now, expires_at))
        .await?;
    let full = || {
        let detail = format!("you have {MAX_ACCESS_TOKENS_PER_USER} tokens already: delete one first");
        Problem::new(StatusCode::CONFLICT, detail)
    };
    let id = kept.ok_or_else(full)?;
    audit.object(format!("token {id} {name}"));
    let made = MadeToken {
        id,
        name,
        scopes: names,
        created_at: Timestamp(now),
        expires_at: Timestamp(expires_at),
        token,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Deletes a token of one's own, or with `users:write` anybody's.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", params(("id" = u64, Path)), responses((status = 204)))]
pub(super) async fn remove(
    State(parts): State<Parts>,
    caller: Caller,
    audit: Audit,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    let whose = (!caller.may(Permission::UsersWrite)).then_some(caller.user_id);
    let tokens = parts.store.access_tokens(whose).await?;
    // What is somebody else's does not exist for who may not see it.
    let unknown = || Problem::not_found(format!("there is no token {id} of yours"));
    let token = tokens.into_iter().find(|token| token.id == id).ok_or_else(unknown)?;
    audit.object(format!("token {id} {}", token.name)).detail("user", token.user_name);
    parts.store.remove_access_token(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_name(name: String) -> Result<String, Problem> {
    let refuse = |problem: String| Err(Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "name", problem));
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return refuse(format!("must have 1 to {MAX_NAME_BYTES} bytes, not {}", name.len()));
    }
    if name.chars().any(is_unseen) {
        return refuse(format!("`{}` has what cannot be seen", name.escape_unicode()));
    }
    Ok(name)
}

fn read_scopes(caller: &Caller, words: &[String]) -> Result<BTreeSet<Permission>, Problem> {
    let refuse = |index: usize, problem: String| {
        Problem::field(StatusCode::UNPROCESSABLE_ENTITY, format!("scopes[{index}]"), problem)
    };
    let mut scopes = BTreeSet::new();
    for (index, word) in words.iter().enumerate() {
        let scope: Permission =
            word.parse().map_err(|error: UnknownWord| refuse(index, error.to_string()))?;
        if !caller.may(scope) {
            return Err(refuse(index, format!("`{scope}` is more than you may do yourself")));
        }
        scopes.insert(scope);
    }
    Ok(scopes)
}

fn read_expiry(wanted: Option<Timestamp>, now: i64) -> Result<i64, Problem> {
    let expires_at = wanted.map_or(now + DEFAULT_LIFETIME_S, |time| time.0);
    if (now + 1..=now + MAX_LIFETIME_S).contains(&expires_at) {
        return Ok(expires_at);
    }
    let problem = format!("must be in the future, at most {} days from now", MAX_LIFETIME_S / 86_400);
    Err(Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "expires_at", problem))
}

impl From<AccessToken> for TokenView {
    fn from(token: AccessToken) -> Self {
        Self {
            id: token.id,
            user: token.user_name,
            name: token.name,
            scopes: token.scopes.iter().map(|scope| scope.name()).collect(),
            created_at: Timestamp(token.created_at),
            expires_at: Timestamp(token.expires_at),
            last_used_at: (token.last_used_at > 0).then_some(Timestamp(token.last_used_at)),
        }
    }
}
