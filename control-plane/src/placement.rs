//! Which cluster a node belongs to, and why: a pure function of the clusters' scopes and of what the
//! node says about itself. It knows nothing of schedulers, pins or registrations.
//!
//! The order, strongest first:
//! 1. address and name. An exact host name beats every CIDR; a longer CIDR prefix beats a shorter
//!    one; a host name pattern with wildcards loses to every CIDR, and more literal characters beat fewer;
//! 2. IDC;
//! 3. location, more shared elements first;
//! 4. the default cluster.
//!
//! Ties go to the lowest cluster id.
//!
//! Invariant: the answer does not depend on the order of the clusters, and without a matching scope it
//! is the default cluster or nothing.

mod scopes;

pub use scopes::{
    MAX_CIDRS, MAX_HOSTNAMES, MAX_PATTERN_BYTES, MAX_TEXT_BYTES, RawScopes, ScopeError, Scopes,
};

use std::net::IpAddr;

/// One cluster as placement sees it.
#[derive(Debug, Clone)]
pub struct ClusterScopes {
    pub cluster_id: u64,
    /// Takes the nodes that no scope matches.
    pub is_default: bool,
    pub scopes: Scopes,
}

/// What a node says about itself; empty texts and no address match nothing.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub ip: Option<IpAddr>,
    pub idc: String,
    /// Elements joined by `|`, widest first.
    pub location: String,
    pub hostname: String,
}

/// The cluster of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub cluster_id: u64,
    /// A sentence for people, naming the scope: `cidr 10.1.0.0/16 contains 10.1.0.7`.
    pub reason: String,
}

/// The cluster whose scopes match `node` best; `None` only where nothing matches and no cluster
/// is the default.
pub fn place(clusters: &[ClusterScopes], node: &Node) -> Option<Placed> {
    let node = Known::of(node);
    let strongest = clusters
        .iter()
        .filter_map(|cluster| Some((cluster.cluster_id, cluster.scopes.strongest(&node)?)))
        // `min_by_key` on the reversed strength and the id: the strongest match, then the lowest id.
        .min_by_key(|(id, found)| (std::cmp::Reverse(found.strength), *id));
    if let Some((cluster_id, found)) = strongest {
        return Some(Placed { cluster_id, reason: found.scope.reason(&node) });
    }
    let default =
        clusters.iter().filter(|cluster| cluster.is_default).map(|cluster| cluster.cluster_id).min();
    default.map(|cluster_id| Placed { cluster_id, reason: "no scope matches: default cluster".to_owned() })
}

/// A node in the form the scopes compare with.
struct Known<'n> {
    ip: Option<IpAddr>,
    idc: &'n str,
    location: Vec<&'n str>,
    hostname: &'n str,
}

impl<'n> Known<'n> {
    fn of(node: &'n Node) -> Self {
        Self {
            // `::ffff:10.1.0.7` is 10.1.0.7 wherever it is compared or printed.
            ip: node.ip.map(|ip| ip.to_canonical()),
            idc: node.idc.trim(),
            // An empty element ends the location: nothing can be known beyond it.
            location: node.location.split('|').map(str::trim).take_while(|part| !part.is_empty()).collect(),
            hostname: node.hostname.trim().trim_end_matches('.'),
        }
    }
}

/// How strongly a scope matches; the order of the variants is the order of the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// Elements both sides share.
    Location(usize),
    Idc,
    /// Address or name, see [`Specificity`].
    Direct(Specificity),
}

/// How narrowly an address or name is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    /// A name pattern with wildcards: its literal characters.
    Pattern(usize),
    /// A network: its prefix length.
    Network(u8),
    /// One name, written out.
    Name,
}

#[cfg(test)]
mod tests;
