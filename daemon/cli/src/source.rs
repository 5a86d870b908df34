//! What a URL on the command line stands for: one or more things to ask the mirror for.
//!
//! Not the transfer (that is [`crate::get`]).
//!
//! Invariant: a name that came from a server never leads out of the directory it is put in.

mod bucket;
mod challenge;
mod hub;
mod oci;

use crate::daemon::Mirror;
use anyhow::{Context, Result, bail};
use std::path::{Component, Path, PathBuf};
use url::Url;

/// One thing to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// At the mirror.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// What the content must be, where it is known.
    pub(crate) digest: Option<String>,
    /// Below the output directory.
    pub(crate) name: PathBuf,
}

/// What the caller said besides the URL.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) headers: Vec<(String, String)>,
    /// `name:password` for registries.
    pub(crate) user: Option<String>,
    /// `os/architecture`, for artifacts that have several.
    pub(crate) platform: Option<String>,
    /// Everything below a prefix.
    pub(crate) recursive: bool,
}

/// Everything the URL stands for.
///
/// # Errors
/// It is no such URL, or who knows what it stands for did not say.
pub(crate) fn resolve(mirror: &Mirror, text: &str, wanted: &Wanted) -> Result<Vec<Item>> {
    let url = Url::parse(text).with_context(|| format!("`{text}` is not a URL"))?;
    match url.scheme() {
        "http" | "https" => Ok(vec![file(&url, wanted)?]),
        "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" => bucket::resolve(&url, wanted),
        "hf" => hub::resolve(text, wanted),
        "oci" => oci::resolve(mirror, text, wanted),
        other => bail!("`{other}` is no scheme that can be fetched: http, https, s3, gs, az, oci or hf"),
    }
}

fn file(url: &Url, wanted: &Wanted) -> Result<Item> {
    let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or("");
    let name = percent_decoded(last);
    let name = if name.is_empty() { url.host_str().unwrap_or("file").to_owned() } else { name };
    at_origin(url, &name, None, &wanted.headers)
}

/// A file at its host, by the mirror's `/files/`.
fn at_origin(url: &Url, name: &str, digest: Option<String>, headers: &[(String, String)]) -> Result<Item> {
    let mut url = url.clone();
    url.set_fragment(None);
    let forwarded = headers.iter().map(|(name, value)| {
        // `Authorization` is the one header that the mirror takes as it is.
        let own = name.eq_ignore_ascii_case("authorization");
        (if own { name.clone() } else { format!("hawker-forward-{name}") }, value.clone())
    });
    let mut headers: Vec<_> = forwarded.collect();
    headers.extend(digest.iter().map(|digest| ("hawker-digest".to_owned(), digest.clone())));
    Ok(Item { path: format!("/files/{url}"), headers, digest, name: inside(name)? })
}

/// A name as a path below the directory it is put in.
fn inside(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !plain || name.contains('\0') {
        bail!("`{}` is no name for a file here", name.escape_debug());
    }
    Ok(path.to_owned())
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(text: &str) -> Result<Item> {
        let headers =
            vec![("Authorization".to_owned(), "x".to_owned()), ("X-Key".to_owned(), "k".to_owned())];
        file(&Url::parse(text).unwrap(), &Wanted { headers, ..Wanted::default() })
    }

    #[test]
    fn files_have_the_last_element_for_a_name() {
        let item = http("https://a.test/b/c%20d.bin?x=1#frag").unwrap();
        assert_eq!(item.path, "/files/https://a.test/b/c%20d.bin?x=1");
        assert_eq!(item.name, Path::new("c d.bin"));
        let headers: Vec<_> = item.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(headers, ["Authorization", "hawker-forward-X-Key"]);
        assert_eq!(http("https://a.test").unwrap().name, Path::new("a.test"));
    }

    #[test]
    fn names_stay_inside() {
        assert!(inside("a/b.c").is_ok());
        for name in ["", "..", "../a", "/a", "a/../b", "a\0", "./a"] {
            assert!(inside(name).is_err(), "{name:?}");
        }
        assert!(http("https://a.test/%2e%2e%2fetc").is_err());
        assert!(http("https://a.test/x%2f..%2fy").is_err());
    }
}
