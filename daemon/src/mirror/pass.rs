//! What passes to the registry as it is: what tags mean, lists, and the size of blobs that are not held here.
//!
//! Invariant: the caller's credentials go to the registry that was asked for, and only headers named
//! here come back.

use super::refusal::{Refusal, passed_on};
use super::request::{API_VERSION, CONTENT_DIGEST, Get, NAMESPACE};
use super::{MAX_MANIFEST_BYTES, Mirror};
use crate::origin::{ListOf, OriginBody, PassRequest};
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, header};

/// Headers of the registry's answer that mean something to a runtime.
const RELAYED: [HeaderName; 10] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::ETAG,
    header::LAST_MODIFIED,
    header::WWW_AUTHENTICATE,
    header::ACCEPT_RANGES,
    header::LINK,
    CONTENT_DIGEST,
    API_VERSION,
    HeaderName::from_static("oci-filters-applied"),
];

impl Mirror {
    pub(super) async fn pass(&self, get: &Get, reference: &str) -> Result<Response, Refusal> {
        self.pass_as(get, reference, None).await
    }

    /// A HEAD, whatever the caller's method is.
    pub(super) async fn pass_head(&self, get: &Get, reference: &str) -> Result<Response, Refusal> {
        self.send(get, request(get, reference, Method::HEAD, None)).await
    }

    pub(super) async fn pass_as(
        &self,
        get: &Get,
        reference: &str,
        list: Option<(ListOf, Vec<(String, String)>)>,
    ) -> Result<Response, Refusal> {
        self.send(get, request(get, reference, get.method.clone(), list)).await
    }

    async fn send(&self, get: &Get, request: PassRequest) -> Result<Response, Refusal> {
        let mut answer = get.in_time(self.origin.fetch(&request)).await??;
        let registry = &get.object.registry;
        let Some(status) = passed_on(answer.status) else {
            let message = format!("{registry} answered {} for {}", answer.status, request.reference);
            return Err(Refusal::elsewhere("origin_error", message));
        };
        let bytes = get.in_time(bounded(&mut answer.body)).await??;
        let mut response = Response::new(Body::from(bytes.clone()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        for name in RELAYED {
            for value in answer.headers.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        if request.method != Method::HEAD {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        if let Ok(registry) = HeaderValue::from_str(registry) {
            headers.insert(NAMESPACE, registry);
        }
        Ok(response)
    }
}

fn request(
    get: &Get,
    reference: &str,
    method: Method,
    list: Option<(ListOf, Vec<(String, String)>)>,
) -> PassRequest {
    PassRequest {
        method,
        object: get.object.clone(),
        reference: reference.to_owned(),
        list,
        accept: get.accept.clone(),
        credentials: get.credentials.clone(),
    }
}

async fn bounded(body: &mut OriginBody) -> Result<Bytes, Refusal> {
    let mut all = BytesMut::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
        if all.len() as u64 > MAX_MANIFEST_BYTES {
            let message = format!("the registry sent more than {MAX_MANIFEST_BYTES} bytes for a manifest");
            return Err(Refusal::elsewhere("too_large", message));
        }
    }
    Ok(all.freeze())
}
