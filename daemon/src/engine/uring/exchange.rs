//! One connection: requests in, answers out, in order.
//!
//! It does what can be done without waiting, and says what it needs before it can go on ([`Need`]).
//! Waiting for that is the worker's.
//!
//! Invariant: one need at a time; and while a fill is under way, file and pipe stay open here.

use super::pipes::Pipes;
use super::residency::Residency;
use super::ring::Buffer;
use crate::engine::limits::{
    Admitted, IDLE_LIMIT, REFUSAL_LIMIT, REFUSED_INPUT_BYTES, SEND_LIMIT, SEND_STEP_BYTES,
};
use crate::engine::{Answer, Lines, Service};
use crate::peer::Request;
use crate::peer::request::{self, MAX_HEAD_BYTES, Parsed};
use crate::pipe::Pipe;
use crate::store::BlobFile;
use nix::errno::Errno;
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, send};
use socket2::SockRef;
use std::io::Read;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

/// Answers from this size on are corked: fewer, fuller segments. Below, the extra call costs more.
const CORK_BYTES: u64 = 256 << 10;

/// Steps from this size on go through a pipe, if there is one.
const PIPED_BYTES: u64 = 256 << 10;
/// Bytes put into a pipe at once by the ring.
const MAX_FILL_BYTES: u64 = 512 << 10;

/// What an exchange waits for.
pub(super) enum Need {
    Readable,
    Writable,
    /// It could go on at once; others first.
    Turn,
    /// Leave to send, which it has from then on.
    Until(Instant),
    Answer(Request),
    /// A pipe or a buffer, by [`Exchange::carry`].
    Carrier,
    /// Bytes in its carrier: `bytes` of the file from `offset`.
    Fill {
        offset: u64,
        bytes: u64,
    },
    /// Somebody else sends the rest, and closes.
    HandOver {
        head: Vec<u8>,
        lines: Box<dyn Lines>,
    },
    Close,
}

/// What is the same for all exchanges of a worker during one turn.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    /// Asked for leave to send.
    pub(super) service: &'a dyn Service,
    pub(super) residency: &'a mut Residency,
    pub(super) pipes: &'a mut Pipes,
    /// Where requests are read to.
    pub(super) scratch: &'a mut [u8],
    /// The memory of a carrier that is a buffer.
    pub(super) memory: &'a [u8],
}

pub(super) struct Exchange {
    pub(super) socket: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) admitted: Admitted,
    /// When it has waited too long; `None` where others are to blame.
    pub(super) deadline: Option<Instant>,
    /// Nothing more is answered after this.
    pub(super) last: bool,
    /// Bytes sent and not yet told to the service.
    pub(super) unreported: u64,
    /// Bytes of bodies it has leave to send.
    granted: u64,
    received: Vec<u8>,
    stage: Stage,
    carrier: Option<Carrier>,
    may_cork: bool,
}

enum Stage {
    Reading {
        look: bool,
    },
    Asking,
    Sending(Sending),
    /// Answered with a refusal: reads on for a moment, so that closing does not reset the connection.
    Refused {
        left: u64,
    },
}

struct Sending {
    head: Vec<u8>,
    head_sent: usize,
    body: Option<Body>,
    refuses: bool,
}

struct Body {
    blob: Arc<BlobFile>,
    /// Not yet sent, nor in the carrier.
    rest: Range<u64>,
    corked: bool,
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

impl Exchange {
    pub(super) fn new(socket: TcpStream, peer: IpAddr, admitted: Admitted, now: Instant) -> Self {
        let options = SockRef::from(&socket);
        // Best effort: a connection that is broken already shows at its first use.
        let _ = options.set_tcp_nodelay(true);
        // BBR paces by itself; corked it was measured at half its speed.
        let may_cork = options.tcp_congestion().is_ok_and(|name| !name.starts_with(b"bbr"));
        let (deadline, stage) = (Some(now + IDLE_LIMIT), Stage::Reading { look: true });
        let (received, carrier, last, unreported, granted) = (Vec::new(), None, false, 0, 0);
        Self {
            socket,
            peer,
            admitted,
            deadline,
            last,
            unreported,
            granted,
            received,
            stage,
            carrier,
            may_cork,
        }
    }

    /// The next request was answered.
    pub(super) fn answer(&mut self, answer: Answer, now: Instant) -> Option<Need> {
        let (head, body) = match answer {
            Answer::Text(bytes) => (bytes, None),
            Answer::Slice { head, blob, range } => {
                let corked = self.may_cork && range.end - range.start >= CORK_BYTES && self.cork(true);
                (head, Some(Body { blob, rest: range, corked }))
            }
            Answer::Feed { head, lines } => return Some(Need::HandOver { head, lines }),
        };
        self.deadline = Some(now + SEND_LIMIT);
        self.stage = Stage::Sending(Sending { head, head_sent: 0, body, refuses: false });
        None
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Reading { .. }) && self.received.is_empty()
    }

    /// It was told that it may read.
    pub(super) fn look(&mut self) {
        if let Stage::Reading { look } = &mut self.stage {
            *look = true;
        }
    }

    /// Goes on as far as it gets.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) -> Need {
        let mut budget = SEND_STEP_BYTES;
        loop {
            let need = match &self.stage {
                // Nobody runs one that waits for an answer.
                Stage::Asking => return Need::Close,
                Stage::Reading { .. } => self.read(turn),
                Stage::Refused { .. } => self.discard(turn.scratch),
                Stage::Sending(_) if budget == 0 => Some(Need::Turn),
                Stage::Sending(_) => self.send(turn, &mut budget),
            };
            if let Some(need) = need {
                return need;
            }
        }
    }

    fn read(&mut self, turn: &mut Turn<'_>) -> Option<Need> {
        match request::parse(&self.received) {
            Err(bad) => {
                self.deadline = Some(turn.now + SEND_LIMIT);
                let head = bad.answer();
                self.stage = Stage::Sending(Sending { head, head_sent: 0, body: None, refuses: true });
                return None;
            }
            Ok(Parsed::Complete { request, consumed }) => {
                self.received.drain(..consumed);
                if self.received.is_empty() {
                    // Most peers ask one thing at a time: an idle one costs no buffer.
                    self.received = Vec::new();
                }
                self.last |= request.close;
                (self.stage, self.deadline) = (Stage::Asking, None);
                return Some(Need::Answer(request));
            }
            Ok(Parsed::Partial) => {}
        }
        let Stage::Reading { look: look @ true } = &mut self.stage else { return Some(Need::Readable) };
        *look = false;
        let room = MAX_HEAD_BYTES.max(self.received.len() + 1) - self.received.len();
        let scratch = &mut turn.scratch[..room.min(MAX_HEAD_BYTES)];
        match self.socket.read(scratch) {
            Ok(0) => Some(Need::Close),
            Ok(read) => {
                self.received.extend_from_slice(&scratch[..read]);
                None
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(Need::Readable),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                self.look();
                None
            }
            Err(_) => Some(Need::Close),
        }
    }

    fn discard(&mut self, scratch: &mut [u8]) -> Option<Need> {
        let Stage::Refused { left } = &mut self.stage else { return None };
        match self.socket.read(scratch) {
            Ok(read @ 1..) if read as u64 <= *left => {
                *left -= read as u64;
                None
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(Need::Readable),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
            Ok(_) | Err(_) => Some(Need::Close),
        }
    }

    fn send(&mut self, turn: &mut Turn<'_>, budget: &mut u64) -> Option<Need> {
        let Stage::Sending(sending) = &mut self.stage else { return None };
        let in_body = sending.head_sent == sending.head.len();
        let stepped = match &mut sending.body {
            _ if !in_body => sending.send_head(&self.socket),
            Some(body) => {
                let left = body.left(self.carrier.as_ref());
                if self.granted == 0 && left > 0 {
                    let grant = turn.service.pace(self.peer, left);
                    self.granted = grant.bytes;
                    if !grant.wait.is_zero() {
                        self.deadline = Some(turn.now + grant.wait + SEND_LIMIT);
                        return Some(Need::Until(turn.now + grant.wait));
                    }
                }
                body.send(&self.socket, &mut self.carrier, turn, self.granted.min(*budget))
            }
            None => Ok(Step::Done),
        };
        match stepped {
            Ok(Step::Sent(bytes)) => {
                self.deadline = Some(turn.now + SEND_LIMIT);
                self.unreported += bytes;
                if in_body {
                    self.granted = self.granted.saturating_sub(bytes);
                }
                *budget = budget.saturating_sub(bytes);
                None
            }
            Ok(Step::Done) => self.sent(turn.now),
            Ok(Step::Need(need)) => Some(need),
            Err(Errno::EAGAIN) => Some(Need::Writable),
            Err(Errno::EINTR) => None,
            // The peer is gone, or the file is shorter than it was: there is no right next byte.
            Err(_) => Some(Need::Close),
        }
    }

    /// An answer is complete.
    fn sent(&mut self, now: Instant) -> Option<Need> {
        let Stage::Sending(sending) = &self.stage else { return None };
        let (refused, corked) = (sending.refuses, sending.body.as_ref().is_some_and(|body| body.corked));
        if corked {
            self.cork(false);
        }
        if refused {
            let _ = self.socket.shutdown(Shutdown::Write);
            self.deadline = Some(now + REFUSAL_LIMIT);
            self.stage = Stage::Refused { left: REFUSED_INPUT_BYTES };
            return None;
        }
        if self.last {
            return Some(Need::Close);
        }
        self.deadline = Some(now + IDLE_LIMIT);
        self.stage = Stage::Reading { look: false };
        None
    }

    fn cork(&self, on: bool) -> bool {
        SockRef::from(&self.socket).set_tcp_cork(on).is_ok()
    }

    fn body(&mut self) -> Option<&mut Body> {
        match &mut self.stage {
            Stage::Sending(sending) => sending.body.as_mut(),
            _ => None,
        }
    }

    /// Gives it what [`Need::Carrier`] asked for.
    pub(super) fn carry(&mut self, carrier: Carrier) {
        self.carrier = Some(carrier);
    }

    /// The buffer it sends from.
    pub(super) fn buffer(&self) -> Option<&Buffer> {
        match &self.carrier {
            Some(Carrier::Buffer { buffer, .. }) => Some(buffer),
            _ => None,
        }
    }

    /// The blob of the fill it needs, and the carrier; a buffer is to be taken out for the ring.
    pub(super) fn fill(&mut self) -> Option<(&BlobFile, &mut Option<Carrier>)> {
        self.deadline = None;
        match &self.stage {
            Stage::Sending(Sending { body: Some(body), .. }) => Some((&body.blob, &mut self.carrier)),
            _ => None,
        }
    }

    /// A fill ended. False: the file has no such bytes any more.
    pub(super) fn filled(&mut self, result: i32, buffer: Option<Buffer>, now: Instant) -> bool {
        let got = usize::try_from(result).unwrap_or(0);
        match (&mut self.carrier, buffer) {
            (Some(Carrier::Pipe(pipe)), _) => pipe.filled(got),
            (carrier, Some(buffer)) => *carrier = Some(Carrier::Buffer { buffer, sent: 0, filled: got }),
            (_, None) => {}
        }
        self.deadline = Some(now + SEND_LIMIT);
        let Some(body) = self.body() else { return false };
        body.rest.start += got as u64;
        got > 0 || matches!(-result, INTERRUPTED | TRY_AGAIN)
    }

    /// A carrier it has no more use for.
    pub(super) fn spare_carrier(&mut self) -> Option<Carrier> {
        if self.body().is_some() { None } else { self.carrier.take() }
    }

    /// Takes the carrier away; the bytes in it are fetched from the file again.
    pub(super) fn give_up_carrier(&mut self) -> Option<Carrier> {
        let carrier = self.carrier.take()?;
        if let Some(body) = self.body() {
            body.rest.start -= carrier.held() as u64;
        }
        Some(carrier)
    }
}

const INTERRUPTED: i32 = Errno::EINTR as i32;
const TRY_AGAIN: i32 = Errno::EAGAIN as i32;

enum Step {
    Sent(u64),
    Done,
    Need(Need),
}

impl Sending {
    fn send_head(&mut self, socket: &TcpStream) -> Result<Step, Errno> {
        let sent = send_bytes(socket, &self.head[self.head_sent..], self.body.is_some())?;
        self.head_sent += sent;
        Ok(Step::Sent(sent as u64))
    }
}

impl Body {
    /// Bytes not sent, in the carrier or not.
    fn left(&self, carrier: Option<&Carrier>) -> u64 {
        self.rest.end - self.rest.start + carrier.map_or(0, |carrier| carrier.held() as u64)
    }

    fn send(
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
        if turn.residency.is_resident(&self.blob, next, turn.now) {
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
            Self::Buffer { .. } => super::ring::Buffers::BUFFER_BYTES as u64,
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
