//! The incumbent's side: a door that a successor knocks at, and what it is given.
//!
//! Invariant: the door's file is in the store's directory, which nobody else may enter, and is removed by whoever put it
//! there alone.

use super::wire::{Hello, Welcome, watched};
use super::{Conversation, HandoverError, Message};
use hawker_api::protocol::Protocol;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt, listen, socket,
};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const NAME: &str = "handover.sock";
/// Those who knock at once.
const WAITING: i32 = 4;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the door of this store is.
pub(super) fn door(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Open for a successor.
pub(crate) struct Door {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    inode: u64,
}

/// Somebody who takes over: it has the descriptors and waits for the store.
pub struct Request {
    pub(crate) conversation: Conversation,
    pub(crate) version: String,
}

impl Door {
    /// In the place of the one before, in one step.
    pub(crate) fn open(dir: &Path) -> Result<Self, HandoverError> {
        let path = door(dir);
        let failed = |act| {
            let path = path.clone();
            move |source: io::Error| HandoverError::File { act, path, source }
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(io::Error::from);
        let fd = made.map_err(failed("make the socket of"))?;
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let listening = UnixAddr::new(&fresh)
            .and_then(|addr| bind(fd.as_raw_fd(), &addr))
            .and_then(|()| Backlog::new(WAITING))
            .and_then(|backlog| listen(&fd, backlog));
        listening.map_err(io::Error::from).map_err(failed("listen on"))?;
        let inode = fs::symlink_metadata(&fresh).map_err(failed("look at"))?.ino();
        fs::rename(&fresh, &path).map_err(failed("put in place"))?;
        let socket = watched(fd).map_err(failed("watch"))?;
        Ok(Self { socket, path, inode })
    }

    /// The next who knocks and may.
    pub(crate) async fn knock(&self) -> Conversation {
        loop {
            let accepted = self.socket.async_io(Interest::READABLE, accept).await;
            match accepted.and_then(Conversation::new) {
                Ok(conversation) => return conversation,
                Err(error) => {
                    tracing::warn!(%error, "somebody at the door of the store");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn accept(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let raw = accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    #[expect(unsafe_code, reason = "accept gives the descriptor as a number")]
    // SAFETY: made by this very call, and nobody else has seen it.
    let accepted = unsafe { OwnedFd::from_raw_fd(raw) };
    let uid = getsockopt(&accepted, PeerCredentials)?.uid();
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it is user {uid}")));
    }
    Ok(accepted)
}

impl Request {
    /// Tells who is there what it may take over, and waits until it asks for the store.
    pub(crate) async fn greet(
        conversation: Conversation,
        welcome: Welcome,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Self, HandoverError> {
        let (message, _) = conversation.hear().await?;
        let Message::Hello(Hello { protocol, version }) = message else {
            return Err(HandoverError::Confused(format!("{message:?} for a greeting")));
        };
        if let Err(refusal) = Protocol::spoken().works_with(protocol, "hawkerd that takes over") {
            let reason = refusal.to_string();
            conversation.send(&Message::Refused { reason: reason.clone() }, &[]).await?;
            return Err(HandoverError::Refused(reason));
        }
        conversation.send(&Message::Welcome(Box::new(welcome)), descriptors).await?;
        match conversation.hear().await? {
            (Message::Take, _) => Ok(Self { conversation, version }),
            (other, _) => Err(HandoverError::Confused(format!("{other:?} for a request"))),
        }
    }
}
