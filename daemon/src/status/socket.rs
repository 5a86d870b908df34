//! The unix socket of the local API: made so that nobody else can connect, not even for a moment.
//!
//! Invariant: only a socket that nobody answers on is replaced, and only our own is removed.

use super::StatusError;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The daemon's user alone.
const SOCKET_MODE: u32 = 0o600;

/// The socket's file; removed on drop, unless somebody else put another there.
pub(crate) struct Socket {
    path: PathBuf,
    inode: u64,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "remove the local API's socket");
        }
    }
}

/// `follows`: the daemon that listens there hands over to this one.
pub(super) async fn listen(path: &Path, follows: bool) -> Result<(UnixListener, Socket), StatusError> {
    let failed = |act| move |source| StatusError::Socket { act, path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed("make the directory of"))?;
    }
    if !follows {
        refuse_taken(path).await?;
    }
    listen_unix(path).map_err(failed("listen on"))
}

/// A socket at `path`, in the place of whatever is there, for this user alone.
pub(crate) fn listen_unix(path: &Path) -> io::Result<(UnixListener, Socket)> {
    // Under another name until its mode is right; the rename replaces a stale one in one step.
    let fresh = path.with_extension("new");
    remove_if_there(&fresh)?;
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    let inode = std::fs::symlink_metadata(&fresh)?.ino();
    std::fs::rename(&fresh, path)?;
    Ok((listener, Socket { path: path.to_owned(), inode }))
}

async fn refuse_taken(path: &Path) -> Result<(), StatusError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StatusError::Socket { act: "look at", path: path.to_owned(), source }),
        Ok(file) if !file.file_type().is_socket() => Err(StatusError::NoSocket { path: path.to_owned() }),
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            // Somebody answers, or is too busy to.
            _ => Err(StatusError::SocketInUse { path: path.to_owned() }),
        },
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/hawkerd.sock");
        let (listener, socket) = listen(&path, false).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(matches!(listen(&path, false).await, Err(StatusError::SocketInUse { .. })));
        // As after kill -9: the file stays, nobody listens.
        drop(listener);
        let (_listener, second) = listen(&path, false).await.unwrap();
        drop(socket);
        assert!(path.exists(), "the first owner must not remove the second's socket");
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn another_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hawkerd.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path, false).await, Err(StatusError::NoSocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
