//! Who may have what is held in the cluster: the registry decides, for each caller by the caller's own credentials.
//!
//! A digest is no secret, so knowing one gives no right. Content goes to a caller only where its registry
//! accepts the caller's credentials for a repository that has the content. One HEAD at the registry proves both, and a
//! manifest that is proven to be in a repository vouches for what it refers to.
//!
//! Not how content is found or sent, and not the challenge a caller gets (that is [`crate::mirror`]).
//!
//! Invariant: without an answer of the registry, present or remembered within [`GRANT_LIFE`], nobody gets anything
//! (`outage: last-known` makes that a day, for what was asked before). Credentials are known here by a keyed
//! hash alone.

mod credentials;
mod references;
mod table;

pub use table::{Known, Table};

use crate::config::{AccessMode, MirrorConfig, Outage, References, RegistryPolicy, canonical_host};
use crate::metrics::{LastKnown, Metrics};
use crate::origin::{
    Credentials, MANIFEST_TYPES, ObjectKind, OriginClient, OriginError, OriginObject, PassRequest,
};
pub use credentials::CallerKey;
use credentials::Fingerprints;
use hawker_api::task::TaskId;
use http::{HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Longest time an answer of the registry is relied on. A token's own life may be shorter.
pub const GRANT_LIFE: Duration = Duration::from_secs(300);
/// Longest time it is relied on while the registry is down, where the configuration allows that.
pub const LAST_KNOWN_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// A registry that has not answered after this counts as down where there is a last known answer.
pub const DOWN_AFTER: Duration = Duration::from_secs(2);
/// Most callers × repositories remembered: ten pods' secrets for each of hundreds of repositories.
const MAX_GRANTS: usize = 4096;
/// Most digests × repositories remembered: some hundred images, of 100 bytes each in memory.
const MAX_PLACES: usize = 65_536;

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    registry: Arc<str>,
    repository: Arc<str>,
}

/// How somebody who may have something gets it.
#[derive(Debug)]
pub enum Admitted {
    /// From this node and its peers; what is missing is fetched with these credentials.
    Shared(Credentials),
    /// From the origin alone, which judges the caller itself; nothing is kept.
    OriginOnly,
}

/// Handle; clones share what is remembered.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    origin: OriginClient,
    metrics: Metrics,
    policies: BTreeMap<String, RegistryPolicy>,
    fingerprints: Fingerprints,
    /// Callers that a repository lets in.
    grants: Mutex<Table<(Place, CallerKey), ()>>,
    /// What is in a repository, whoever asks.
    places: Mutex<Table<(Place, TaskId), ()>>,
}

impl Access {
    #[must_use]
    pub fn new(config: &MirrorConfig, origin: OriginClient, metrics: Metrics) -> Self {
        let policies = config.registries.iter().map(|entry| (entry.host.clone(), entry.policy.clone()));
        Self(Arc::new(Inner {
            origin,
            metrics,
            policies: policies.collect(),
            fingerprints: Fingerprints::new(),
            grants: Mutex::new(Table::new(MAX_GRANTS, LAST_KNOWN_LIMIT)),
            places: Mutex::new(Table::new(MAX_PLACES, LAST_KNOWN_LIMIT)),
        }))
    }

    /// The policy of a registry of the allow-list.
    #[must_use]
    pub fn policy(&self, registry: &str) -> RegistryPolicy {
        self.0.policies.get(&canonical_host(registry)).cloned().unwrap_or_default()
    }

    /// What tells this caller from others, for tables of one's own.
    #[must_use]
    pub fn caller(&self, credentials: &Credentials) -> CallerKey {
        self.0.fingerprints.of(credentials)
    }

    /// Whether the caller may have `task`, before any byte of it moves.
    ///
    /// # Errors
    /// The registry's refusal as it is, or that it did not answer.
    pub async fn admit(
        &self,
        object: &OriginObject,
        task: &TaskId,
        credentials: &Credentials,
    ) -> Result<Admitted, OriginError> {
        let policy = self.policy(&object.registry);
        let shared = |credentials: &Credentials| Ok(Admitted::Shared(credentials.clone()));
        match policy.access {
            AccessMode::TrustNode => shared(credentials),
            AccessMode::Authorize => {
                self.prove(object, task, credentials, &policy).await?;
                shared(credentials)
            }
            AccessMode::PublicOnly => {
                let nobody = Credentials::none();
                match self.prove(object, task, &nobody, &policy).await {
                    Ok(()) => shared(&nobody),
                    // Not for everybody; whether for this caller, the registry says when it is asked.
                    Err(error) if matches!(error.status(), Some(401 | 403 | 404)) => Ok(Admitted::OriginOnly),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// The registry itself just gave or named this content to this caller.
    pub fn accepted(&self, object: &OriginObject, task: &TaskId, credentials: &Credentials) {
        let (place, now) = (Place::of(object), Instant::now());
        let life = credentials::life(credentials, SystemTime::now());
        let caller = self.caller(credentials);
        self.0.grants.lock().insert((place.clone(), caller), (), now, now + life);
        self.0.places.lock().insert((place, *task), (), now, now + GRANT_LIFE);
    }

    /// Takes a manifest's word for what else is in its repository. The caller has proven that the manifest is.
    pub fn vouch(&self, object: &OriginObject, manifest: &[u8]) {
        if self.policy(&object.registry).references == References::Head {
            return;
        }
        let (place, now) = (Place::of(object), Instant::now());
        let mut places = self.0.places.lock();
        for task in references::of(manifest) {
            places.insert((place.clone(), task), (), now, now + GRANT_LIFE);
        }
    }

    async fn prove(
        &self,
        object: &OriginObject,
        task: &TaskId,
        credentials: &Credentials,
        policy: &RegistryPolicy,
    ) -> Result<(), OriginError> {
        let (place, caller) = (Place::of(object), self.caller(credentials));
        let known = {
            let now = Instant::now();
            let grant = self.0.grants.lock().get(&(place.clone(), caller), now).map(|(known, ())| known);
            let there = self.0.places.lock().get(&(place, *task), now).map(|(known, ())| known);
            grant.zip(there)
        };
        if known == Some((Known::Fresh, Known::Fresh)) {
            return Ok(());
        }
        let may_go_by_memory = known.is_some() && policy.outage == Outage::LastKnown;
        let asking = self.ask(object, task, credentials);
        let answer = if may_go_by_memory {
            tokio::time::timeout(DOWN_AFTER, asking).await.unwrap_or_else(|_| Err(self.silent(object, task)))
        } else {
            asking.await
        };
        match answer {
            Ok(()) => {
                self.accepted(object, task, credentials);
                Ok(())
            }
            Err(error) if may_go_by_memory && error.is_retryable() => {
                tracing::info!(%error, "the registry is down: going by what it said last");
                self.0.metrics.last_known(LastKnown::Access);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn silent(&self, object: &OriginObject, task: &TaskId) -> OriginError {
        let (registry, what) = (object.registry.clone(), format!("{}@{task}", object.repository));
        OriginError::Failed { registry, what, detail: format!("no answer within {DOWN_AFTER:?}") }
    }

    /// One HEAD at the registry.
    async fn ask(
        &self,
        object: &OriginObject,
        task: &TaskId,
        credentials: &Credentials,
    ) -> Result<(), OriginError> {
        // Some registries know no manifest of a type that is not named.
        let accept = match object.kind {
            ObjectKind::Manifest => vec![HeaderValue::from_static(MANIFEST_TYPES)],
            ObjectKind::Blob | ObjectKind::File => Vec::new(),
        };
        let request = PassRequest {
            method: Method::HEAD,
            object: object.clone(),
            reference: task.to_string(),
            list: None,
            accept,
            credentials: credentials.clone(),
        };
        let answer = self.0.origin.fetch(&request).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.into_error(&request));
        }
        // Something that answers 200 to everything is no registry, and proves nothing.
        let named = answer.headers.get("docker-content-digest").and_then(|value| value.to_str().ok());
        let other = named.is_some_and(|named| named != task.to_string());
        if other || object.kind == ObjectKind::Manifest && is_html(&answer.headers) {
            let (registry, what) = (object.registry.clone(), format!("{}@{task}", object.repository));
            let detail = "the answer is about something else".to_owned();
            return Err(OriginError::Failed { registry, what, detail });
        }
        Ok(())
    }
}

fn is_html(headers: &http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"))
}

impl Place {
    fn of(object: &OriginObject) -> Self {
        Self {
            registry: canonical_host(&object.registry).into(),
            repository: object.repository.as_str().into(),
        }
    }
}
