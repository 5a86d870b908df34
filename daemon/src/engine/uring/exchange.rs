//! One connection: requests in, answers out, in order.
//!
//! It does what can be done without waiting, and says what it needs before it can go on ([`Need`]).
//! Waiting for that is the worker's.
//!
//! Invariant: one need at a time; and while a fill is under way, file and pipe stay open here.

use super::pipes::Pipes;
use super::residency::Residency;
use super::ring::Buffer;
pub(super) use super::sending::Carrier;
use super::sending::{Body, Sending, Step};
use crate::engine::limits::{Admitted, IDLE_LIMIT, REFUSAL_LIMIT, REFUSED_INPUT_BYTES, SEND_LIMIT};
use crate::engine::{Answer, Lines, Service};
use crate::peer::Request;
use crate::peer::request::{self, MAX_HEAD_BYTES, Parsed};
use crate::store::BlobFile;
use nix::errno::Errno;
use socket2::SockRef;
use std::io::Read;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Answers from this size on are corked: fewer, fuller segments. Below, the extra call costs more.
const CORK_BYTES: u64 = 256 << 10;

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
    /// That the socket takes bytes of the blob by reference to a mapping.
    SendMapped {
        range: Range<u64>,
        more: bool,
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
    /// Bytes may go by reference to a mapping.
    pub(super) mapped: bool,
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
    /// Something may have arrived that was not read.
    unread: bool,
}

/// A connection between two requests, as it leaves the ring.
pub(super) struct Leftover {
    pub(super) socket: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) admitted: Admitted,
    /// Read and not answered.
    pub(super) received: Vec<u8>,
}

enum Stage {
    Reading,
    Asking,
    Sending(Sending),
    /// Answered with a refusal: reads on for a moment, so that closing does not reset the connection.
    Refused {
        left: u64,
    },
}

impl Exchange {
    pub(super) fn new(socket: TcpStream, peer: IpAddr, admitted: Admitted, now: Instant) -> Self {
        let options = SockRef::from(&socket);
        // Best effort: a connection that is broken already shows at its first use.
        let _ = options.set_tcp_nodelay(true);
        // BBR paces by itself; corked it was measured at half its speed.
        let may_cork = options.tcp_congestion().is_ok_and(|name| !name.starts_with(b"bbr"));
        let (deadline, stage) = (Some(now + IDLE_LIMIT), Stage::Reading);
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
            unread: true,
        }
    }

    /// The next request was answered.
    pub(super) fn answer(&mut self, answer: Answer, now: Instant) -> Option<Need> {
        let (head, body) = match answer {
            Answer::Text(bytes) => (bytes, None),
            Answer::Slice { head, blob, range } => {
                let corked = self.may_cork && range.end - range.start >= CORK_BYTES && self.cork(true);
                (head, Some(Body { blob, rest: range, corked, mappable: true }))
            }
            Answer::Feed { head, lines } => return Some(Need::HandOver { head, lines }),
        };
        self.deadline = Some(now + SEND_LIMIT);
        self.stage = Stage::Sending(Sending { head, head_sent: 0, body, refuses: false });
        None
    }

    /// For somebody else to go on with; `None` in the middle of an answer.
    pub(super) fn leave(self) -> Option<Leftover> {
        let Self { socket, peer, admitted, received, stage, .. } = self;
        matches!(stage, Stage::Reading).then_some(Leftover { socket, peer, admitted, received })
    }

    /// Hangs up, and keeps file and carrier for ever.
    pub(super) fn abandon(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        std::mem::forget((self.stage, self.carrier));
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Reading) && self.received.is_empty()
    }

    /// Something arrived. True: it was waiting for that.
    pub(super) fn arrived(&mut self) -> bool {
        self.unread = true;
        matches!(self.stage, Stage::Reading | Stage::Refused { .. })
    }

    /// Goes on as far as it gets; `budget` is what is left of the bytes of its turn.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>, budget: &mut u64) -> Need {
        loop {
            let need = match &self.stage {
                // Nobody runs one that waits for an answer.
                Stage::Asking => return Need::Close,
                Stage::Reading => self.read(turn),
                Stage::Refused { .. } => self.discard(turn.scratch),
                Stage::Sending(sending) if *budget == 0 && !sending.is_done(self.carrier.as_ref()) => {
                    Some(Need::Turn)
                }
                Stage::Sending(_) => self.send(turn, budget),
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
        if !self.unread {
            return Some(Need::Readable);
        }
        let room = MAX_HEAD_BYTES.max(self.received.len() + 1) - self.received.len();
        let scratch = &mut turn.scratch[..room.min(MAX_HEAD_BYTES)];
        match self.socket.read(scratch) {
            Ok(0) => Some(Need::Close),
            Ok(read) => {
                // Less than there was room for is all there was; what comes later is told.
                self.unread = read == scratch.len();
                self.received.extend_from_slice(&scratch[..read]);
                None
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.unread = false;
                Some(Need::Readable)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
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
                    // The head is not counted: a piece of one step would otherwise leave a tail for another turn.
                    *budget = budget.saturating_sub(bytes);
                }
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
        self.stage = Stage::Reading;
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

    /// The blob it sends from.
    pub(super) fn blob(&self) -> Option<&Arc<BlobFile>> {
        match &self.stage {
            Stage::Sending(Sending { body: Some(body), .. }) => Some(&body.blob),
            _ => None,
        }
    }

    /// A send from a mapping ended; `None`: it is its turn again.
    pub(super) fn sent_mapped(&mut self, result: i32, now: Instant) -> Option<Need> {
        self.deadline = Some(now + SEND_LIMIT);
        let Some(body) = self.body() else { return Some(Need::Close) };
        if let Ok(bytes @ 1..) = u64::try_from(result) {
            body.rest.start += bytes;
            self.unreported += bytes;
            self.granted = self.granted.saturating_sub(bytes);
            return None;
        }
        match Errno::from_raw(-result) {
            Errno::EAGAIN => Some(Need::Writable),
            Errno::EINTR => None,
            // More than this user may pin, or an address family that has none of it: this answer goes by splice.
            Errno::ENOMEM | Errno::ENOBUFS | Errno::EOPNOTSUPP | Errno::EINVAL => {
                body.mappable = false;
                None
            }
            // The peer is gone, or (`EFAULT`) the file is shorter than it was.
            _ => Some(Need::Close),
        }
    }

    /// A carrier it has no use for now: others may need it before its next turn.
    pub(super) fn spare_carrier(&mut self, need: &Need) -> Option<Carrier> {
        let waits = matches!(need, Need::Turn | Need::Writable | Need::Until(_));
        if self.body().is_none() {
            return self.carrier.take();
        }
        self.carrier.take_if(|carrier| waits && matches!(carrier, Carrier::Pipe(pipe) if pipe.held() == 0))
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
