//! Signing in: passwords to sessions, tokens to callers, and the first user of a new database.
//!
//! Invariants: a sign-in costs the same work whether the user exists or not; guesses are bounded per address, per
//! account and in parallel; a token is shown once and kept only as a digest; a session given as a cookie is not
//! taken as a bearer token, nor the other way round.

mod first_start;
mod password;
mod throttle;

pub(super) use first_start::{FirstStartError, first_start};
pub(super) use password::PasswordError;

use super::account::{Account, MAX_NAME_BYTES, MAX_PASSWORD_BYTES};
use super::rights::{Caller, Credential};
use super::store::{Store, StoreError};
use super::unix_seconds;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};
use throttle::{Accounts, Throttle, network};
use tokio::sync::Semaphore;

/// How long a session lasts.
const SESSION_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;
/// What personal access tokens begin with, so that scanners for leaked secrets find them.
pub(super) const ACCESS_TOKEN_PREFIX: &str = "hwk_";
/// Separates CSRF tokens from what is stored of a session.
const CSRF_DOMAIN: &str = "hawker csrf v1\n";
/// Password checks at a time: each takes 19 MiB and tens of milliseconds of a core.
const MAX_PARALLEL_CHECKS: usize = 4;
/// How long a sign-in waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    #[error("name or password is wrong")]
    Wrong,
    #[error("too many failed sign-ins from this address: try again in {} s", .retry_after.as_secs().max(1))]
    Throttled { retry_after: Duration },
    #[error("too many failed sign-ins to this account: try again in {} s", .retry_after.as_secs().max(1))]
    AccountThrottled { retry_after: Duration },
    #[error("too many sign-ins at the same time")]
    Busy,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a session is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Bearer,
    Cookie,
}

/// A session as handed out.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: String,
    /// Seconds since 1970.
    pub(super) expires_at: i64,
}

#[derive(Debug)]
pub(super) struct SignIn {
    store: Store,
    addresses: Throttle<IpAddr>,
    accounts: Accounts,
    turns: Semaphore,
}

impl Carrier {
    fn kind(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
        }
    }
}

impl SignIn {
    pub(super) fn new(store: Store) -> Self {
        let turns = Semaphore::new(MAX_PARALLEL_CHECKS);
        Self { store, addresses: Throttle::addresses(), accounts: Accounts::default(), turns }
    }

    /// A new session for who knows the password.
    pub(super) async fn sign_in(
        &self,
        name: &str,
        password: String,
        from: IpAddr,
        carrier: Carrier,
    ) -> Result<(Account, Token), SignInError> {
        let account = self.check(name, password, from).await?;
        let token = self.open(&account, carrier).await?;
        tracing::info!(user = account.name, %from, "signed in");
        Ok((account, token))
    }

    /// The account of who knows the password.
    pub(super) async fn check(
        &self,
        name: &str,
        password: String,
        from: IpAddr,
    ) -> Result<Account, SignInError> {
        let (place, now) = (network(from), Instant::now());
        // Counted before the work: guesses sent all at once are bounded too.
        self.addresses.attempt(&place, now).map_err(|retry_after| SignInError::Throttled { retry_after })?;
        if name.len() > MAX_NAME_BYTES || password.len() > MAX_PASSWORD_BYTES {
            return Err(SignInError::Wrong);
        }
        let refused = |retry_after| SignInError::AccountThrottled { retry_after };
        self.accounts.attempt(name, place, now).map_err(refused)?;
        let user = self.store.user(name).await?;
        let hash = user.as_ref().and_then(|user| user.password_hash.clone());
        let matches = self.in_turn(password::matches(password, hash)).await?;
        let Some(user) = user.filter(|user| matches && !user.account.disabled) else {
            tracing::warn!(user = ?name, %from, "sign-in failed");
            return Err(SignInError::Wrong);
        };
        self.addresses.success(&place);
        self.accounts.success(name, place, now);
        Ok(user.account)
    }

    /// What is stored of a password.
    pub(super) async fn hash(&self, password: String) -> Result<String, SignInError> {
        self.in_turn(password::hash(password)).await
    }

    /// A new session of an account whose owner was made sure of.
    pub(super) async fn open(&self, account: &Account, carrier: Carrier) -> Result<Token, StoreError> {
        let text = random_text();
        let now = SystemTime::now();
        let expires_at = unix_seconds(now + SESSION_LIFETIME);
        self.store
            .add_session(account.id, &digest(&text), carrier.kind(), unix_seconds(now), expires_at)
            .await?;
        Ok(Token { text, expires_at })
    }

    /// Ends a session.
    pub(super) async fn sign_out(&self, token: &str) -> Result<(), StoreError> {
        self.store.remove_session(&digest(token)).await
    }

    /// Who shows this bearer token: of a session, or a personal access token.
    pub(super) async fn bearer(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        let now = unix_seconds(SystemTime::now());
        if token.starts_with(ACCESS_TOKEN_PREFIX) {
            let found = self.store.access_token(&digest(token), now).await?;
            let caller = |(account, id, scopes)| caller(account, Credential::AccessToken { id, scopes });
            return Ok(found.map(caller));
        }
        let owner = self.store.session(&digest(token), Carrier::Bearer.kind(), now).await?;
        Ok(owner.map(|account| caller(account, Credential::Bearer)))
    }

    /// Who shows this cookie.
    pub(super) async fn cookie(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        let now = unix_seconds(SystemTime::now());
        let owner = self.store.session(&digest(token), Carrier::Cookie.kind(), now).await?;
        Ok(owner.map(|account| caller(account, Credential::Cookie { csrf: csrf_token(token) })))
    }

    async fn in_turn<T>(
        &self,
        work: impl Future<Output = Result<T, PasswordError>>,
    ) -> Result<T, SignInError> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(SignInError::Busy)?;
        Ok(work.await?)
    }
}

/// The CSRF token of a session: known to whoever was given the session, and to nobody who makes a browser send its
/// cookie along.
pub(super) fn csrf_token(token: &str) -> String {
    digest(&format!("{CSRF_DOMAIN}{token}"))
}

/// A text that nobody guesses.
pub(super) fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>())
}

/// What is stored of a token. A plain digest: 256 random bits need no salt and no stretching.
pub(super) fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn caller(account: Account, credential: Credential) -> Caller {
    Caller { user_id: account.id, name: account.name, role: account.role, reach: account.reach, credential }
}
