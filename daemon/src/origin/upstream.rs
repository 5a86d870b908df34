//! One entry of an allow-list: where it is, how much is asked of it at once, and whom it may lead to.

use super::account::Account;
use super::guard::Guard;
use super::request;
use super::{OriginLimits, REQUESTS_PER_REGISTRY};
use crate::accounting::Accounting;
use ipnet::IpNet;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

/// How long one that did not answer is not waited for: a pull that has many small requests loses one wait, not
/// one for each of them.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

pub(super) struct Upstream {
    pub(super) host: String,
    pub(super) server: Url,
    pub(super) permits: Arc<Semaphore>,
    pub(super) accounting: Accounting,
    pub(super) guard: Guard,
    /// It may know which trace a request belongs to.
    pub(super) traced: bool,
    /// The node's own there, for jobs.
    pub(super) account: Option<Account>,
    /// It did not answer a short while ago: until then nobody waits for it again.
    silent_until: Mutex<Option<Instant>>,
    limits: OriginLimits,
    /// For redirects and realms: connects only where `guard` allows.
    elsewhere: OnceLock<reqwest::Client>,
}

impl Upstream {
    pub(super) fn new(
        host: &str,
        server: &Url,
        networks: &[IpNet],
        accounting: &Accounting,
        limits: OriginLimits,
    ) -> Self {
        Self {
            host: host.to_owned(),
            server: server.clone(),
            permits: Arc::new(Semaphore::new(REQUESTS_PER_REGISTRY)),
            accounting: accounting.clone(),
            guard: Guard::new(networks),
            traced: false,
            account: None,
            silent_until: Mutex::new(None),
            limits,
            elsewhere: OnceLock::new(),
        }
    }

    /// Whether it did not answer a short while ago.
    pub(super) fn is_silent(&self) -> bool {
        self.silent_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// It answered, or did not.
    pub(super) fn answered(&self, answered: bool) {
        *self.silent_until.lock() = (!answered).then(|| Instant::now() + SILENCE);
    }

    /// The client for a URL that the registry named.
    ///
    /// # Errors
    /// It leads further inside than the registry is; the text does not quote it.
    pub(super) fn elsewhere(&self, url: &Url) -> Result<&reqwest::Client, String> {
        if !self.guard.allows_literal(url) {
            return Err(
                "led to an address further inside than the registry (see redirectNetworks)".to_owned()
            );
        }
        if let Some(client) = self.elsewhere.get() {
            return Ok(client);
        }
        let client = request::guarded_client(&self.limits, &self.guard);
        let client = client.map_err(|error| request::chain(&error))?;
        Ok(self.elsewhere.get_or_init(|| client))
    }
}
