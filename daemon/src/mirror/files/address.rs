//! What a path under `/files/` names: the host, the file there, and what only says who asks. Pure.
//!
//! Invariant: a signature is never part of `path`, so it reaches neither a task, a peer nor a log.

use super::super::refusal::Refusal;
use super::PREFIX;
use crate::config::authority;
use crate::origin::MAX_PATH_BYTES;
use url::Url;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: &'static str,
    /// `host[:port]`, lower case.
    pub(super) host: String,
    /// Path and query, as they go to the host; without the signature.
    pub(super) path: String,
    pub(super) signature: Option<String>,
}

impl Address {
    /// `ignored` are more names of query parameters that say who asks, by comma.
    pub(super) fn parse(path: &str, query: Option<&str>, ignored: &str) -> Result<Self, Refusal> {
        let rest = path.strip_prefix(PREFIX).ok_or_else(|| Refusal::no_such_path(path))?;
        // Clients and proxies make one slash of two.
        let (scheme, rest) = if let Some(rest) = rest.strip_prefix("https:/") {
            ("https", rest)
        } else if let Some(rest) = rest.strip_prefix("http:/") {
            ("http", rest)
        } else {
            return Err(Refusal::file_url("begins with neither http:// nor https://"));
        };
        let text = format!("{scheme}://{}", rest.trim_start_matches('/'));
        let mut url = Url::parse(&text).map_err(|error| Refusal::file_url(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::file_url("has a user or password: send them as Authorization"));
        }
        url.set_query(query.filter(|query| !query.is_empty()));
        let (kept, signature) = split(url.query().unwrap_or(""), ignored);
        let mut path = url.path().to_owned();
        if !kept.is_empty() {
            path = format!("{path}?{kept}");
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(Refusal::file_url(&format!("has a path of more than {MAX_PATH_BYTES} bytes")));
        }
        let signature = (!signature.is_empty()).then_some(signature);
        Ok(Self { scheme, host: authority(&url), path, signature })
    }
}

/// The query without and with only what says who asks.
fn split(query: &str, ignored: &str) -> (String, String) {
    let names: Vec<String> = query.split('&').map(|pair| name(pair).to_ascii_lowercase()).collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let scheme = Scheme { aws: has("signature"), azure: has("sig") };
    let ignored: Vec<&str> = ignored.split(',').map(str::trim).collect();
    let (secret, kept): (Vec<&str>, Vec<&str>) = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .partition(|pair| scheme.signs(&name(pair).to_ascii_lowercase()) || ignored.contains(&name(pair)));
    (kept.join("&"), secret.join("&"))
}

fn name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// Which ways of signing a URL are in use; some of their parameters are common words otherwise.
struct Scheme {
    /// AWS version 2, Google's old one, CloudFront.
    aws: bool,
    azure: bool,
}

impl Scheme {
    fn signs(&self, name: &str) -> bool {
        const AWS: [&str; 6] =
            ["signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"];
        const AZURE: [&str; 18] = [
            "sig", "sv", "ss", "srt", "sp", "se", "st", "spr", "sip", "sr", "skoid", "sktid", "skt", "ske",
            "sks", "skv", "si", "sdd",
        ];
        name.starts_with("x-amz-")
            || name.starts_with("x-goog-")
            || self.aws && AWS.contains(&name)
            || self.azure && AZURE.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Address, String> {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        Address::parse(path, query, "token, x").map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn urls_and_their_signatures() {
        for (text, host, path, signature) in [
            ("/files/https://A.example/f", "a.example", "/f", None),
            ("/files/https:/a.example/f", "a.example", "/f", None),
            ("/files/http://a.example:81/", "a.example:81", "/", None),
            ("/files/https://a.example:443", "a.example", "/", None),
            ("/files/https://a/b/../c%2Fd?x=1&y=2", "a", "/c%2Fd?y=2", Some("x=1")),
            ("/files/https://a/f?se=1&sp=2", "a", "/f?se=1&sp=2", None),
            ("/files/https://a/f?se=1&v=3&sig=2", "a", "/f?v=3", Some("se=1&sig=2")),
            (
                "/files/https://a/f?X-Amz-Signature=1&versionId=2",
                "a",
                "/f?versionId=2",
                Some("X-Amz-Signature=1"),
            ),
            ("/files/https://a/f?Expires=9", "a", "/f?Expires=9", None),
            ("/files/https://a/f?Expires=9&Signature=s", "a", "/f", Some("Expires=9&Signature=s")),
        ] {
            let address = parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.path.as_str()), (host, path), "{text}");
            assert_eq!(address.signature.as_deref(), signature, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_file() {
        let long = format!("/files/https://a/{}", "x".repeat(MAX_PATH_BYTES));
        for text in [
            "/files/",
            "/files/ftp://a/b",
            "/files/file:///etc/passwd",
            "/files/https://u:p@a/b",
            "/files/https://",
            "/files/a/b",
            &long,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_no_host_is_odd(rest in "\\PC{0,60}", query in proptest::option::of("\\PC{0,40}")) {
            let path = format!("/files/https://{rest}");
            if let Ok(address) = Address::parse(&path, query.as_deref(), "") {
                prop_assert!(address.path.starts_with('/') && !address.host.contains(['/', '@', ' ']));
                prop_assert!(address.path.is_ascii());
            }
        }

        #[test]
        fn every_parameter_goes_one_way(pairs in prop::collection::vec("[a-zA-Z-]{1,12}=[a-z0-9]{0,4}", 0..6)) {
            let (kept, secret) = split(&pairs.join("&"), "");
            let count = |text: &str| text.split('&').filter(|pair| !pair.is_empty()).count();
            prop_assert_eq!(count(&kept) + count(&secret), pairs.len());
        }
    }
}
