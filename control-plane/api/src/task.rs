//! The address of a task: what a blob is asked for by, everywhere in Hawker.
//!
//! A blob whose digest is known is addressed by it. A file that is known by its URL alone is addressed by a hash
//! of where it is and which version of it ([`FileAddress`]): such an address says nothing about the bytes.
//!
//! Invariant: a `TaskId` is always well formed (a known algorithm, lower-case hex of its exact
//! length), so it may be used as a file name and in a URL path as it is.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// How a task came to its address: the digest algorithms of the OCI image specification that Hawker verifies,
/// or the address of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
    /// Not a digest of the content.
    Url,
}

impl Algorithm {
    /// Name as registered by the OCI image specification; `url` for the address of a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Url => "url",
        }
    }

    /// Length of a digest in bytes.
    #[must_use]
    pub fn digest_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Url => 32,
            Self::Sha512 => 64,
        }
    }
}

/// Which file, and which version of it.
#[derive(Clone, Copy, Debug)]
pub struct FileAddress<'a> {
    /// Without what only says who asks (signatures).
    pub url: &'a str,
    /// What the origin tells versions apart by: an entity tag or a date.
    pub version: &'a str,
    /// Bytes.
    pub size: u64,
    /// Set by callers who want a copy of their own.
    pub tag: &'a str,
}

impl FileAddress<'_> {
    /// Separates these hashes from all others.
    const DOMAIN: &'static [u8] = b"hawker file task v1";

    /// The task: a SHA-256 over the fields, each with its length before it.
    #[must_use]
    pub fn task(&self) -> TaskId {
        let size = self.size.to_le_bytes();
        let fields = [Self::DOMAIN, self.url.as_bytes(), self.version.as_bytes(), &size, self.tag.as_bytes()];
        let mut hash = Sha256::new();
        for field in fields {
            hash.update((field.len() as u64).to_le_bytes());
            hash.update(field);
        }
        let mut digest = [0; 64];
        digest[..32].copy_from_slice(&hash.finalize());
        TaskId { algorithm: Algorithm::Url, digest }
    }
}

/// A content address (the digest of the whole blob), or that of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    algorithm: Algorithm,
    digest: [u8; 64],
}

/// Why a text is not a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    #[error(
        "digest `{given}` has no algorithm: expected `sha256:<64 hex digits>` or `sha512:<128 hex digits>`"
    )]
    NoAlgorithm { given: String },
    #[error("digest algorithm `{given}` is not supported: use sha256 or sha512")]
    Algorithm { given: String },
    #[error("{algorithm} digest has {given} characters, {expected} lower-case hex digits are needed")]
    Length { algorithm: &'static str, given: usize, expected: usize },
    #[error("{algorithm} digest has a character that is not a lower-case hex digit at position {position}")]
    Hex { algorithm: &'static str, position: usize },
}

/// Error texts quote at most this many characters of what was given.
const QUOTED_CHARS: usize = 32;

impl TaskId {
    /// A task from the raw digest.
    ///
    /// Returns `None` unless `digest` has the algorithm's exact length.
    #[must_use]
    pub fn from_digest(algorithm: Algorithm, digest: &[u8]) -> Option<Self> {
        if digest.len() != algorithm.digest_len() {
            return None;
        }
        let mut bytes = [0; 64];
        bytes[..digest.len()].copy_from_slice(digest);
        Some(Self { algorithm, digest: bytes })
    }

    /// Whether the address is a digest of the content, so that the whole can be proven.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.algorithm != Algorithm::Url
    }

    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw digest.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        &self.digest[..self.algorithm.digest_len()]
    }

    /// Lower-case hex of the digest, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        self.digest().iter().fold(String::with_capacity(128), |mut text, byte| {
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
            text
        })
    }
}

impl FromStr for TaskId {
    type Err = TaskIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let quoted = |text: &str| text.chars().take(QUOTED_CHARS).collect::<String>();
        let (name, hex) =
            text.split_once(':').ok_or_else(|| TaskIdError::NoAlgorithm { given: quoted(text) })?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            "url" => Algorithm::Url,
            other => return Err(TaskIdError::Algorithm { given: quoted(other) }),
        };
        let expected = algorithm.digest_len() * 2;
        if hex.len() != expected {
            let given = hex.chars().count();
            return Err(TaskIdError::Length { algorithm: algorithm.name(), given, expected });
        }
        let mut digest = [0; 64];
        for (position, byte) in hex.bytes().enumerate() {
            let value = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return Err(TaskIdError::Hex { algorithm: algorithm.name(), position }),
            };
            digest[position / 2] |= value << (4 * (1 - position % 2));
        }
        Ok(Self { algorithm, digest })
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_a_round_trip() {
        for text in [
            format!("sha256:{}", "0a".repeat(32)),
            format!("sha512:{}", "f9".repeat(64)),
            format!("url:{}", "00".repeat(32)),
        ] {
            assert_eq!(text.parse::<TaskId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_field_of_a_file_makes_another_task() {
        let file = FileAddress { url: "https://a/b", version: "etag:1", size: 7, tag: "" };
        let others = [
            FileAddress { url: "https://a/be", version: "tag:1", ..file },
            FileAddress { version: "etag:2", ..file },
            FileAddress { size: 8, ..file },
            FileAddress { tag: "x", ..file },
        ];
        assert_eq!(file.task(), file.task());
        for other in others {
            assert_ne!(file.task(), other.task(), "{other:?}");
        }
        assert!(!file.task().is_content());
    }

    #[test]
    fn bad_digests_are_named() {
        let cases = [
            ("abc", "has no algorithm"),
            ("md5:abc", "`md5` is not supported"),
            ("sha256:abc", "has 3 characters, 64"),
            ("sha256:../../../../etc/passwd", "has 22 characters"),
            (&format!("sha256:{}", "A".repeat(64)), "position 0"),
            (&format!("sha256:{}/", "a".repeat(63)), "position 63"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<TaskId>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
