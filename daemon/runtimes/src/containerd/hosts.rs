//! `hosts.toml`: what it says in containerd's reading, and the same with the mirror first. Text in, text out.
//!
//! Invariant: every byte that stood there stands there afterwards; the new lines lie between marks.

use crate::plan::PlanError;
use crate::toml_text::{Parsed, ended, marked, quoted};
use crate::wanted::{Registry, names_mirror};
use std::net::SocketAddr;
use std::path::Path;
use toml_edit::TableLike;

/// How long containerd 2.1 and later waits for a connection (older ones ignore it): a loopback connection takes
/// microseconds, unless the daemon is stopped and its queue full.
const DIAL_TIMEOUT: &str = "1s";
/// Keys that make containerd try HTTPS first at a plain `http://` host.
const TLS_KEYS: [&str; 3] = ["ca", "client", "skip_verify"];

/// A file as containerd reads it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct HostsFile {
    pub(crate) server: Option<String>,
    /// In the order in which they are tried.
    pub(crate) hosts: Vec<HostEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostEntry {
    pub(crate) url: String,
    pub(crate) line: usize,
    /// `None`: not written, which means all.
    pub(crate) capabilities: Option<(Vec<String>, usize)>,
    /// The first key about TLS, and its line.
    pub(crate) tls: Option<(&'static str, usize)>,
    /// Line of `override_path = true`.
    pub(crate) override_path: Option<usize>,
}

impl HostsFile {
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, PlanError> {
        let parsed = Parsed::new(path, text)?;
        let mut hosts = Vec::new();
        for (url, item) in parsed.get_table(&["host"]).into_iter().flat_map(TableLike::iter) {
            let key =
                parsed.get_table(&["host"]).and_then(|table| table.key(url)).and_then(toml_edit::Key::span);
            let at = item.span().or(key).map_or(0, |span| span.start);
            let shape =
                |line: usize, problem: String| PlanError::Shape { path: path.to_owned(), line, problem };
            let table = item.as_table_like().ok_or_else(|| {
                shape(parsed.line(item.span()), format!("host {} is no table", quoted(url)))
            })?;
            let line = |key: &str| parsed.line(table.get(key).and_then(toml_edit::Item::span));
            let entry = HostEntry {
                url: url.to_owned(),
                line: parsed.line(Some(at..at)),
                capabilities: capabilities(table)
                    .map_err(|problem| shape(line("capabilities"), problem))?
                    .map(|names| (names, line("capabilities"))),
                tls: TLS_KEYS.into_iter().find(|key| table.contains_key(key)).map(|key| (key, line(key))),
                override_path: table
                    .get("override_path")
                    .filter(|item| item.as_bool() == Some(true))
                    .map(|_| line("override_path")),
            };
            hosts.push((at, entry));
        }
        hosts.sort_by_key(|(at, _)| *at);
        let server = parsed.string(&["server"]).map(|(server, _)| server);
        Ok(Self { server, hosts: hosts.into_iter().map(|(_, entry)| entry).collect() })
    }

    /// The entry of the mirror.
    pub(crate) fn entry_of(&self, mirror: SocketAddr) -> Option<&HostEntry> {
        self.hosts.iter().find(|entry| names_mirror(&entry.url, mirror))
    }
}

impl HostEntry {
    /// Whether containerd asks it for this: `pull`, `resolve`.
    pub(crate) fn can(&self, capability: &str) -> bool {
        self.capabilities.as_ref().is_none_or(|(names, _)| {
            names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(capability))
        })
    }
}

/// A word containerd does not know makes it drop the whole file.
fn capabilities(host: &dyn TableLike) -> Result<Option<Vec<String>>, String> {
    const KNOWN: [&str; 4] = ["pull", "resolve", "push", "referrers"];
    let Some(item) = host.get("capabilities") else { return Ok(None) };
    let array = item.as_array().ok_or("capabilities are no list")?;
    let names = array.iter().map(|name| name.as_str().map(str::to_owned));
    let names: Vec<_> = names.collect::<Option<_>>().ok_or("a capability is no text")?;
    match names.iter().find(|name| !KNOWN.contains(&name.to_ascii_lowercase().as_str())) {
        Some(unknown) => Err(format!("containerd knows no capability {}", quoted(unknown))),
        None => Ok(Some(names)),
    }
}

/// `base` with the mirror as its first host, and with a server if it names none.
pub(crate) fn with_mirror(
    path: &Path,
    base: &str,
    registry: &Registry,
    mirror: &str,
) -> Result<String, PlanError> {
    let parsed = Parsed::new(path, base)?;
    let mut block = String::new();
    if parsed.get(&["server"]).is_none() {
        block.push_str(&format!("server = {}\n", quoted(registry.server())));
    }
    let host = quoted(mirror);
    let host = host.trim();
    block.push_str(&format!(
        "[host.{host}]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"{DIAL_TIMEOUT}\"\n"
    ));
    let (before, after) = base.split_at(first_table(base, &parsed));
    let text = format!("{}{}{after}", ended(before.to_owned()), marked(&block));
    // What a dotted key or an inline table makes impossible shows here, not in containerd's log.
    let check = HostsFile::parse(path, &text).ok();
    let first = check.as_ref().and_then(|file| file.hosts.first()).map(|entry| entry.url.as_str());
    if first == Some(mirror) {
        return Ok(text);
    }
    let line = parsed.line(parsed.get(&["host"]).and_then(toml_edit::Item::span));
    let problem = "hosts are not written as [host.\"…\"] tables here: add the mirror by hand".to_owned();
    Err(PlanError::Shape { path: path.to_owned(), line, problem })
}

/// Where the first `[table]` begins, with the comment that stands right above it; else the end.
fn first_table(text: &str, parsed: &Parsed) -> usize {
    let mut starts: Vec<usize> = Vec::new();
    collect_headers(parsed.table(), &mut starts);
    let Some(first) = starts.into_iter().min() else { return text.len() };
    let mut start = text[..first].rfind('\n').map_or(0, |end| end + 1);
    while let Some(above) = text[..start].strip_suffix('\n') {
        let line_start = above.rfind('\n').map_or(0, |end| end + 1);
        if !above[line_start..].trim_start().starts_with('#') {
            break;
        }
        start = line_start;
    }
    start
}

/// Spans of the tables with a header of their own.
fn collect_headers(table: &toml_edit::Table, starts: &mut Vec<usize>) {
    for (_, item) in table {
        match item {
            toml_edit::Item::Table(inner) => {
                if !inner.is_implicit() && !inner.is_dotted() {
                    starts.extend(inner.span().map(|span| span.start));
                }
                collect_headers(inner, starts);
            }
            toml_edit::Item::ArrayOfTables(tables) => {
                starts.extend(tables.iter().filter_map(|table| table.span().map(|span| span.start)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_text::without_marked;

    const MIRROR: &str = "http://127.0.0.1:4001";

    fn merged(base: &str) -> Result<String, PlanError> {
        with_mirror(Path::new("/c/ghcr.io/hosts.toml"), base, &"ghcr.io".parse().unwrap(), MIRROR)
    }

    #[test]
    fn a_new_file() {
        let text = merged("").unwrap();
        let file = HostsFile::parse(Path::new("x"), &text).unwrap();
        assert_eq!(file.server.as_deref(), Some("https://ghcr.io"));
        assert_eq!(file.hosts.len(), 1);
        assert!(file.hosts[0].can("pull") && file.hosts[0].can("resolve") && !file.hosts[0].can("push"));
        assert_eq!(file.hosts[0].tls, None);
    }

    #[test]
    fn the_mirror_comes_first_and_nothing_else_moves() {
        let base = "# by ops\nserver = \"https://ghcr.io\"\nca = \"x.crt\"\n\n# the cache\n[host.\"https://cache\"] # old\n\
                    capabilities = [\"pull\"]\n[host.\"https://cache\".header]\nx = \"y\"\n[host.\"https://b\"]";
        let text = merged(base).unwrap();
        assert_eq!(without_marked(&text).as_deref(), Some(base));
        let urls: Vec<_> =
            HostsFile::parse(Path::new("x"), &text).unwrap().hosts.into_iter().map(|h| h.url).collect();
        assert_eq!(urls, [MIRROR, "https://cache", "https://b"]);
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("x.crt") < at(MIRROR) && at("# <<< hawker") < at("# the cache"));
    }

    #[test]
    fn order_is_that_of_the_file_not_of_the_alphabet() {
        let text = "[host.\"https://z\"]\n[host.\"https://a\"]\nskip_verify = true\n";
        let file = HostsFile::parse(Path::new("x"), text).unwrap();
        assert_eq!(file.hosts.iter().map(|h| h.url.as_str()).collect::<Vec<_>>(), ["https://z", "https://a"]);
        assert_eq!((file.hosts[1].line, file.hosts[1].tls), (2, Some(("skip_verify", 3))));
    }

    #[test]
    fn what_cannot_be_extended_is_refused_with_its_line() {
        for (base, line) in [
            ("server = \"https://ghcr.io\"\nhost = { \"https://m\" = {} }\n", "hosts.toml:2"),
            ("a = [", "hosts.toml:1"),
            ("[host.\"https://m\"]\ncapabilities = [\"pul\"]\n", "hosts.toml:"),
        ] {
            let error = merged(base).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
