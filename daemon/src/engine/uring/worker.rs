//! The loop of one engine thread: completions, letters from other threads, turns, deadlines.
//!
//! It never waits for anything but the ring: not for the disk (a kernel thread does), not for a peer
//! (the ring polls its socket), not for the service (a task of the runtime does).
//!
//! Invariant: a panic while an exchange is worked on ends that exchange, not the thread.

pub(super) use super::exchange::Leftover;
use super::exchange::{Carrier, Exchange, Need, Turn};
#[cfg(test)]
use super::mailbox::Sabotage;
use super::mailbox::{Inbox, Letter};
use super::outside::Outside;
use super::pipes::Pipes;
use super::residency::Residency;
use super::ring::{Buffer, Completion, Ring, Token, What};
use super::sleepers::Sleepers;
use super::slots::Slots;
use super::turns::Turns;
use crate::engine::Answer;
use crate::engine::limits::{DRAIN_LIMIT, SEND_STEP_BYTES};
use crate::peer::Request;
use crate::peer::request::MAX_HEAD_BYTES;
use futures::future::BoxFuture;
use nix::poll::PollFlags;
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Requests of one connection answered in one turn.
const REQUESTS_PER_TURN: usize = 16;
/// Slot of the operation that is nobody's exchange.
const OWN: Token = Token { slot: (1 << 24) - 1, life: 0, what: What::Woken };

pub(super) struct Worker {
    outside: Outside,
    ring: Ring,
    inbox: Inbox,
    slots: Slots,
    turns: Turns,
    pipes: Pipes,
    residency: Residency,
    /// Exchanges that wait for a pipe or a buffer.
    needy: VecDeque<u32>,
    /// Exchanges that wait for their peer's limit.
    sleepers: Sleepers,
    scratch: Vec<u8>,
    now: Instant,
    /// No new work; at that time the rest is cut.
    draining: Option<Instant>,
}

impl Worker {
    pub(super) fn new(outside: Outside, ring: Ring, inbox: Inbox) -> Self {
        let residency = Residency::new(ring.buffers().is_none());
        let (slots, turns, pipes) = (Slots::default(), Turns::default(), Pipes::default());
        let (needy, sleepers) = (VecDeque::new(), Sleepers::default());
        let (scratch, now, draining) = (vec![0; MAX_HEAD_BYTES], Instant::now(), None);
        Self { outside, ring, inbox, slots, turns, pipes, residency, needy, sleepers, scratch, now, draining }
    }

    /// Runs until it is told to end and everything has. Within a runtime.
    ///
    /// # Errors
    /// The ring is of no more use; see [`Self::leave`].
    pub(super) fn run(&mut self) -> io::Result<()> {
        self.await_letters();
        let (mut ended, mut next_tick) = (Vec::new(), self.now + TICK);
        loop {
            let limit = if self.turns.len() > 0 { None } else { Some(self.sleepers.within(TICK)) };
            self.ring.turn(limit, &mut ended)?;
            if let Some(why) = self.ring.mapping_stopped() {
                self.outside.standing.zero_copy_off(&why);
            }
            self.now = Instant::now();
            for completion in ended.drain(..) {
                self.completed(completion);
            }
            while let Some(token) = self.sleepers.awake(self.now) {
                self.wake(token);
            }
            for _ in 0..self.turns.len() {
                if let Some(slot) = self.turns.pop() {
                    self.work_on(slot);
                }
            }
            if self.now >= next_tick {
                next_tick = self.now + TICK;
                self.tick();
            }
            if self.draining.is_some() && self.slots.len() == 0 {
                return Ok(());
            }
        }
    }

    /// Ends, and leaves the connections that somebody else can go on with; the others are closed.
    pub(super) fn leave(self) -> Vec<Leftover> {
        let Self { ring, inbox, mut slots, .. } = self;
        drop(ring);
        let mut left: Vec<Leftover> = slots.leave().into_iter().filter_map(Exchange::leave).collect();
        while let Ok(letter) = inbox.letters.try_recv() {
            if let Letter::Adopt { socket, peer, admitted } = letter {
                left.push(Leftover { socket, peer, admitted, received: Vec::new() });
            }
        }
        left
    }

    fn await_letters(&mut self) {
        self.ring.poll(self.inbox.event.as_fd(), PollFlags::POLLIN, OWN);
    }

    fn completed(&mut self, Completion { token, result, more, buffer }: Completion) {
        match token.what {
            What::Woken => {
                self.inbox.quieten();
                self.await_letters();
                while let Ok(letter) = self.inbox.letters.try_recv() {
                    self.read(letter);
                }
            }
            What::Cancelled | What::Mapped => {}
            What::Arrived => self.arrived(token, result, more),
            What::Ready | What::Filled | What::Sent => {
                if !self.slots.is_current(token.slot, token.life) {
                    return self.take_back(buffer.map(|buffer| Carrier::Buffer {
                        buffer,
                        sent: 0,
                        filled: 0,
                    }));
                }
                let closing = self.slots.ended(token.slot);
                self.resume(token, result, buffer, closing);
            }
        }
    }

    /// Watches what arrives at an exchange's socket from now on.
    fn watch(&mut self, slot: u32) {
        let token = self.slots.token(slot, What::Arrived);
        if let Some(exchange) = self.slots.get(slot) {
            self.ring.watch(exchange.socket.as_fd(), token);
        }
    }

    fn arrived(&mut self, token: Token, result: i32, more: bool) {
        if !self.slots.is_current(token.slot, token.life) {
            return;
        }
        match (more, result) {
            (true, _) => {}
            // It was the last time for want of room for completions.
            (false, 0..) => self.watch(token.slot),
            (false, _) => return self.close(token.slot),
        }
        let Some(exchange) = self.slots.get(token.slot) else { return };
        if exchange.arrived() {
            let peer = exchange.peer;
            self.turns.push(peer, token.slot);
        }
    }

    /// Its time to send has come.
    fn wake(&mut self, token: Token) {
        if self.slots.is_current(token.slot, token.life)
            && let Some(exchange) = self.slots.get(token.slot)
        {
            let peer = exchange.peer;
            self.turns.push(peer, token.slot);
        }
    }

    fn resume(&mut self, token: Token, result: i32, buffer: Option<Buffer>, closing: bool) {
        if closing {
            self.take_back(buffer.map(|buffer| Carrier::Buffer { buffer, sent: 0, filled: 0 }));
            // The pipe may hold what the fill brought.
            return self.remove(token.slot, token.what != What::Filled);
        }
        let Some(exchange) = self.slots.get(token.slot) else { return };
        if token.what == What::Sent {
            if let Some(need) = exchange.sent_mapped(result, self.now) {
                return self.meet(token.slot, need);
            }
        } else if token.what == What::Filled && !exchange.filled(result, buffer, self.now) {
            tracing::debug!(peer = %exchange.peer, result, "a blob's file has no such bytes any more");
            return self.close(token.slot);
        }
        let peer = exchange.peer;
        self.turns.push(peer, token.slot);
    }

    fn read(&mut self, letter: Letter) {
        match letter {
            Letter::Adopt { .. } if self.draining.is_some() => {}
            Letter::Adopt { socket, peer, admitted } => {
                let slot = self.slots.insert(Exchange::new(socket, peer, admitted, self.now));
                self.watch(slot);
                self.turns.push(peer, slot);
            }
            Letter::Answered { slot, life, answer } => {
                if !self.slots.is_current(slot, life) {
                    return;
                }
                let Some(exchange) = self.slots.get(slot) else { return };
                let (peer, need) = (exchange.peer, exchange.answer(answer, self.now));
                match need {
                    Some(need) => self.meet(slot, need),
                    None => self.turns.push(peer, slot),
                }
            }
            Letter::Drain => {
                self.draining = Some(self.now + DRAIN_LIMIT);
                for slot in self.slots.all() {
                    match self.slots.get(slot) {
                        Some(exchange) if exchange.is_idle() => self.close(slot),
                        Some(exchange) => exchange.last = true,
                        None => {}
                    }
                }
            }
            #[cfg(test)]
            Letter::Sabotage(Sabotage::Ring) => self.ring.take_away(),
            #[cfg(test)]
            Letter::Sabotage(Sabotage::Panic) => panic!("told to"),
            Letter::Stop => {
                self.draining = Some(self.now);
                self.slots.all().into_iter().for_each(|slot| self.close(slot));
            }
        }
    }

    fn work_on(&mut self, slot: u32) {
        let worked = catch_unwind(AssertUnwindSafe(|| self.turn_of(slot)));
        if worked.is_err() {
            self.close(slot);
        }
    }

    fn turn_of(&mut self, slot: u32) {
        let mut budget = SEND_STEP_BYTES;
        for _ in 0..REQUESTS_PER_TURN {
            let Some(exchange) = self.slots.get(slot) else { return };
            let memory = exchange.buffer().zip(self.ring.buffers());
            let memory = memory.map_or(&[][..], |(buffer, buffers)| buffers.read(buffer));
            let (now, residency, scratch) = (self.now, &mut self.residency, &mut self.scratch[..]);
            let (pipes, service) = (&mut self.pipes, &*self.outside.service);
            let mapped = self.ring.can_send_mapped();
            let need = exchange
                .advance(&mut Turn { now, service, residency, pipes, mapped, scratch, memory }, &mut budget);
            let sent = std::mem::take(&mut exchange.unreported);
            if sent > 0 {
                self.outside.service.sent(exchange.peer, sent);
            }
            let spare = exchange.spare_carrier(&need);
            self.take_back(spare);
            match need {
                Need::Answer(request) => match self.ask(slot, request) {
                    Some(answer) => {
                        let Some(exchange) = self.slots.get(slot) else { return };
                        if let Some(need) = exchange.answer(answer, self.now) {
                            return self.meet(slot, need);
                        }
                    }
                    None => return,
                },
                need => return self.meet(slot, need),
            }
        }
        self.meet(slot, Need::Turn);
    }

    /// The service's answer, if it has one at once; else it comes by letter.
    fn ask(&mut self, slot: u32, request: Request) -> Option<Answer> {
        let peer = self.slots.get(slot)?.peer;
        let service = Arc::clone(&self.outside.service);
        let mut answering: BoxFuture<'static, Answer> =
            Box::pin(async move { service.answer(peer, request).await });
        match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => {
                let life = self.slots.token(slot, What::Ready).life;
                self.outside.answer((slot, life), answering, self.inbox.mailbox());
                None
            }
        }
    }

    /// Arranges for what an exchange waits for.
    fn meet(&mut self, slot: u32, need: Need) {
        let Some(exchange) = self.slots.get(slot) else { return };
        match need {
            Need::Turn => {
                let peer = exchange.peer;
                self.turns.push(peer, slot);
            }
            Need::Until(at) => self.sleepers.add(at, self.slots.token(slot, What::Ready)),
            // It is watched.
            Need::Readable => {}
            Need::Writable => self.poll(slot),
            Need::Carrier => {
                self.needy.push_back(slot);
                self.serve_needy();
            }
            Need::Fill { offset, bytes } => self.fill(slot, offset, bytes),
            Need::SendMapped { range, more } => self.send_mapped(slot, range, more),
            Need::HandOver { head, lines } => {
                self.ring.cancel(self.slots.token(slot, What::Arrived));
                if let Some(exchange) = self.slots.remove(slot) {
                    self.outside.feed(exchange, head, lines);
                }
            }
            // `Answer` is met where it arises.
            Need::Close | Need::Answer(_) => self.close(slot),
        }
    }

    fn poll(&mut self, slot: u32) {
        let token = self.slots.token(slot, What::Ready);
        let Some(exchange) = self.slots.get(slot) else { return };
        self.ring.poll(exchange.socket.as_fd(), PollFlags::POLLOUT, token);
        self.slots.started(slot, What::Ready);
    }

    fn send_mapped(&mut self, slot: u32, range: Range<u64>, more: bool) {
        let token = self.slots.token(slot, What::Sent);
        let Some(exchange) = self.slots.get(slot) else { return };
        let Some(blob) = exchange.blob() else { return };
        match self.ring.send_mapped(exchange.socket.as_fd(), (blob, range, more), token) {
            Ok(()) => self.slots.started(slot, What::Sent),
            Err(error) => {
                let peer = exchange.peer;
                self.ring.stop_mapping(format!("map a blob: {error}"));
                self.turns.push(peer, slot);
            }
        }
    }

    fn fill(&mut self, slot: u32, offset: u64, bytes: u64) {
        let token = self.slots.token(slot, What::Filled);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some((blob, carrier)) = self.slots.get(slot).and_then(Exchange::fill) else { return };
        match carrier.take() {
            Some(Carrier::Pipe(pipe)) => {
                self.ring.fill_pipe(blob.file(), offset, pipe.entrance(), bytes, token);
                *carrier = Some(Carrier::Pipe(pipe));
            }
            Some(Carrier::Buffer { buffer, .. }) => {
                self.ring.fill_buffer(blob.file(), offset, buffer, bytes, token);
            }
            None => return,
        }
        self.slots.started(slot, What::Filled);
    }

    /// Gives carriers to those who wait for one, oldest first; from a peer that stalls, if need be.
    fn serve_needy(&mut self) {
        while let Some(slot) = self.needy.front().copied() {
            let Some(carrier) = self.carrier() else { return };
            self.needy.pop_front();
            match self.slots.get(slot) {
                Some(exchange) => {
                    exchange.carry(carrier);
                    let peer = exchange.peer;
                    self.turns.push(peer, slot);
                }
                None => self.take_back(Some(carrier)),
            }
        }
    }

    fn carrier(&mut self) -> Option<Carrier> {
        if let Some(buffers) = self.ring.buffers_mut() {
            let taken = buffers.take().map(|buffer| Carrier::Buffer { buffer, sent: 0, filled: 0 });
            return taken.or_else(|| self.steal());
        }
        match self.pipes.take() {
            Ok(Some(pipe)) => Some(Carrier::Pipe(pipe)),
            Ok(None) => {
                let Some(Carrier::Pipe(pipe)) = self.steal() else { return None };
                self.pipes.give(pipe, true);
                self.pipes.take().ok().flatten().map(Carrier::Pipe)
            }
            Err(error) => {
                tracing::warn!(%error, "make a pipe for a cold blob");
                None
            }
        }
    }

    /// The carrier of an exchange whose peer takes nothing right now.
    fn steal(&mut self) -> Option<Carrier> {
        self.slots.all().into_iter().find_map(|slot| {
            let stalled = self.slots.pending(slot) == Some(What::Ready);
            self.slots.get(slot).filter(|_| stalled)?.give_up_carrier()
        })
    }

    fn take_back(&mut self, carrier: Option<Carrier>) {
        match carrier {
            None => return,
            Some(Carrier::Pipe(pipe)) => self.pipes.give(pipe, true),
            Some(Carrier::Buffer { buffer, .. }) => {
                if let Some(buffers) = self.ring.buffers_mut() {
                    buffers.give(buffer);
                }
            }
        }
        self.serve_needy();
    }

    fn close(&mut self, slot: u32) {
        let Some(exchange) = self.slots.get(slot) else { return };
        // Closing the descriptor alone would send nothing while an operation holds the socket.
        let _ = exchange.socket.shutdown(Shutdown::Both);
        self.ring.cancel(self.slots.token(slot, What::Arrived));
        match self.slots.pending(slot) {
            None => self.remove(slot, true),
            Some(what) => {
                self.slots.close(slot);
                if what == What::Ready {
                    self.ring.cancel(self.slots.token(slot, what));
                }
            }
        }
    }

    fn remove(&mut self, slot: u32, pipe_is_known: bool) {
        self.needy.retain(|needy| *needy != slot);
        let Some(mut exchange) = self.slots.remove(slot) else { return };
        match exchange.give_up_carrier() {
            Some(Carrier::Pipe(pipe)) => {
                self.pipes.give(pipe, pipe_is_known);
                self.serve_needy();
            }
            carrier => self.take_back(carrier),
        }
    }

    fn tick(&mut self) {
        self.residency.tick(self.now);
        self.ring.tick();
        let cut = self.draining.is_some_and(|at| self.now >= at);
        for slot in self.slots.all() {
            let late = |exchange: &mut Exchange| exchange.deadline.is_some_and(|at| at <= self.now);
            if cut || self.slots.get(slot).is_some_and(late) {
                self.close(slot);
            }
        }
        // Where no carrier could be had, time may have changed that.
        self.serve_needy();
    }
}
