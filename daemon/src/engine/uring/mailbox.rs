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
    /// False: the worker has ended.
    pub(super) fn send(&self, letter: Letter) -> bool {
        let sent = self.letters.send(letter).is_ok();
        // Fails only when the count is at its end, and then the worker is being woken already.
        let _ = self.event.write(1);
        sent
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
