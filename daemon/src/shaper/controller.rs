//! What goes on while the daemon runs: the backend is read, the total is divided, queues are looked at again, and
//! orders follow. On a thread of its own, so that a busy runtime does not delay a limit.
//!
//! Invariant: orders go to the backend from one place, [`Desk::update`], and only when they changed.

use super::backend::{Backend, BackendError, Direction, Mode, Orders, Scope};
use super::division::{self, Division};
use super::limits::Limits;
use super::totals::Totals;
use super::{Info, uplinks};
use crate::metrics::Metrics;
use hawker_abi::{Class, PeerAddr};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How old figures may be.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a changed queue may go unnoticed.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// A peer that asked for nothing in this time is forgotten: longer than a piece takes at any sensible limit.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Peers remembered as asking.
const MAX_ASKING: usize = 16_384;

/// While the total is divided, the parts add up to it; its own clock then runs this part faster, so that it catches
/// only what changes between two steps. As tight as the parts, it would take from whoever has few connections.
const TOTAL_SLACK: u64 = 50;

pub(super) enum Event {
    /// Somebody new asks, or limits changed: look at once.
    Look,
    Stop,
}

/// What orders are made of; shared by the handle and the thread.
pub(super) struct Desk {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) metrics: Metrics,
    /// `None`: user space, which needs no queue and measures no wire.
    pub(super) kernel: Option<KernelFacts>,
    pub(super) totals: Mutex<Totals>,
    pub(super) info: Mutex<Info>,
    pub(super) state: Mutex<State>,
}

/// Where the programs hang.
pub(super) struct KernelFacts {
    pub(super) place: String,
    pub(super) uplinks: Vec<(u32, String)>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) piece_port: u16,
    level: u64,
    fair: bool,
    asking: HashMap<PeerAddr, Instant>,
    applied: Option<Orders>,
}

impl State {
    pub(super) fn set_limits(&mut self, limits: Limits) {
        if !limits.divides() {
            self.level = 0;
        }
        self.limits = limits;
    }
}

impl Desk {
    /// Changes what is wanted and tells the backend.
    pub(super) fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        change(&mut state);
        let mut orders = state.limits.orders(state.asking.keys().copied());
        orders.piece_port = state.piece_port;
        orders.level = state.level;
        if state.level > 0 {
            orders.total_rate += orders.total_rate / TOTAL_SLACK;
        }
        orders.mode = match (state.limits.any(), state.fair) {
            (false, _) => Mode::Account,
            (true, true) => Mode::Departure,
            (true, false) => Mode::Clock,
        };
        if state.applied.as_ref() == Some(&orders) {
            return Ok(());
        }
        self.backend.apply(&orders)?;
        state.applied = Some(orders);
        Ok(())
    }

    /// A peer asks for pieces; true: it is new.
    pub(super) fn asks(&self, peer: PeerAddr) -> bool {
        let mut state = self.state.lock();
        // Without limits nobody needs to be known.
        if !state.limits.any() || state.asking.len() >= MAX_ASKING {
            return false;
        }
        state.asking.insert(peer, Instant::now()).is_none()
    }

    /// Looks at the queues of the uplinks, and says what follows.
    pub(super) fn probe(&self) -> Result<(), BackendError> {
        let Some(facts) = &self.kernel else { return Ok(()) };
        let queue = uplinks::fair_queue(&facts.uplinks);
        self.update(|state| state.fair = queue.is_ok())?;
        let how = match (self.state.lock().limits.any(), &queue) {
            (false, _) => "no limits".to_owned(),
            (true, Ok(queue)) => format!("departure times: {queue}"),
            (true, Err(why)) => format!("shared clock: {why}"),
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

    /// Brings the totals, and with a kernel the metrics, up to date.
    pub(super) fn read(&self) -> Result<(), BackendError> {
        let mut totals = self.totals.lock();
        let growth = totals.absorb(self.backend.read(Scope::All)?);
        drop(totals);
        if self.kernel.is_some() {
            for class in Class::ALL {
                let more = growth[class as usize];
                self.metrics.wire(class, Direction::Tx, more.tx_bytes);
                self.metrics.wire(class, Direction::Rx, more.rx_bytes);
            }
        }
        Ok(())
    }
}

/// Runs until it is told to stop, or the handle is gone.
pub(super) fn run(desk: &Desk, events: &Receiver<Event>) {
    let (mut division, mut divided) = (Division::default(), Instant::now());
    let (mut read, mut probed) = (Instant::now(), Instant::now());
    loop {
        let divides = {
            let state = desk.state.lock();
            state.limits.divides() && !state.asking.is_empty()
        };
        let pause = if divides { division::EVERY } else { READ_EVERY };
        match events.recv_timeout(pause) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Event::Look) => {
                log("follow new limits", desk.update(|_| {}).and_then(|()| desk.probe()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if divides {
            let elapsed = divided.elapsed();
            log("divide the total", divide(desk, &mut division, elapsed));
        }
        divided = Instant::now();
        if read.elapsed() >= READ_EVERY {
            read = Instant::now();
            log("read the counters", desk.read());
            log(
                "forget quiet peers",
                desk.update(|state| {
                    state.asking.retain(|_, asked| asked.elapsed() < FORGET_AFTER);
                }),
            );
        }
        if probed.elapsed() >= PROBE_EVERY {
            probed = Instant::now();
            log("look at the queues", desk.probe());
        }
    }
}

fn divide(desk: &Desk, division: &mut Division, elapsed: Duration) -> Result<(), BackendError> {
    let (limits, asking) = {
        let state = desk.state.lock();
        (state.limits.clone(), state.asking.keys().copied().collect::<Vec<_>>())
    };
    let states = desk.backend.read(Scope::Peers(&asking))?.peers;
    let level = division.step(&limits, &states, elapsed);
    desk.update(|state| state.level = if state.limits.divides() { level } else { 0 })
}

fn log(act: &'static str, result: Result<(), BackendError>) {
    if let Err(error) = result {
        tracing::warn!(%error, act, "shaper");
    }
}
