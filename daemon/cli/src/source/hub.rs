//! `hf://[datasets/|spaces/]OWNER/NAME[@REVISION][/PATH]`: models and data sets of a Hugging Face hub.
//!
//! `HF_ENDPOINT` and `HF_TOKEN` mean what they mean to the hub's own tools.
//!
//! Invariant: large files come with the SHA-256 that the hub's listing states.

use super::{Item, Wanted, at_origin};
use anyhow::{Context, Result, bail};
use reqwest::blocking::Client;
use serde::Deserialize;
use std::time::Duration;
use url::Url;

const ENDPOINT: &str = "https://huggingface.co";
/// Longest time for one page of a listing.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// Most pages of a listing: a thousand entries each.
const MAX_PAGES: usize = 1000;

/// What the URL names.
#[derive(Debug, PartialEq, Eq)]
struct Repository {
    /// `models`, `datasets` or `spaces`.
    kind: &'static str,
    name: String,
    revision: String,
    /// A file or directory of it; empty: all.
    path: String,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    /// SHA-256, hex.
    oid: String,
}

pub(super) fn resolve(text: &str, wanted: &Wanted) -> Result<Vec<Item>> {
    let repository = parse(text)
        .with_context(|| format!("`{text}` is not hf://[datasets/|spaces/]OWNER/NAME[@REVISION][/PATH]"))?;
    let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| ENDPOINT.to_owned());
    let token = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty());
    let hub = Hub { endpoint: endpoint.trim_end_matches('/').to_owned(), token };
    hub.items(&repository, wanted)
}

fn parse(text: &str) -> Option<Repository> {
    let rest = text.strip_prefix("hf://")?;
    let (kind, rest) = match rest.split_once('/') {
        Some(("datasets", rest)) => ("datasets", rest),
        Some(("spaces", rest)) => ("spaces", rest),
        Some(("models", rest)) => ("models", rest),
        _ => ("models", rest),
    };
    let mut parts = rest.splitn(3, '/');
    let (owner, name) = (parts.next()?, parts.next()?);
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let path = parts.next().unwrap_or("").trim_matches('/').to_owned();
    let plain = |text: &str| {
        !text.is_empty()
            && text != ".."
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let known = plain(owner) && plain(name) && plain(revision) && !path.split('/').any(|part| part == "..");
    known.then(|| Repository { kind, name: format!("{owner}/{name}"), revision: revision.to_owned(), path })
}

struct Hub {
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    fn items(&self, repository: &Repository, wanted: &Wanted) -> Result<Vec<Item>> {
        let files = self.list(repository)?;
        let below = |path: &str| {
            repository.path.is_empty()
                || path == repository.path
                || path.strip_prefix(&repository.path).is_some_and(|rest| rest.starts_with('/'))
        };
        let mut headers = wanted.headers.clone();
        headers
            .extend(self.token.iter().map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
        let mut items = Vec::new();
        for file in files.iter().filter(|file| file.kind == "file" && below(&file.path)) {
            let url = self.file_url(repository, &file.path)?;
            let digest = file.lfs.as_ref().map(|lfs| format!("sha256:{}", lfs.oid));
            items.push(at_origin(&url, &file.path, digest, &headers)?);
        }
        if items.is_empty() {
            bail!("{} has no file `{}` at {}", repository.name, repository.path, repository.revision);
        }
        Ok(items)
    }

    fn file_url(&self, repository: &Repository, path: &str) -> Result<Url> {
        let prefix =
            if repository.kind == "models" { String::new() } else { format!("{}/", repository.kind) };
        let mut url = Url::parse(&self.endpoint).context("HF_ENDPOINT")?;
        url.set_path(&format!("/{prefix}{}/resolve/{}/{path}", repository.name, repository.revision));
        Ok(url)
    }

    /// All entries, page by page.
    fn list(&self, repository: &Repository) -> Result<Vec<Entry>> {
        let Repository { kind, name, revision, .. } = repository;
        let mut next = Some(format!("{}/api/{kind}/{name}/tree/{revision}?recursive=true", self.endpoint));
        let client = Client::builder().timeout(LIST_LIMIT).build()?;
        let mut entries = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { break };
            if !url.starts_with(&self.endpoint) {
                bail!("the listing of {name} goes on at another host: {url}");
            }
            let mut request = client.get(&url);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().and_then(reqwest::blocking::Response::error_for_status);
            let answer = answer.with_context(|| format!("list {kind} {name} at {revision}"))?;
            let link = answer.headers().get("link").and_then(|value| value.to_str().ok());
            next = link.and_then(next_page);
            entries
                .extend(answer.json::<Vec<Entry>>().with_context(|| format!("read the listing of {name}"))?);
        }
        Ok(entries)
    }
}

/// `<URL>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (url, rel) = part.split_once(';')?;
        let url = url.trim().strip_prefix('<')?.strip_suffix('>')?;
        rel.contains("rel=\"next\"").then(|| url.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_urls_name() {
        let parsed = parse("hf://meta/llama-3@v1.0/sub/w.safetensors").unwrap();
        let repository = |kind, name: &str, revision: &str, path: &str| Repository {
            kind,
            name: name.to_owned(),
            revision: revision.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(parsed, repository("models", "meta/llama-3", "v1.0", "sub/w.safetensors"));
        assert_eq!(parse("hf://datasets/a/b").unwrap(), repository("datasets", "a/b", "main", ""));
        for text in
            ["hf://", "hf://a", "hf://a/../b", "hf://a/b@", "hf://a/b/../../c", "hf://a b/c", "hf:a/b"]
        {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn pages_follow_each_other() {
        assert_eq!(
            next_page("<https://h/x?cursor=1>; rel=\"next\"").as_deref(),
            Some("https://h/x?cursor=1")
        );
        assert_eq!(next_page("<https://h/x>; rel=\"prev\""), None);
    }

    #[test]
    fn large_files_come_with_their_digest_and_directories_are_taken_whole() {
        let page = r#"[{"type":"directory","path":"sub","oid":"x","size":0},
            {"type":"file","path":"config.json","oid":"aa","size":3},
            {"type":"file","path":"sub/w.bin","oid":"bb","size":9,"lfs":{"oid":"OID","size":9,"pointerSize":1}}]"#;
        let page = page.replace("OID", &"ab".repeat(32));
        let addr = serve(page);
        let hub = Hub { endpoint: format!("http://{addr}"), token: Some("t".to_owned()) };
        let all = hub.items(&parse("hf://a/b").unwrap(), &Wanted::default()).unwrap();
        let names: Vec<_> = all.iter().map(|item| item.name.display().to_string()).collect();
        assert_eq!(names, ["config.json", "sub/w.bin"]);
        assert_eq!(all[0].digest, None);
        assert_eq!(all[1].digest, Some(format!("sha256:{}", "ab".repeat(32))));
        assert_eq!(all[1].path, format!("/files/http://{addr}/a/b/resolve/main/sub/w.bin"));
        assert!(all[1].headers.contains(&("authorization".to_owned(), "Bearer t".to_owned())));
        let sub = hub.items(&parse("hf://a/b/sub").unwrap(), &Wanted::default()).unwrap();
        assert_eq!(sub.len(), 1);
        assert!(hub.items(&parse("hf://a/b/su").unwrap(), &Wanted::default()).is_err());
    }

    /// The same page for every request.
    fn serve(page: String) -> std::net::SocketAddr {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
                stream.write_all(format!("{head}{page}").as_bytes()).unwrap();
            }
        });
        addr
    }
}
