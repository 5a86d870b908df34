//! What is known of credentials: whether two are the same, and how long they can be good. Never what they are.
//!
//! Invariant: nothing here can be turned back into credentials; the key of the hash is this process's own.

use super::GRANT_LIFE;
use crate::origin::Credentials;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A token that does not say when it ends: registries give none with less than this left.
const OPAQUE_TOKEN_LIFE: Duration = Duration::from_secs(60);

/// One caller's credentials, or nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerKey([u8; 32]);

pub(super) struct Fingerprints([u8; 32]);

impl Fingerprints {
    pub(super) fn new() -> Self {
        Self(rand::random())
    }

    pub(super) fn of(&self, credentials: &Credentials) -> CallerKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        if let Some(header) = credentials.header() {
            // The length first: nobody is not the empty header.
            hasher.update(&(header.len() as u64 + 1).to_le_bytes()).update(header);
        }
        CallerKey(*hasher.finalize().as_bytes())
    }
}

/// How long an acceptance of these credentials may be relied on.
pub(super) fn life(credentials: &Credentials, now: SystemTime) -> Duration {
    let header = credentials.header().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("");
    let token = match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return GRANT_LIFE,
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    expiry(token).map_or(OPAQUE_TOKEN_LIFE, |end| end.saturating_sub(now)).min(GRANT_LIFE)
}

/// When a JSON web token ends, by its own word. It is not verified: the registry just did, and a lie can
/// only make the time shorter than [`GRANT_LIFE`].
fn expiry(token: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    Some(Duration::from_secs(claims.exp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, header};

    fn credentials(text: &str) -> Credentials {
        let mut headers = HeaderMap::new();
        if !text.is_empty() {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
        }
        Credentials::from_headers(&headers)
    }

    fn token(claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("Bearer {}.{}.{}", part("{\"alg\":\"none\"}"), part(claims), part("signature"))
    }

    #[test]
    fn equal_credentials_are_one_caller_in_one_process() {
        let (one, other) = (Fingerprints::new(), Fingerprints::new());
        let basic = credentials("Basic YTpi");
        assert_eq!(one.of(&basic), one.of(&credentials("Basic YTpi")));
        assert_ne!(one.of(&basic), one.of(&credentials("Basic YTpj")));
        assert_ne!(one.of(&basic), one.of(&Credentials::none()));
        assert_ne!(one.of(&basic), other.of(&basic));
    }

    #[test]
    fn nothing_lives_longer_than_the_token() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (text, seconds) in [
            (String::new(), 300),
            ("Basic YTpi".to_owned(), 300),
            ("Bearer opaque".to_owned(), 60),
            ("bearer a.b.c".to_owned(), 60),
            (token("{\"exp\":1000007}"), 7),
            (token("{\"exp\":999999}"), 0),
            (token("{\"exp\":99999999999}"), 300),
            (token("{\"exp\":-1}"), 60),
        ] {
            assert_eq!(life(&credentials(&text), now), Duration::from_secs(seconds), "{text}");
        }
    }
}
