//! `/api/v1/oidc`: signing in with an OpenID provider.

use super::audit::{self, Ask, Audit};
use super::cookie;
use super::extract::{Name, Query};
use super::guard::Remote;
use super::problem::Problem;
use super::users::with_session;
use crate::manager::oidc::{ATTEMPT_LIFETIME_S, Answer, OidcError};
use crate::manager::sign_in::Carrier;
use crate::manager::{Parts, unix_seconds};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use serde::Serialize;
use std::time::SystemTime;
use utoipa::ToSchema;

/// What a browser keeps while somebody is at the provider. `Lax`: it must come along when the provider sends the
/// browser back.
const ATTEMPT: &str = "hawker_oidc";

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Providers {
    providers: Vec<ProviderView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OidcProvider)]
struct ProviderView {
    name: String,
    /// What stands on the button.
    label: String,
}

/// The OpenID providers that people may sign in with.
#[utoipa::path(get, path = "/api/v1/oidc", responses((status = 200, body = Providers)))]
pub(super) async fn list(State(parts): State<Parts>) -> Json<Providers> {
    let view = |(name, label): (&str, &str)| ProviderView { name: name.to_owned(), label: label.to_owned() };
    Json(Providers { providers: parts.oidc.providers().map(view).collect() })
}

/// Sends the browser to the provider.
#[utoipa::path(get, path = "/api/v1/oidc/{name}/login", params(("name" = String, Path)),
    responses((status = 303)))]
pub(super) async fn login(State(parts): State<Parts>, Name(name): Name) -> Result<Response, Problem> {
    let (url, kept) = parts.oidc.begin(&name, unix_seconds(SystemTime::now())).await?;
    Ok(keeping(Redirect::to(&url).into_response(), &kept, ATTEMPT_LIFETIME_S, &parts))
}

/// Where the provider sends the browser back to: a session as a cookie, and on to the console.
#[utoipa::path(get, path = "/api/v1/oidc/{name}/callback", params(("name" = String, Path)),
    responses((status = 303)))]
pub(super) async fn callback(
    State(parts): State<Parts>,
    Extension(from): Extension<Remote>,
    Name(name): Name,
    headers: HeaderMap,
    Query(answer): Query<Answer>,
) -> Response {
    let note = Audit::default();
    note.object(format!("provider {}", name.chars().take(64).collect::<String>()));
    let response = match enter(&parts, &name, answer, &headers, &note).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let ask = Ask { name: "oidc.callback", path: String::new(), who: None, from };
    let outcome = if response.status().is_redirection() { StatusCode::OK } else { response.status() };
    if let Err(error) = audit::note(&parts, &ask, &note, outcome).await {
        tracing::error!(%error, "write down a sign-in");
    }
    // Good for one answer.
    keeping(response, "", 0, &parts)
}

async fn enter(
    parts: &Parts,
    name: &str,
    answer: Answer,
    headers: &HeaderMap,
    note: &Audit,
) -> Result<Response, Problem> {
    let now = unix_seconds(SystemTime::now());
    let vouched = parts.oidc.end(name, answer, cookie::get(headers, ATTEMPT), now).await;
    if let Err(OidcError::NoRole { subject }) = &vouched
        && let Some(account) = parts.store.unvouched(subject).await?
    {
        note.object(format!("user {}", account.name)).detail("role", "none");
        tracing::warn!(
            user = account.name,
            "no group at the provider has a role any more: signed out everywhere"
        );
    }
    let new = vouched?;
    note.object(format!("user {}", new.name)).detail("role", new.role.name());
    let full = || Problem::new(StatusCode::CONFLICT, "there are too many users already");
    let account = parts.store.vouched_account(&new, now).await?.ok_or_else(full)?;
    if account.disabled {
        return Err(Problem::forbidden("your account is disabled"));
    }
    let token = parts.sign_in.open(&account, Carrier::Cookie).await?;
    let response = Redirect::to("/").into_response();
    Ok(with_session(response, &token.text, token.expires_at - now, parts))
}

fn keeping(mut response: Response, kept: &str, seconds: i64, parts: &Parts) -> Response {
    let secure = if parts.web.is_secure() { "; Secure" } else { "" };
    let cookie =
        format!("{ATTEMPT}={kept}; HttpOnly; SameSite=Lax; Path=/api/v1/oidc; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

impl From<OidcError> for Problem {
    fn from(error: OidcError) -> Self {
        let detail = error.to_string();
        match error {
            OidcError::Unknown { .. } => Self::not_found(detail),
            OidcError::NoAttempt(_) => Self::new(StatusCode::BAD_REQUEST, detail),
            OidcError::Refused(_) => Self::new(StatusCode::UNAUTHORIZED, detail),
            OidcError::NoRole { .. } => Self::forbidden(detail),
            OidcError::Provider(error) => {
                // What a provider says may have what is nobody else's business.
                tracing::warn!(%error, "sign in with an OpenID provider");
                Self::new(
                    StatusCode::BAD_GATEWAY,
                    "the OpenID provider did not vouch for you; the manager's log says why",
                )
            }
        }
    }
}
