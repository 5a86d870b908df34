//! An account: who somebody is for Hawker, and the rules for editing one. Pure.
//!
//! Invariant: an account that exists has a name nobody can mistake for another one's, and an admin's is for every
//! cluster.

use super::rights::{Reach, Role};

/// Longest name, bytes.
pub(super) const MAX_NAME_BYTES: usize = 64;
/// Shortest password that people may set, characters (NIST SP 800-63B §5.1.1.2 asks for at least 8).
pub(super) const MIN_PASSWORD_CHARS: usize = 10;
/// Longest password looked at, bytes.
pub(super) const MAX_PASSWORD_BYTES: usize = 256;
/// Most clusters named by an account.
pub(super) const MAX_CLUSTER_IDS: usize = 1000;

/// Who vouches for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// We do, by a password.
    Local,
    /// An OpenID provider does.
    Oidc,
}

/// One account as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) reach: Reach,
    pub(crate) disabled: bool,
    pub(crate) source: Source,
    /// Seconds since 1970.
    pub(crate) created_at: i64,
}

/// What to change of an account; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccountEdit {
    pub(crate) name: Option<String>,
    pub(crate) role: Option<Role>,
    pub(crate) reach: Option<Reach>,
    pub(crate) disabled: Option<bool>,
    /// argon2id, PHC string.
    pub(crate) password_hash: Option<String>,
}

/// Why an account was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct AccountError {
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

fn refuse<T>(field: &'static str, problem: impl Into<String>) -> Result<T, AccountError> {
    Err(AccountError { field, problem: problem.into() })
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Oidc => "oidc",
        }
    }
}

impl Account {
    /// An enabled admin who can sign in whatever becomes of an OpenID provider.
    pub(crate) fn is_lasting_admin(&self) -> bool {
        self.role == Role::Admin && !self.disabled && self.source == Source::Local
    }

    /// This account with `edit` applied.
    ///
    /// # Errors
    /// A field that cannot be used, or what an OpenID provider says of somebody.
    pub(crate) fn with(&self, edit: &AccountEdit) -> Result<Self, AccountError> {
        if self.source == Source::Oidc {
            let provided = [
                ("name", edit.name.is_some()),
                ("role", edit.role.is_some()),
                ("cluster_ids", edit.reach.is_some()),
                ("password", edit.password_hash.is_some()),
            ];
            if let Some((field, _)) = provided.into_iter().find(|(_, given)| *given) {
                return refuse(
                    field,
                    "is what the OpenID provider says; only `disabled` can be changed here",
                );
            }
        }
        let account = Self {
            id: self.id,
            name: edit.name.clone().unwrap_or_else(|| self.name.clone()),
            role: edit.role.unwrap_or(self.role),
            reach: edit.reach.clone().unwrap_or_else(|| self.reach.clone()),
            disabled: edit.disabled.unwrap_or(self.disabled),
            source: self.source,
            created_at: self.created_at,
        };
        if edit.name.is_some() {
            check_name(&account.name)?;
        }
        check_reach(account.role, &account.reach)?;
        Ok(account)
    }
}

/// A name that a person may give to a local account. A colon is for the accounts of OpenID providers.
///
/// # Errors
/// It is empty, too long, or has what cannot be seen.
pub(super) fn check_name(name: &str) -> Result<(), AccountError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return refuse("name", format!("must have 1 to {MAX_NAME_BYTES} bytes, not {}", name.len()));
    }
    if name.trim() != name || name.chars().any(is_unseen) {
        return refuse("name", format!("`{}` has what cannot be seen", name.escape_unicode()));
    }
    if name.contains(':') {
        return refuse("name", "must not have a colon: such names are of OpenID providers");
    }
    Ok(())
}

/// A password that somebody may set.
///
/// # Errors
/// It is too short or too long; what it is is not repeated.
pub(super) fn check_password(password: &str) -> Result<(), AccountError> {
    if password.chars().count() < MIN_PASSWORD_CHARS || password.len() > MAX_PASSWORD_BYTES {
        let problem = format!(
            "must have at least {MIN_PASSWORD_CHARS} characters and at most {MAX_PASSWORD_BYTES} bytes"
        );
        return refuse("password", problem);
    }
    Ok(())
}

pub(super) fn check_reach(role: Role, reach: &Reach) -> Result<(), AccountError> {
    match reach {
        Reach::Only(_) if role == Role::Admin => {
            refuse("cluster_ids", "must be empty for an admin, who is for every cluster")
        }
        Reach::Only(ids) if ids.len() > MAX_CLUSTER_IDS => {
            refuse("cluster_ids", format!("has {} entries, at most {MAX_CLUSTER_IDS}", ids.len()))
        }
        Reach::Only(_) | Reach::All => Ok(()),
    }
}

/// Control characters, and those that hide or turn around what stands beside them (Unicode TR 36 §2).
pub(super) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(source: Source) -> Account {
        let (name, reach) = ("ann".to_owned(), Reach::All);
        Account { id: 1, name, role: Role::Viewer, reach, disabled: false, source, created_at: 0 }
    }

    #[test]
    fn names_are_seen_as_they_are() {
        for good in ["a", "Ann Lee", "ann@example.com", "<script>", "Анна", "' OR 1=1 --"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", " a", "a\n", "a\u{202e}b", "a\u{200b}", "corp:ann", "\u{feff}", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_provider_says_is_not_edited_here() {
        let role = AccountEdit { role: Some(Role::Admin), ..AccountEdit::default() };
        assert_eq!(account(Source::Oidc).with(&role).unwrap_err().field, "role");
        assert_eq!(account(Source::Local).with(&role).unwrap().role, Role::Admin);
        let off = AccountEdit { disabled: Some(true), ..AccountEdit::default() };
        assert!(account(Source::Oidc).with(&off).unwrap().disabled);
    }

    #[test]
    fn an_admin_is_for_every_cluster() {
        let edit = AccountEdit {
            role: Some(Role::Admin),
            reach: Some(Reach::from_ids([2])),
            ..AccountEdit::default()
        };
        assert_eq!(account(Source::Local).with(&edit).unwrap_err().field, "cluster_ids");
    }
}
