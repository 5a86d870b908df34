//! How both programs read a configuration file: YAML with camelCase keys, every key overridable by
//! a `HAWKER_…` environment variable, unknown keys refused by name and line.
//!
//! Invariant: what this returns was read completely; nothing in the file is silently ignored.

use serde::{Serialize, de::DeserializeOwned};
use serde_yaml_ng::Value;
use std::path::{Path, PathBuf};

/// Largest configuration file read, bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Prefix of the environment variables that override keys.
pub const ENV_PREFIX: &str = "HAWKER_";

/// Why a configuration was refused. Every variant names the file or variable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read configuration {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration {path} has {bytes} bytes, more than {MAX_CONFIG_BYTES}", path = .path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("configuration {path}: {source}", path = .path.display())]
    Parse { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("environment variable {name}=`{value}`: {source}")]
    Variable { name: String, value: String, source: serde_yaml_ng::Error },
    #[error("environment variable {name} matches no configuration key")]
    UnknownVariable { name: String },
    #[error("configuration {origin}: {key}: {problem}")]
    Invalid { origin: String, key: String, problem: String },
}

/// Reads `path` (or the defaults, for `None`), then applies `environment`.
///
/// `T` should carry `#[serde(default, deny_unknown_fields, rename_all = "camelCase")]` at every level
/// and serialise every key, so that every key has its variable.
///
/// # Errors
/// Every variant of [`ConfigError`] but `Invalid`, which belongs to the checks after reading.
pub fn load<T>(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut raw = match path {
        None => T::default(),
        Some(path) => parse(path, &read(path)?)?,
    };
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix(ENV_PREFIX) {
            raw = override_key(&raw, key, &name, &value)?;
        }
    }
    Ok(raw)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn parse<T: DeserializeOwned + Default>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let failed = |source| ConfigError::Parse { path: path.to_owned(), source };
    if serde_yaml_ng::from_str::<Value>(text).map_err(failed)?.is_null() {
        return Ok(T::default());
    }
    serde_yaml_ng::from_str(text).map_err(failed)
}

/// Replaces the key whose path, in upper snake case joined by `_`, is `wanted`.
fn override_key<T>(raw: &T, wanted: &str, name: &str, value: &str) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize,
{
    let failed = |source| ConfigError::Variable { name: name.to_owned(), value: value.to_owned(), source };
    let mut tree = serde_yaml_ng::to_value(raw).map_err(failed)?;
    let leaf =
        find(&mut tree, "", wanted).ok_or_else(|| ConfigError::UnknownVariable { name: name.to_owned() })?;
    *leaf = match &*leaf {
        // A text stays a text, whatever it looks like (a hostname may be `1234`).
        Value::String(_) => Value::String(value.to_owned()),
        _ => serde_yaml_ng::from_str(value).map_err(failed)?,
    };
    serde_yaml_ng::from_value(tree).map_err(failed)
}

fn find<'t>(tree: &'t mut Value, prefix: &str, wanted: &str) -> Option<&'t mut Value> {
    let Value::Mapping(mapping) = tree else { return None };
    for (key, child) in mapping.iter_mut() {
        let Some(key) = key.as_str() else { continue };
        let path = format!("{prefix}{}", upper_snake(key));
        if path == wanted {
            return Some(child);
        }
        if let Some(leaf) = find(child, &format!("{path}_"), wanted) {
            return Some(leaf);
        }
    }
    None
}

/// `advertiseIP` → `ADVERTISE_IP`, `otlpEndpoint` → `OTLP_ENDPOINT`.
fn upper_snake(key: &str) -> String {
    let mut snake = String::with_capacity(key.len() + 4);
    let mut after_lower = false;
    for c in key.chars() {
        if c.is_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = c.is_lowercase() || c.is_ascii_digit();
        snake.extend(c.to_uppercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Sample {
        host: Host,
        limit: u64,
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
    struct Host {
        hostname: String,
        #[serde(rename = "advertiseIP")]
        advertise_ip: String,
        tags: Vec<String>,
    }

    fn from_text(text: &str, environment: &[(&str, &str)]) -> Result<Sample, ConfigError> {
        let file = std::env::temp_dir().join(format!(
            "hawker-config-{}-{:?}.yaml",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&file, text).unwrap();
        let variables = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let result = load(Some(&file), variables);
        std::fs::remove_file(file).unwrap();
        result
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = from_text("limit: 1\nhost:\n  hostnam: a\n", &[]).unwrap_err().to_string();
        assert!(error.contains("hostnam") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(from_text("# nothing\n", &[]).unwrap().limit, 0);
    }

    #[test]
    fn variables_override_keys() {
        let sample = from_text(
            "limit: 1\nhost: { hostname: a }\n",
            &[
                ("HAWKER_HOST_HOSTNAME", "123"),
                ("HAWKER_LIMIT", "7"),
                ("HAWKER_HOST_TAGS", "[x, y]"),
                ("PATH", "/"),
            ],
        )
        .unwrap();
        assert_eq!((sample.host.hostname.as_str(), sample.limit), ("123", 7));
        assert_eq!(sample.host.tags, ["x", "y"]);
        let sample = from_text("", &[("HAWKER_HOST_ADVERTISE_IP", "10.0.0.1")]).unwrap();
        assert_eq!(sample.host.advertise_ip, "10.0.0.1");
    }

    #[test]
    fn bad_variables_are_named() {
        let unknown = from_text("", &[("HAWKER_HOST_NAME", "a")]).unwrap_err().to_string();
        assert!(unknown.contains("HAWKER_HOST_NAME"), "{unknown}");
        let bad = from_text("", &[("HAWKER_LIMIT", "many")]).unwrap_err().to_string();
        assert!(bad.contains("HAWKER_LIMIT") && bad.contains("many"), "{bad}");
    }
}
