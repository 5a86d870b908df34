//! Who may do what: permissions, the roles that have them, and what of both a caller has. Pure.
//!
//! Invariant: a caller may do what his role and the scopes of his token both allow, in the clusters his account
//! is for. Nothing here widens one of them by another.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Something a route may ask for. Written `area:read` or `area:write`, as in the scopes of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    ClustersRead,
    ClustersWrite,
    /// Peers, seed peers, schedulers, and where a node would be placed.
    HostsRead,
    BandwidthRead,
    TasksRead,
    TasksWrite,
    JobsRead,
    JobsWrite,
    /// One's own tokens; those of others need `users:…` as well.
    TokensRead,
    TokensWrite,
    UsersRead,
    UsersWrite,
    AuditRead,
}

/// What somebody is for Hawker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees clusters, hosts and what they do.
    Viewer,
    /// Also changes them.
    Operator,
    /// Also says who else may.
    Admin,
}

/// Which clusters somebody's account is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    All,
    Only(BTreeSet<u64>),
}

/// What a caller showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The bearer token of a sign-in.
    Bearer,
    /// The cookie of a sign-in: what changes something must carry the session's CSRF token too.
    Cookie { csrf: String },
    /// A personal access token, good for its scopes alone.
    AccessToken { id: u64, scopes: BTreeSet<Permission> },
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub user_id: u64,
    pub name: String,
    pub role: Role,
    pub reach: Reach,
    pub credential: Credential,
}

/// A word that is no permission or no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no {kind}: {known}")]
pub struct UnknownWord {
    word: String,
    kind: &'static str,
    known: String,
}

impl Permission {
    pub const ALL: [Self; 13] = [
        Self::ClustersRead,
        Self::ClustersWrite,
        Self::HostsRead,
        Self::BandwidthRead,
        Self::TasksRead,
        Self::TasksWrite,
        Self::JobsRead,
        Self::JobsWrite,
        Self::TokensRead,
        Self::TokensWrite,
        Self::UsersRead,
        Self::UsersWrite,
        Self::AuditRead,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ClustersRead => "clusters:read",
            Self::ClustersWrite => "clusters:write",
            Self::HostsRead => "hosts:read",
            Self::BandwidthRead => "bandwidth:read",
            Self::TasksRead => "tasks:read",
            Self::TasksWrite => "tasks:write",
            Self::JobsRead => "jobs:read",
            Self::JobsWrite => "jobs:write",
            Self::TokensRead => "tokens:read",
            Self::TokensWrite => "tokens:write",
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::AuditRead => "audit:read",
        }
    }

    /// The least role that has it.
    pub fn least_role(self) -> Role {
        match self {
            Self::ClustersRead
            | Self::HostsRead
            | Self::BandwidthRead
            | Self::TasksRead
            | Self::JobsRead
            | Self::TokensRead
            | Self::TokensWrite => Role::Viewer,
            Self::ClustersWrite | Self::TasksWrite | Self::JobsWrite => Role::Operator,
            Self::UsersRead | Self::UsersWrite | Self::AuditRead => Role::Admin,
        }
    }
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    pub fn has(self, permission: Permission) -> bool {
        self >= permission.least_role()
    }
}

impl Reach {
    /// An empty list is every cluster, as people write it.
    pub(crate) fn from_ids(ids: impl IntoIterator<Item = u64>) -> Self {
        let ids: BTreeSet<u64> = ids.into_iter().collect();
        if ids.is_empty() { Self::All } else { Self::Only(ids) }
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        match self {
            Self::All => Vec::new(),
            Self::Only(ids) => ids.iter().copied().collect(),
        }
    }

    pub(crate) fn includes(&self, cluster_id: u64) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(&cluster_id),
        }
    }
}

impl Caller {
    pub(crate) fn may(&self, permission: Permission) -> bool {
        let scoped = match &self.credential {
            Credential::AccessToken { scopes, .. } => scopes.contains(&permission),
            Credential::Bearer | Credential::Cookie { .. } => true,
        };
        scoped && self.role.has(permission)
    }

    /// Whether the cluster is one of those the account is for.
    pub(crate) fn sees(&self, cluster_id: u64) -> bool {
        self.reach.includes(cluster_id)
    }

    /// The account is for every cluster, also those to come.
    pub(crate) fn sees_all(&self) -> bool {
        self.reach == Reach::All
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Permission {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        find(word, "scope", &Self::ALL, |permission| permission.name())
    }
}

impl FromStr for Role {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        find(word, "role", &Self::ALL, |role| role.name())
    }
}

fn find<T: Copy>(
    word: &str,
    kind: &'static str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, UnknownWord> {
    all.iter().copied().find(|one| name(*one) == word).ok_or_else(|| UnknownWord {
        word: word.chars().take(64).collect(),
        kind,
        known: all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn caller(role: Role, credential: Credential) -> Caller {
        Caller { user_id: 1, name: "a".to_owned(), role, reach: Reach::All, credential }
    }

    #[test]
    fn every_name_is_read_back() {
        for permission in Permission::ALL {
            assert_eq!(permission.name().parse(), Ok(permission));
        }
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        let error = "clusters:*".parse::<Permission>().unwrap_err().to_string();
        assert!(error.starts_with("`clusters:*` is no scope: clusters:read, "), "{error}");
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn a_viewer_has_nothing_that_changes_what_others_see() {
        for permission in Permission::ALL {
            let changes = permission.name().ends_with(":write") && permission != Permission::TokensWrite;
            assert!(!(changes && Role::Viewer.has(permission)), "{permission}");
            assert!(Role::Admin.has(permission));
        }
    }

    proptest! {
        #[test]
        fn scopes_and_roles_only_ever_take_away(
            chosen in proptest::collection::btree_set(0_usize..Permission::ALL.len(), 0..8),
            asked in 0_usize..Permission::ALL.len(),
            role in 0_usize..3,
        ) {
            let scopes: BTreeSet<_> = chosen.iter().map(|index| Permission::ALL[*index]).collect();
            let (asked, role) = (Permission::ALL[asked], Role::ALL[role]);
            let token = caller(role, Credential::AccessToken { id: 1, scopes: scopes.clone() });
            let session = caller(role, Credential::Cookie { csrf: String::new() });
            prop_assert_eq!(token.may(asked), scopes.contains(&asked) && role.has(asked));
            prop_assert!(!token.may(asked) || session.may(asked));
        }

        #[test]
        fn a_reach_is_what_was_listed(ids in proptest::collection::vec(1_u64..9, 0..5), asked in 1_u64..9) {
            let reach = Reach::from_ids(ids.clone());
            prop_assert_eq!(reach.includes(asked), ids.is_empty() || ids.contains(&asked));
            prop_assert_eq!(Reach::from_ids(reach.ids()), reach);
        }
    }
}
