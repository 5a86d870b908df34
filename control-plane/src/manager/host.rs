//! Hosts as the manager knows them: daemons (peers and seed peers) and schedulers, in our own words.
//!
//! Invariant: what is here was checked; an address is one others can connect to, every text has its limit.

use crate::config::is_host_port;
use crate::placement::Node;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Longest identifier, host name, IDC, version, … a host may send, bytes.
pub const MAX_HOST_TEXT_BYTES: usize = 1024;

/// What a daemon registers as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub id: String,
    pub hostname: String,
    pub ip: IpAddr,
    pub piece_port: u16,
    pub idc: String,
    pub location: String,
    pub kind: PeerKind,
    pub version: String,
    pub engine: String,
    pub engine_reason: String,
    pub shaper: String,
    pub shaper_reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    Peer,
    Seed,
}

/// The cluster a daemon wants whatever the scopes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pin {
    /// `cluster.id`
    Cluster(u64),
    /// `seedPeer.clusterID`
    SeedPeerCluster(u64),
}

/// How a daemon wants to be placed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub pin: Option<Pin>,
    /// `cluster.fallback: default`
    pub accept_default: bool,
}

/// What a scheduler registers as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerHost {
    pub hostname: String,
    /// host:port of its gRPC service; also what it is known by.
    pub addr: String,
    pub scheduler_cluster_id: u64,
    pub version: String,
}

/// Why a registration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("register {host}: {field}: {problem}")]
pub struct HostError {
    host: String,
    field: &'static str,
    problem: String,
}

impl Peer {
    /// # Errors
    /// An address nobody can connect to, no id, or a text beyond its limit.
    pub fn checked(self) -> Result<Self, HostError> {
        let texts = [
            ("host.id", &self.id),
            ("host.hostname", &self.hostname),
            ("host.idc", &self.idc),
            ("host.location", &self.location),
            ("host.version", &self.version),
            ("host.engine", &self.engine),
            ("host.engine_reason", &self.engine_reason),
            ("host.shaper", &self.shaper),
            ("host.shaper_reason", &self.shaper_reason),
        ];
        check_texts(&self.hostname, &texts)?;
        if self.id.is_empty() {
            return Err(refused(&self.hostname, "host.id", "is empty".to_owned()));
        }
        if self.id.chars().any(char::is_control) {
            return Err(refused(&self.hostname, "host.id", "has control characters".to_owned()));
        }
        if self.ip.is_unspecified() || self.ip.is_multicast() || self.ip == IpAddr::from([255; 4]) {
            let problem = format!("{} is not an address peers can connect to", self.ip);
            return Err(refused(&self.hostname, "host.ip", problem));
        }
        if self.piece_port == 0 {
            return Err(refused(&self.hostname, "host.piece_port", "is 0".to_owned()));
        }
        Ok(Self { ip: self.ip.to_canonical(), ..self })
    }

    pub fn node(&self) -> Node {
        Node {
            ip: Some(self.ip),
            idc: self.idc.clone(),
            location: self.location.clone(),
            hostname: self.hostname.clone(),
        }
    }
}

impl SchedulerHost {
    /// # Errors
    /// An address that is not host:port, or a text beyond its limit.
    pub fn checked(self) -> Result<Self, HostError> {
        let texts =
            [("hostname", &self.hostname), ("advertise_addr", &self.addr), ("version", &self.version)];
        check_texts(&self.hostname, &texts)?;
        if !is_host_port(&self.addr) {
            let problem = format!("`{}` is not of the form host:port", self.addr);
            return Err(refused(&self.hostname, "advertise_addr", problem));
        }
        Ok(self)
    }
}

/// A refusal of a value that does not even fit a [`Peer`].
pub fn refused(hostname: &str, field: &'static str, problem: String) -> HostError {
    let name: String = hostname.chars().take(64).collect();
    HostError { host: if name.is_empty() { "host without a name".to_owned() } else { name }, field, problem }
}

fn check_texts(hostname: &str, texts: &[(&'static str, &String)]) -> Result<(), HostError> {
    match texts.iter().find(|(_, text)| text.len() > MAX_HOST_TEXT_BYTES) {
        None => Ok(()),
        Some((field, _)) => {
            Err(refused(hostname, field, format!("is longer than {MAX_HOST_TEXT_BYTES} bytes")))
        }
    }
}
