//! Which version of the wire contract a program speaks, and whether it works with another's.
//!
//! The rule: the same major version, minor versions at most one apart. Within that, both sides ignore fields and messages
//! they do not know, so that a cluster can be upgraded (and taken back) one program after the other.
//!
//! Invariant: whoever refuses says both versions, and which side is to be upgraded.

use crate::v1;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What this tree speaks. The minor version is raised with each change that an older program does not understand.
pub const CURRENT: Protocol = Protocol { major: 1, minor: 1 };
/// Programs that announce nothing are from before there was anything to announce.
pub const UNANNOUNCED: Protocol = Protocol { major: 1, minor: 0 };
/// Announces another version than [`CURRENT`], for the tests of upgrades: `1.2`.
pub const ANNOUNCE_VARIABLE: &str = "HAWKERD_TEST_PROTOCOL";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Protocol {
    pub major: u32,
    pub minor: u32,
}

impl Default for Protocol {
    fn default() -> Self {
        UNANNOUNCED
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Two programs that are too far apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this side speaks protocol {ours}, the {who} {theirs}: versions work together that are at most one minor version \
     apart; upgrade {older} first"
)]
pub struct TooFarApart {
    ours: Protocol,
    theirs: Protocol,
    who: &'static str,
    older: String,
}

impl Protocol {
    /// What this process announces.
    #[must_use]
    pub fn spoken() -> Self {
        let wanted = std::env::var(ANNOUNCE_VARIABLE).ok();
        wanted.and_then(|text| Self::parse(&text)).unwrap_or(CURRENT)
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// As it came over the wire.
    #[must_use]
    pub fn announced(announced: Option<v1::Protocol>) -> Self {
        announced.map_or(UNANNOUNCED, |v1::Protocol { major, minor }| Self { major, minor })
    }

    /// Whether this version works with `who`'s.
    ///
    /// # Errors
    /// [`TooFarApart`], for people.
    pub fn works_with(self, theirs: Self, who: &'static str) -> Result<(), TooFarApart> {
        if self.major == theirs.major && self.minor.abs_diff(theirs.minor) <= 1 {
            return Ok(());
        }
        let theirs_is_older = (theirs.major, theirs.minor) < (self.major, self.minor);
        let older = if theirs_is_older { format!("the {who}") } else { "this side".to_owned() };
        Err(TooFarApart { ours: self, theirs, who, older })
    }
}

impl From<Protocol> for v1::Protocol {
    fn from(Protocol { major, minor }: Protocol) -> Self {
        Self { major, minor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn version(major: u32, minor: u32) -> Protocol {
        Protocol { major, minor }
    }

    #[test]
    fn one_minor_version_apart_works_both_ways() {
        for (ours, theirs, works) in [
            ((1, 1), (1, 1), true),
            ((1, 1), (1, 0), true),
            ((1, 1), (1, 2), true),
            ((1, 1), (1, 3), false),
            ((1, 3), (1, 1), false),
            ((1, 0), (2, 0), false),
        ] {
            let (ours, theirs) = (version(ours.0, ours.1), version(theirs.0, theirs.1));
            assert_eq!(ours.works_with(theirs, "daemon").is_ok(), works, "{ours} {theirs}");
        }
        let text = version(1, 1).works_with(version(1, 3), "manager").unwrap_err().to_string();
        assert!(
            text.contains("protocol 1.1, the manager 1.3") && text.ends_with("upgrade this side first"),
            "{text}"
        );
        let text = version(1, 3).works_with(version(1, 1), "manager").unwrap_err().to_string();
        assert!(text.ends_with("upgrade the manager first"), "{text}");
    }

    #[test]
    fn who_announces_nothing_is_of_the_first_version() {
        assert_eq!(Protocol::announced(None), UNANNOUNCED);
        assert_eq!(Protocol::announced(Some(CURRENT.into())), CURRENT);
        assert_eq!(Protocol::parse("1.2"), Some(version(1, 2)));
        assert!(Protocol::parse("1").is_none() && Protocol::parse("a.b").is_none());
    }

    /// A later version's message: a field that this one does not know.
    #[test]
    fn unknown_fields_and_messages_are_ignored() {
        let hello =
            v1::Hello { scheduler_cluster_id: 7, protocol: Some(CURRENT.into()), ..v1::Hello::default() };
        let mut bytes = hello.encode_to_vec();
        // Field 1000 of bytes, field 1001 a number.
        bytes.extend([0xc2, 0x3e, 3, b'n', b'e', b'w', 0xc8, 0x3e, 9]);
        assert_eq!(v1::Hello::decode(&bytes[..]).unwrap(), hello);
        // A message of a kind that is not known yet: field 1000 of the envelope.
        let later = [0xc2, 0x3e, 2, 0x08, 0x01];
        assert_eq!(v1::DaemonMessage::decode(&later[..]).unwrap().kind, None);
        assert_eq!(v1::SchedulerMessage::decode(&later[..]).unwrap().kind, None);
        assert_eq!(v1::KeepAliveRequest::decode(&later[..]).unwrap().kind, None);
    }
}
