//! Sessions and personal access tokens in the database.
//!
//! Invariants: no token is stored, only its digest; what is found belongs to an account that is enabled now, on
//! whichever manager it was made.

use super::users::{User, UserRow};
use super::{Store, StoreError, failed, id_from, id_to};
use crate::manager::account::Account;
use crate::manager::rights::Permission;
use sqlx::FromRow;
use std::collections::BTreeSet;

/// Most live sessions of a user; the one that expires first makes room.
const MAX_SESSIONS_PER_USER: i64 = 1000;
/// Most personal access tokens of a user.
pub(crate) const MAX_ACCESS_TOKENS_PER_USER: i64 = 100;
/// Uses of a token closer than this to the last one are not written down, seconds.
const LAST_USED_STEP_S: i64 = 60;
const OWNER: &str = "users.id, users.name, users.password_hash, users.role, users.cluster_ids, users.disabled, \
                     users.source, users.created_at";

/// A personal access token, without what it proves itself by.
#[derive(Debug, Clone)]
pub(crate) struct AccessToken {
    pub(crate) id: u64,
    pub(crate) user_name: String,
    pub(crate) name: String,
    pub(crate) scopes: BTreeSet<Permission>,
    pub(crate) created_at: i64,
    pub(crate) expires_at: i64,
    /// 0: never.
    pub(crate) last_used_at: i64,
}

#[derive(FromRow)]
struct AccessTokenRow {
    id: i64,
    user_name: String,
    name: String,
    scopes: String,
    created_at: i64,
    expires_at: i64,
    last_used_at: i64,
}

impl Store {
    /// Keeps a session of an account that is enabled, and forgets the expired ones.
    pub(crate) async fn add_session(
        &self,
        user_id: u64,
        hash: &str,
        kind: &str,
        now: i64,
        expires_at: i64,
    ) -> Result<(), StoreError> {
        const ACT: &str = "store session";
        let act = failed(ACT);
        let user_id = id_to(user_id).unwrap_or_default();
        let mut transaction = self.begin(ACT).await?;
        sqlx::query(
            "DELETE FROM tokens WHERE expires_at <= $1 OR hash IN \
             (SELECT hash FROM tokens WHERE user_id = $2 ORDER BY expires_at DESC LIMIT 1000000 OFFSET $3)",
        )
        .bind(now)
        .bind(user_id)
        .bind(MAX_SESSIONS_PER_USER - 1)
        .execute(&mut *transaction)
        .await
        .map_err(act)?;
        sqlx::query(
            "INSERT INTO tokens (hash, user_id, created_at, expires_at, kind) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(hash)
        .bind(user_id)
        .bind(now)
        .bind(expires_at)
        .bind(kind)
        .execute(&mut *transaction)
        .await
        .map_err(act)?;
        transaction.commit().await.map_err(act)
    }

    pub(crate) async fn remove_session(&self, hash: &str) -> Result<(), StoreError> {
        let removed = sqlx::query("DELETE FROM tokens WHERE hash = $1").bind(hash).execute(&self.pool).await;
        removed.map(drop).map_err(failed("remove session"))
    }

    /// Whose session this is, if it is one of this kind and has not expired.
    pub(crate) async fn session(
        &self,
        hash: &str,
        kind: &str,
        now: i64,
    ) -> Result<Option<Account>, StoreError> {
        let query = format!(
            "SELECT {OWNER} FROM tokens JOIN users ON users.id = tokens.user_id \
             WHERE tokens.hash = $1 AND tokens.kind = $2 AND tokens.expires_at > $3 AND users.disabled = 0"
        );
        let row: Option<UserRow> = sqlx::query_as(&query)
            .bind(hash)
            .bind(kind)
            .bind(now)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look up session"))?;
        row.map(|row| Ok(User::try_from(row)?.account)).transpose()
    }

    /// Keeps a personal access token; `None`: the user has too many.
    pub(crate) async fn add_access_token(
        &self,
        user_id: u64,
        name: &str,
        hash: &str,
        scopes: &BTreeSet<Permission>,
        (now, expires_at): (i64, i64),
    ) -> Result<Option<u64>, StoreError> {
        const ACT: &str = "store access token";
        let user_id = id_to(user_id).unwrap_or_default();
        let mut transaction = self.begin_write(ACT).await?;
        let has: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM access_tokens WHERE user_id = $1")
            .bind(user_id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed(ACT))?;
        if has >= MAX_ACCESS_TOKENS_PER_USER {
            return Ok(None);
        }
        let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO access_tokens (user_id, name, hash, scopes, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
        )
        .bind(user_id)
        .bind(name)
        .bind(hash)
        .bind(serde_json::json!(names).to_string())
        .bind(now)
        .bind(expires_at)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(ACT))?;
        transaction.commit().await.map_err(failed(ACT))?;
        Ok(Some(id_from(id)?))
    }

    /// Tokens of a user, or of all, by id.
    pub(crate) async fn access_tokens(&self, user_id: Option<u64>) -> Result<Vec<AccessToken>, StoreError> {
        let rows: Vec<AccessTokenRow> = sqlx::query_as(
            "SELECT access_tokens.id, users.name AS user_name, access_tokens.name, scopes, \
             access_tokens.created_at, expires_at, last_used_at \
             FROM access_tokens JOIN users ON users.id = user_id WHERE $1 = 0 OR user_id = $1 ORDER BY access_tokens.id",
        )
        .bind(user_id.and_then(id_to).unwrap_or_default())
        .fetch_all(&self.pool)
        .await
        .map_err(failed("list access tokens"))?;
        rows.into_iter().map(AccessToken::try_from).collect()
    }

    pub(crate) async fn remove_access_token(&self, id: u64) -> Result<(), StoreError> {
        let removing = sqlx::query("DELETE FROM access_tokens WHERE id = $1").bind(id_to(id));
        removing.execute(&self.pool).await.map(drop).map_err(failed("remove access token"))
    }

    /// Whose personal access token this is and what it is good for, if it is one and has not expired.
    pub(crate) async fn access_token(
        &self,
        hash: &str,
        now: i64,
    ) -> Result<Option<(Account, u64, BTreeSet<Permission>)>, StoreError> {
        let act = failed("look up access token");
        let found: Option<(i64, i64, String, i64)> = sqlx::query_as(
            "SELECT id, user_id, scopes, last_used_at FROM access_tokens WHERE hash = $1 AND expires_at > $2",
        )
        .bind(hash)
        .bind(now)
        .fetch_optional(&self.pool)
        .await
        .map_err(act)?;
        let Some((id, user_id, scopes, last_used_at)) = found else { return Ok(None) };
        let owner = self.account(id_from(user_id)?).await?;
        let Some(owner) = owner.filter(|user| !user.account.disabled) else { return Ok(None) };
        if now - last_used_at >= LAST_USED_STEP_S {
            let used = sqlx::query("UPDATE access_tokens SET last_used_at = $1 WHERE id = $2");
            used.bind(now).bind(id).execute(&self.pool).await.map_err(act)?;
        }
        Ok(Some((owner.account, id_from(id)?, scopes_from(id, &scopes)?)))
    }
}

fn scopes_from(id: i64, json: &str) -> Result<BTreeSet<Permission>, StoreError> {
    let broken = |problem: String| StoreError::Row { row: format!("access token {id}"), problem };
    let names: Vec<String> = serde_json::from_str(json).map_err(|error| broken(error.to_string()))?;
    let parsed = names.iter().map(|name| name.parse::<Permission>());
    parsed.collect::<Result<_, _>>().map_err(|error| broken(error.to_string()))
}

impl TryFrom<AccessTokenRow> for AccessToken {
    type Error = StoreError;

    fn try_from(row: AccessTokenRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: id_from(row.id)?,
            user_name: row.user_name,
            name: row.name,
            scopes: scopes_from(row.id, &row.scopes)?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        })
    }
}
