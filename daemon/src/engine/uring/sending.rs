//! An answer on its way: its head, then bytes of a blob, by whichever way costs least where they are.
//!
//! It does what can be done without waiting; what it needs before it can go on is the exchange's [`Need`].
//!
//! Invariant: a byte leaves [`Body::rest`] when it is in the socket or in the carrier.

use super::exchange::{Need, Turn};
use super::ring::{Buffer, Buffers};
use crate::pipe::Pipe;
use crate::store::BlobFile;
use nix::errno::Errno;
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, send};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Steps from this size on go through a pipe, if there is one.
const PIPED_BYTES: u64 = 256 << 10;
/// Steps from this size on may go from a mapping: below, pinning pages costs more than it saves.
const MAPPED_BYTES: u64 = 64 << 10;
/// Bytes put into a pipe at once by the ring.
const MAX_FILL_BYTES: u64 = 512 << 10;

pub(super) struct Sending {
    pub(super) head: Vec<u8>,
    pub(super) head_sent: usize,
    pub(super) body: Option<Body>,
    pub(super) refuses: bool,
}

pub(super) struct Body {
    pub(super) blob: Arc<BlobFile>,
    /// Not yet sent, nor in the carrier.
    pub(super) rest: Range<u64>,
    pub(super) corked: bool,
    /// It may go by reference to a mapping, where the ring may.
    pub(super) mappable: bool,
}

/// What takes bytes from the file when they may have to be waited for.
pub(super) enum Carrier {
    Pipe(Pipe),
    /// `sent..filled` of the buffer are still to be sent.
    Buffer {
        buffer: Buffer,
        sent: usize,
        filled: usize,
    },
}

pub(super) enum Step {
    Sent(u64),
    Done,
    Need(Need),
}

impl Sending {
    pub(super) fn is_done(&self, carrier: Option<&Carrier>) -> bool {
        self.head_sent == self.head.len() && self.body.as_ref().is_none_or(|body| body.left(carrier) == 0)
    }

    pub(super) fn send_head(&mut self, socket: &TcpStream) -> Result<Step, Errno> {
        let sent = send_bytes(socket, &self.head[self.head_sent..], self.body.is_some())?;
        self.head_sent += sent;
        Ok(Step::Sent(sent as u64))
    }
}

impl Body {
    /// Bytes not sent, in the carrier or not.
    pub(super) fn left(&self, carrier: Option<&Carrier>) -> u64 {
        self.rest.end - self.rest.start + carrier.map_or(0, |carrier| carrier.held() as u64)
    }

    pub(super) fn send(
        &mut self,
        socket: &TcpStream,
        carrier: &mut Option<Carrier>,
        turn: &mut Turn<'_>,
        budget: u64,
    ) -> Result<Step, Errno> {
        if let Some(carrier) = carrier.as_mut().filter(|carrier| carrier.held() > 0) {
            return carrier.drain(socket, turn.memory, !self.rest.is_empty());
        }
        if self.rest.is_empty() {
            return Ok(Step::Done);
        }
        let bytes = (self.rest.end - self.rest.start).min(budget);
        let next = self.rest.start..self.rest.start + bytes;
        if turn.residency.is_resident(&self.blob, next.clone(), turn.now) {
            if self.mappable && turn.mapped && bytes >= MAPPED_BYTES {
                let more = next.end < self.rest.end;
                return Ok(Step::Need(Need::SendMapped { range: next, more }));
            }
            if carrier.is_none() && bytes >= PIPED_BYTES {
                // Without one it goes all the same, in smaller steps.
                *carrier = turn.pipes.take().ok().flatten().map(Carrier::Pipe);
            }
            return match carrier {
                Some(Carrier::Pipe(pipe)) => self.fill_resident(pipe, bytes),
                _ => self.send_resident(socket, bytes),
            };
        }
        Ok(Step::Need(match carrier {
            None => Need::Carrier,
            Some(carrier) => Need::Fill { offset: self.rest.start, bytes: bytes.min(carrier.room()) },
        }))
    }

    /// One long step through a pipe of ours, where `sendfile` takes many of 64 KiB.
    fn fill_resident(&mut self, pipe: &mut Pipe, bytes: u64) -> Result<Step, Errno> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(pipe.capacity());
        let filled = pipe.fill_from_file(self.blob.file(), self.rest.start, bytes)?;
        if filled == 0 {
            return Err(Errno::ENODATA);
        }
        self.rest.start += filled as u64;
        Ok(Step::Sent(0))
    }

    fn send_resident(&mut self, socket: &TcpStream, bytes: u64) -> Result<Step, Errno> {
        let mut position = i64::try_from(self.rest.start).map_err(|_| Errno::EFBIG)?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let sent = sendfile(socket, self.blob.file(), Some(&mut position), bytes)?;
        if sent == 0 {
            return Err(Errno::ENODATA);
        }
        self.rest.start += sent as u64;
        Ok(Step::Sent(sent as u64))
    }
}

impl Carrier {
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Pipe(pipe) => pipe.held(),
            Self::Buffer { sent, filled, .. } => filled - sent,
        }
    }

    fn room(&self) -> u64 {
        match self {
            // A range that is not aligned takes a page more than its bytes.
            Self::Pipe(pipe) => (pipe.capacity() as u64 / 2).clamp(1, MAX_FILL_BYTES),
            Self::Buffer { .. } => Buffers::BUFFER_BYTES as u64,
        }
    }

    fn drain(&mut self, socket: &TcpStream, memory: &[u8], more: bool) -> Result<Step, Errno> {
        let drained = match self {
            Self::Pipe(pipe) => pipe.drain_to_socket(socket, more)?,
            Self::Buffer { sent, filled, .. } => {
                let drained = send_bytes(socket, &memory[*sent..*filled], more)?;
                *sent += drained;
                drained
            }
        };
        Ok(Step::Sent(drained as u64))
    }
}

/// Sends what fits; with `more`, the kernel waits for it before it sends a segment that is not full.
fn send_bytes(socket: &TcpStream, bytes: &[u8], more: bool) -> Result<usize, Errno> {
    let more = if more { MsgFlags::from_bits_retain(nix::libc::MSG_MORE) } else { MsgFlags::empty() };
    send(socket.as_raw_fd(), bytes, more | MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
}
