//! Accounts in the database, and what a first start puts there.
//!
//! Invariants: no password is stored, only what proves it; there is always an enabled local admin, whatever two
//! managers are asked at the same time.

use super::{Store, StoreError, clusters, failed, id_from, id_to};
use crate::manager::account::{Account, AccountEdit, Source};
use crate::manager::cluster::ClusterSpec;
use crate::manager::rights::{Reach, Role};
use sqlx::{Any, FromRow, Transaction};

/// Most accounts of one manager.
pub(crate) const MAX_ACCOUNTS: i64 = 10_000;
const COUNT_USERS: &str = "SELECT COUNT(*) FROM users";
const SELECT: &str =
    "SELECT id, name, password_hash, role, cluster_ids, disabled, source, created_at FROM users";

/// An account with what proves its password.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) account: Account,
    /// argon2id, PHC string; `None`: it signs in elsewhere.
    pub(crate) password_hash: Option<String>,
}

/// A new account.
#[derive(Debug, Clone)]
pub(crate) struct NewAccount {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) reach: Reach,
    /// Empty with a subject.
    pub(crate) password_hash: String,
    /// Of an OpenID provider: it, and its name for them.
    pub(crate) subject: Option<String>,
}

/// What became of an edit of an account.
#[derive(Debug)]
pub(crate) enum Edited {
    Done { before: Account, after: Account },
    Unknown,
    LastAdmin,
    Refused(crate::manager::account::AccountError),
}

#[derive(FromRow)]
pub(super) struct UserRow {
    id: i64,
    name: String,
    password_hash: String,
    role: String,
    cluster_ids: String,
    disabled: i64,
    source: String,
    created_at: i64,
}

impl Store {
    /// No user yet: this is a first start.
    pub(crate) async fn is_new(&self) -> Result<bool, StoreError> {
        let users: i64 =
            sqlx::query_scalar(COUNT_USERS).fetch_one(&self.pool).await.map_err(failed("count users"))?;
        Ok(users == 0)
    }

    /// The default cluster and the user of a first start: both or neither. `false`: another manager was first.
    pub(crate) async fn first_start(
        &self,
        user: &str,
        password_hash: &str,
        now: i64,
    ) -> Result<bool, StoreError> {
        const ACT: &str = "create the default cluster and the first user";
        let mut transaction = self.begin_write(ACT).await?;
        let users: i64 =
            sqlx::query_scalar(COUNT_USERS).fetch_one(&mut *transaction).await.map_err(failed(ACT))?;
        if users > 0 {
            return Ok(false);
        }
        clusters::insert(&mut transaction, &ClusterSpec::first(), now).await?;
        let root = NewAccount {
            name: user.to_owned(),
            role: Role::Admin,
            reach: Reach::All,
            password_hash: password_hash.to_owned(),
            subject: None,
        };
        insert(&mut transaction, &root, now).await?;
        transaction.commit().await.map_err(failed(ACT))?;
        Ok(true)
    }

    pub(crate) async fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        let query = format!("{SELECT} WHERE name = $1");
        let row: Option<UserRow> = sqlx::query_as(&query)
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("look up user"))?;
        row.map(User::try_from).transpose()
    }

    pub(crate) async fn account(&self, id: u64) -> Result<Option<User>, StoreError> {
        let Some(id) = id_to(id) else { return Ok(None) };
        let mut connection = self.connection("look up user").await?;
        by_id(&mut connection, id).await
    }

    /// Accounts by name, leaving out the first `skip`; and how many there are.
    pub(crate) async fn accounts(
        &self,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<Account>, usize), StoreError> {
        const ACT: &str = "list users";
        let (act, mut moment) = (failed(ACT), self.moment(ACT).await?);
        let query = format!("{SELECT} ORDER BY name LIMIT $1 OFFSET $2");
        let rows: Vec<UserRow> = sqlx::query_as(&query)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(i64::try_from(skip).unwrap_or(i64::MAX))
            .fetch_all(&mut *moment)
            .await
            .map_err(act)?;
        let total: i64 = sqlx::query_scalar(COUNT_USERS).fetch_one(&mut *moment).await.map_err(act)?;
        let accounts: Result<_, StoreError> =
            rows.into_iter().map(|row| Ok(User::try_from(row)?.account)).collect();
        Ok((accounts?, usize::try_from(total).unwrap_or_default()))
    }

    /// Adds an account; `None`: there are too many.
    ///
    /// # Errors
    /// [`StoreError::UserNameTaken`].
    pub(crate) async fn add_account(&self, new: &NewAccount, now: i64) -> Result<Option<u64>, StoreError> {
        const ACT: &str = "insert user";
        let mut transaction = self.begin_write(ACT).await?;
        let users: i64 =
            sqlx::query_scalar(COUNT_USERS).fetch_one(&mut *transaction).await.map_err(failed(ACT))?;
        if users >= MAX_ACCOUNTS {
            return Ok(None);
        }
        let id = insert(&mut transaction, new, now).await?;
        transaction.commit().await.map_err(failed(ACT))?;
        Ok(Some(id))
    }

    /// Changes an account. Whoever is disabled, or has another password, is signed out everywhere.
    pub(crate) async fn edit_account(&self, id: u64, edit: &AccountEdit) -> Result<Edited, StoreError> {
        const ACT: &str = "change user";
        let Some(id) = id_to(id) else { return Ok(Edited::Unknown) };
        let mut transaction = self.begin_write(ACT).await?;
        let Some(user) = by_id(&mut transaction, id).await? else { return Ok(Edited::Unknown) };
        let (before, after) = match user.account.with(edit) {
            Ok(after) => (user.account, after),
            Err(refused) => return Ok(Edited::Refused(refused)),
        };
        if before.is_lasting_admin()
            && !after.is_lasting_admin()
            && !has_other_admin(&mut transaction, id).await?
        {
            return Ok(Edited::LastAdmin);
        }
        let hash = edit.password_hash.clone().or(user.password_hash).unwrap_or_default();
        sqlx::query(
            "UPDATE users SET name = $1, role = $2, cluster_ids = $3, disabled = $4, password_hash = $5 WHERE id = $6",
        )
        .bind(&after.name)
        .bind(after.role.name())
        .bind(ids_json(&after.reach))
        .bind(i64::from(after.disabled))
        .bind(hash)
        .bind(id)
        .execute(&mut *transaction)
        .await
        .map_err(|error| taken_or(error, &after.name, ACT))?;
        if after.disabled || edit.password_hash.is_some() {
            let sessions = sqlx::query("DELETE FROM tokens WHERE user_id = $1").bind(id);
            sessions.execute(&mut *transaction).await.map_err(failed(ACT))?;
        }
        transaction.commit().await.map_err(failed(ACT))?;
        Ok(Edited::Done { before, after })
    }

    /// Deletes an account with its sessions and tokens.
    pub(crate) async fn delete_account(&self, id: u64) -> Result<Edited, StoreError> {
        const ACT: &str = "delete user";
        let Some(id) = id_to(id) else { return Ok(Edited::Unknown) };
        let mut transaction = self.begin_write(ACT).await?;
        let Some(User { account, .. }) = by_id(&mut transaction, id).await? else {
            return Ok(Edited::Unknown);
        };
        if account.is_lasting_admin() && !has_other_admin(&mut transaction, id).await? {
            return Ok(Edited::LastAdmin);
        }
        let deleting = sqlx::query("DELETE FROM users WHERE id = $1").bind(id);
        deleting.execute(&mut *transaction).await.map_err(failed(ACT))?;
        transaction.commit().await.map_err(failed(ACT))?;
        Ok(Edited::Done { before: account.clone(), after: account })
    }

    /// The account of whom an OpenID provider vouches for, made or brought up to date; `None`: there are too many.
    pub(crate) async fn vouched_account(
        &self,
        new: &NewAccount,
        now: i64,
    ) -> Result<Option<Account>, StoreError> {
        const ACT: &str = "keep a user of an OpenID provider";
        let mut transaction = self.begin_write(ACT).await?;
        let known: Option<i64> = sqlx::query_scalar("SELECT id FROM users WHERE subject = $1")
            .bind(&new.subject)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed(ACT))?;
        let id = if let Some(id) = known {
            sqlx::query("UPDATE users SET role = $1, cluster_ids = $2 WHERE id = $3")
                .bind(new.role.name())
                .bind(ids_json(&new.reach))
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed(ACT))?;
            id
        } else {
            let users: i64 =
                sqlx::query_scalar(COUNT_USERS).fetch_one(&mut *transaction).await.map_err(failed(ACT))?;
            if users >= MAX_ACCOUNTS {
                return Ok(None);
            }
            let id = insert(&mut transaction, new, now).await?;
            id_to(id).unwrap_or_default()
        };
        let user = by_id(&mut transaction, id).await?;
        transaction.commit().await.map_err(failed(ACT))?;
        Ok(user.map(|user| user.account))
    }

    /// Takes from whom a provider vouches for no longer what he had: sessions, personal access tokens, and his role, down
    /// to the least there is; what became of the account, if there is one.
    pub(crate) async fn unvouched(&self, subject: &str) -> Result<Option<Account>, StoreError> {
        const ACT: &str = "take from a user of an OpenID provider what he had";
        let mut transaction = self.begin_write(ACT).await?;
        let known: Option<i64> = sqlx::query_scalar("SELECT id FROM users WHERE subject = $1")
            .bind(subject)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed(ACT))?;
        let Some(id) = known else { return Ok(None) };
        for sql in ["DELETE FROM tokens WHERE user_id = $1", "DELETE FROM access_tokens WHERE user_id = $1"] {
            sqlx::query(sql).bind(id).execute(&mut *transaction).await.map_err(failed(ACT))?;
        }
        let role = sqlx::query("UPDATE users SET role = $1 WHERE id = $2").bind(Role::Viewer.name()).bind(id);
        role.execute(&mut *transaction).await.map_err(failed(ACT))?;
        let user = by_id(&mut transaction, id).await?;
        transaction.commit().await.map_err(failed(ACT))?;
        Ok(user.map(|user| user.account))
    }
}

async fn by_id(connection: &mut sqlx::AnyConnection, id: i64) -> Result<Option<User>, StoreError> {
    let query = format!("{SELECT} WHERE id = $1");
    let row: Option<UserRow> =
        sqlx::query_as(&query).bind(id).fetch_optional(connection).await.map_err(failed("look up user"))?;
    row.map(User::try_from).transpose()
}

async fn has_other_admin(transaction: &mut Transaction<'_, Any>, id: i64) -> Result<bool, StoreError> {
    let others: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM users WHERE role = 'admin' AND disabled = 0 AND source = 'local' AND id <> $1",
    )
    .bind(id)
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("count admins"))?;
    Ok(others > 0)
}

async fn insert(
    transaction: &mut Transaction<'_, Any>,
    new: &NewAccount,
    now: i64,
) -> Result<u64, StoreError> {
    let source = if new.subject.is_some() { Source::Oidc } else { Source::Local };
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO users (name, password_hash, created_at, role, cluster_ids, source, subject) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
    )
    .bind(&new.name)
    .bind(&new.password_hash)
    .bind(now)
    .bind(new.role.name())
    .bind(ids_json(&new.reach))
    .bind(source.name())
    .bind(&new.subject)
    .fetch_one(&mut **transaction)
    .await
    .map_err(|error| taken_or(error, &new.name, "insert user"))?;
    id_from(id)
}

fn taken_or(error: sqlx::Error, name: &str, act: &'static str) -> StoreError {
    match error.as_database_error() {
        Some(database) if database.is_unique_violation() => {
            StoreError::UserNameTaken { name: name.to_owned() }
        }
        _ => StoreError::Query { act, source: error },
    }
}

fn ids_json(reach: &Reach) -> String {
    serde_json::json!(reach.ids()).to_string()
}

impl TryFrom<UserRow> for User {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self, StoreError> {
        let broken = |problem: String| StoreError::Row { row: format!("user `{}`", row.name), problem };
        let ids: Vec<u64> =
            serde_json::from_str(&row.cluster_ids).map_err(|error| broken(error.to_string()))?;
        let source = match row.source.as_str() {
            "local" => Source::Local,
            "oidc" => Source::Oidc,
            other => return Err(broken(format!("has source `{other}`"))),
        };
        let account = Account {
            id: id_from(row.id)?,
            role: row
                .role
                .parse()
                .map_err(|error: crate::manager::rights::UnknownWord| broken(error.to_string()))?,
            reach: Reach::from_ids(ids),
            disabled: row.disabled != 0,
            source,
            created_at: row.created_at,
            name: row.name,
        };
        let password_hash = (!row.password_hash.is_empty()).then_some(row.password_hash);
        Ok(Self { account, password_hash })
    }
}
