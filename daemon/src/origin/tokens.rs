//! What the daemon shows a registry where its caller showed nothing: a token for nobody, which Docker Hub and others want even for
//! public images, or, for jobs, what the node's own account gives.
//!
//! A token for nobody is asked for without any credentials, so that there is nothing to leak and nothing anybody else could not have.
//!
//! Invariant: a realm is asked only where [`Guard`](super::guard::Guard) lets the registry send the daemon; what the account gives is
//! kept apart from what nobody gets.

use super::challenge::{self, Challenge};
use super::request::{self, Ask};
use super::{MAX_ERROR_BODY_BYTES, OriginError};
use crate::access::Table;
use crate::metrics::Metrics;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Most tokens kept: one a repository.
const MAX_TOKENS: usize = 1024;
/// Life of a token that does not say, as Docker's token specification has it.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest use of one.
const MAX_LIFE: Duration = Duration::from_secs(300);
/// Taken off, for the way and for clocks.
const MARGIN: Duration = Duration::from_secs(5);
/// Longest token, bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// In whose name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whom {
    Nobody,
    Account,
}

/// Headers by registry and repository.
pub(super) struct Tokens(Mutex<Table<(Whom, String, String), HeaderValue>>);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Table::new(MAX_TOKENS, MAX_LIFE)))
    }

    pub(super) fn get(&self, whom: Whom, registry: &str, repository: &str) -> Option<HeaderValue> {
        let key = (whom, registry.to_owned(), repository.to_owned());
        let (known, token) = self.0.lock().get(&key, Instant::now())?;
        (known == crate::access::Known::Fresh).then_some(token)
    }

    /// Gets a token for pulling from `repository`, where the challenge is one for tokens; the account itself where it is not.
    ///
    /// # Errors
    /// The realm cannot be asked; the account's file cannot be read.
    pub(super) async fn fetch(
        &self,
        ask: &Ask,
        (whom, repository): (Whom, &str),
        header: &str,
        metrics: &Metrics,
    ) -> Result<Option<HeaderValue>, OriginError> {
        let Some(challenge) = challenge::parse(header) else { return Ok(None) };
        if !challenge::is_safe(&challenge, &ask.upstream.server) {
            return Ok(None);
        }
        let account = match (&ask.upstream.account, whom) {
            (Some(account), Whom::Account) => {
                Some(account.header().await.map_err(|error| ask.failed(error.to_string()))?)
            }
            _ => None,
        };
        let shown = match (challenge, account) {
            (Challenge::Basic, account) => account.map(|header| (header, MAX_LIFE)),
            (Challenge::Bearer { mut realm, service }, account) => {
                {
                    let mut query = realm.query_pairs_mut();
                    if let Some(service) = &service {
                        query.append_pair("service", service);
                    }
                    query.append_pair("scope", &format!("repository:{repository}:pull"));
                }
                token(ask, realm, account, metrics).await?
            }
        };
        let Some((header, life)) = shown else { return Ok(None) };
        let (key, now) = ((whom, ask.upstream.host.clone(), repository.to_owned()), Instant::now());
        self.0.lock().insert(key, header.clone(), now, now + life);
        Ok(Some(header))
    }
}

/// What the realm gives.
async fn token(
    ask: &Ask,
    realm: Url,
    account: Option<HeaderValue>,
    metrics: &Metrics,
) -> Result<Option<(HeaderValue, Duration)>, OriginError> {
    metrics.origin_request();
    let client = ask.upstream.elsewhere(&realm).map_err(|problem| ask.failed(problem))?;
    let failed = |error: reqwest::Error| ask.failed(request::chain(&error.without_url()));
    let mut request = client.get(realm);
    if let Some(account) = account {
        request = request.header(header::AUTHORIZATION, account);
    }
    let mut response = request.send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Ok(None);
    }
    Ok(read(&request::first_bytes(&mut response).await))
}

fn read(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    debug_assert!(body.len() <= MAX_ERROR_BODY_BYTES);
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(MAX_LIFE);
    Some((header, life.saturating_sub(MARGIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_as_realms_give_them() {
        for (body, expected) in [
            (r#"{"token":"a"}"#, Some(("Bearer a", 55))),
            (r#"{"access_token":"b","expires_in":10}"#, Some(("Bearer b", 5))),
            (r#"{"token":"c","expires_in":86400}"#, Some(("Bearer c", 295))),
            (r#"{"token":"d","expires_in":1}"#, Some(("Bearer d", 0))),
            (r#"{"token":""}"#, None),
            ("{\"token\":\"a\\nb\"}", None),
            ("<html>", None),
        ] {
            let read = read(body.as_bytes());
            let read = read.as_ref().map(|(token, life)| (token.to_str().unwrap(), life.as_secs()));
            assert_eq!(read, expected, "{body}");
        }
    }
}
