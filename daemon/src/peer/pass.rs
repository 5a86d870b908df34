//! What tells a peer of this cluster from anybody else who reaches the port: proof of the key that the
//! manager gives to a cluster's nodes.
//!
//! Not encryption, and not who the peer is. A proof is for one task: who overhears it learns how to ask for
//! what was just sent in the clear, and nothing about the key.
//!
//! Invariant: the key never leaves this module in a form that is printed or sent.

use crate::config::PeerAuth;
use hawker_api::task::TaskId;
use parking_lot::RwLock;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// Scheme of the `Authorization` header.
pub const SCHEME: &str = "Hawker";
/// Separates these hashes from all others that BLAKE3 is used for.
const DOMAIN: &[u8] = b"hawker peer request v1\0";

/// The key the nodes of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerKey([u8; 32]);

impl PeerKey {
    /// `None`: not 32 bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn proof(&self, task: &TaskId) -> Proof {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(DOMAIN).update(task.to_string().as_bytes());
        Proof(hasher.finalize())
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerKey(hidden)")
    }
}

/// For the file that remembers a placement, which only the daemon's user can read.
impl Serialize for PeerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl<'de> Deserialize<'de> for PeerKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(text).map_err(serde::de::Error::custom)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// What a request carries; compared in constant time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof(blake3::Hash);

impl Proof {
    /// Of an `Authorization` header; `None`: of another scheme, or malformed.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (scheme, hex) = std::str::from_utf8(header).ok()?.trim().split_once(' ')?;
        let hash = blake3::Hash::from_hex(hex.trim_start()).ok()?;
        scheme.eq_ignore_ascii_case(SCHEME).then_some(Self(hash))
    }
}

/// This node's pass: proves its own requests, judges those of others. Clones share the key.
#[derive(Debug, Clone)]
pub struct Pass {
    auth: PeerAuth,
    key: Arc<RwLock<Option<PeerKey>>>,
}

impl Pass {
    /// Without a key yet.
    #[must_use]
    pub fn new(auth: PeerAuth) -> Self {
        Self { auth, key: Arc::default() }
    }

    /// Lets everybody in, for tests and for networks that only nodes can reach.
    #[must_use]
    pub fn open() -> Self {
        Self::new(PeerAuth::Off)
    }

    /// The key of the cluster this node is in now.
    pub fn set(&self, key: Option<PeerKey>) {
        *self.key.write() = key;
    }

    /// Header line for a request about `task`, with its end; nothing where there is no key.
    #[must_use]
    pub fn header(&self, task: &TaskId) -> String {
        match &*self.key.read() {
            Some(key) => format!("Authorization: {SCHEME} {}\r\n", key.proof(task).0.to_hex()),
            None => String::new(),
        }
    }

    /// Whether a request about `task` comes from a node of this cluster. Without a key there is none: a node
    /// that belongs to no cluster shares with nobody.
    #[must_use]
    pub fn admits(&self, task: &TaskId, proof: Option<&Proof>) -> bool {
        match self.auth {
            PeerAuth::Off => true,
            PeerAuth::Cluster => {
                let key = self.key.read();
                key.as_ref().zip(proof).is_some_and(|(key, proof)| key.proof(task) == *proof)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn task(byte: &str) -> TaskId {
        format!("sha256:{}", byte.repeat(32)).parse().unwrap()
    }

    fn proof(pass: &Pass, task: &TaskId) -> Option<Proof> {
        let header = pass.header(task);
        let value = header.strip_prefix("Authorization: ")?.strip_suffix("\r\n")?;
        Some(Proof::parse(value.as_bytes()).unwrap())
    }

    #[test]
    fn only_who_has_the_key_gets_in_and_only_to_what_was_asked() {
        let (one, other) = (Pass::new(PeerAuth::Cluster), Pass::new(PeerAuth::Cluster));
        one.set(PeerKey::new(&[1; 32]));
        assert!(one.admits(&task("ab"), proof(&one, &task("ab")).as_ref()));
        assert!(!one.admits(&task("ab"), None));
        assert!(!one.admits(&task("cd"), proof(&one, &task("ab")).as_ref()), "a proof is for one task");
        assert!(!other.admits(&task("ab"), proof(&one, &task("ab")).as_ref()), "no key, no cluster");
        other.set(PeerKey::new(&[2; 32]));
        assert!(!other.admits(&task("ab"), proof(&one, &task("ab")).as_ref()), "another cluster's");
        assert!(Pass::open().admits(&task("ab"), None));
        assert_eq!(PeerKey::new(&[0; 31]), None);
    }

    #[test]
    fn a_key_is_remembered_and_not_printed() {
        let key = PeerKey::new(&[0xab; 32]).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, format!("\"{}\"", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<PeerKey>(&text).unwrap(), key);
        assert!(serde_json::from_str::<PeerKey>("\"ab\"").is_err());
        let pass = Pass::new(PeerAuth::Cluster);
        pass.set(Some(key));
        assert!(!format!("{pass:?}").contains("ab"), "{pass:?}");
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            prop_assert_eq!(Proof::parse(&bytes), None);
        }
    }
}
