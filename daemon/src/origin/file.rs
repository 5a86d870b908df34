//! Files by URL: which hosts may be asked, what a file is before it is fetched, and that all of its parts
//! are of one version.
//!
//! Not what a caller's URL looks like ([`crate::mirror`]) and not the task it becomes.
//!
//! Invariant: a host that is not on the allow-list is never contacted, and bytes of two versions of a file
//! never come under one name.

use super::content_range::ContentRange;
use super::request::{Ask, Reply};
use super::upstream::Upstream;
use super::{Credentials, OriginClient, OriginError, OriginLimits, OriginObject};
use crate::accounting::Accounting;
use crate::config::FileOrigin;
use crate::trace;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hawker_api::task::{Algorithm, TaskId};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::sync::Arc;
use url::Url;

/// Longest path of a file with its query, bytes; the scheduler has the same limit.
pub const MAX_PATH_BYTES: usize = 4096;
const ETAG: &str = "etag:";
const DATE: &str = "date:";
/// Longest entity tag made part of a version, bytes.
const MAX_VERSION_BYTES: usize = 256;

/// What is known of a file before it is fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileHead {
    /// Bytes; `None`: the origin does not say.
    pub size: Option<u64>,
    /// What tells its versions apart, a strong entity tag or a date; `None`: nothing does.
    pub version: Option<String>,
    /// The digest the origin states.
    pub digest: Option<TaskId>,
}

/// One entry of the allow-list.
pub(super) struct FileUpstream {
    origin: FileOrigin,
    upstream: Arc<Upstream>,
}

impl FileUpstream {
    pub(super) fn new(origin: &FileOrigin, accounting: &Accounting, limits: OriginLimits) -> Self {
        let upstream = Upstream::new(&origin.host, &origin.server, &[], accounting, limits);
        Self { origin: origin.clone(), upstream: Arc::new(upstream) }
    }

    fn covers(&self, host: &str) -> bool {
        match self.origin.host.strip_prefix('*') {
            Some(domain) => host.len() > domain.len() && host.ends_with(domain),
            None => self.origin.host == host,
        }
    }
}

impl OriginClient {
    /// Whether files may come from `host[:port]`, asked for with this scheme.
    #[must_use]
    pub fn allows_file(&self, scheme: &str, host: &str) -> bool {
        self.file_upstream(host)
            .is_some_and(|entry| !entry.origin.scheme_counts || entry.origin.server.scheme() == scheme)
    }

    pub(super) fn allows_file_host(&self, host: &str) -> bool {
        self.file_upstream(host).is_some()
    }

    /// Asks what a file is, with the caller's own credentials: whoever gets an answer may have it.
    ///
    /// One byte is asked for instead of a HEAD, because a signed URL is signed for GET alone.
    ///
    /// # Errors
    /// [`OriginError`]; bounded in time.
    pub async fn file_head(
        &self,
        object: &OriginObject,
        credentials: &Credentials,
    ) -> Result<FileHead, OriginError> {
        let mut ask = self.ask_file(object, credentials)?;
        ask.headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        let reply = self.send(&ask).await?;
        let size = match (reply.status(), reply.content_range()) {
            (StatusCode::OK, _) => reply.content_length(),
            (StatusCode::PARTIAL_CONTENT, Some(ContentRange::Part { total, .. })) => total,
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(ContentRange::Unsatisfied { total: 0 })) => Some(0),
            _ => return Err(reply.into_status_error(&ask, self.0.limits.idle).await),
        };
        Ok(FileHead {
            size,
            version: version(reply.headers()),
            digest: digest(reply.headers()).or_else(|| linked_digest(reply.linked()?)),
        })
    }

    fn file_upstream(&self, host: &str) -> Option<&FileUpstream> {
        let exact = self.0.files.iter().find(|entry| entry.origin.host == host);
        exact.or_else(|| self.0.files.iter().find(|entry| entry.covers(host)))
    }

    /// A GET of a file; nothing but its path and query is the caller's.
    pub(super) fn ask_file(
        &self,
        object: &OriginObject,
        credentials: &Credentials,
    ) -> Result<Ask, OriginError> {
        let host = &object.registry;
        let entry =
            self.file_upstream(host).ok_or_else(|| OriginError::FileNotAllowed { host: host.clone() })?;
        let mut url = entry.upstream.server.clone();
        let what = object.repository.clone();
        let refuse = |detail: &str| OriginError::Failed {
            registry: host.clone(),
            what: what.clone(),
            detail: detail.to_owned(),
        };
        if entry.origin.host.starts_with('*') {
            url = at_host(&url, host).ok_or_else(|| refuse("not a host"))?;
        }
        if !is_path(&object.repository) {
            return Err(refuse("not the path of a file"));
        }
        let (path, query) = object.repository.split_once('?').unzip();
        url.set_path(path.unwrap_or(&object.repository));
        let query: Vec<&str> = query.into_iter().chain(credentials.query()).collect();
        url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.extend(credentials.headers().map(|(name, value)| (name.clone(), value.clone())));
        if let Some(value) = credentials.authorization() {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        // Where the origin knows conditions, a changed file is 412 and never a mixture.
        let (name, value) = match object.version.split_at_checked(ETAG.len()) {
            Some((ETAG, tag)) => (header::IF_MATCH, tag),
            Some((DATE, date)) => (header::IF_UNMODIFIED_SINCE, date),
            _ => (header::IF_MATCH, "*"),
        };
        if !object.version.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
        let (upstream, span) = (Arc::clone(&entry.upstream), trace::origin(host));
        Ok(Ask { upstream, method: Method::GET, url, what, headers, span, on_behalf: None })
    }
}

/// An origin that does not know conditions still says which version it sent.
pub(super) fn same_version(object: &OriginObject, reply: &Reply, ask: &Ask) -> Result<(), OriginError> {
    match version(reply.headers()) {
        Some(sent) if !object.version.is_empty() && sent != object.version => {
            Err(ask.failed("the file changed at the origin while it was fetched"))
        }
        _ => Ok(()),
    }
}

/// A weak tag is for what means the same, not for what is the same bytes.
fn version(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let tag = text(header::ETAG).filter(|tag| tag.starts_with('"')).map(|tag| format!("{ETAG}{tag}"));
    let version = tag.or_else(|| text(header::LAST_MODIFIED).map(|date| format!("{DATE}{date}")));
    version.filter(|version| version.len() <= MAX_VERSION_BYTES)
}

/// The SHA-256 of the whole file, as RFC 9530, RFC 3230 or S3 say it.
fn digest(headers: &HeaderMap) -> Option<TaskId> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let field = |list: &str, prefix: &str| {
        let mut fields = list.split(',').map(str::trim);
        fields.find_map(|field| {
            let (name, value) = field.split_once('=')?;
            name.eq_ignore_ascii_case(prefix).then(|| value.trim_matches(':').to_owned())
        })
    };
    let stated = text("repr-digest").and_then(|list| field(list, "sha-256"));
    let stated = stated.or_else(|| text("digest").and_then(|list| field(list, "sha-256")));
    let stated = stated.or_else(|| text("x-amz-checksum-sha256").map(str::to_owned));
    TaskId::from_digest(Algorithm::Sha256, &BASE64_STANDARD.decode(stated?).ok()?)
}

/// What a model hub says before it redirects to where the file lies: the SHA-256 as an entity tag.
fn linked_digest(tag: &HeaderValue) -> Option<TaskId> {
    let hex = tag.to_str().ok()?.trim_matches('"');
    format!("sha256:{hex}").parse().ok()
}

/// What may stand in a request line, from the first slash on.
fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= MAX_PATH_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// `server`'s scheme and port at another host.
fn at_host(server: &Url, host: &str) -> Option<Url> {
    let url = Url::parse(&format!("{}://{host}/", server.scheme())).ok()?;
    // Whatever the parser cut off or read as a user was no part of a host.
    let port = server.port().is_none_or(|port| url.port() == Some(port));
    (crate::config::authority(&url) == host && port).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn versions() {
        for (pairs, expected) in [
            (vec![("etag", "\"a\""), ("last-modified", "x")], Some("etag:\"a\"")),
            (vec![("etag", "W/\"a\""), ("last-modified", "x")], Some("date:x")),
            (vec![("etag", "W/\"a\"")], None),
            (vec![], None),
        ] {
            assert_eq!(version(&headers(&pairs)).as_deref(), expected);
        }
    }

    #[test]
    fn digests_as_origins_state_them() {
        let sum = BASE64_STANDARD.encode([7; 32]);
        let task = TaskId::from_digest(Algorithm::Sha256, &[7; 32]);
        for (name, value) in [
            ("repr-digest", format!("sha-512=:AA==:, sha-256=:{sum}:")),
            ("digest", format!("md5=AA==,SHA-256={sum}")),
            ("x-amz-checksum-sha256", sum.clone()),
        ] {
            assert_eq!(digest(&headers(&[(name, &value)])), task, "{name}: {value}");
        }
        for (name, value) in [
            ("repr-digest", "sha-256=:AA==:".to_owned()),
            // The digest of what was sent, and a digest of digests.
            ("content-digest", format!("sha-256=:{sum}:")),
            ("x-amz-checksum-sha256", format!("{sum}-3")),
        ] {
            assert_eq!(digest(&headers(&[(name, &value)])), None, "{name}: {value}");
        }
        let tag = HeaderValue::from_str(&format!("\"{}\"", "07".repeat(32))).unwrap();
        assert_eq!(linked_digest(&tag), task);
        assert_eq!(linked_digest(&HeaderValue::from_static("\"07\"")), None);
    }

    #[test]
    fn hosts_of_a_pattern() {
        let server = Url::parse("https://*.s3.amazonaws.com").unwrap();
        assert_eq!(at_host(&server, "b.s3.amazonaws.com").unwrap().as_str(), "https://b.s3.amazonaws.com/");
        for host in ["u@b.s3.amazonaws.com", "b.s3.amazonaws.com/x", "B.s3", "a b", "b.s3.amazonaws.com:443"]
        {
            assert!(at_host(&server, host).is_none(), "{host}");
        }
    }
}
