//! The first user of a new database.
//!
//! Invariant: a password that nobody saw never becomes the only one.

use super::password::{self, PasswordError};
use crate::manager::account::MAX_PASSWORD_BYTES;
use crate::manager::store::{Store, StoreError};
use crate::manager::unix_seconds;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of randomness in a generated password.
const PASSWORD_BYTES: usize = 18;
/// Largest password file read.
const MAX_PASSWORD_FILE_BYTES: u64 = 4096;
/// The user of a first start.
const FIRST_USER: &str = "root";

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

/// Makes the default cluster and user `root` where there is no user yet.
///
/// # Errors
/// The password file is missing, empty or too large; the password cannot be printed; the database fails.
pub(crate) async fn first_start(store: &Store, password_file: Option<&Path>) -> Result<(), FirstStartError> {
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
    if !store.first_start(FIRST_USER, &hash, unix_seconds(SystemTime::now())).await? {
        tracing::warn!("another manager made the user {FIRST_USER} at the same time: its password counts");
    }
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
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(unusable(format!("holds more than {MAX_PASSWORD_BYTES} bytes")));
    }
    Ok(password.to_owned())
}
