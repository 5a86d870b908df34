//! `hawker users` and `hawker tokens`: who may do what at the manager.
//!
//! Invariant: a new token is shown once, and only where it was asked for.

use super::OutputArguments;
use super::login::password;
use crate::manager::{Manager, ManagerArguments};
use crate::table;
use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

const USERS: &str = "/api/v1/users";
const TOKENS: &str = "/api/v1/tokens";

#[derive(Subcommand)]
pub(crate) enum UsersCommand {
    /// List them.
    Ls(OutputArguments),
    /// Show whose token this is, and what it may do.
    Me(OutputArguments),
    /// Make one who signs in with a password.
    Add {
        name: String,
        /// admin, operator or viewer.
        #[arg(long, default_value = "viewer")]
        role: String,
        /// A cluster that he is for, by id; more than once for several. None: all.
        #[arg(long = "cluster", value_name = "ID")]
        clusters: Vec<u64>,
        /// File with the password in its first line; asked for without it.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Lock one out; his sessions and tokens are of no more use.
    Disable { name: String },
    /// Let one in again.
    Enable { name: String },
}

#[derive(Subcommand)]
pub(crate) enum TokensCommand {
    /// List one's own, without their secrets.
    Ls(OutputArguments),
    /// Make one; what is printed is all there is of it.
    Add {
        name: String,
        /// What it may do: `clusters:read`, `jobs:write`, …; more than once for several. None may do nothing.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// When it ends (RFC 3339).
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Remove one.
    Rm { id: u64 },
}

pub(crate) fn users(arguments: &ManagerArguments, command: &UsersCommand) -> Result<()> {
    let manager = Manager::signed_in(arguments)?;
    match command {
        UsersCommand::Ls(output) => {
            let columns = [
                ("ID", "/id"),
                ("NAME", "/name"),
                ("ROLE", "/role"),
                ("CLUSTERS", "/cluster_ids"),
                ("SOURCE", "/source"),
                ("DISABLED", "/disabled"),
                ("CREATED", "/created_at"),
            ];
            table::documents(output.output, &manager.list(USERS, &[])?, &columns)
        }
        UsersCommand::Me(output) => {
            let lines = [("id", "/id"), ("name", "/name"), ("role", "/role"), ("clusters", "/cluster_ids")];
            table::document(output.output, &manager.get(&format!("{USERS}/me"), &[])?, &lines)
        }
        UsersCommand::Add { name, role, clusters, password_file } => {
            let password = password(password_file.as_deref(), &format!("Password of the new user {name}: "))?;
            let body = json!({ "name": name, "password": password, "role": role, "cluster_ids": clusters });
            let made = manager.post(USERS, &body)?;
            say(&format!(
                "user {name} has id {} and role {}",
                table::text(&made, "/id"),
                table::text(&made, "/role")
            ))
        }
        UsersCommand::Disable { name } => lock(&manager, name, true),
        UsersCommand::Enable { name } => lock(&manager, name, false),
    }
}

fn lock(manager: &Manager, name: &str, disabled: bool) -> Result<()> {
    let users = manager.list(USERS, &[])?;
    let user = users.iter().find(|user| user["name"] == name);
    let id =
        user.and_then(|user| user["id"].as_u64()).with_context(|| format!("there is no user `{name}`"))?;
    manager.patch(&format!("{USERS}/{id}"), &json!({ "disabled": disabled }), None)?;
    say(&format!("user {name} is {}", if disabled { "locked out" } else { "let in again" }))
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

pub(crate) fn tokens(arguments: &ManagerArguments, command: &TokensCommand) -> Result<()> {
    let manager = Manager::signed_in(arguments)?;
    match command {
        TokensCommand::Ls(output) => {
            let columns = [
                ("ID", "/id"),
                ("NAME", "/name"),
                ("SCOPES", "/scopes"),
                ("CREATED", "/created_at"),
                ("EXPIRES", "/expires_at"),
                ("LAST USED", "/last_used_at"),
            ];
            table::documents(output.output, &manager.list(TOKENS, &[])?, &columns)
        }
        TokensCommand::Add { name, scopes, expires_at } => {
            let body = json!({ "name": name, "scopes": scopes, "expires_at": expires_at });
            let made = manager.post(TOKENS, &body)?;
            writeln!(std::io::stdout(), "{}", table::text(&made, "/token"))?;
            Ok(())
        }
        TokensCommand::Rm { id } => Ok(manager.delete(&format!("{TOKENS}/{id}"))?),
    }
}
