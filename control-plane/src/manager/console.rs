//! The console as it is served: the files that Vite built, embedded, under a strict Content-Security-Policy. They are the same
//! for everybody and hold no data, so they need no token; what the console shows comes from the API, with the user's own rights.
//!
//! Not the console itself (`control-plane/console`). A program built without it says so at every path.
//!
//! Invariants: no file is read at run time; a path that is no file is the start page (the console routes by itself), but
//! never under `/api/` or `/assets/`, where it is an error.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Scripts, styles and requests from the manager alone; no inline code, no frames, no plugins, no foreign form targets.
/// Trusted types without a policy: no text can become markup, whatever a component does with it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";
/// Vite's names carry the content's hash: what is behind one never changes.
const HASHED: &str = "/assets/";
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Kept, but asked for each time (by `ETag`).
const ASK: &str = "no-cache";
const START_PAGE: &str = "/index.html";
const ABSENT: &str = "This manager was built without its console: Node was not there when it was built.\n\
    The API is at /api/v1. `cargo xtask console` builds the console; build hawker-control again after it.\n";

/// A built file.
#[derive(Debug)]
struct File {
    path: &'static str,
    /// `ETag`, quotes included.
    tag: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

/// Everything there is to serve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Console(&'static [File]);

/// What this program was built with.
pub(super) const EMBEDDED: Console = Console(include!(concat!(env!("OUT_DIR"), "/console_files.rs")));

impl Console {
    pub(super) fn is_absent(self) -> bool {
        self.find(START_PAGE).is_none()
    }

    /// Answers a request of a browser; `None`: this path is not the console's.
    pub(super) fn answer(self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
        let of_the_api = path == "/api" || path.starts_with("/api/");
        if of_the_api || !(method == Method::GET || method == Method::HEAD) {
            return None;
        }
        if self.is_absent() {
            return Some((StatusCode::NOT_FOUND, ABSENT).into_response());
        }
        let file = self.find(path).or_else(|| {
            let names_a_file = path.starts_with(HASHED) || path.rsplit('/').next()?.contains('.');
            if names_a_file { None } else { self.find(START_PAGE) }
        })?;
        Some(file.response(headers))
    }

    fn find(self, path: &str) -> Option<&'static File> {
        self.0.iter().find(|file| file.path == path)
    }
}

impl File {
    fn response(&self, headers: &HeaderMap) -> Response {
        let cache = if self.path.starts_with(HASHED) { FOREVER } else { ASK };
        let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let unchanged = known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == self.tag));
        let (encoding, bytes) = self.variant(headers);
        let mut response = Response::new(if unchanged { Body::empty() } else { Body::from(bytes) });
        let fixed = [
            (header::CONTENT_TYPE, media_type(self.path)),
            (header::CACHE_CONTROL, cache),
            (header::VARY, "accept-encoding"),
            (header::ETAG, self.tag),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        let headers = response.headers_mut();
        headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if let Some(encoding) = encoding {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        response
    }

    /// The smallest form that the browser takes.
    fn variant(&self, headers: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
        match (self.brotli, self.gzip) {
            (Some(bytes), _) if accepts(headers, "br") => (Some("br"), bytes),
            (_, Some(bytes)) if accepts(headers, "gzip") => (Some("gzip"), bytes),
            _ => (None, self.plain),
        }
    }
}

/// Whether `Accept-Encoding` names the coding and does not rule it out by `q=0` (RFC 9110 §12.5.3).
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
        named && weight.parse::<f32>().is_ok_and(|weight| weight > 0.0)
    })
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: Console = Console(&[
        File {
            path: "/assets/a-1.js",
            tag: "\"a\"",
            plain: b"plain",
            brotli: Some(b"br"),
            gzip: Some(b"gz"),
        },
        File { path: "/icon.svg", tag: "\"i\"", plain: b"<svg/>", brotli: None, gzip: None },
        File { path: "/index.html", tag: "\"x\"", plain: b"<html>", brotli: None, gzip: Some(b"gz") },
    ]);

    fn ask(path: &str, headers: &[(&'static str, &str)]) -> Option<Response> {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        BUILT.answer(&Method::GET, path, &pairs.collect())
    }

    fn header<'r>(response: &'r Response, name: &str) -> &'r str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn files_are_sent_small_and_kept_as_long_as_their_name_says() {
        for (offered, taken) in [
            ("gzip, deflate, br", "br"),
            ("gzip", "gzip"),
            ("br;q=0, gzip;q=0.5", "gzip"),
            ("GZIP", "gzip"),
            ("identity", ""),
            ("br;q=x", ""),
        ] {
            let response = ask("/assets/a-1.js", &[("accept-encoding", offered)]).unwrap();
            assert_eq!((header(&response, "content-encoding"), offered), (taken, offered));
            assert_eq!(header(&response, "cache-control"), FOREVER);
            assert_eq!(header(&response, "content-type"), "text/javascript; charset=utf-8");
        }
        let page = ask("/", &[]).unwrap();
        assert_eq!((header(&page, "cache-control"), header(&page, "etag")), (ASK, "\"x\""));
        let policy = header(&page, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let again = ask("/", &[("if-none-match", "\"y\", \"x\"")]).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn the_consoles_own_paths_are_its_start_page_and_nothing_else_is() {
        for path in ["/", "/clusters", "/clusters/7/edit", "/bandwidth", "/apiary"] {
            assert_eq!(
                header(&ask(path, &[]).unwrap(), "content-type"),
                "text/html; charset=utf-8",
                "{path}"
            );
        }
        for path in
            ["/api", "/api/v1/nothing", "/assets/", "/assets/b-2.js", "/robots.txt", "/x/../index.html"]
        {
            assert!(ask(path, &[]).is_none(), "{path}");
        }
        assert!(BUILT.answer(&Method::POST, "/", &HeaderMap::new()).is_none());
    }

    #[test]
    fn without_the_console_every_path_says_so() {
        let response = Console(&[]).answer(&Method::GET, "/clusters", &HeaderMap::new()).unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(Console(&[]).answer(&Method::GET, "/api/v1/x", &HeaderMap::new()).is_none());
    }
}
