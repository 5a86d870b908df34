//! The daemon on this node: its local API on the unix socket, and its mirror.
//!
//! Invariant: an error says which of the two did not answer, and how to name another one.

use reqwest::blocking::{Client, RequestBuilder, Response};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Longest time for an answer of the local API.
const API_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why the daemon did not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("ask the daemon on {socket} (is hawkerd running? --socket names another one): {detail}", socket = .socket.display())]
    Socket { socket: PathBuf, detail: String },
    #[error("ask the daemon's mirror on {mirror} (is hawkerd running? --mirror names another one): {detail}")]
    Mirror { mirror: String, detail: String },
    #[error("{0}")]
    Refused(String),
}

/// One blob of the store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) task: String,
    pub(crate) size: u64,
    pub(crate) complete: bool,
    pub(crate) pinned: bool,
    pub(crate) in_use: bool,
    pub(crate) last_used_unix_ms: u64,
}

#[derive(Clone)]
pub(crate) struct Daemon {
    socket: PathBuf,
    mirror: String,
}

impl Daemon {
    pub(crate) fn new(socket: PathBuf, mirror: String) -> Self {
        Self { socket, mirror }
    }

    /// The document at `/status`.
    pub(crate) fn status(&self) -> Result<serde_json::Value, DaemonError> {
        self.json("/status")
    }

    pub(crate) fn stored(&self) -> Result<Vec<Stored>, DaemonError> {
        self.json("/v1/blobs")
    }

    pub(crate) fn remove(&self, task: &str, force: bool) -> Result<(), DaemonError> {
        let path = format!("/v1/blobs/{task}?force={force}");
        self.api(|client, base| client.delete(format!("{base}{path}"))).map(drop)
    }

    pub(crate) fn pin(&self, task: &str, pinned: bool) -> Result<(), DaemonError> {
        let path = format!("/v1/blobs/{task}/pin");
        self.api(|client, base| {
            let url = format!("{base}{path}");
            if pinned { client.put(url) } else { client.delete(url) }
        })
        .map(drop)
    }

    /// Where the mirror is, for requests of one's own.
    pub(crate) fn mirror(&self) -> Mirror {
        Mirror { addr: self.mirror.clone() }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, DaemonError> {
        let answer = self.api(|client, base| client.get(format!("{base}{path}")))?;
        answer.json().map_err(|error| self.failed(&error))
    }

    fn api(&self, request: impl FnOnce(&Client, &str) -> RequestBuilder) -> Result<Response, DaemonError> {
        let client = Client::builder().unix_socket(self.socket.clone()).timeout(API_LIMIT).build();
        let client = client.map_err(|error| self.failed(&error))?;
        let answer = request(&client, "http://hawkerd").send().map_err(|error| self.failed(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().unwrap_or_default();
        let text = text.trim();
        Err(DaemonError::Refused(if text.is_empty() { status.to_string() } else { text.to_owned() }))
    }

    fn failed(&self, error: &reqwest::Error) -> DaemonError {
        DaemonError::Socket { socket: self.socket.clone(), detail: chain(error) }
    }
}

/// The mirror of the daemon.
#[derive(Clone)]
pub(crate) struct Mirror {
    addr: String,
}

impl Mirror {
    /// A client for it: no time limit in all, because bodies may be large; the daemon has its own watchdogs.
    pub(crate) fn client(&self) -> Result<Client, DaemonError> {
        Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(None)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| self.failed(&error))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn failed(&self, error: &reqwest::Error) -> DaemonError {
        DaemonError::Mirror { mirror: self.addr.clone(), detail: chain(error) }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
