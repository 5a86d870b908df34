//! Entries of `files.origins`: the allow-list of hosts that files come from.
//!
//! Invariant: two entries are never for the same name, and a pattern never covers a whole top-level domain.

use super::FileOrigin;
use super::check::Problem;
use super::registry::{RawRegistry, host_and_server};

/// Most entries.
const MAX_ORIGINS: usize = 256;

pub(super) fn origins(raw: &[RawRegistry]) -> Result<Vec<FileOrigin>, Problem> {
    if raw.len() > MAX_ORIGINS {
        let problem = format!("has {} entries, at most {MAX_ORIGINS}", raw.len());
        return Err(Problem::new("files.origins", problem));
    }
    let mut list: Vec<FileOrigin> = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        let key = format!("files.origins[{index}]");
        let origin = checked(&key, entry)?;
        if list.iter().any(|other| other.host == origin.host) {
            return Err(Problem::new(key, format!("`{}` is listed twice", origin.host)));
        }
        list.push(origin);
    }
    Ok(list)
}

fn checked(key: &str, entry: &RawRegistry) -> Result<FileOrigin, Problem> {
    let (host, server) = host_and_server(key, entry)?;
    if entry.has_policy() {
        let problem = format!("`{host}`: host and server alone are for files; the origin is asked each time");
        return Err(Problem::new(key, problem));
    }
    let scheme_counts = matches!(entry, RawRegistry::Url(_));
    match host.strip_prefix("*.") {
        Some(_) if !scheme_counts => {
            return Err(Problem::new(key, format!("`{host}` is many hosts: a server cannot stand for them")));
        }
        Some(domain) if !domain.contains('.') || domain.contains('*') => {
            let problem = format!("`{host}` is too wide: name at least two elements, as in `*.example.com`");
            return Err(Problem::new(key, problem));
        }
        None if host.contains('*') => {
            let problem =
                format!("`{host}`: a `*` may only be the whole first element, as in `*.example.com`");
            return Err(Problem::new(key, problem));
        }
        _ => {}
    }
    Ok(FileOrigin { host, server, scheme_counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<FileOrigin>, String> {
        let raw: Vec<RawRegistry> = serde_json::from_str(json).unwrap();
        origins(&raw).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn hosts_and_patterns() {
        let list = parse(
            r#"["https://huggingface.co", "https://*.s3.amazonaws.com",
                {"host": "models.corp", "server": "http://10.0.0.5:80"}]"#,
        )
        .unwrap();
        let hosts: Vec<_> = list.iter().map(|origin| origin.host.as_str()).collect();
        assert_eq!(hosts, ["huggingface.co", "*.s3.amazonaws.com", "models.corp"]);
        assert_eq!(list.iter().map(|o| o.scheme_counts).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn what_is_refused() {
        for (json, expected) in [
            (r#"["https://*.com"]"#, "too wide"),
            (r#"["https://*.*.com"]"#, "too wide"),
            (r#"["https://a*.example.com"]"#, "whole first element"),
            (r#"["https://a.b", "https://A.b/"]"#, "listed twice"),
            (r#"["ftp://a.b"]"#, "another scheme"),
            (r#"["https://a.b/path"]"#, "has a path"),
            (r#"[{"host": "a.b", "access": "trust-node"}]"#, "host and server alone"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
