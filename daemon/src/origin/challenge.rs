//! `WWW-Authenticate` of a registry (RFC 9110 §11.6.1): read, and whether it may be shown to a caller. Pure.
//!
//! Invariant: what is shown makes a client send its credentials nowhere but to the registry or, over a
//! connection no worse than the registry's own, to the realm the registry names.

use url::Url;

/// Longest challenge looked at, bytes.
const MAX_CHARS: usize = 4096;

/// What the registry wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from `realm`.
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

/// The first challenge of a header; `None`: not one that is understood.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    if header.len() > MAX_CHARS {
        return None;
    }
    let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    for (name, value) in Parameters(parameters) {
        if name.eq_ignore_ascii_case("realm") {
            realm.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("service") {
            service.get_or_insert(value);
        }
    }
    let realm = Url::parse(&realm?).ok()?;
    let plain = matches!(realm.scheme(), "http" | "https")
        && realm.has_host()
        && realm.username().is_empty()
        && realm.password().is_none();
    plain.then_some(Challenge::Bearer { realm, service })
}

/// Whether credentials may go to where this challenge sends them, coming from `server`.
pub(super) fn is_safe(challenge: &Challenge, server: &Url) -> bool {
    match challenge {
        Challenge::Basic => true,
        Challenge::Bearer { realm, .. } => realm.scheme() == "https" || server.scheme() == "http",
    }
}

/// Whether the header may be shown to a caller of the mirror of `server`.
pub(super) fn may_be_shown(header: &str, server: &Url) -> bool {
    parse(header).is_some_and(|challenge| is_safe(&challenge, server))
}

/// `name=value` and `name="quoted value"`, by comma.
struct Parameters<'a>(&'a str);

impl Iterator for Parameters<'_> {
    type Item = (String, String);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_once('=')?;
        let name = name.trim_start_matches([',', ' ', '\t']).trim().to_owned();
        let (value, rest) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (value, rest) = rest.split_once(',').unwrap_or((rest, ""));
                (value.trim().to_owned(), rest)
            }
        };
        self.0 = rest;
        Some((name, value))
    }
}

/// What stands before the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &text[index + 1..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(header: &str) -> (String, Option<String>) {
        match parse(header) {
            Some(Challenge::Bearer { realm, service }) => (realm.to_string(), service),
            other => panic!("{header}: {other:?}"),
        }
    }

    #[test]
    fn challenges_as_registries_send_them() {
        assert_eq!(
            bearer(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            ("https://auth.docker.io/token".to_owned(), Some("registry.docker.io".to_owned()))
        );
        assert_eq!(bearer(r#"bearer service=x , realm="https://a.test/t?a=1""#).1.as_deref(), Some("x"));
        assert_eq!(bearer(r#"Bearer realm="https://a.test/\"q\"",error="x, y""#).1, None);
        assert_eq!(parse("Basic realm=\"Registry\""), Some(Challenge::Basic));
        for header in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer realm=",
            "Bearer realm=\"https://a.test",
            "Bearer realm=\"ftp://a.test/\"",
            "Bearer realm=\"https://user:secret@a.test/\"",
            "Bearer realm=\"/token\"",
        ] {
            assert_eq!(parse(header), None, "{header}");
        }
        assert_eq!(parse(&format!("Basic realm=\"{}\"", "a".repeat(5000))), None);
    }

    #[test]
    fn credentials_are_never_asked_for_over_a_worse_connection() {
        let (https, http) = (Url::parse("https://r.test").unwrap(), Url::parse("http://r.test").unwrap());
        assert!(may_be_shown("Bearer realm=\"https://a.test/t\"", &https));
        assert!(!may_be_shown("Bearer realm=\"http://a.test/t\"", &https));
        assert!(may_be_shown("Bearer realm=\"http://a.test/t\"", &http));
        assert!(may_be_shown("Basic realm=\"x\"", &https));
        assert!(!may_be_shown("Digest realm=\"x\"", &https));
    }

    proptest! {
        #[test]
        fn no_header_panics(header in "(Bearer |Basic )?\\PC{0,80}") {
            let _ = parse(&header);
        }
    }
}
