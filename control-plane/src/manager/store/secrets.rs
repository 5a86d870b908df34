//! The manager's own secrets, made at the first start that needs them.
//!
//! Invariant: a secret is written once; managers that share a database read the same one.

use super::{Store, StoreError, failed};

const PEERS: &str = "peers";
const SECRET_BYTES: usize = 32;

impl Store {
    /// What the clusters' peer keys are derived from.
    pub(crate) async fn peer_secret(&self) -> Result<[u8; SECRET_BYTES], StoreError> {
        let fresh: [u8; SECRET_BYTES] = rand::random();
        sqlx::query("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(PEERS)
            .bind(fresh.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            .execute(&self.pool)
            .await
            .map_err(failed("make the peers' secret"))?;
        let text: String = sqlx::query_scalar("SELECT value FROM secrets WHERE name = $1")
            .bind(PEERS)
            .fetch_one(&self.pool)
            .await
            .map_err(failed("read the peers' secret"))?;
        parse(&text).ok_or_else(|| StoreError::Row {
            row: format!("secret `{PEERS}`"),
            problem: format!("is not {SECRET_BYTES} bytes in hex"),
        })
    }
}

fn parse(hex: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    if hex.len() != 2 * SECRET_BYTES || !hex.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
