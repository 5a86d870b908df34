//! `POST /api/v1/users/signin`.

use super::extract::Body;
use super::problem::Problem;
use crate::manager::Parts;
use axum::Json;
use axum::extract::{ConnectInfo, State};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    name: String,
    password: String,
}

#[derive(Serialize)]
pub(super) struct SignedIn {
    token: String,
    /// Seconds since 1970.
    expires_at: i64,
}

pub(super) async fn sign_in(
    State(parts): State<Parts>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Body(credentials): Body<Credentials>,
) -> Result<Json<SignedIn>, Problem> {
    let token = parts.sign_in.sign_in(&credentials.name, credentials.password, from.ip()).await?;
    Ok(Json(SignedIn { token: token.text, expires_at: token.expires_at }))
}
