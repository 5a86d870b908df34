//! `/api/v1/users/signin`, `/signout`, `/me`: whoever asks, and his session.

use super::audit::Audit;
use super::cookie;
use super::extract::{Body, Query, bearer};
use super::guard::Remote;
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::account::{AccountEdit, check_password};
use crate::manager::rights::{Caller, Credential};
use crate::manager::sign_in::{Carrier, SignInError, csrf_token};
use crate::manager::store::Edited;
use crate::manager::{Parts, unix_seconds};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    name: String,
    password: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SignInQuery {
    /// The session comes as the cookie `hawker_session`, for browsers, instead of as a token.
    cookie: bool,
}

/// A session as a bearer token; with `cookie` the session is in `Set-Cookie`, and this is who it is of.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum SignedIn {
    Bearer { token: String, expires_at: Timestamp },
    Cookie { csrf_token: String, expires_at: Timestamp, user: Me },
}

/// Who is asking.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    id: u64,
    name: String,
    /// `admin`, `operator` or `viewer`.
    role: &'static str,
    /// The clusters the account is for; empty: all.
    cluster_ids: Vec<u64>,
    /// With the cookie: what `X-CSRF-Token` must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
    /// With a personal access token: what it is good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<&'static str>>,
}

/// A new password of one's own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordBody {
    current_password: String,
    /// At least 10 characters.
    password: String,
}

/// A session for who knows the password.
#[utoipa::path(post, path = "/api/v1/users/signin", params(SignInQuery), request_body = Credentials,
    responses((status = 200, body = SignedIn)))]
pub(super) async fn sign_in(
    State(parts): State<Parts>,
    Extension(Remote(from)): Extension<Remote>,
    audit: Audit,
    Query(query): Query<SignInQuery>,
    Body(credentials): Body<Credentials>,
) -> Result<Response, Problem> {
    audit.object(format!("user {}", credentials.name.chars().take(64).collect::<String>()));
    let carrier = if query.cookie { Carrier::Cookie } else { Carrier::Bearer };
    let (account, token) =
        parts.sign_in.sign_in(&credentials.name, credentials.password, from, carrier).await?;
    let expires_at = Timestamp(token.expires_at);
    if carrier == Carrier::Bearer {
        return Ok(Json(SignedIn::Bearer { token: token.text, expires_at }).into_response());
    }
    let csrf = csrf_token(&token.text);
    let user = Me {
        id: account.id,
        name: account.name,
        role: account.role.name(),
        cluster_ids: account.reach.ids(),
        csrf_token: Some(csrf.clone()),
        scopes: None,
    };
    let body = Json(SignedIn::Cookie { csrf_token: csrf, expires_at, user });
    let left = token.expires_at - unix_seconds(SystemTime::now());
    Ok(with_session(body.into_response(), &token.text, left, &parts))
}

/// Who is asking.
#[utoipa::path(get, path = "/api/v1/users/me", responses((status = 200, body = Me)))]
pub(super) async fn me(caller: Caller) -> Json<Me> {
    let (csrf_token, scopes) = match caller.credential {
        Credential::Bearer => (None, None),
        Credential::Cookie { csrf } => (Some(csrf), None),
        Credential::AccessToken { scopes, .. } => {
            (None, Some(scopes.into_iter().map(|scope| scope.name()).collect()))
        }
    };
    Json(Me {
        id: caller.user_id,
        cluster_ids: caller.reach.ids(),
        name: caller.name,
        role: caller.role.name(),
        csrf_token,
        scopes,
    })
}

/// Ends the session that asks.
#[utoipa::path(post, path = "/api/v1/users/signout", responses((status = 204)))]
pub(super) async fn sign_out(State(parts): State<Parts>, headers: HeaderMap) -> Result<Response, Problem> {
    // As the guard took them: the header first.
    let token = bearer(&headers).or_else(|| cookie::session(&headers)).ok_or_else(Problem::unauthorized)?;
    parts.sign_in.sign_out(token).await?;
    Ok(with_session(StatusCode::NO_CONTENT.into_response(), "", 0, &parts))
}

/// Changes one's own password, and ends all of one's sessions.
#[utoipa::path(post, path = "/api/v1/users/me/password", request_body = PasswordBody,
    responses((status = 204)))]
pub(super) async fn set_password(
    State(parts): State<Parts>,
    caller: Caller,
    Extension(Remote(from)): Extension<Remote>,
    audit: Audit,
    Body(body): Body<PasswordBody>,
) -> Result<StatusCode, Problem> {
    audit.object(format!("user {}", caller.name));
    check_password(&body.password)?;
    // Who found a session open must not be able to take the account with it.
    let known = parts.sign_in.check(&caller.name, body.current_password, from).await;
    let account = known.map_err(|error| match error {
        SignInError::Wrong => Problem::field(StatusCode::FORBIDDEN, "current_password", "is wrong"),
        other => other.into(),
    })?;
    let password_hash = Some(parts.sign_in.hash(body.password).await?);
    let edit = AccountEdit { password_hash, ..AccountEdit::default() };
    match parts.store.edit_account(account.id, &edit).await? {
        Edited::Done { .. } => Ok(StatusCode::NO_CONTENT),
        Edited::Refused(error) => Err(error.into()),
        Edited::Unknown | Edited::LastAdmin => Err(Problem::unauthorized()),
    }
}

pub(super) fn with_session(mut response: Response, token: &str, seconds: i64, parts: &Parts) -> Response {
    if let Some(cookie) = cookie::set_session(token, seconds, parts.web.is_secure()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
