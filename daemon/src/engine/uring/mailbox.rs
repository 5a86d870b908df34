//! What other threads tell a worker: letters, and a knock on its ring.
//!
//! Invariant: a letter is followed by a knock, so that none waits for the next tick.

use crate::engine::Answer;
use crate::engine::limits::Admitted;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

pub(super) enum Letter {
    Adopt {
        socket: TcpStream,
        peer: IpAddr,
        admitted: Admitted,
    },
    Answered {
        slot: u32,
        life: u32,
        answer: Answer,
    },
    /// Ends when what is being answered has been.
    Drain,
    /// Ends now.
    Stop,
    /// Takes the ring away from under the worker, or makes it panic.
    #[cfg(test)]
    Sabotage(Sabotage),
}

/// How a test breaks a worker.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) enum Sabotage {
    Ring,
    Panic,
}

/// The sending side; clones send to the same worker.
#[derive(Clone)]
pub(super) struct Mailbox {
    letters: Sender<Letter>,
    event: Arc<EventFd>,
}

pub(super) struct Inbox {
    pub(super) letters: Receiver<Letter>,
    pub(super) event: Arc<EventFd>,
    mailbox: Mailbox,
}

impl Mailbox {
    /// Sends it; where the worker has ended, nobody reads it.
    pub(super) fn send(&self, letter: Letter) {
        let _ = self.letters.send(letter);
        // Fails only when the count is at its end, and then the worker is being woken already.
        let _ = self.event.write(1);
    }
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        let event = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (sender, letters) = channel();
        let mailbox = Mailbox { letters: sender, event: Arc::clone(&event) };
        Ok(Self { letters, event, mailbox })
    }

    pub(super) fn mailbox(&self) -> Mailbox {
        self.mailbox.clone()
    }

    /// Takes the knocks so far.
    pub(super) fn quieten(&self) {
        let _ = self.event.read();
    }
}
