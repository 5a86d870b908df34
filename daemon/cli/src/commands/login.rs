//! `hawker login|logout`: a token of the manager, kept for the commands that follow.
//!
//! Invariant: a password is never echoed, never kept, and never an argument, which everybody on the machine could read.

use crate::manager::{DEFAULT_MANAGER, Manager, ManagerArguments, Session, read_token};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct LoginArguments {
    /// The manager; without it, that of `--manager`, else http://127.0.0.1:8080.
    url: Option<String>,
    /// Who; asked for without it.
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// File with the password in its first line; asked for without it.
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    password_file: Option<PathBuf>,
}

/// With a personal access token in `--token-file`, that is what is kept; else a password is exchanged for one.
pub(crate) fn login(arguments: &ManagerArguments, login: &LoginArguments) -> Result<()> {
    let named = login.url.clone().or_else(|| arguments.manager.clone());
    let named = named.or_else(|| Session::read().ok().flatten().map(|session| session.manager));
    let arguments = ManagerArguments {
        manager: Some(named.unwrap_or_else(|| DEFAULT_MANAGER.to_owned())),
        ..arguments.clone()
    };
    let manager = Manager::as_nobody(&arguments)?;
    warn_if_readable(manager.base())?;
    let session = match &arguments.token_file {
        Some(file) => by_token(manager, read_token(file)?, login.user.as_deref())?,
        None => by_password(&manager, login)?,
    };
    let path = session.keep()?;
    say(&format!("signed in at {} as {}, kept in {}", session.manager, session.user, path.display()))
}

/// The token is of no more use at the manager either, where that can be told.
pub(crate) fn logout(arguments: &ManagerArguments) -> Result<()> {
    let Some(session) = Session::read()? else { return say("nobody was signed in") };
    let arguments =
        ManagerArguments { manager: Some(session.manager.clone()), token_file: None, ..arguments.clone() };
    let told = Manager::as_nobody(&arguments).and_then(|manager| {
        manager.with_token(session.token.clone()).post("/api/v1/users/signout", &json!({}))
    });
    Session::forget()?;
    match told {
        Ok(_) => say(&format!("signed out at {}", session.manager)),
        Err(error) => say(&format!("the token is forgotten here; {} was not told: {error}", session.manager)),
    }
}

fn by_token(manager: Manager, token: String, user: Option<&str>) -> Result<Session> {
    let manager = manager.with_token(token.clone());
    let me = match manager.get::<Value>("/api/v1/users/me", &[]) {
        Ok(me) => me,
        // A manager without that route: that it accepts the token anywhere is enough.
        Err(error) if error.is_not_found() => {
            manager.get::<Value>("/api/v1/clusters", &[("per_page", "1")])?;
            Value::Null
        }
        Err(error) => return Err(error.into()),
    };
    let user = me["name"].as_str().or(user).unwrap_or("the owner of the token").to_owned();
    Ok(Session { manager: manager.base().to_owned(), user, token, expires_at: None })
}

fn by_password(manager: &Manager, login: &LoginArguments) -> Result<Session> {
    let user = match &login.user {
        Some(user) => user.clone(),
        None => asked_for_name()?,
    };
    let password =
        password(login.password_file.as_deref(), &format!("Password of {user} at {}: ", manager.base()))?;
    let answer = manager.post("/api/v1/users/signin", &json!({ "name": user, "password": password }))?;
    let token = answer["token"].as_str().context("the manager's answer has no token")?.to_owned();
    let expires_at = answer["expires_at"].as_str().map(str::to_owned);
    Ok(Session { manager: manager.base().to_owned(), user, token, expires_at })
}

/// The first line of a file, or what somebody types.
pub(super) fn password(file: Option<&Path>, prompt: &str) -> Result<String> {
    let password = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            text.lines().next().unwrap_or_default().to_owned()
        }
        None => rpassword::prompt_password(prompt)
            .context("ask for the password (without a terminal: --password-file or --token-file)")?,
    };
    ensure!(!password.is_empty(), "the password is empty");
    Ok(password)
}

fn asked_for_name() -> Result<String> {
    let mut terminal = std::io::stderr();
    write!(terminal, "User: ").and_then(|()| terminal.flush()).context("ask who signs in")?;
    let mut name = String::new();
    std::io::stdin().read_line(&mut name).context("read who signs in")?;
    let name = name.trim().to_owned();
    ensure!(!name.is_empty(), "who signs in? --user names somebody");
    Ok(name)
}

/// Plain HTTP beyond this machine shows the password to the network.
fn warn_if_readable(base: &str) -> Result<()> {
    let url = url::Url::parse(base)?;
    let local = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "http" && !local {
        writeln!(std::io::stderr(), "hawker: {base} is not encrypted: the network can read what is sent")?;
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
