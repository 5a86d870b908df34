//! What the service manager is told and gives, by its two small protocols (`sd_notify(3)`, `sd_listen_fds(3)`). Without a
//! service manager nothing happens.
//!
//! Sockets for the mirror and the metrics may be the service manager's: over loopback nothing is counted. That for
//! pieces is always the daemon's own, because connections belong to the cgroup of the socket that accepted them.
//!
//! Invariant: a failure to tell is logged and changes nothing.

use super::sockets::{Listeners, Place};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const SOCKET: &str = "NOTIFY_SOCKET";
/// The first descriptor that is given.
const FIRST: RawFd = 3;
const MAX_GIVEN: RawFd = 64;

/// The daemon serves.
pub(crate) fn ready() {
    notify("READY=1", &[]);
}

/// Another process is the service from now on.
pub(crate) fn followed_by(pid: u32) {
    notify(&format!("MAINPID={pid}\nREADY=1"), &[]);
}

/// The daemon ends.
pub(crate) fn stopping() {
    notify("STOPPING=1", &[]);
}

/// Sockets to keep until the next start (`FileDescriptorStoreMax=`).
pub(crate) fn keep(name: &str, socket: BorrowedFd<'_>) {
    notify(&format!("FDSTORE=1\nFDNAME={name}"), &[socket.as_raw_fd()]);
}

fn notify(text: &str, descriptors: &[RawFd]) {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = tell(&path, text, descriptors) {
        tracing::warn!(%error, text, "tell the service manager");
    }
}

fn tell(path: &std::ffi::OsStr, text: &str, descriptors: &[RawFd]) -> io::Result<()> {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path);
    let addr = match bytes.split_first() {
        Some((b'@', name)) => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(path)?,
    };
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        rights,
        MsgFlags::MSG_NOSIGNAL,
        Some(&addr),
    )?;
    Ok(())
}

/// The sockets that this process was started with.
pub(crate) fn given() -> Listeners {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let meant = variable("LISTEN_PID").parse() == Ok(std::process::id());
    let count: RawFd = variable("LISTEN_FDS").parse().unwrap_or(0);
    if !meant {
        return Listeners::default();
    }
    let names = variable("LISTEN_FDNAMES");
    let names = names.split(':').map(str::to_owned);
    let sockets = (FIRST..FIRST + count.clamp(0, MAX_GIVEN)).zip(names).filter_map(|(raw, name)| {
        #[expect(unsafe_code, reason = "descriptors are given as numbers")]
        // SAFETY: by the protocol they are this process's, and nobody else takes them.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        if let Err(error) = fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            tracing::warn!(%error, name, "a socket of the service manager");
            return None;
        }
        (name != Place::Peer.name()).then_some((name, socket))
    });
    Listeners::named(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_service_manager_hears_and_gets_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let file = tempfile::tempfile().unwrap();
        tell(path.as_os_str(), "FDSTORE=1\nFDNAME=mirror", &[file.as_raw_fd()]).unwrap();
        tell(path.as_os_str(), "READY=1", &[]).unwrap();
        let mut buffer = [0; 100];
        let read = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"FDSTORE=1\nFDNAME=mirror");
        let read = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"READY=1");
        assert!(tell(dir.path().join("nobody").as_os_str(), "READY=1", &[]).is_err());
    }
}
