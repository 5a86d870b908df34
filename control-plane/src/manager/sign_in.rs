//! Signing in: passwords to bearer tokens, tokens to callers, and the first user of a new database.
//!
//! Invariants: a sign-in costs the same work whether the user exists or not; guesses are bounded per address
//! and in parallel; a token is shown once and kept only as a digest.

mod password;
mod throttle;

use super::store::{Caller, Store, StoreError};
use super::unix_seconds;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use password::PasswordError;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use throttle::Throttle;
use tokio::sync::Semaphore;

/// How long a token is good for.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Bytes of randomness in a token and in a generated password.
const TOKEN_BYTES: usize = 32;
const PASSWORD_BYTES: usize = 18;
/// Longest name and password looked at.
const MAX_CREDENTIAL_BYTES: usize = 256;
/// Largest password file read.
const MAX_PASSWORD_FILE_BYTES: u64 = 4096;
/// Password checks at a time: each takes 19 MiB and tens of milliseconds of a core.
const MAX_PARALLEL_CHECKS: usize = 4;
/// How long a sign-in waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// The user of a first start.
const FIRST_USER: &str = "root";

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    #[error("name or password is wrong")]
    Wrong,
    #[error("too many failed sign-ins from this address: try again in {} s", .retry_after.as_secs().max(1))]
    Throttled { retry_after: Duration },
    #[error("too many sign-ins at the same time")]
    Busy,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the first user could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    #[error("read root password file {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("root password file {path} {problem}", path = .path.display())]
    Unusable { path: PathBuf, problem: String },
    #[error("print the root password: {0}")]
    Print(std::io::Error),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A bearer token as handed out.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: String,
    /// Seconds since 1970.
    pub(super) expires_at: i64,
}

#[derive(Debug)]
pub(super) struct SignIn {
    store: Store,
    throttle: Throttle,
    turns: Semaphore,
}

impl SignIn {
    pub(super) fn new(store: Store) -> Self {
        Self { store, throttle: Throttle::default(), turns: Semaphore::new(MAX_PARALLEL_CHECKS) }
    }

    /// A new token for who knows the password.
    pub(super) async fn sign_in(
        &self,
        name: &str,
        password: String,
        from: IpAddr,
    ) -> Result<Token, SignInError> {
        let refused = |retry_after| SignInError::Throttled { retry_after };
        // Counted before the work: guesses sent all at once are bounded too.
        self.throttle.attempt(from, Instant::now()).map_err(refused)?;
        if name.len() > MAX_CREDENTIAL_BYTES || password.len() > MAX_CREDENTIAL_BYTES {
            return Err(SignInError::Wrong);
        }
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(SignInError::Busy)?;
        let user = self.store.user(name).await?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let matches = password::matches(password, hash).await?;
        let Some(user) = user.filter(|_| matches) else {
            tracing::warn!(user = ?name, %from, "sign-in failed");
            return Err(SignInError::Wrong);
        };
        self.throttle.success(from);

        let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>());
        let now = SystemTime::now();
        let expires_at = unix_seconds(now + TOKEN_LIFETIME);
        self.store.add_token(&user, &digest(&text), unix_seconds(now), expires_at).await?;
        tracing::info!(user = user.name, %from, "signed in");
        Ok(Token { text, expires_at })
    }

    /// Whose token this is.
    pub(super) async fn caller(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        self.store.token_owner(&digest(token), unix_seconds(SystemTime::now())).await
    }
}

/// Makes the default cluster and user `root` where there is no user yet.
///
/// # Errors
/// The password file is missing, empty or too large; the password cannot be printed; the database fails.
pub(super) async fn first_start(store: &Store, password_file: Option<&Path>) -> Result<(), FirstStartError> {
    if !store.is_new().await? {
        return Ok(());
    }
    let password = match password_file {
        Some(path) => read_password(path)?,
        None => {
            let password = URL_SAFE_NO_PAD.encode(rand::random::<[u8; PASSWORD_BYTES]>());
            // Before it is stored: a password nobody saw must not become the only one.
            let mut out = std::io::stdout();
            writeln!(out, "{FIRST_USER} password (shown once): {password}")
                .map_err(FirstStartError::Print)?;
            out.flush().map_err(FirstStartError::Print)?;
            password
        }
    };
    let hash = password::hash(password).await?;
    store.first_start(FIRST_USER, &hash, unix_seconds(SystemTime::now())).await?;
    Ok(())
}

fn read_password(path: &Path) -> Result<String, FirstStartError> {
    let failed = |source| FirstStartError::Read { path: path.to_owned(), source };
    let unusable = |problem: String| FirstStartError::Unusable { path: path.to_owned(), problem };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_PASSWORD_FILE_BYTES {
        return Err(unusable(format!("is larger than {MAX_PASSWORD_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let password = text.trim();
    if password.is_empty() {
        return Err(unusable("is empty".to_owned()));
    }
    if password.len() > MAX_CREDENTIAL_BYTES {
        return Err(unusable(format!("holds more than {MAX_CREDENTIAL_BYTES} bytes")));
    }
    Ok(password.to_owned())
}

/// What is stored of a token. A plain digest: 256 random bits need no salt and no stretching.
fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
