//! The manager's REST API, as every command that talks to it uses it.
//!
//! Not which routes there are (that is the commands') and not how one signs in (`commands/login.rs`).
//!
//! Invariant: a token goes to the manager it was given by, or that was named together with it, and nowhere else; no redirect is
//! followed.

mod error;
mod session;

pub(crate) use error::ManagerError;
pub(crate) use session::Session;

use clap::Args;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ETAG, IF_MATCH};
use reqwest::{Method, StatusCode, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a manager is looked for that nobody named.
pub(crate) const DEFAULT_MANAGER: &str = "http://127.0.0.1:8080";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time for one answer: more than the manager itself takes before it gives up.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);
/// Items asked for at once, and most pages of one list: a hundred thousand hosts.
const PER_PAGE: usize = 500;
const MAX_PAGES: usize = 200;
/// Largest file with a token, bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// Which manager, and as whom.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ManagerArguments {
    /// The manager's REST address; without it, the one of `hawker login`.
    #[arg(long, global = true, value_name = "URL", env = "HAWKER_MANAGER", help_heading = "Manager")]
    pub(crate) manager: Option<String>,
    /// File with a personal access token; without it, the token of `hawker login`.
    #[arg(long, global = true, value_name = "FILE", env = "HAWKER_TOKEN_FILE", help_heading = "Manager")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authority (PEM) of a manager behind TLS, besides the system's.
    #[arg(long, global = true, value_name = "FILE", env = "HAWKER_CA_FILE", help_heading = "Manager")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// A manager and a token for it.
pub(crate) struct Manager {
    base: String,
    token: Option<String>,
    client: Client,
}

impl Manager {
    /// The manager that was named, else that of `hawker login`; with the token that fits it.
    ///
    /// # Errors
    /// An unreadable file, an address that is no URL, or nobody signed in.
    pub(crate) fn signed_in(arguments: &ManagerArguments) -> Result<Self, ManagerError> {
        let session = Session::read()?;
        let remembered = session.as_ref().map(|session| session.manager.clone());
        let base = match arguments.manager.clone().or(remembered) {
            Some(base) => base,
            None if arguments.token_file.is_some() => DEFAULT_MANAGER.to_owned(),
            None => return Err(ManagerError::NotSignedIn { manager: None }),
        };
        let base = base_url(&base)?;
        let token = match &arguments.token_file {
            Some(file) => read_token(file)?,
            None => match session {
                Some(session) if session.manager == base => session.token,
                _ => return Err(ManagerError::NotSignedIn { manager: Some(base) }),
            },
        };
        Self::new(base, Some(token), arguments)
    }

    /// The manager that was named (else [`DEFAULT_MANAGER`]), as nobody.
    ///
    /// # Errors
    /// As [`Self::signed_in`].
    pub(crate) fn as_nobody(arguments: &ManagerArguments) -> Result<Self, ManagerError> {
        let base = base_url(arguments.manager.as_deref().unwrap_or(DEFAULT_MANAGER))?;
        Self::new(base, None, arguments)
    }

    /// The same manager with this token.
    pub(crate) fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    fn new(base: String, token: Option<String>, arguments: &ManagerArguments) -> Result<Self, ManagerError> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("hawker/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &arguments.ca_file {
            let bad = |detail: String| ManagerError::File { path: path.clone(), detail };
            let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
            let certificate = reqwest::Certificate::from_pem(&pem).map_err(|error| bad(error.to_string()))?;
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().map_err(|error| ManagerError::no_answer(&base, &error))?;
        Ok(Self { base, token, client })
    }

    /// Its address, `http(s)://host[:port]`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// # Errors
    /// [`ManagerError`], for this and all that follow.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ManagerError> {
        let answer = self.send(Method::GET, path, |request| request.query(query))?;
        self.json(answer)
    }

    /// The version of the document at `path` (its `ETag`), where the manager tells it.
    pub(crate) fn version(&self, path: &str) -> Result<Option<String>, ManagerError> {
        let answer = self.send(Method::GET, path, |request| request)?;
        Ok(answer.headers().get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// All items of a list, page after page.
    pub(crate) fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, ManagerError> {
        #[derive(serde::Deserialize)]
        struct Page {
            items: Vec<Value>,
            total: Option<usize>,
        }
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let (number, per_page) = (page.to_string(), PER_PAGE.to_string());
            let window = [("page", number.as_str()), ("per_page", per_page.as_str())];
            let Page { items, total } = self.get(path, &[query, &window[..]].concat())?;
            let was_last = items.len() < PER_PAGE;
            all.extend(items);
            if was_last || total.is_some_and(|total| all.len() >= total) {
                break;
            }
        }
        Ok(all)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, ManagerError> {
        let answer = self.send(Method::POST, path, |request| request.json(body))?;
        self.json_or_nothing(answer)
    }

    /// Changes what is at `path`; with `version`, only if it still is that one (412 otherwise).
    pub(crate) fn patch(
        &self,
        path: &str,
        body: &Value,
        version: Option<&str>,
    ) -> Result<Value, ManagerError> {
        let answer = self.send(Method::PATCH, path, |request| {
            let request = request.json(body);
            match version {
                Some(version) => request.header(IF_MATCH, version),
                None => request,
            }
        })?;
        self.json_or_nothing(answer)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), ManagerError> {
        self.send(Method::DELETE, path, |request| request).map(drop)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, ManagerError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = with(request).send().map_err(|error| ManagerError::no_answer(&self.base, &error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(ManagerError::refused(&self.base, path, answer))
    }

    fn json<T: DeserializeOwned>(&self, answer: Response) -> Result<T, ManagerError> {
        answer.json().map_err(|error| ManagerError::no_answer(&self.base, &error))
    }

    fn json_or_nothing(&self, answer: Response) -> Result<Value, ManagerError> {
        if answer.status() == StatusCode::NO_CONTENT || answer.content_length() == Some(0) {
            return Ok(Value::Null);
        }
        self.json(answer)
    }
}

/// `http(s)://host[:port]` without a slash at its end.
fn base_url(text: &str) -> Result<String, ManagerError> {
    let bad = |problem: &str| ManagerError::Address { text: text.to_owned(), problem: problem.to_owned() };
    let url = url::Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("write http://host:port or https://host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials do not belong into the address"));
    }
    if url.path() != "/" || url.query().is_some() {
        return Err(bad("it has a path or a query: host and port alone are allowed"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The token in a file: its first line.
pub(crate) fn read_token(path: &Path) -> Result<String, ManagerError> {
    let bad = |detail: &str| ManagerError::File { path: path.to_owned(), detail: detail.to_owned() };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| {
            std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_TOKEN_BYTES), &mut text)
        })
        .map_err(|error| bad(&error.to_string()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("its first line is no token"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_nothing_more() {
        assert_eq!(base_url("https://hawker.lan/").unwrap(), "https://hawker.lan");
        assert_eq!(base_url("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        for bad in ["hawker.lan", "ftp://a", "http://a/api", "http://u:p@a", "http://a?x", "http://"] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_the_first_line_of_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc.def\nsecond\n").unwrap();
        assert_eq!(read_token(file.path()).unwrap(), "abc.def");
        for bad in ["", "\nabc", "two words\n", "\u{e9}"] {
            std::fs::write(file.path(), bad).unwrap();
            assert!(read_token(file.path()).unwrap_err().to_string().contains("no token"), "{bad:?}");
        }
    }
}
