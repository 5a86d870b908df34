//! A registry's `WWW-Authenticate` (distribution specification, token authentication), and the answer to it.
//!
//! Invariant: a name and password go to the realm over the scheme it names, and nowhere else.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;

/// Longest time for a token.
const TOKEN_LIMIT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The `Authorization` that answers `challenge`; `user` is `name:password`.
pub(super) fn answer(challenge: &str, user: Option<&str>) -> Result<String> {
    let (scheme, parameters) = challenge.trim().split_once(' ').unwrap_or((challenge.trim(), ""));
    let parameters = parse(parameters);
    if scheme.eq_ignore_ascii_case("basic") {
        let user = user.context("the registry wants a name and password: give them with --user")?;
        return Ok(basic(user));
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        bail!("the registry wants `{scheme}`, which is not known here");
    }
    let realm = parameters.get("realm").context("the registry's challenge names no realm")?;
    let client = reqwest::blocking::Client::builder().timeout(TOKEN_LIMIT).build()?;
    let query: Vec<_> =
        ["service", "scope"].into_iter().filter_map(|key| Some((key, parameters.get(key)?))).collect();
    let mut request = client.get(realm).query(&query);
    if let Some(user) = user {
        request = request.header("authorization", basic(user));
    }
    let answer = request.send().and_then(reqwest::blocking::Response::error_for_status);
    let answer = answer.with_context(|| format!("ask {realm} for a token"))?;
    let token: Token = answer.json().with_context(|| format!("read the token of {realm}"))?;
    let token = token.token.or(token.access_token).with_context(|| format!("{realm} gave no token"))?;
    Ok(format!("Bearer {token}"))
}

fn basic(user: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(user))
}

/// `key="value", key=value`.
fn parse(text: &str) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    let mut rest = text.trim();
    while let Some((key, tail)) = rest.split_once('=') {
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => tail.split_once(',').unwrap_or((tail, "")),
        };
        parameters.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        rest = tail.trim_start_matches([',', ' ']);
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_of_registries() {
        let parsed = parse(r#"realm="https://a/t",service=reg.io,scope="repository:x/y:pull,push""#);
        assert_eq!(parsed["realm"], "https://a/t");
        assert_eq!(parsed["service"], "reg.io");
        assert_eq!(parsed["scope"], "repository:x/y:pull,push");
        assert_eq!(answer("Basic realm=x", Some("a:b")).unwrap(), "Basic YTpi");
        assert!(answer("Basic realm=x", None).unwrap_err().to_string().contains("--user"));
        assert!(answer("Digest x=y", None).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }
    }
}
