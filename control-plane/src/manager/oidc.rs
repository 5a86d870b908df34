//! Signing in with an OpenID provider (OpenID Connect Core 1.0, authorization code flow with PKCE).
//!
//! Invariants: an answer is taken only from the browser that asked, once, within ten minutes, from the provider that was
//! asked, for this very request (state, nonce, PKCE); who is in no group that the configuration names gets nothing.

mod client;
mod config;

pub use client::ProviderError;
#[cfg(test)]
use config::RoleRule;
pub use config::{OidcConfig, RawOidc};

use super::account::is_unseen;
use super::rights::{Reach, Role};
use super::sign_in::random_text;
use super::store::NewAccount;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::Provider;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;

/// How long somebody may take at the provider, seconds.
pub(super) const ATTEMPT_LIFETIME_S: i64 = 600;
/// Separates the seals of attempts from whatever else is derived from the manager's secret.
const SEAL_DOMAIN: &[u8] = b"hawker oidc attempt v1\0";
/// Longest part of a name that comes from a provider, bytes.
const MAX_PROVIDED_BYTES: usize = 48;

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub(super) enum OidcError {
    #[error("there is no OpenID provider `{name}`")]
    Unknown { name: String },
    #[error("this answer belongs to no sign-in that was begun in this browser in the last ten minutes: {0}")]
    NoAttempt(&'static str),
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The subject as accounts have it: he may have had a role before.
    #[error("none of your groups at the provider has a role here")]
    NoRole { subject: String },
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// All providers, and what seals the attempts.
pub(super) struct Oidc {
    providers: Vec<Provider>,
    key: [u8; 32],
}

/// What a browser keeps between asking and the answer.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    /// Seconds since 1970.
    expires_at: i64,
}

/// What a provider sends the browser back with (RFC 6749 §4.1.2); it may add what it likes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    code: String,
    state: String,
    error: String,
    error_description: String,
}

/// Whom a provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Person {
    subject: String,
    name: Option<String>,
    groups: Vec<String>,
}

impl Oidc {
    /// `secret` is the managers' shared one.
    pub(super) fn new(configs: Vec<OidcConfig>, secret: [u8; 32]) -> Result<Self, ProviderError> {
        let providers = configs.into_iter().map(Provider::new).collect::<Result<_, _>>()?;
        Ok(Self { providers, key: secret })
    }

    /// Names and labels.
    pub(super) fn providers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.providers
            .iter()
            .map(|provider| (provider.config().name.as_str(), provider.config().label.as_str()))
    }

    /// Where the browser goes, and what it keeps meanwhile.
    pub(super) async fn begin(&self, name: &str, now: i64) -> Result<(String, String), OidcError> {
        let provider = self.provider(name)?;
        let state = random_text();
        let (url, verifier, nonce) = provider.authorize(&state).await?;
        let attempt = Attempt {
            provider: name.to_owned(),
            state,
            nonce,
            verifier,
            expires_at: now + ATTEMPT_LIFETIME_S,
        };
        Ok((url, self.seal(&attempt)))
    }

    /// The account of who comes back from a provider.
    pub(super) async fn end(
        &self,
        name: &str,
        answer: Answer,
        kept: Option<&str>,
        now: i64,
    ) -> Result<NewAccount, OidcError> {
        let provider = self.provider(name)?;
        let kept = kept.ok_or(OidcError::NoAttempt("its cookie is missing"))?;
        let attempt = self.unseal(kept).ok_or(OidcError::NoAttempt("its cookie is not ours"))?;
        if attempt.provider != name {
            return Err(OidcError::NoAttempt("it is of another provider"));
        }
        if attempt.expires_at <= now {
            return Err(OidcError::NoAttempt("it took too long"));
        }
        if !bool::from(attempt.state.as_bytes().ct_eq(answer.state.as_bytes())) {
            return Err(OidcError::NoAttempt("its state is another one"));
        }
        if !answer.error.is_empty() {
            let told = format!("{} {}", answer.error, answer.error_description);
            return Err(OidcError::Refused(
                told.trim().chars().filter(|c| !is_unseen(*c)).take(200).collect(),
            ));
        }
        let person = provider.redeem(answer.code, attempt.verifier, attempt.nonce).await?;
        account(provider.config(), &person)
            .ok_or_else(|| OidcError::NoRole { subject: subject(provider.config(), &person) })
    }

    fn provider(&self, name: &str) -> Result<&Provider, OidcError> {
        let found = self.providers.iter().find(|provider| provider.config().name == name);
        found.ok_or_else(|| OidcError::Unknown { name: name.chars().take(64).collect() })
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(SEAL_DOMAIN);
        mac.update(text.as_bytes());
        mac
    }

    fn seal(&self, attempt: &Attempt) -> String {
        let text = URL_SAFE_NO_PAD.encode(serde_json::json!(attempt).to_string());
        let tag = URL_SAFE_NO_PAD.encode(self.mac(&text).finalize().into_bytes());
        format!("{text}.{tag}")
    }

    fn unseal(&self, sealed: &str) -> Option<Attempt> {
        let (text, tag) = sealed.split_once('.')?;
        self.mac(text).verify_slice(&URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// What the configuration makes of somebody: the highest role that a group gives, in the clusters that any rule for that
/// role names.
fn account(config: &OidcConfig, person: &Person) -> Option<NewAccount> {
    let rules = || config.roles.iter().filter(|rule| person.groups.contains(&rule.group));
    let role: Role = rules().map(|rule| rule.role).max()?;
    let reaches: Vec<_> = rules().filter(|rule| rule.role == role).map(|rule| &rule.cluster_ids).collect();
    let all = role == Role::Admin || reaches.iter().any(|ids| ids.is_empty());
    let ids = reaches.into_iter().flatten().copied();
    let reach = if all { Reach::All } else { Reach::from_ids(ids) };
    // Behind the provider's name: nobody can be called like a local account, or like another provider's.
    let called = person.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&person.subject);
    let called: String = called.chars().filter(|c| !is_unseen(*c)).collect();
    let end = (0..=called.len().min(MAX_PROVIDED_BYTES)).rev().find(|end| called.is_char_boundary(*end));
    let name = format!("{}:{}", config.name, &called[..end.unwrap_or_default()]);
    let subject = Some(subject(config, person));
    Some(NewAccount { name, role, reach, password_hash: String::new(), subject })
}

/// Whom an account is of: nobody at another provider is the same.
fn subject(config: &OidcConfig, person: &Person) -> String {
    format!("{}\n{}", config.name, person.subject)
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.providers()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OidcConfig {
        let rule = |group: &str, role, ids: &[u64]| RoleRule {
            group: group.to_owned(),
            role,
            cluster_ids: ids.to_vec(),
        };
        OidcConfig {
            name: "corp".to_owned(),
            label: "Corp".to_owned(),
            roles: vec![
                rule("staff", Role::Viewer, &[1]),
                rule("edge", Role::Viewer, &[2]),
                rule("sre", Role::Operator, &[]),
                rule("root", Role::Admin, &[]),
            ],
            ..OidcConfig::for_test()
        }
    }

    fn person(groups: &[&str]) -> Person {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Person { subject: "7".to_owned(), name: Some("ann".to_owned()), groups }
    }

    #[test]
    fn groups_give_the_highest_role_and_nothing_to_strangers() {
        let given =
            |groups: &[&str]| account(&config(), &person(groups)).map(|new| (new.role, new.reach.ids()));
        assert_eq!(given(&["staff", "edge"]), Some((Role::Viewer, vec![1, 2])));
        assert_eq!(given(&["staff", "sre"]), Some((Role::Operator, vec![])));
        assert_eq!(given(&["root"]), Some((Role::Admin, vec![])));
        assert_eq!(given(&["guests", "Staff", "admin"]), None);
        assert_eq!(given(&[]), None);
    }

    #[test]
    fn nobody_is_called_like_somebody_else() {
        let named = |name: Option<&str>| {
            let person = Person { name: name.map(str::to_owned), ..person(&["staff"]) };
            account(&config(), &person).unwrap().name
        };
        assert_eq!(named(Some("root")), "corp:root");
        assert_eq!(named(Some("a\u{202e}\nb")), "corp:ab");
        assert_eq!(named(None), "corp:7");
        assert_eq!(named(Some(&"é".repeat(100))).len(), 5 + 48);
    }

    #[test]
    fn a_seal_of_others_or_a_changed_one_is_worth_nothing() {
        let oidc = Oidc { providers: Vec::new(), key: [7; 32] };
        let attempt = Attempt {
            provider: "corp".to_owned(),
            state: "s".to_owned(),
            nonce: "n".to_owned(),
            verifier: "v".to_owned(),
            expires_at: 5,
        };
        let sealed = oidc.seal(&attempt);
        assert_eq!(oidc.unseal(&sealed).unwrap().state, "s");
        assert!(Oidc { providers: Vec::new(), key: [8; 32] }.unseal(&sealed).is_none());
        assert!(
            oidc.unseal(&format!("x{sealed}")).is_none()
                && oidc.unseal("").is_none()
                && oidc.unseal("a.b").is_none()
        );
    }
}
