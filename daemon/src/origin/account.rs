//! The node's own account at a registry, for jobs alone: name and password from a file as `docker login` writes it and as a Kubernetes
//! secret of type `kubernetes.io/dockerconfigjson` has it.
//!
//! Read each time it is needed: a new password counts without a restart.
//!
//! Invariant: what is in the file is in no error, and goes to the registry it is for, or to that one's realm, alone.

use crate::config::canonical_host;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// Most of the file that is read, bytes; a Kubernetes secret has at most as much.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum AccountError {
    #[error("read account file {file}: {source}", file = .file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("account file {file} is not what `docker login` writes: no JSON object with `auths`", file = .file.display())]
    Shape { file: PathBuf },
    #[error("account file {file} has no name and password for {host}", file = .file.display())]
    Absent { file: PathBuf, host: String },
}

#[derive(Debug)]
pub(super) struct Account {
    file: PathBuf,
    host: String,
}

#[derive(Deserialize)]
struct Config {
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// Base64 of `name:password`.
    auth: String,
    username: String,
    password: String,
}

impl Account {
    /// At the registry `host`, by its canonical name.
    pub(super) fn new(file: &Path, host: &str) -> Self {
        Self { file: file.to_owned(), host: host.to_owned() }
    }

    /// The header that shows it.
    ///
    /// # Errors
    /// The file cannot be read, or has nothing for the registry.
    pub(super) async fn header(&self) -> Result<HeaderValue, AccountError> {
        let failed = |source| AccountError::Read { file: self.file.clone(), source };
        let file = tokio::fs::File::open(&self.file).await.map_err(failed)?;
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut text).await.map_err(failed)?;
        self.find(&text)
    }

    fn find(&self, text: &[u8]) -> Result<HeaderValue, AccountError> {
        let file = self.file.clone();
        // Its error would quote the text.
        let config: Config =
            serde_json::from_slice(text).map_err(|_| AccountError::Shape { file: file.clone() })?;
        let mut ours = config.auths.iter().filter(|(name, _)| host_of(name) == self.host);
        let header = ours.find_map(|(_, entry)| entry.header());
        header.ok_or_else(|| AccountError::Absent { file, host: self.host.clone() })
    }
}

impl Entry {
    fn header(&self) -> Option<HeaderValue> {
        let auth = match (self.auth.trim(), self.username.as_str()) {
            ("", "") => return None,
            ("", name) => BASE64_STANDARD.encode(format!("{name}:{}", self.password)),
            (auth, _) => auth.to_owned(),
        };
        let mut header = HeaderValue::from_str(&format!("Basic {auth}")).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// `https://index.docker.io/v1/`, as Docker writes its own hub, is `docker.io`.
fn host_of(name: &str) -> String {
    let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
    canonical_host(bare.split('/').next().unwrap_or(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(host: &str, text: &str) -> Result<String, String> {
        let found = Account::new(Path::new("/etc/auth.json"), host).find(text.as_bytes());
        let text = |header: HeaderValue| header.to_str().unwrap().to_owned();
        found.map(text).map_err(|error| error.to_string())
    }

    #[test]
    fn files_as_docker_and_kubernetes_write_them() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"r.corp:5000":{"username":"a","password":"b:c"},
            "ghcr.io":{}},"credsStore":"x"}"#;
        assert_eq!(header("docker.io", text).unwrap(), "Basic YTpi");
        assert_eq!(header("r.corp:5000", text).unwrap(), "Basic YTpiOmM=");
        assert_eq!(
            header("ghcr.io", text).unwrap_err(),
            "account file /etc/auth.json has no name and password for ghcr.io"
        );
        assert!(header("quay.io", text).is_err());
    }

    #[test]
    fn errors_do_not_tell_what_is_in_the_file() {
        for text in
            ["", "{\"auths\":\"geheim\"}", "geheim", "{\"auths\":{\"ghcr.io\":{\"auth\":\"gehe\\nim\"}}}"]
        {
            let error = header("ghcr.io", text).unwrap_err();
            assert!(error.contains("/etc/auth.json") && !error.contains("gehe"), "{error}");
        }
    }
}
