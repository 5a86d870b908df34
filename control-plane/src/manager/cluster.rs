//! A cluster: its name, its scopes and its configuration, and the rules for editing them.
//!
//! Invariant: the scheduler cluster and the seed peer cluster of a cluster have its own id. Schedulers of
//! one cluster therefore never hear of another cluster's nodes.

use crate::placement::{ClusterScopes, RawScopes, ScopeError, Scopes};
use hawker_api::policy::{ClusterPolicy, PolicyError};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Most clusters of one manager.
pub const MAX_CLUSTERS: usize = 1000;
/// Longest name, bytes: that of a DNS label, as clusters are named in Helm values and host names.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest description, bytes.
pub const MAX_BIO_BYTES: usize = 1024;
/// Largest `config` object, bytes of JSON.
pub const MAX_CONFIG_BYTES: usize = 16 << 10;

/// One cluster as stored.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub id: u64,
    pub spec: ClusterSpec,
    /// Seconds since 1970.
    pub created_at: i64,
    pub updated_at: i64,
    /// Counts its edits, from 1.
    pub revision: u64,
}

/// What people set of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub name: String,
    pub bio: String,
    pub is_default: bool,
    pub scopes: Scopes,
    /// As it was written.
    pub config: Map<String, Value>,
    /// What `config` says.
    pub policy: Arc<ClusterPolicy>,
}

/// Some fields of a cluster as people wrote them; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct ClusterEdit {
    pub name: Option<String>,
    pub bio: Option<String>,
    pub is_default: Option<bool>,
    pub scopes: ScopesEdit,
    pub config: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, Default)]
pub struct ScopesEdit {
    pub cidrs: Option<Vec<String>>,
    pub idc: Option<String>,
    pub location: Option<String>,
    pub hostnames: Option<Vec<String>>,
}

/// Why a cluster was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("{field}: `{value}`: {problem}")]
    Field { field: &'static str, value: String, problem: String },
    #[error(transparent)]
    Scope(#[from] ScopeError),
    #[error("config.{0}")]
    Policy(#[from] PolicyError),
}

impl SpecError {
    /// What of the cluster it is about, as the API calls it: `scopes.cidrs`.
    pub fn field(&self) -> String {
        match self {
            Self::Field { field, .. } => (*field).to_owned(),
            Self::Scope(error) => error.field.to_owned(),
            Self::Policy(error) => format!("config.{}", error.key),
        }
    }
}

impl Cluster {
    pub fn scheduler_cluster_id(&self) -> u64 {
        self.id
    }

    pub fn seed_peer_cluster_id(&self) -> u64 {
        self.id
    }

    pub fn placement(&self) -> ClusterScopes {
        ClusterScopes {
            cluster_id: self.id,
            is_default: self.spec.is_default,
            scopes: self.spec.scopes.clone(),
        }
    }
}

impl ClusterSpec {
    /// The cluster of a first start.
    pub fn first() -> Self {
        Self {
            name: "cluster-1".to_owned(),
            bio: "default cluster, made at the first start".to_owned(),
            is_default: true,
            scopes: Scopes::default(),
            config: Map::new(),
            policy: Arc::default(),
        }
    }

    /// A new cluster; only the name is needed.
    ///
    /// # Errors
    /// No name, or a field that cannot be used.
    pub fn create(edit: ClusterEdit) -> Result<Self, SpecError> {
        let empty = Self { name: String::new(), bio: String::new(), is_default: false, ..Self::first() };
        empty.with(edit)
    }

    /// This cluster with `edit` applied.
    ///
    /// # Errors
    /// A field that cannot be used.
    pub fn with(&self, edit: ClusterEdit) -> Result<Self, SpecError> {
        let current = self.scopes.to_raw();
        let raw = RawScopes {
            cidrs: edit.scopes.cidrs.unwrap_or(current.cidrs),
            idc: edit.scopes.idc.unwrap_or(current.idc),
            location: edit.scopes.location.unwrap_or(current.location),
            hostnames: edit.scopes.hostnames.unwrap_or(current.hostnames),
        };
        let config = edit.config.unwrap_or_else(|| self.config.clone());
        let spec = Self {
            name: edit.name.map_or_else(|| self.name.clone(), |name| name.trim().to_owned()),
            bio: edit.bio.unwrap_or_else(|| self.bio.clone()),
            is_default: edit.is_default.unwrap_or(self.is_default),
            scopes: Scopes::check(&raw)?,
            policy: Arc::new(ClusterPolicy::read(&config)?),
            config,
        };
        spec.check_texts()?;
        Ok(spec)
    }

    fn check_texts(&self) -> Result<(), SpecError> {
        let refuse = |field, value: &str, problem: String| {
            Err(SpecError::Field { field, value: value.chars().take(80).collect(), problem })
        };
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return refuse("name", &self.name, format!("must have 1 to {MAX_NAME_BYTES} bytes"));
        }
        if self.name.chars().any(char::is_control) {
            return refuse(
                "name",
                &self.name.escape_debug().to_string(),
                "has control characters".to_owned(),
            );
        }
        if self.bio.len() > MAX_BIO_BYTES {
            return refuse("bio", &self.bio, format!("is longer than {MAX_BIO_BYTES} bytes"));
        }
        let config = Value::Object(self.config.clone()).to_string();
        if config.len() > MAX_CONFIG_BYTES {
            return refuse("config", &config, format!("is larger than {MAX_CONFIG_BYTES} bytes"));
        }
        Ok(())
    }
}
