//! The digest of a whole blob, made while its bytes pass in order.
//!
//! Invariant: what a task's address says nothing about matches; everything else only by its digest.

use hawker_api::task::{Algorithm, TaskId};
use sha2::{Digest, Sha256, Sha512};

/// The sum so far, by the algorithm that the task is named by.
pub(crate) enum WholeDigest {
    Sha256(Box<Sha256>),
    Sha512(Box<Sha512>),
    /// A file known by its address alone: there is nothing to compare with.
    Nothing,
}

impl WholeDigest {
    pub(crate) fn new(task: &TaskId) -> Self {
        match task.algorithm() {
            Algorithm::Sha256 => Self::Sha256(Box::default()),
            Algorithm::Sha512 => Self::Sha512(Box::default()),
            Algorithm::Url => Self::Nothing,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Sha512(sum) => sum.update(bytes),
            Self::Nothing => {}
        }
    }

    /// Whether the whole is what the task names.
    pub(crate) fn matches(self, task: &TaskId) -> bool {
        match self {
            Self::Sha256(sum) => sum.finalize().as_slice() == task.digest(),
            Self::Sha512(sum) => sum.finalize().as_slice() == task.digest(),
            Self::Nothing => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_match_what_a_digest_names() {
        let sha256 = TaskId::from_digest(Algorithm::Sha256, &Sha256::digest(b"abc")).unwrap();
        let sha512 = TaskId::from_digest(Algorithm::Sha512, &Sha512::digest(b"abc")).unwrap();
        let url: TaskId = format!("url:{}", "00".repeat(32)).parse().unwrap();
        for (task, bytes, expected) in [
            (sha256, "abc", true),
            (sha256, "abd", false),
            (sha512, "abc", true),
            (sha512, "ab", false),
            (url, "x", true),
        ] {
            let mut whole = WholeDigest::new(&task);
            bytes.as_bytes().chunks(2).for_each(|part| whole.update(part));
            assert_eq!(whole.matches(&task), expected, "{task} of {bytes}");
        }
    }
}
