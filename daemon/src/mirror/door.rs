//! `/v2/`, where a client learns whether a registry is here and whether it needs credentials.
//!
//! Invariant: nobody is asked for more here than the registry itself asks for, and one that is down or slow makes no
//! difference.

use super::Mirror;
use super::refusal::Refusal;
use crate::origin::Credentials;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use std::time::Duration;

/// Longest wait for the registry's own door: a mirror that is silent at its own is taken for dead.
const DOOR_LIMIT: Duration = Duration::from_secs(2);

impl Mirror {
    /// The registry's challenge, where there is one registry and callers' credentials are wanted: clients
    /// without `ns` (podman, CRI-O) learn here alone that they need some.
    pub(super) async fn door(&self, credentials: &Credentials) -> Option<Response> {
        let registry = self.origin.only_registry()?;
        if !self.access.policy(&registry).relay_challenge {
            return None;
        }
        let asking = self.origin.ping(&registry, credentials);
        let answer = tokio::time::timeout(DOOR_LIMIT, asking).await.ok()?.ok()?;
        let challenge = answer.headers.get(header::WWW_AUTHENTICATE)?;
        let shown = self.shows_challenge(&registry, &answer.headers);
        (answer.status == StatusCode::UNAUTHORIZED && shown)
            .then(|| Refusal::sign_in(&registry, challenge.clone()).into_response())
    }
}
