//! `/api/v1/users`: who may do what.

use super::audit::Audit;
use super::extract::{Body, Id, Query};
use super::page::{Page, PageQuery};
use super::problem::Problem;
use super::timestamp::Timestamp;
use crate::manager::account::{Account, AccountEdit, AccountError, check_name, check_password, check_reach};
use crate::manager::directory::Listed;
use crate::manager::rights::{Reach, Role};
use crate::manager::store::{Edited, MAX_ACCOUNTS, NewAccount};
use crate::manager::{Parts, unix_seconds};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

/// Somebody who may sign in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView {
    id: u64,
    name: String,
    /// `admin`, `operator` or `viewer`.
    role: &'static str,
    /// The clusters the account is for; empty: all.
    cluster_ids: Vec<u64>,
    /// Cannot sign in, and is signed in nowhere.
    disabled: bool,
    /// `local`, or `oidc` for whom an OpenID provider vouches.
    source: &'static str,
    created_at: Timestamp,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UserQuery {
    page: Option<usize>,
    per_page: Option<usize>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    name: String,
    /// At least 10 characters.
    password: String,
    /// `viewer` where it is missing.
    role: Option<String>,
    #[serde(default)]
    cluster_ids: Vec<u64>,
}

/// What to change of a user; of one of an OpenID provider, `disabled` alone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserEdit {
    name: Option<String>,
    password: Option<String>,
    role: Option<String>,
    cluster_ids: Option<Vec<u64>>,
    disabled: Option<bool>,
}

/// The users, by name.
#[utoipa::path(get, path = "/api/v1/users", params(UserQuery), responses((status = 200, body = Page<UserView>)))]
pub(super) async fn list(
    State(parts): State<Parts>,
    Query(query): Query<UserQuery>,
) -> Result<Json<Page<UserView>>, Problem> {
    let window = PageQuery::new(query.page, query.per_page).window()?;
    let (items, total) = parts.store.accounts(window.skip(), window.limit()).await?;
    Ok(Json(window.page(Listed { items, total }, UserView::from)))
}

/// One user.
#[utoipa::path(get, path = "/api/v1/users/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = UserView)))]
pub(super) async fn show(State(parts): State<Parts>, Id(id): Id) -> Result<Json<UserView>, Problem> {
    let user = parts.store.account(id).await?.ok_or_else(|| unknown(id))?;
    Ok(Json(user.account.into()))
}

/// Makes a user with a password.
#[utoipa::path(post, path = "/api/v1/users", request_body = NewUser, responses((status = 201, body = UserView)))]
pub(super) async fn create(
    State(parts): State<Parts>,
    audit: Audit,
    Body(body): Body<NewUser>,
) -> Result<Response, Problem> {
    audit.object(format!("user {}", body.name.chars().take(64).collect::<String>()));
    check_name(&body.name)?;
    check_password(&body.password)?;
    let role = body.role.as_deref().map_or(Ok(Role::Viewer), read_role)?;
    let reach = read_reach(&parts, body.cluster_ids)?;
    check_reach(role, &reach)?;
    audit.detail("role", role.name()).detail("cluster_ids", reach.ids());
    let password_hash = parts.sign_in.hash(body.password).await?;
    let new = NewAccount { name: body.name, role, reach, password_hash, subject: None };
    let now = unix_seconds(SystemTime::now());
    let full = || Problem::new(StatusCode::CONFLICT, format!("there are {MAX_ACCOUNTS} users already"));
    let id = parts.store.add_account(&new, now).await?.ok_or_else(full)?;
    let user = parts.store.account(id).await?.ok_or_else(|| unknown(id))?;
    let mut response = (StatusCode::CREATED, Json(UserView::from(user.account))).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/api/v1/users/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Changes what the body names of a user; whoever is disabled or gets a password is signed out at once.
#[utoipa::path(patch, path = "/api/v1/users/{id}", params(("id" = u64, Path)), request_body = UserEdit,
    responses((status = 200, body = UserView)))]
pub(super) async fn update(
    State(parts): State<Parts>,
    audit: Audit,
    Id(id): Id,
    Body(body): Body<UserEdit>,
) -> Result<Json<UserView>, Problem> {
    let password_hash = match body.password {
        Some(password) => {
            check_password(&password)?;
            Some(parts.sign_in.hash(password).await?)
        }
        None => None,
    };
    let edit = AccountEdit {
        name: body.name,
        role: body.role.as_deref().map(read_role).transpose()?,
        reach: body.cluster_ids.map(|ids| read_reach(&parts, ids)).transpose()?,
        disabled: body.disabled,
        password_hash,
    };
    let edited = parts.store.edit_account(id, &edit).await?;
    let (before, after) = done(edited, id)?;
    audit.object(format!("user {id} {}", before.name));
    audit.change("name", before.name.as_str(), after.name.as_str());
    audit.change("role", before.role.name(), after.role.name());
    audit.change("cluster_ids", before.reach.ids(), after.reach.ids());
    audit.change("disabled", before.disabled, after.disabled);
    if edit.password_hash.is_some() {
        audit.detail("password", "changed");
    }
    Ok(Json(after.into()))
}

/// Deletes a user with all sessions and tokens; never the last admin.
#[utoipa::path(delete, path = "/api/v1/users/{id}", params(("id" = u64, Path)), responses((status = 204)))]
pub(super) async fn remove(
    State(parts): State<Parts>,
    audit: Audit,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    let (before, _) = done(parts.store.delete_account(id).await?, id)?;
    audit.object(format!("user {id} {}", before.name));
    Ok(StatusCode::NO_CONTENT)
}

fn done(edited: Edited, id: u64) -> Result<(Account, Account), Problem> {
    match edited {
        Edited::Done { before, after } => Ok((before, after)),
        Edited::Unknown => Err(unknown(id)),
        Edited::LastAdmin => {
            let detail = "this is the last enabled admin with a password: make another one first";
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        Edited::Refused(error) => Err(error.into()),
    }
}

fn unknown(id: u64) -> Problem {
    Problem::not_found(format!("there is no user {id}"))
}

fn read_role(word: &str) -> Result<Role, Problem> {
    word.parse().map_err(|error: crate::manager::rights::UnknownWord| {
        Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "role", error.to_string())
    })
}

fn read_reach(parts: &Parts, ids: Vec<u64>) -> Result<Reach, Problem> {
    if let Some(id) = ids.iter().find(|id| parts.directory.cluster(**id).is_none()) {
        let problem = format!("there is no cluster {id}");
        return Err(Problem::field(StatusCode::UNPROCESSABLE_ENTITY, "cluster_ids", problem));
    }
    Ok(Reach::from_ids(ids))
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        Self::field(StatusCode::UNPROCESSABLE_ENTITY, error.field, error.problem)
    }
}

impl From<Account> for UserView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            name: account.name,
            role: account.role.name(),
            cluster_ids: account.reach.ids(),
            disabled: account.disabled,
            source: account.source.name(),
            created_at: Timestamp(account.created_at),
        }
    }
}
