//! Whose credentials a request goes with: a caller's own, as they came; nobody's; or the node's own account.
//!
//! Invariant: nothing prints them.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::sync::Arc;

/// The caller's `Authorization` header, opaque; its `Debug` never shows it.
#[derive(Clone, Default)]
pub struct Credentials(Whose, Option<Arc<OfFile>>);

#[derive(Clone, Default)]
enum Whose {
    #[default]
    Nobody,
    /// The caller's header.
    Caller(HeaderValue),
    /// The node's own account, whatever that is: jobs alone have it.
    Account,
}

/// What callers of files show besides `Authorization`.
#[derive(Default)]
struct OfFile {
    /// The part of the URL's query that says who asks: a signature.
    query: Option<String>,
    /// Headers of their own.
    headers: HeaderMap,
}

impl Credentials {
    pub fn none() -> Self {
        Self(Whose::Nobody, None)
    }

    /// The node's own account at the registry that is asked, where it has one; nobody's elsewhere. For jobs, never for callers.
    pub fn account() -> Self {
        Self(Whose::Account, None)
    }

    pub(crate) fn is_account(&self) -> bool {
        matches!(self.0, Whose::Account)
    }

    /// With the part of a URL's query that says who asks, and more headers for the file's host.
    #[must_use]
    pub fn of_file(self, query: Option<String>, headers: HeaderMap) -> Self {
        let more = (query.is_some() || !headers.is_empty()).then(|| Arc::new(OfFile { query, headers }));
        Self(self.0, more)
    }

    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        match &self.0 {
            Whose::Caller(header) => Some(header),
            Whose::Nobody | Whose::Account => None,
        }
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.1.as_ref()?.query.as_deref()
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.1.iter().flat_map(|of_file| &of_file.headers)
    }

    /// The caller's header as it came; marked so that nothing prints it.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut value = headers.get(header::AUTHORIZATION).cloned();
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Self(value.map_or(Whose::Nobody, Whose::Caller), None)
    }

    /// The header's bytes: for comparing, never for keeping.
    pub(crate) fn header(&self) -> Option<&[u8]> {
        self.authorization().map(HeaderValue::as_bytes)
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self.0, Whose::Nobody) && self.1.is_none()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_none() { "Credentials(none)" } else { "Credentials(hidden)" })
    }
}
