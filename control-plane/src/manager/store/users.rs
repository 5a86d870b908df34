//! Users and bearer tokens in the database, and what a first start puts there.
//!
//! Invariant: neither a password nor a token is stored, only what proves them.

use super::{Store, StoreError, clusters, failed, id_from};
use crate::manager::cluster::ClusterSpec;
use sqlx::FromRow;

/// Most live tokens of a user; the one that expires first makes room.
const MAX_TOKENS_PER_USER: i64 = 1000;

/// A user as needed to check a password.
#[derive(Debug, Clone)]
pub(crate) struct User {
    id: i64,
    pub name: String,
    /// argon2id, PHC string.
    pub password_hash: String,
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub user_id: u64,
    pub name: String,
}

#[derive(FromRow)]
struct UserRow {
    id: i64,
    name: String,
    password_hash: String,
}

impl Store {
    /// No user yet: this is a first start.
    pub(crate) async fn is_new(&self) -> Result<bool, StoreError> {
        let users: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users")
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count users"))?;
        Ok(users == 0)
    }

    /// The default cluster and the user of a first start: both or neither.
    pub(crate) async fn first_start(
        &self,
        user: &str,
        password_hash: &str,
        now: i64,
    ) -> Result<(), StoreError> {
        let act = failed("create the default cluster and the first user");
        let mut transaction = self.pool.begin().await.map_err(&act)?;
        clusters::insert(&mut transaction, &ClusterSpec::first(), now).await?;
        sqlx::query("INSERT INTO users (name, password_hash, created_at) VALUES ($1, $2, $3)")
            .bind(user)
            .bind(password_hash)
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(&act)?;
        transaction.commit().await.map_err(&act)
    }

    pub(crate) async fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        let row: Option<UserRow> =
            sqlx::query_as("SELECT id, name, password_hash FROM users WHERE name = $1")
                .bind(name)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed("look up user"))?;
        Ok(row.map(|row| User { id: row.id, name: row.name, password_hash: row.password_hash }))
    }

    /// Keeps a token of `user`, and forgets the expired ones.
    pub(crate) async fn add_token(
        &self,
        user: &User,
        token_hash: &str,
        now: i64,
        expires_at: i64,
    ) -> Result<(), StoreError> {
        let act = failed("store token");
        let mut transaction = self.pool.begin().await.map_err(&act)?;
        sqlx::query(
            "DELETE FROM tokens WHERE expires_at <= $1 OR hash IN \
             (SELECT hash FROM tokens WHERE user_id = $2 ORDER BY expires_at DESC LIMIT 1000000 OFFSET $3)",
        )
        .bind(now)
        .bind(user.id)
        .bind(MAX_TOKENS_PER_USER - 1)
        .execute(&mut *transaction)
        .await
        .map_err(&act)?;
        sqlx::query("INSERT INTO tokens (hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(token_hash)
            .bind(user.id)
            .bind(now)
            .bind(expires_at)
            .execute(&mut *transaction)
            .await
            .map_err(&act)?;
        transaction.commit().await.map_err(&act)
    }

    /// Whose token this is, if it is one and has not expired.
    pub(crate) async fn token_owner(&self, token_hash: &str, now: i64) -> Result<Option<Caller>, StoreError> {
        let row: Option<(i64, String)> = sqlx::query_as(
            "SELECT users.id, users.name FROM tokens JOIN users ON users.id = tokens.user_id \
             WHERE tokens.hash = $1 AND tokens.expires_at > $2",
        )
        .bind(token_hash)
        .bind(now)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("look up token"))?;
        row.map(|(id, name)| Ok(Caller { user_id: id_from(id)?, name })).transpose()
    }
}
