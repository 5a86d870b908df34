//! Files by URL, for any HTTP client: `GET /files/<url>`.
//!
//! The origin is asked first what the file is, with the caller's own credentials: so nobody gets from this node
//! what the origin would not give. Then the file comes from the swarm: under its digest where the origin states one,
//! else under its address and version; a digest that the caller alone names is checked on the way. What has neither comes straight from the origin.
//!
//! Invariant: credentials and signatures go to the file's host alone; they are no part of the task.

mod address;

use super::range::Wanted;
use super::refusal::Refusal;
use super::request::{Get, Head};
use super::route::Reference;
use super::{Mirror, checked, content, through};
use crate::origin::{Credentials, FileHead, ObjectKind, OriginClient, OriginError, OriginObject};
use address::Address;
use axum::body::Body;
use axum::response::Response;
use hawker_api::task::{FileAddress, TaskId};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time from a request to a head. Longer than a runtime's: these callers have no other way to go.
pub const FILE_TTFB_LIMIT: Duration = Duration::from_secs(30);
/// What paths of files begin with.
pub(super) const PREFIX: &str = "/files/";
/// Which digest the caller wants: `sha256:<hex>` or `sha512:<hex>`.
const WANT_DIGEST: &str = "hawker-digest";
/// Query parameters that say who asks and not what for, by comma; common ones are known.
const IGNORE_QUERY: &str = "hawker-ignore-query";
/// What headers begin with that are for the file's host.
const FORWARD: &str = "hawker-forward-";
const MAX_FORWARDED: usize = 16;
/// Headers that this node decides, or that are for one hop.
const OURS: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Callers with another tag have another copy.
const TAG: &str = "hawker-tag";

impl Mirror {
    pub(super) async fn file(&self, request: &Parts) -> Result<Response, Refusal> {
        let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let address = Address::parse(request.uri.path(), request.uri.query(), text(IGNORE_QUERY))?;
        if !self.origin.allows_file(address.scheme, &address.host) {
            return Err(Refusal::file_host(address.scheme, &address.host));
        }
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| Refusal::overloaded())?;
        let object = OriginObject {
            registry: address.host.clone(),
            repository: address.path.clone(),
            kind: ObjectKind::File,
            version: String::new(),
        };
        let credentials = Credentials::from_headers(&request.headers)
            .of_file(address.signature.clone(), forwarded(&request.headers)?);
        let found = self.origin.file_head(&object, &credentials).await?;
        let (task, check) = task(&address, &found, text(WANT_DIGEST), text(TAG))?;
        let get = Get {
            method: request.method.clone(),
            object: OriginObject { version: found.version.clone().unwrap_or_default(), ..object },
            reference: Reference::Digest(task),
            wanted: wanted(&request.headers, &task),
            accept: Vec::new(),
            asked: super::lists::Asked::default(),
            credentials,
            deadline: Instant::now() + FILE_TTFB_LIMIT,
            limit: FILE_TTFB_LIMIT,
            permit,
        };
        if get.method == Method::HEAD {
            let head = Head { content_type: content::OCTETS, size: found.size, part: None };
            return Ok(head.answer(&get, &task, Body::empty()));
        }
        let response = if !task.is_content() && (found.version.is_none() || found.size.is_none()) {
            through::blob(self, get, task, "unversioned").await?
        } else {
            self.blob(get, task).await?
        };
        Ok(match check {
            Some(digest) => checked::whole(response, digest),
            None => response,
        })
    }
}

/// A file as the swarm knows it.
pub(crate) struct Identified {
    pub(crate) task: TaskId,
    pub(crate) object: OriginObject,
    pub(crate) size: u64,
}

/// Why a URL is nothing that a cluster can share without its caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("{0}")]
    Url(String),
    #[error("the URL is signed, and a job passes no signatures on")]
    Signed,
    #[error("{host} states neither a digest nor a version and a size: its copies cannot be told apart")]
    Unversioned { host: String },
    #[error(transparent)]
    Origin(OriginError),
}

/// What a URL leads to, asked as nobody.
pub(crate) async fn identify(origin: &OriginClient, url: &str) -> Result<Identified, UrlError> {
    let url = url.split('#').next().unwrap_or(url);
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let refused = |refusal: Refusal| UrlError::Url(refusal.to_string());
    let address = Address::parse(&format!("{PREFIX}{path}"), query, "").map_err(refused)?;
    if address.signature.is_some() {
        return Err(UrlError::Signed);
    }
    if !origin.allows_file(address.scheme, &address.host) {
        return Err(UrlError::Origin(OriginError::FileNotAllowed { host: address.host }));
    }
    let object = OriginObject {
        registry: address.host.clone(),
        repository: address.path.clone(),
        kind: ObjectKind::File,
        version: String::new(),
    };
    let found = origin.file_head(&object, &Credentials::none()).await.map_err(UrlError::Origin)?;
    let (task, _) = task(&address, &found, "", "").map_err(refused)?;
    match (found.size, &found.version) {
        (Some(size), version) if task.is_content() || version.is_some() => {
            let object = OriginObject { version: found.version.unwrap_or_default(), ..object };
            Ok(Identified { task, object, size })
        }
        _ => Err(UrlError::Unversioned { host: address.host }),
    }
}

/// What the file is called in the swarm, and a digest that is still to be checked.
///
/// A digest that the caller alone names is no name: the URL need not have such a file, and the cluster may hold
/// content of that digest which this caller must not have.
fn task(
    address: &Address,
    found: &FileHead,
    wanted: &str,
    tag: &str,
) -> Result<(TaskId, Option<TaskId>), Refusal> {
    let wanted = match wanted {
        "" => None,
        text => Some(text.parse::<TaskId>().map_err(|error| Refusal::digest(&error))?),
    };
    match (wanted, found.digest) {
        (Some(wanted), _) if !wanted.is_content() => Err(Refusal::not_a_digest(&wanted.to_string())),
        (Some(wanted), Some(stated)) if wanted.algorithm() == stated.algorithm() && wanted != stated => {
            Err(Refusal::other_digest(&wanted, &stated))
        }
        (wanted, Some(stated)) => Ok((stated, wanted.filter(|wanted| *wanted != stated))),
        (wanted, None) => {
            let (version, size) = (found.version.as_deref().unwrap_or(""), found.size.unwrap_or(0));
            let url = format!("{}://{}{}", address.scheme, address.host, address.path);
            Ok((FileAddress { url: &url, version, size, tag }.task(), wanted))
        }
    }
}

/// Headers for the file's host: `Hawker-Forward-X: y` is `X: y` there.
fn forwarded(headers: &HeaderMap) -> Result<HeaderMap, Refusal> {
    let mut forwarded = HeaderMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(FORWARD) else { continue };
        if forwarded.len() == MAX_FORWARDED {
            return Err(Refusal::forward(name, &format!("more than {MAX_FORWARDED} are not")));
        }
        let allowed = |name: &HeaderName| !OURS.contains(&name.as_str()) && !name.as_str().starts_with("if-");
        let Some(name) = name.parse::<HeaderName>().ok().filter(allowed) else {
            return Err(Refusal::forward(name, "it is not the caller's to choose, and not"));
        };
        let mut value = value.clone();
        value.set_sensitive(true);
        forwarded.append(name, value);
    }
    Ok(forwarded)
}

/// A caller that goes on with a file says which one it had (`If-Range`); with another one it gets the whole.
fn wanted(headers: &HeaderMap, task: &TaskId) -> Wanted {
    let had = headers.get(header::IF_RANGE).and_then(|value| value.to_str().ok());
    let same = had.is_none_or(|tag| tag == format!("\"{task}\""));
    if same { Wanted::of(headers) } else { Wanted::Whole }
}
