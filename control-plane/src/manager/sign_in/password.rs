//! argon2id, off the runtime's threads.
//!
//! Invariant: checking takes one full hash, also where there is nothing to check against.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, password_hash};
use std::sync::OnceLock;

/// Salt length, bytes (RFC 9106 §3.1 recommends 16).
const SALT_BYTES: usize = 16;

/// Why a password could not be hashed or checked; never says anything of the password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("hash password: {0}")]
    Hash(password_hash::Error),
    #[error("hash password: interrupted")]
    Interrupted,
}

/// The PHC string to store.
pub(super) async fn hash(password: String) -> Result<String, PasswordError> {
    off_runtime(move || hash_now(&password)).await
}

/// Whether `password` is the one `hash` was made of; without a hash it is not, after the same work.
pub(super) async fn matches(password: String, hash: Option<String>) -> Result<bool, PasswordError> {
    off_runtime(move || match hash {
        Some(hash) => verify(&password, &hash),
        None => verify(&password, stand_in()?).map(|_| false),
    })
    .await
}

fn verify(password: &str, hash: &str) -> Result<bool, PasswordError> {
    let hash = PasswordHash::new(hash).map_err(PasswordError::Hash)?;
    match Argon2::default().verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::Password) => Ok(false),
        Err(error) => Err(PasswordError::Hash(error)),
    }
}

fn hash_now(password: &str) -> Result<String, PasswordError> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; SALT_BYTES]>()).map_err(PasswordError::Hash)?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(PasswordError::Hash)?;
    Ok(hash.to_string())
}

/// A hash that unknown users are checked against.
fn stand_in() -> Result<&'static str, PasswordError> {
    static STAND_IN: OnceLock<String> = OnceLock::new();
    if let Some(hash) = STAND_IN.get() {
        return Ok(hash);
    }
    let hash = hash_now("nobody's password")?;
    Ok(STAND_IN.get_or_init(|| hash))
}

async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PasswordError::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_matches_and_salts_differ() {
        let (one, two) = (hash_now("secret").unwrap(), hash_now("secret").unwrap());
        assert!(one.starts_with("$argon2id$"), "{one}");
        assert_ne!(one, two);
        assert!(verify("secret", &one).unwrap());
        assert!(!verify("Secret", &one).unwrap());
        assert!(verify("secret", "not a hash").is_err());
    }

    #[tokio::test]
    async fn nobody_matches_without_a_hash() {
        assert!(!matches("nobody's password".to_owned(), None).await.unwrap());
    }
}
