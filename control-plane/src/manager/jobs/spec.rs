//! What a preheat job is asked to do, checked.
//!
//! Invariant: a [`Preheat`] that exists can be tried: its image or URL, platforms, clusters and scope make sense by
//! themselves.

use hawker_api::image::{ImageReference, PlatformError, Platforms, ReferenceError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Longest URL, bytes; daemons take no longer path.
const MAX_URL_BYTES: usize = 4096;
/// Most clusters named in one job.
const MAX_CLUSTERS: usize = 1000;

/// As people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Preheat)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPreheat {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    #[serde(default)]
    pub(crate) platforms: Vec<String>,
    /// Empty: all of them.
    #[serde(default)]
    pub(crate) cluster_ids: Vec<u64>,
    /// `seeds`, `all`, a number of nodes, or `25%` of them.
    #[serde(default = "all")]
    pub(crate) scope: String,
}

fn all() -> String {
    "all".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preheat {
    pub(crate) what: What,
    pub(crate) platforms: Platforms,
    pub(crate) cluster_ids: Vec<u64>,
    pub(crate) scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// With everything filled in.
    Image(String),
    Url(String),
}

/// Which nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Seeds,
    All,
    Count(usize),
    /// 1 to 100.
    Percent(usize),
}

/// Why a job makes no sense; names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("args: needs `image` or `url`, one of both")]
    What,
    #[error("args.image: {0}")]
    Image(ReferenceError),
    #[error("args.url: `{0}` begins with neither http:// nor https://")]
    Url(String),
    #[error("args.url: is longer than {MAX_URL_BYTES} bytes")]
    Long,
    #[error("args.platforms: {0}")]
    Platforms(#[from] PlatformError),
    #[error("args.cluster_ids: {0} clusters, at most {MAX_CLUSTERS}")]
    Clusters(usize),
    #[error("args.scope: `{0}` is none of: seeds, all, a number of nodes, a percentage from 1% to 100%")]
    Scope(String),
}

impl Preheat {
    pub(crate) fn check(raw: &RawPreheat) -> Result<Self, SpecError> {
        let what = match (&raw.image, &raw.url) {
            (Some(image), None) => {
                let reference: ImageReference = image.trim().parse().map_err(SpecError::Image)?;
                What::Image(reference.to_string())
            }
            (None, Some(url)) => What::Url(checked_url(url.trim())?),
            (None, None) | (Some(_), Some(_)) => return Err(SpecError::What),
        };
        let mut cluster_ids = raw.cluster_ids.clone();
        cluster_ids.sort_unstable();
        cluster_ids.dedup();
        if cluster_ids.len() > MAX_CLUSTERS {
            return Err(SpecError::Clusters(cluster_ids.len()));
        }
        Ok(Self { what, platforms: Platforms::read(&raw.platforms)?, cluster_ids, scope: raw.scope.parse()? })
    }

    pub(crate) fn to_raw(&self) -> RawPreheat {
        let (image, url) = match &self.what {
            What::Image(image) => (Some(image.clone()), None),
            What::Url(url) => (None, Some(url.clone())),
        };
        RawPreheat {
            image,
            url,
            platforms: self.platforms.texts(),
            cluster_ids: self.cluster_ids.clone(),
            scope: self.scope.to_string(),
        }
    }
}

fn checked_url(url: &str) -> Result<String, SpecError> {
    if url.len() > MAX_URL_BYTES {
        return Err(SpecError::Long);
    }
    let shown = || url.chars().take(80).collect::<String>();
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && url.chars().all(|c| c.is_ascii_graphic()) => Ok(url.to_owned()),
        _ => Err(SpecError::Url(shown())),
    }
}

impl Scope {
    /// How many of `live` nodes that is; [`Self::Seeds`] is not a matter of numbers.
    pub(crate) fn of(self, live: usize) -> usize {
        match self {
            Self::Seeds | Self::All => live,
            Self::Count(count) => count.min(live),
            Self::Percent(percent) => (live * percent).div_ceil(100),
        }
    }
}

impl FromStr for Scope {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = || SpecError::Scope(text.chars().take(40).collect());
        let number = |digits: &str| digits.parse::<usize>().ok().filter(|number| *number > 0).ok_or_else(bad);
        match text.trim() {
            "seeds" => Ok(Self::Seeds),
            "all" => Ok(Self::All),
            other => match other.strip_suffix('%') {
                Some(digits) => match number(digits)? {
                    percent @ ..=100 => Ok(Self::Percent(percent)),
                    _ => Err(bad()),
                },
                None => Ok(Self::Count(number(other)?)),
            },
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeds => f.write_str("seeds"),
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(image: &str, scope: &str) -> RawPreheat {
        RawPreheat { image: Some(image.to_owned()), scope: scope.to_owned(), ..RawPreheat::default() }
    }

    #[test]
    fn scopes_and_how_many_nodes_they_are() {
        for (text, scope, of_ten) in [
            ("all", Scope::All, 10),
            ("3", Scope::Count(3), 3),
            ("30", Scope::Count(30), 10),
            ("25%", Scope::Percent(25), 3),
            ("100%", Scope::Percent(100), 10),
            ("1%", Scope::Percent(1), 1),
        ] {
            assert_eq!(text.parse(), Ok(scope));
            assert_eq!(scope.of(10), of_ten, "{text}");
            assert_eq!(scope.to_string(), text);
        }
        for text in ["", "0", "0%", "101%", "-1", "some", "5 %x"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_job_is_filled_in_and_survives_a_round_trip() {
        let job =
            Preheat::check(&RawPreheat { cluster_ids: vec![2, 1, 2], ..raw("nginx", "seeds") }).unwrap();
        assert_eq!(job.what, What::Image("docker.io/library/nginx:latest".to_owned()));
        assert_eq!(job.cluster_ids, [1, 2]);
        assert_eq!(Preheat::check(&job.to_raw()), Ok(job));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let url = |url: &str| RawPreheat { image: None, url: Some(url.to_owned()), ..raw("", "all") };
        for (raw, says) in [
            (RawPreheat { scope: all(), ..RawPreheat::default() }, "needs `image` or `url`"),
            (RawPreheat { image: Some("a".to_owned()), ..url("https://a/b") }, "one of both"),
            (raw("a b", "all"), "args.image"),
            (raw("a", "most"), "args.scope: `most`"),
            (RawPreheat { platforms: vec!["x".to_owned()], ..raw("a", "all") }, "args.platforms"),
            (url("ftp://a/b"), "neither http"),
            (url("https://a/b c"), "args.url"),
            (url(&format!("https://{}", "a".repeat(5000))), "longer"),
        ] {
            let error = Preheat::check(&raw).unwrap_err().to_string();
            assert!(error.contains(says), "{raw:?}: {error}");
        }
    }
}
