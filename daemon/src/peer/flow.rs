//! A body on its way from a socket into a sink through a pipe: what has come is taken, without waiting.
//!
//! Whoever stores it may do so on a thread of its own, for as long as bytes come: [`Sink::pump`](super::client::Sink::pump).
//!
//! Invariant: no more than the announced bytes are taken from the socket, and what was taken is in the pipe.

use crate::accounting::Inflow;
use crate::pipe::Pipe;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Bytes that are stored at once: half of a second-level cache, which they are hashed from.
pub(super) const STEP_BYTES: usize = 512 << 10;
/// So many are worth storing, when no more have come.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// What is there to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A step, or the end, is in the pipe.
    Filled,
    /// Not enough; more has to come first.
    Dry,
    /// The limit does not allow to read on.
    Held,
    /// Everything was taken and stored.
    Done,
}

/// The rest of a body. One who holds it reads the socket; nobody else does meanwhile.
pub struct Flow {
    socket: Arc<OwnedFd>,
    pipe: Pipe,
    left: u64,
    inflow: Inflow,
    /// The limit was waited for: one step may be read, whoever reads meanwhile.
    allowed: bool,
    failure: Option<io::Error>,
}

impl Flow {
    pub(super) fn new(socket: Arc<OwnedFd>, pipe: Pipe, bytes: u64, inflow: Inflow) -> Self {
        Self { socket, pipe, left: bytes, inflow, allowed: false, failure: None }
    }

    /// Takes what has come, up to a step. Never waits. After a failure of the socket nothing comes any more.
    pub fn fill(&mut self) -> Step {
        match self.try_fill() {
            Ok(step) => step,
            Err(error) => {
                self.failure = Some(error);
                Step::Dry
            }
        }
    }

    /// Waits until the limit allows to read on.
    pub(super) async fn await_limit(&mut self) {
        self.inflow.ready().await;
        self.allowed = true;
    }

    /// What came and is to be stored.
    pub fn pipe(&mut self) -> &mut Pipe {
        &mut self.pipe
    }

    /// Why no more comes, and the pipe.
    pub(super) fn end(self) -> (Option<io::Error>, Pipe) {
        (self.failure, self.pipe)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    fn try_fill(&mut self) -> io::Result<Step> {
        while self.left > 0 && self.pipe.held() < STEP_BYTES {
            if !self.allowed && !self.inflow.is_ready() {
                return Ok(Step::Held);
            }
            let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(STEP_BYTES - self.pipe.held());
            match self.pipe.fill_from_socket(&self.socket, room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(filled) => {
                    self.allowed = false;
                    self.left -= filled as u64;
                    self.inflow.count(filled as u64);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    // Either nothing is there, or nothing fits: small segments take a place of the pipe each.
                    let held = self.pipe.held();
                    let enough = held >= BATCH_BYTES || (held > 0 && has_bytes(&self.socket)?);
                    return Ok(if enough { Step::Filled } else { Step::Dry });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if self.pipe.held() > 0 { Step::Filled } else { Step::Done })
    }
}

fn has_bytes(socket: &impl AsRawFd) -> io::Result<bool> {
    match peek(socket) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether something (or the end) is there to be read.
pub(super) fn peek(socket: &impl AsRawFd) -> io::Result<()> {
    recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}
