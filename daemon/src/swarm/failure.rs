//! Why a download ended without the blob, and what that means for whoever waits.

use crate::mirror::blobs::{OpenError, ReadError};
use crate::origin::{IDLE_LIMIT, OriginError};
use hawker_api::pieces::TooLarge;

#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Origin(OriginError),
    #[error("{0}")]
    NoSpace(String),
    #[error("{0}")]
    TooLarge(TooLarge),
    /// All pieces matched their list, and the whole did not match its digest.
    #[error("the whole digest did not match")]
    Mismatch,
    #[error("{0}")]
    Store(String),
    #[error("no progress for {seconds} s")]
    Stalled { seconds: u64 },
    #[error("the origin stopped in the middle")]
    Stopped,
    #[error("nobody wants it any more")]
    Abandoned,
    #[error("the scheduler disproved the piece list: {0}")]
    ListReset(String),
    #[error("the daemon shuts down")]
    Shutdown,
    #[error("handed over to another daemon")]
    HandedOver,
}

impl Failure {
    pub(super) fn open_error(&self) -> OpenError {
        match self {
            Self::Origin(error) => OpenError::Origin(error.clone()),
            Self::NoSpace(detail) => OpenError::NoSpace(detail.clone()),
            Self::TooLarge(TooLarge { size }) => OpenError::TooLarge { size: *size },
            Self::HandedOver => OpenError::HandedOver,
            other => OpenError::Unavailable(other.to_string()),
        }
    }

    pub(super) fn read_error(&self) -> ReadError {
        match self {
            Self::Origin(error) => ReadError::Origin(error.clone()),
            Self::NoSpace(detail) => ReadError::NoSpace(detail.clone()),
            Self::Mismatch | Self::ListReset(_) => ReadError::Mismatch,
            Self::Stalled { seconds } => ReadError::Stalled { seconds: *seconds },
            Self::Stopped => ReadError::Stalled { seconds: IDLE_LIMIT.as_secs() },
            Self::HandedOver => ReadError::HandedOver,
            other => ReadError::Io(other.to_string()),
        }
    }
}
