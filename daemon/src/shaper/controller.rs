//! What goes on while the daemon runs: the backend is read, uploads give way to the node's other traffic, what they have is
//! divided, queues are looked at again, and orders follow. On a thread of its own, so that a busy runtime does not delay a limit.
//!
//! Invariant: orders go to the backend from one place, [`Desk::update`], and only when they changed.

use super::backend::{Backend, BackendError, Direction, Mode, Orders, Reading, Scope};
use super::division::{self, Division};
use super::gauge::Gauge;
use super::limits::Limits;
use super::links::Links;
use super::totals::Totals;
use super::yielding::{self, Wish, Yield};
use super::{Info, uplinks};
use crate::handover::KernelYield;
use crate::metrics::Metrics;
use hawker_abi::{Class, Counters, MODE_EDT, PeerAddr, Settings};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How old figures may be.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a changed queue may go unnoticed, where the kernel does not tell (`watch`).
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Without uploads for this long there is nothing to give way with.
const QUIET_AFTER: Duration = Duration::from_secs(3);
/// A peer that asked for nothing in this time is forgotten: longer than a piece takes at any sensible limit.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// A round that comes early, since somebody new asked, does not measure: counters would not have moved.
const SHORTEST_STEP: Duration = Duration::from_millis(20);
/// Peers remembered as asking.
const MAX_ASKING: usize = 16_384;

/// While the total is divided, the parts add up to it; its own clock then runs this part faster, so that it catches
/// only what changes between two steps. As tight as the parts, it would take from whoever has few connections.
const TOTAL_SLACK: u64 = 50;

pub(super) enum Event {
    /// Somebody new asks, or limits changed: look at once.
    Look,
    /// A queue or an interface is not what it was.
    Changed,
    Stop,
}

/// What orders are made of; shared by the handle and the thread.
pub(super) struct Desk {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) metrics: Metrics,
    /// `None`: user space, which needs no queue and measures no wire.
    pub(super) kernel: Option<KernelFacts>,
    pub(super) totals: Mutex<Totals>,
    pub(super) links: Mutex<Links>,
    pub(super) info: Mutex<Info>,
    pub(super) state: Mutex<State>,
}

/// Where the programs hang.
pub(super) struct KernelFacts {
    pub(super) place: String,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) piece_port: u16,
    /// `None`: it does not give way.
    pub(super) wish: Option<Wish>,
    /// Where giving way stands.
    pub(super) yielded: Yielded,
    level: u64,
    fair: bool,
    /// `fq` was seen, so that there may be connections that it paced.
    was_fair: bool,
    asking: HashMap<PeerAddr, Instant>,
    applied: Option<Orders>,
    /// Another daemon serves, and this one's last answers end.
    pub(super) makes_way: bool,
}

/// What a process that paces by itself takes of the limits while another serves.
const LAST_PART: u64 = 16;

/// What the node's other traffic leaves, bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Yielded {
    /// Of uploads' payload, as limits are; 0: none.
    pub(super) limit: u64,
    /// What the uplink is taken to carry; 0: not known.
    pub(super) capacity: u64,
}

impl State {
    /// Goes on from where the daemon before stood: its peers know its port already.
    pub(super) fn following(settings: &Settings, yielded: KernelYield) -> Self {
        let fair = settings.mode == MODE_EDT;
        Self {
            piece_port: u16::try_from(settings.piece_port).unwrap_or(0),
            level: settings.level,
            fair,
            was_fair: fair,
            yielded: Yielded { limit: yielded.limit, capacity: yielded.capacity },
            ..Self::default()
        }
    }

    /// These asked the daemon before.
    pub(super) fn asked_by(&mut self, peers: Vec<PeerAddr>) {
        let now = Instant::now();
        self.asking.extend(peers.into_iter().take(MAX_ASKING).map(|peer| (peer, now)));
    }

    /// `wish`: `None` where it is not to give way.
    pub(super) fn set_limits(&mut self, limits: Limits, wish: Option<Wish>) {
        if wish.is_none() {
            self.yielded = Yielded::default();
        }
        (self.limits, self.wish) = (limits, wish);
    }

    /// The limits that hold now.
    fn in_force(&self) -> Limits {
        let limits = self.limits.within(self.yielded.limit);
        if self.makes_way { limits.divided_by(LAST_PART) } else { limits }
    }

    /// How limits are held. The kernel leaves the pacing of a connection whose packets `fq` ever took to `fq` for good,
    /// also when that is gone: `SO_MAX_PACING_RATE` then means nothing to it.
    fn mode(&self) -> Mode {
        match (self.in_force().any(), self.fair, self.was_fair) {
            (false, ..) => Mode::Account,
            (true, true, _) => Mode::Departure,
            (true, false, false) => Mode::Clock,
            (true, false, true) => Mode::Grants,
        }
    }
}

impl Desk {
    /// Changes what is wanted and tells the backend.
    pub(super) fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        change(&mut state);
        let limits = state.in_force();
        let mut orders = limits.orders(state.asking.keys().copied());
        orders.piece_port = state.piece_port;
        orders.level = if limits.divides() { state.level } else { 0 };
        if orders.level > 0 {
            orders.total_rate = orders.total_rate.saturating_add(orders.total_rate / TOTAL_SLACK);
        }
        orders.mode = state.mode();
        if state.applied.as_ref() == Some(&orders) {
            return Ok(());
        }
        self.backend.apply(&orders)?;
        state.applied = Some(orders);
        Ok(())
    }

    /// What the backend goes by, and how far it gives way.
    pub(super) fn in_force(&self) -> Option<(Orders, KernelYield)> {
        let state = self.state.lock();
        let Yielded { limit, capacity } = state.yielded;
        Some((state.applied.clone()?, KernelYield { limit, capacity }))
    }

    /// A peer asks for pieces; true: it is new.
    pub(super) fn asks(&self, peer: PeerAddr) -> bool {
        let mut state = self.state.lock();
        // Without limits nobody needs to be known.
        let needed = state.limits.any() || state.wish.is_some();
        if !needed || state.asking.len() >= MAX_ASKING && !state.asking.contains_key(&peer) {
            return false;
        }
        state.asking.insert(peer, Instant::now()).is_none()
    }

    /// Looks at the queues of the uplinks, and says what follows.
    pub(super) fn probe(&self) -> Result<(), BackendError> {
        let mut links = self.links.lock();
        links.find();
        links.read();
        let (present, speed) = (links.present(), links.speed());
        drop(links);
        let queue = uplinks::fair_queue(&present);
        self.update(|state| {
            state.fair = queue.is_ok();
            state.was_fair |= state.fair;
            if let Some(wish) = &mut state.wish {
                wish.speed = speed.map(|speed| speed as f64);
            }
        })?;
        let Some(facts) = &self.kernel else { return Ok(()) };
        let queue = queue.unwrap_or_else(|why| why);
        let how = match self.state.lock().mode() {
            Mode::Account => "no limits".to_owned(),
            Mode::Departure => format!("departure times: {queue}"),
            Mode::Clock => format!("shared clock: {queue}"),
            Mode::Grants => format!(
                "clock in user space: {queue}, but was, and connections of that time are paced by nothing else"
            ),
        };
        self.say(format!("{how}; {}", facts.place));
        Ok(())
    }

    pub(super) fn say(&self, reason: String) {
        let mut info = self.info.lock();
        if info.reason != reason {
            tracing::info!(mode = info.mode, reason, "shaper");
            self.metrics.set_shaper(info.mode, &reason);
            info.reason = reason;
        }
    }

    /// Brings the totals, and with a kernel the metrics, up to date; returns the growth by class.
    pub(super) fn read(&self) -> Result<[Counters; 4], BackendError> {
        let mut totals = self.totals.lock();
        self.links.lock().read();
        let growth = totals.absorb(self.backend.read(Scope::All)?, Instant::now());
        drop(totals);
        if self.kernel.is_some() {
            for class in Class::ALL {
                let more = growth[class as usize];
                self.metrics.wire(class, Direction::Tx, more.tx_bytes);
                self.metrics.wire(class, Direction::Rx, more.rx_bytes);
            }
        }
        Ok(growth)
    }
}

/// Runs until it is told to stop, or the handle is gone.
pub(super) fn run(desk: &Desk, giving_way: Yield, events: &Receiver<Event>) {
    let now = Instant::now();
    let mut rounds = Rounds {
        desk,
        division: Division::default(),
        gauge: Gauge::default(),
        giving_way,
        stepped: now,
        read: now,
        probed: now,
        uploaded: None,
    };
    loop {
        let pause = if rounds.hurries() { yielding::EVERY.min(division::EVERY) } else { READ_EVERY };
        match events.recv_timeout(pause) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Event::Look) => {
                rounds.uploaded = Some(Instant::now());
                log("follow new limits", desk.update(|_| {}).and_then(|()| desk.probe()));
            }
            Ok(Event::Changed) => {
                rounds.probed = Instant::now();
                log("follow a changed queue", desk.probe());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        rounds.round();
    }
}

/// What goes on round by round.
struct Rounds<'a> {
    desk: &'a Desk,
    division: Division,
    gauge: Gauge,
    giving_way: Yield,
    stepped: Instant,
    read: Instant,
    probed: Instant,
    /// When something was uploaded last.
    uploaded: Option<Instant>,
}

impl Rounds<'_> {
    /// Whether something has to be decided many times a second.
    fn hurries(&self) -> bool {
        let state = self.desk.state.lock();
        let uploads = self.uploaded.is_some_and(|last| last.elapsed() < QUIET_AFTER);
        uploads && state.wish.is_some() || state.in_force().divides() && !state.asking.is_empty()
    }

    fn round(&mut self) {
        if self.hurries() && self.stepped.elapsed() >= SHORTEST_STEP {
            let elapsed = self.stepped.elapsed();
            self.stepped = Instant::now();
            log("follow the traffic", self.follow(elapsed));
        }
        if self.read.elapsed() >= READ_EVERY {
            self.read = Instant::now();
            match self.desk.read() {
                Ok(growth) if growth[Class::Upload as usize].tx_payload > 0 => {
                    self.uploaded = Some(self.read);
                }
                Ok(_) => {}
                Err(error) => log("read the counters", Err(error)),
            }
            let quiet = |state: &mut State| state.asking.retain(|_, asked| asked.elapsed() < FORGET_AFTER);
            log("forget quiet peers", self.desk.update(quiet));
        }
        if self.probed.elapsed() >= PROBE_EVERY {
            self.probed = Instant::now();
            log("look at the queues", self.desk.probe());
        }
    }

    /// Gives way to the node's other traffic, and divides what is left.
    fn follow(&mut self, elapsed: Duration) -> Result<(), BackendError> {
        let desk = self.desk;
        let (wish, asking) = {
            let state = desk.state.lock();
            (state.wish, state.asking.keys().copied().collect::<Vec<_>>())
        };
        let reading = desk.backend.read(Scope::Peers(&asking))?;
        let yielded = match wish {
            Some(wish) => self.give_way(&wish, &reading, elapsed),
            None => Yielded::default(),
        };
        let limits = desk.state.lock().limits.within(yielded.limit);
        let level = if limits.divides() { self.division.step(&limits, &reading.peers, elapsed) } else { 0 };
        desk.update(|state| {
            state.level = level;
            // Switched off meanwhile, it is off.
            if state.wish.is_some() {
                state.yielded = yielded;
            }
        })
    }

    fn give_way(&mut self, wish: &Wish, reading: &Reading, elapsed: Duration) -> Yielded {
        let mut links = self.desk.links.lock();
        links.read();
        let (all, backlog) = (links.total(), links.backlog());
        let own = if links.count_whole() { reading.whole } else { reading.wire() };
        drop(links);
        let held_back = self.desk.state.lock().mode() == Mode::Departure;
        let measured = self.gauge.measure(reading, (all, own), backlog, held_back, elapsed);
        let measured = measured.unwrap_or_default();
        let limit = self.giving_way.step(wish, &measured, elapsed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate; `as` saturates")]
        let whole = |rate: Option<f64>| rate.map_or(0, |rate| (rate as u64).max(1));
        let limit = limit.map(|limit| limit * self.gauge.payload());
        Yielded { limit: whole(limit), capacity: whole(self.giving_way.capacity(wish)) }
    }
}

fn log(act: &'static str, result: Result<(), BackendError>) {
    if let Err(error) = result {
        tracing::warn!(%error, act, "shaper");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawker_abi::Limit;

    #[test]
    fn a_daemon_that_follows_goes_on_under_the_same_orders() {
        let settings = Settings { mode: MODE_EDT, piece_port: 4000, level: 7, ..Settings::default() };
        let mut state = State::following(&settings, KernelYield { limit: 5, capacity: 9 });
        state.asked_by(vec![PeerAddr::v4(1)]);
        let total = Limits { total: 50, ..Limits::default() };
        let wish = Wish { target: 0.95, floor: 0.0, capacity: 0.0, speed: None };
        state.set_limits(total, Some(wish));
        assert_eq!((state.mode(), state.piece_port, state.level), (Mode::Departure, 4000, 7));
        assert_eq!((state.in_force().total, state.asking.len()), (5, 1), "it goes on giving way");
        state.makes_way = true;
        assert_eq!(state.in_force().total, 1);
    }

    #[test]
    fn the_mode_follows_limits_and_queues_and_does_not_trust_a_clock_after_fq() {
        let limits = Limits { default: Limit { rate: 1, ..Limit::default() }, ..Limits::default() };
        let mut state = State::default();
        assert_eq!(state.mode(), Mode::Account);
        state.set_limits(limits, None);
        assert_eq!(state.mode(), Mode::Clock);
        for (fair, mode) in [(true, Mode::Departure), (false, Mode::Grants), (true, Mode::Departure)] {
            state.fair = fair;
            state.was_fair |= fair;
            assert_eq!(state.mode(), mode);
        }
    }
}
