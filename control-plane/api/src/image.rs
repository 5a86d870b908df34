//! What names an image, and the platforms it may be for.
//!
//! Invariant: a [`ImageReference`] that exists has a registry, a repository and a tag or digest, all of them well
//! formed, so that it can stand in a URL's path.

use crate::name::{is_repository, is_tag};
use crate::task::{TaskId, TaskIdError};
use std::fmt;
use std::str::FromStr;

/// The registry of names that name none.
pub const DOCKER_HUB: &str = "docker.io";
/// Longest reference, bytes: a host, a name, a tag and a digest at their limits.
pub const MAX_REFERENCE_BYTES: usize = 1024;
const DEFAULT_TAG: &str = "latest";

/// `ghcr.io/a/b:v1`, with what is left out filled in as runtimes do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// `host[:port]`, lower case.
    pub registry: String,
    pub repository: String,
    pub version: Version,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    Tag(String),
    Digest(TaskId),
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("is longer than {MAX_REFERENCE_BYTES} bytes")]
    Length,
    #[error("`{0}` is no host of a registry")]
    Registry(String),
    #[error("`{0}` is no repository name")]
    Repository(String),
    #[error("`{0}` is no tag")]
    Tag(String),
    #[error(transparent)]
    Digest(#[from] TaskIdError),
    #[error("`{0}` is no digest of content")]
    NotContent(String),
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(ReferenceError::Length);
        }
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        // What follows the last colon is a tag, unless it is a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_ascii_lowercase(), rest.to_owned())
            }
            Some(_) => (DOCKER_HUB.to_owned(), name.to_owned()),
            None => (DOCKER_HUB.to_owned(), format!("library/{name}")),
        };
        if !is_host(&registry) {
            return Err(ReferenceError::Registry(registry));
        }
        if !is_repository(&repository) {
            return Err(ReferenceError::Repository(repository));
        }
        let tag = tag.unwrap_or(DEFAULT_TAG);
        if !is_tag(tag) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        let version = match digest {
            // A digest says it all; runtimes ignore a tag before it.
            Some(digest) => {
                let task: TaskId = digest.parse()?;
                if !task.is_content() {
                    return Err(ReferenceError::NotContent(digest.to_owned()));
                }
                Version::Digest(task)
            }
            None => Version::Tag(tag.to_owned()),
        };
        Ok(Self { registry, repository, version })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, version } = self;
        match version {
            Version::Tag(tag) => write!(f, "{registry}/{repository}:{tag}"),
            Version::Digest(digest) => write!(f, "{registry}/{repository}@{digest}"),
        }
    }
}

/// `host[:port]`, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good = match bracketed {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'),
    };
    good && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// What an image is built for: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// Empty: any.
    pub variant: String,
}

/// Which platforms of an image are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// The one of the node.
    Own,
    All,
    Of(Vec<Platform>),
}

/// Most platforms of one request.
pub const MAX_PLATFORMS: usize = 32;
/// Longest element of a platform, bytes.
const MAX_ELEMENT_BYTES: usize = 32;

/// Why texts are no platforms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    #[error("`{0}` is no platform: write os/architecture or os/architecture/variant, or `all`")]
    Shape(String),
    #[error("`all` stands alone")]
    NotAlone,
    #[error("{0} platforms, at most {MAX_PLATFORMS}")]
    Many(usize),
}

impl Platform {
    /// That of this machine.
    #[must_use]
    pub fn own() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: String::new() }
    }

    /// Whether what is for `other` will do.
    #[must_use]
    pub fn takes(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_empty() || self.variant == other.variant)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let element = |part: &&str| -> bool {
            let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            (1..=MAX_ELEMENT_BYTES).contains(&part.len()) && part.chars().all(good)
        };
        let parts: Vec<&str> = text.split('/').collect();
        let bad = || PlatformError::Shape(text.chars().take(3 * MAX_ELEMENT_BYTES).collect());
        match parts.as_slice() {
            [os, architecture, rest @ ..] if rest.len() <= 1 && parts.iter().all(element) => {
                let variant = rest.first().copied().unwrap_or("").to_ascii_lowercase();
                let (os, architecture) = (os.to_ascii_lowercase(), architecture.to_ascii_lowercase());
                Ok(Self { os, architecture, variant })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Platforms {
    /// # Errors
    /// A text that is no platform, too many, or `all` beside others.
    pub fn read<T: AsRef<str>>(texts: &[T]) -> Result<Self, PlatformError> {
        if texts.len() > MAX_PLATFORMS {
            return Err(PlatformError::Many(texts.len()));
        }
        match texts {
            [] => Ok(Self::Own),
            [only] if only.as_ref() == "all" => Ok(Self::All),
            many if many.iter().any(|text| text.as_ref() == "all") => Err(PlatformError::NotAlone),
            many => Ok(Self::Of(many.iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>()?)),
        }
    }

    /// As [`Self::read`] takes them.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Own => Vec::new(),
            Self::All => vec!["all".to_owned()],
            Self::Of(platforms) => platforms.iter().map(Platform::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_as_people_write_them() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("a/b:v1", "docker.io/a/b:v1".to_owned()),
            ("GHCR.io/a/b", "ghcr.io/a/b:latest".to_owned()),
            ("registry.lab:5000/lab/x:1", "registry.lab:5000/lab/x:1".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("[::1]:5000/x", "[::1]:5000/x:latest".to_owned()),
            (&format!("ghcr.io/a:v1@{digest}"), format!("ghcr.io/a@{digest}")),
        ] {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(full.parse::<ImageReference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_is_no_reference_is_named() {
        let (long, url) = ("a".repeat(2000), format!("a@url:{}", "0".repeat(64)));
        for (text, says) in [
            ("", "no repository name"),
            ("https://ghcr.io/a", "https"),
            ("ghcr.io/../a", "no repository name"),
            ("ghcr.io/a:", "no tag"),
            ("ghcr.io/a:-x", "no tag"),
            ("ghcr.io/a@md5:0", "md5"),
            ("a.b:0/a", "no host"),
            ("a.b:99999/a", "no host"),
            ("a_b.c/x", "no host"),
            (&url, "no digest of content"),
            (&long, "longer"),
        ] {
            let error = text.parse::<ImageReference>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn platforms_and_what_they_take() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(platform("linux/arm").takes(&platform("linux/arm/v7")));
        assert!(platform("Linux/ARM64").takes(&platform("linux/arm64/v8")));
        assert!(!platform("linux/arm/v6").takes(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").takes(&platform("windows/amd64")));
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        for text in ["", "linux", "linux/", "linux/a/b/c", "linux/a b", "linux/ä"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(Platforms::read::<&str>(&[]), Ok(Platforms::Own));
        assert_eq!(Platforms::read(&["all"]), Ok(Platforms::All));
        assert_eq!(Platforms::read(&["linux/amd64", "all"]), Err(PlatformError::NotAlone));
        assert_eq!(Platforms::read(&["linux/amd64"; 33]), Err(PlatformError::Many(33)));
        assert_eq!(Platforms::read(&["linux/amd64"]).unwrap().texts(), ["linux/amd64"]);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_comes_back_the_same(text in "[a-z0-9./:@\\-_\\[\\]A-Z]{0,40}") {
            if let Ok(reference) = text.parse::<ImageReference>() {
                prop_assert_eq!(reference.to_string().parse::<ImageReference>(), Ok(reference));
            }
        }
    }
}
