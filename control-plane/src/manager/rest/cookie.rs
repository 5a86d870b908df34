//! The cookie of a session, and the header that proves that a request with it was meant.
//!
//! Invariant: scripts do not see the cookie, other sites do not get it sent, and it alone changes nothing.

use axum::http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

pub(super) const SESSION: &str = "hawker_session";
pub(super) const CSRF_HEADER: &str = "x-csrf-token";

/// The session's token, if the request has the cookie.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    get(headers, SESSION)
}

pub(super) fn get<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(found, value)| (found == name).then_some(value))
}

/// `Set-Cookie` of a session that is good for `seconds`; 0 ends it.
pub(super) fn set_session(token: &str, seconds: i64, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{SESSION}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    HeaderValue::try_from(cookie).ok()
}

/// Whether a request that changes something with the cookie carries the session's CSRF token.
pub(super) fn is_meant(headers: &HeaderMap, csrf: &str) -> bool {
    let shown = headers.get(CSRF_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    shown.ct_eq(csrf.as_bytes()).into()
}

/// Whether the browser says that another site made it send this (Fetch Metadata, W3C).
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
}
