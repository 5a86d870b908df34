//! Hears from the kernel when a queue or an interface changes, so that what follows from it is looked at within milliseconds
//! and not at the next round: between a fair queue's end and that look, nothing limits what it paced.
//!
//! Invariant: a burst of changes is one event; without the kernel's messages the rounds find everything as before.

use super::controller::{Desk, Event};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Weak;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// `RTMGRP_LINK | RTMGRP_TC`
const GROUPS: u32 = 0x1 | 0x8;
/// How long the end of the shaper may go unnoticed, milliseconds.
const LOOK_MS: u16 = 200;
/// What is still to come of one change: a queue is replaced by removing and adding.
const BURST: Duration = Duration::from_millis(2);

/// Sends events until the desk is gone.
pub(super) fn start(desk: Weak<Desk>, events: Sender<Event>) {
    let started = subscribe().and_then(|socket| {
        let builder = std::thread::Builder::new().name("shaper-watch".to_owned());
        builder.spawn(move || follow(&socket, &desk, &events))
    });
    if let Err(error) = started {
        tracing::warn!(%error, "changed queues are noticed once a second only");
    }
}

fn subscribe() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    Ok(socket)
}

fn follow(socket: &OwnedFd, desk: &Weak<Desk>, events: &Sender<Event>) {
    while desk.strong_count() > 0 {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let changed = match poll(&mut ready, PollTimeout::from(LOOK_MS)) {
            Ok(count) => count > 0,
            Err(Errno::EINTR) => false,
            Err(error) => return tracing::warn!(%error, "wait for changes of queues"),
        };
        if changed {
            std::thread::sleep(BURST);
            drain(socket);
            if events.send(Event::Changed).is_err() {
                return;
            }
        }
    }
}

/// What the messages say is asked anew anyway; one that was lost says as much.
fn drain(socket: &OwnedFd) {
    let mut buffer = [0; 8192];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(_) => return,
        }
    }
}
