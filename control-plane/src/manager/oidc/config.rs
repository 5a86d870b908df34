//! What the configuration says of an OpenID provider.
//!
//! Invariant: a provider is asked over TLS, unless it is on this machine.

use crate::manager::rights::Role;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use url::{Host, Url};

/// Longest name, bytes: it stands before the names of the provider's people.
const MAX_NAME_BYTES: usize = 15;

/// `manager.oidc[]` as people write it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawOidc {
    pub name: String,
    pub label: String,
    pub issuer: String,
    #[serde(rename = "clientID")]
    pub client_id: String,
    pub client_secret_file: String,
    pub scopes: Vec<String>,
    pub groups_claim: String,
    pub name_claim: String,
    pub ca_file: String,
    pub roles: Vec<RawRole>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawRole {
    pub group: String,
    pub role: String,
    #[serde(rename = "clusterIDs")]
    pub cluster_ids: Vec<u64>,
}

/// A provider that people may sign in with.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    pub name: String,
    /// What stands on the button.
    pub label: String,
    /// As the provider writes it: compared byte by byte.
    pub issuer: String,
    pub client_id: String,
    pub client_secret_file: PathBuf,
    /// Asked for beside `openid`.
    pub scopes: Vec<String>,
    /// Where the ID token has the groups, a list of texts or one.
    pub groups_claim: String,
    pub name_claim: String,
    pub ca_file: Option<PathBuf>,
    pub roles: Vec<RoleRule>,
    /// `https://host/api/v1/oidc/NAME/callback`
    pub redirect: Url,
}

/// What a group may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRule {
    pub group: String,
    pub role: Role,
    /// Empty: all.
    pub cluster_ids: Vec<u64>,
}

impl OidcConfig {
    /// # Errors
    /// The key below `manager.oidc[index]`, and what is wrong with it.
    pub fn check(raw: RawOidc, public_url: Option<&Url>) -> Result<Self, (&'static str, String)> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if raw.name.is_empty() || raw.name.len() > MAX_NAME_BYTES || !raw.name.chars().all(plain) {
            let problem = format!("`{}` must have 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -", raw.name);
            return Err(("name", problem));
        }
        let refused = || ("issuer", format!("`{}` is not of the form https://host", raw.issuer));
        let address: Url = raw.issuer.parse().map_err(|_| refused())?;
        if address.scheme() != "https" && !(address.scheme() == "http" && is_loopback(&address)) {
            return Err(refused());
        }
        for (key, value) in [("clientID", &raw.client_id), ("clientSecretFile", &raw.client_secret_file)] {
            if value.is_empty() {
                return Err((key, "is needed".to_owned()));
            }
        }
        let public = public_url.ok_or((
            "name",
            "needs manager.publicURL, where the provider sends browsers back to".to_owned(),
        ))?;
        let path = format!("/api/v1/oidc/{}/callback", raw.name);
        let redirect = public.join(&path).map_err(|error| ("name", error.to_string()))?;
        if raw.roles.is_empty() {
            return Err(("roles", "needs a rule: nobody else could sign in".to_owned()));
        }
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        Ok(Self {
            label: or(raw.label, &raw.name),
            issuer: raw.issuer,
            client_id: raw.client_id,
            client_secret_file: raw.client_secret_file.into(),
            scopes: raw.scopes,
            groups_claim: or(raw.groups_claim, "groups"),
            name_claim: or(raw.name_claim, "preferred_username"),
            ca_file: (!raw.ca_file.is_empty()).then(|| raw.ca_file.into()),
            roles: raw.roles.into_iter().map(rule).collect::<Result<_, _>>()?,
            redirect,
            name: raw.name,
        })
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        let raw = RawOidc {
            name: "corp".to_owned(),
            issuer: "https://id.example".to_owned(),
            client_id: "hawker".to_owned(),
            client_secret_file: "secret".to_owned(),
            roles: vec![RawRole { group: "g".to_owned(), role: "viewer".to_owned(), cluster_ids: vec![] }],
            ..RawOidc::default()
        };
        Self::check(raw, Some(&"https://hawker.example".parse().unwrap())).unwrap()
    }
}

fn rule(raw: RawRole) -> Result<RoleRule, (&'static str, String)> {
    if raw.group.is_empty() {
        return Err(("roles", "a rule has no group".to_owned()));
    }
    let role: Role = raw
        .role
        .parse()
        .map_err(|error: crate::manager::rights::UnknownWord| ("roles", error.to_string()))?;
    if role == Role::Admin && !raw.cluster_ids.is_empty() {
        return Err(("roles", format!("group `{}`: an admin is for every cluster", raw.group)));
    }
    Ok(RoleRule { group: raw.group, role, cluster_ids: raw.cluster_ids })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let public: Url = "https://hawker.example".parse().unwrap();
        let good = || RawOidc {
            name: "corp".to_owned(),
            issuer: "https://id.example".to_owned(),
            client_id: "hawker".to_owned(),
            client_secret_file: "secret".to_owned(),
            roles: vec![RawRole { group: "g".to_owned(), role: "viewer".to_owned(), cluster_ids: vec![] }],
            ..RawOidc::default()
        };
        let checked = OidcConfig::check(good(), Some(&public)).unwrap();
        assert_eq!(checked.redirect.as_str(), "https://hawker.example/api/v1/oidc/corp/callback");
        for (raw, key) in [
            (RawOidc { name: "a:b".to_owned(), ..good() }, "name"),
            (RawOidc { issuer: "http://id.example".to_owned(), ..good() }, "issuer"),
            (RawOidc { client_id: String::new(), ..good() }, "clientID"),
            (RawOidc { roles: vec![], ..good() }, "roles"),
        ] {
            assert_eq!(OidcConfig::check(raw, Some(&public)).unwrap_err().0, key);
        }
        assert_eq!(OidcConfig::check(good(), None).unwrap_err().0, "name");
    }
}
