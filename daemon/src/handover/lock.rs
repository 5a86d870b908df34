//! The lock of a store's directory.
//!
//! Invariant: it is held by at most one process, and goes with it, however that ends.

use super::HandoverError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

const NAME: &str = "lock";
/// Pause between two attempts at a lock that is about to be free.
const PAUSE: Duration = Duration::from_millis(5);

/// The right to write into the directory; given up on drop.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// `None`: somebody else has it. Makes the directory.
    pub(crate) fn try_take(dir: &Path) -> Result<Option<Self>, HandoverError> {
        let failed = |act| move |source| HandoverError::File { act, path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make the store"))?;
        let path = dir.join(NAME);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        match Flock::lock(file.map_err(failed("open the lock of"))?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(failed("lock")(error.into())),
        }
    }

    /// Waits for it.
    pub(crate) async fn take_within(dir: &Path, limit: Duration) -> Result<Option<Self>, HandoverError> {
        let deadline = Instant::now() + limit;
        loop {
            let taken = Self::try_take(dir)?;
            if taken.is_some() || Instant::now() >= deadline {
                return Ok(taken);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_has_it_until_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let first = Lock::try_take(&store).unwrap().unwrap();
        assert!(Lock::try_take(&store).unwrap().is_none());
        assert!(Lock::take_within(&store, Duration::from_millis(20)).await.unwrap().is_none());
        drop(first);
        assert!(Lock::take_within(&store, Duration::ZERO).await.unwrap().is_some());
    }
}
