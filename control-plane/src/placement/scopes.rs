//! A cluster's scopes, raw as people write them and checked as placement uses them.
//!
//! Invariant: every network, pattern and text of a [`Scopes`] is valid and within its limit; what is
//! not is refused naming the field and the value.

use super::{Known, Specificity, Strength};
use globset::{GlobBuilder, GlobMatcher};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most networks of one cluster.
pub const MAX_CIDRS: usize = 1000;
/// Most host name patterns of one cluster.
pub const MAX_HOSTNAMES: usize = 1000;
/// Longest host name pattern, bytes: no host name is longer (RFC 1035 §2.3.4).
pub const MAX_PATTERN_BYTES: usize = 253;
/// Longest IDC list or location, bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Scopes as written by people and kept in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawScopes {
    /// `10.1.0.0/16`, `2001:db8::/32`; v4-mapped networks are the IPv4 ones.
    pub cidrs: Vec<String>,
    /// One IDC or several: `a|b|c`.
    pub idc: String,
    /// Elements joined by `|`, widest first: `asia|cn|hangzhou`.
    pub location: String,
    /// Host names, with `*`, `?`, `[a-z]` and `{a,b}`.
    pub hostnames: Vec<String>,
}

/// Why scopes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: `{value}`: {problem}")]
pub struct ScopeError {
    /// `scopes.cidrs`, …
    pub field: &'static str,
    pub value: String,
    pub problem: String,
}

/// Checked scopes.
#[derive(Debug, Clone, Default)]
pub struct Scopes {
    cidrs: Vec<IpNet>,
    idcs: Vec<String>,
    location: Vec<String>,
    hostnames: Vec<NamePattern>,
}

#[derive(Debug, Clone)]
struct NamePattern {
    text: String,
    matcher: GlobMatcher,
    specificity: Specificity,
}

/// The scope of a cluster that matches a node best.
pub(super) struct Found<'s> {
    pub(super) strength: Strength,
    pub(super) scope: Matched<'s>,
}

pub(super) enum Matched<'s> {
    Cidr(&'s IpNet),
    Hostname(&'s str),
    Idc(&'s str),
    Location(&'s [String]),
}

impl Scopes {
    /// # Errors
    /// The first network, pattern or text that cannot be used.
    pub fn check(raw: &RawScopes) -> Result<Self, ScopeError> {
        at_most("scopes.cidrs", raw.cidrs.len(), MAX_CIDRS)?;
        at_most("scopes.hostnames", raw.hostnames.len(), MAX_HOSTNAMES)?;
        let mut cidrs = raw.cidrs.iter().map(|text| network(text)).collect::<Result<Vec<_>, _>>()?;
        cidrs.sort_unstable();
        cidrs.dedup();
        Ok(Self {
            cidrs,
            idcs: elements("scopes.idc", &raw.idc)?,
            location: elements("scopes.location", &raw.location)?,
            hostnames: raw.hostnames.iter().map(|text| NamePattern::check(text)).collect::<Result<_, _>>()?,
        })
    }

    /// The scopes as text, normalised: networks without host bits, v4-mapped ones as IPv4.
    pub fn to_raw(&self) -> RawScopes {
        RawScopes {
            cidrs: self.cidrs.iter().map(ToString::to_string).collect(),
            idc: self.idcs.join("|"),
            location: self.location.join("|"),
            hostnames: self.hostnames.iter().map(|pattern| pattern.text.clone()).collect(),
        }
    }

    pub(super) fn strongest(&self, node: &Known<'_>) -> Option<Found<'_>> {
        let direct = self.networks(node).chain(self.names(node)).max_by_key(|found| found.strength);
        direct.or_else(|| self.idc(node)).or_else(|| self.location(node))
    }

    fn networks<'s>(&'s self, node: &Known<'_>) -> impl Iterator<Item = Found<'s>> {
        let ip = node.ip;
        self.cidrs.iter().filter(move |net| ip.is_some_and(|ip| net.contains(&ip))).map(|net| Found {
            strength: Strength::Direct(Specificity::Network(net.prefix_len())),
            scope: Matched::Cidr(net),
        })
    }

    fn names<'s>(&'s self, node: &Known<'_>) -> impl Iterator<Item = Found<'s>> {
        let hostname = node.hostname;
        let matching = self.hostnames.iter().filter(move |pattern| pattern.matches(hostname));
        matching.map(|pattern| Found {
            strength: Strength::Direct(pattern.specificity),
            scope: Matched::Hostname(&pattern.text),
        })
    }

    fn idc(&self, node: &Known<'_>) -> Option<Found<'_>> {
        let idc = self.idcs.iter().find(|idc| same(idc, node.idc))?;
        Some(Found { strength: Strength::Idc, scope: Matched::Idc(idc) })
    }

    fn location(&self, node: &Known<'_>) -> Option<Found<'_>> {
        let shared = self.location.len().min(node.location.len());
        let agree = self.location.iter().zip(&node.location).all(|(ours, theirs)| same(ours, theirs));
        (shared > 0 && agree)
            .then(|| Found { strength: Strength::Location(shared), scope: Matched::Location(&self.location) })
    }
}

impl Matched<'_> {
    pub(super) fn reason(&self, node: &Known<'_>) -> String {
        match self {
            Self::Cidr(net) => {
                let ip = node.ip.map(|ip| ip.to_string()).unwrap_or_default();
                format!("cidr {net} contains {ip}")
            }
            Self::Hostname(pattern) => format!("hostname pattern {pattern} matches {}", node.hostname),
            Self::Idc(idc) => format!("idc {idc} equals {}", node.idc),
            Self::Location(location) => {
                let (ours, theirs) = (location.join("|"), node.location.join("|"));
                let relation = if location.len() <= node.location.len() { "contains" } else { "lies within" };
                format!("location {ours} {relation} {theirs}")
            }
        }
    }
}

impl NamePattern {
    fn check(text: &str) -> Result<Self, ScopeError> {
        let refuse = |problem: String| refused("scopes.hostnames", text, problem);
        let text = text.trim().trim_end_matches('.');
        if text.is_empty() {
            return Err(refuse("is empty".to_owned()));
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(refuse(format!("is longer than {MAX_PATTERN_BYTES} bytes")));
        }
        let glob = GlobBuilder::new(text).case_insensitive(true).backslash_escape(false).build();
        let matcher = glob.map_err(|error| refuse(error.kind().to_string()))?.compile_matcher();
        let literal = text.chars().filter(|c| !is_wildcard(*c)).count();
        let specificity =
            if text.contains(is_wildcard) { Specificity::Pattern(literal) } else { Specificity::Name };
        Ok(Self { text: text.to_owned(), matcher, specificity })
    }

    fn matches(&self, hostname: &str) -> bool {
        !hostname.is_empty() && self.matcher.is_match(hostname)
    }
}

fn is_wildcard(c: char) -> bool {
    matches!(c, '*' | '?' | '[' | ']' | '{' | '}')
}

fn network(text: &str) -> Result<IpNet, ScopeError> {
    let trimmed = text.trim();
    let net: IpNet = trimmed.parse().map_err(|_| {
        let problem = match trimmed.parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv4() => format!("is an address, not a network: write {ip}/32"),
            Ok(ip) => format!("is an address, not a network: write {ip}/128"),
            Err(_) => "is not a CIDR such as 10.1.0.0/16 or 2001:db8::/32".to_owned(),
        };
        refused("scopes.cidrs", text, problem)
    })?;
    Ok(without_mapping(net.trunc()))
}

/// `::ffff:10.0.0.0/104` is 10.0.0.0/8: nodes are compared by their IPv4 address too.
fn without_mapping(net: IpNet) -> IpNet {
    const MAPPED_PREFIX_BITS: u8 = 96;
    let IpNet::V6(v6) = net else { return net };
    let (Some(prefix), Some(ip)) =
        (v6.prefix_len().checked_sub(MAPPED_PREFIX_BITS), v6.network().to_ipv4_mapped())
    else {
        return net;
    };
    Ipv4Net::new(ip, prefix).map_or(net, IpNet::V4)
}

/// `a|b|c` as its elements; nothing for an empty text.
fn elements(field: &'static str, text: &str) -> Result<Vec<String>, ScopeError> {
    if text.len() > MAX_TEXT_BYTES {
        let start: String = text.chars().take(40).collect();
        return Err(refused(field, &start, format!("… is longer than {MAX_TEXT_BYTES} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<String> = text.split('|').map(|part| part.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) {
        return Err(refused(field, text, "has an empty element between `|`".to_owned()));
    }
    Ok(parts)
}

fn same(ours: &str, theirs: &str) -> bool {
    ours.eq_ignore_ascii_case(theirs) || ours.to_lowercase() == theirs.to_lowercase()
}

fn at_most(field: &'static str, count: usize, most: usize) -> Result<(), ScopeError> {
    if count <= most {
        return Ok(());
    }
    Err(refused(field, &format!("{count} entries"), format!("more than {most}")))
}

fn refused(field: &'static str, value: &str, problem: String) -> ScopeError {
    ScopeError { field, value: value.to_owned(), problem }
}
