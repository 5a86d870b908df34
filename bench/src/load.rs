//! The load generator: one thread, one epoll, one outstanding range request on every connection.
//!
//! Not an HTTP client for anything else, and not the choice of what to compare. Invariant: every server
//! is asked the same requests in the same way; only an answer with exactly the asked bytes counts.

mod connection;
mod crowd;
mod outcome;
mod ranges;

pub use crowd::{Crowd, churn, hold};
pub use outcome::{Figures, Outcome};
pub use ranges::Order;

use crate::cpu;
use connection::{Connection, Taken};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use outcome::Tally;
use ranges::Ranges;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Events taken from the kernel at once: all connections of the largest cell.
const MAX_EVENTS: usize = 256;
/// How long the kernel may keep us waiting before the clock is looked at.
const LOOK_EVERY_MILLIS: u16 = 100;
/// A server that sends nothing to anybody for this long has failed.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// What to ask, from where, for how long.
#[derive(Debug)]
pub struct Plan {
    pub server: SocketAddrV4,
    /// Connections are spread over these: servers limit what one address may have.
    pub sources: Vec<Ipv4Addr>,
    /// Congestion control of our side; `None`: the namespace's.
    pub congestion: Option<String>,
    /// What is measured.
    pub main: Stream,
    /// What disturbs it, if anything.
    pub side: Option<Stream>,
    pub body: Body,
    pub warm_up: Duration,
    pub window: Duration,
    /// Processes whose CPU time over the window counts as the server's.
    pub watched: Vec<i32>,
}

/// Connections that ask pieces of one resource.
#[derive(Debug, Clone)]
pub struct Stream {
    pub path: String,
    pub connections: usize,
    pub piece_bytes: u64,
    pub blob_bytes: u64,
    pub order: Order,
    pub seed: u64,
}

/// What becomes of bodies.
#[derive(Debug)]
pub enum Body {
    /// The kernel drops them (`MSG_TRUNC`): the client costs as little as possible.
    Discard,
    /// Copied into a buffer, as a real receiver would at least.
    Copy,
    /// Compared with this file byte for byte.
    Compare(File),
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("connect from {from} to {to}: {source}")]
    Connect { from: Ipv4Addr, to: SocketAddrV4, source: io::Error },
    #[error("{act}: {source}")]
    Io { act: &'static str, source: io::Error },
    #[error("open {path}: {source}", path = .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the server closed the connection before it had answered")]
    Closed,
    #[error("not the answer that was asked for: {detail}")]
    Answer { detail: String },
    #[error("wrong byte at {offset} of the blob")]
    Mismatch { offset: u64 },
    #[error("no byte came for {} s", STALL_LIMIT.as_secs())]
    Stalled,
    #[error("{0}")]
    Plan(&'static str),
}

impl LoadError {
    fn io(act: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Io { act, source: errno.into() }
    }
}

/// Runs the plan: warm-up, window, figures. A stream of [`Order::Once`] as main ends when it was asked through.
///
/// # Errors
/// [`LoadError`]; nothing is measured half.
pub fn run(plan: &Plan) -> Result<Outcome, LoadError> {
    let mut load = Load::start(plan)?;
    load.until(plan.warm_up)?;
    let before = (cpu::of_processes(&plan.watched), cpu::own());
    let started = load.open_window();
    load.until(plan.window)?;
    let seconds = started.elapsed().as_secs_f64();
    let (server, client) =
        (cpu::of_processes(&plan.watched) - before.0, cpu::own().saturating_sub(before.1).as_secs_f64());
    load.outcome(seconds, server, client)
}

struct Load {
    epoll: Epoll,
    connections: Vec<Connection>,
    streams: Vec<(Ranges, Tally)>,
    taken: Taken,
    /// Connections with a request outstanding.
    active: usize,
}

impl Load {
    fn start(plan: &Plan) -> Result<Self, LoadError> {
        if plan.sources.is_empty() || plan.main.connections == 0 {
            return Err(LoadError::Plan("no source address or no connection"));
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(LoadError::io("make an epoll"))?;
        let (mut connections, mut streams) = (Vec::new(), Vec::new());
        for (number, stream) in [Some(&plan.main), plan.side.as_ref()].into_iter().flatten().enumerate() {
            streams.push((Ranges::of(stream)?, Tally::default()));
            for _ in 0..stream.connections {
                let from = plan.sources[connections.len() % plan.sources.len()];
                let connection = Connection::open(plan, from, &stream.path, number)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, connections.len() as u64);
                epoll.add(&connection, event).map_err(LoadError::io("watch a socket"))?;
                connections.push(connection);
            }
        }
        let taken = Taken::new(&plan.body);
        let mut load = Self { epoll, connections, streams, taken, active: 0 };
        for index in 0..load.connections.len() {
            load.ask(index)?;
        }
        Ok(load)
    }

    /// Sends the next request on a connection without one; where there is none left, it rests.
    fn ask(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        if let Some(range) = self.streams[connection.stream].0.next() {
            connection.ask(range)?;
            self.active += 1;
        }
        Ok(())
    }

    /// Drives all connections for `time`, or until nothing is outstanding any more.
    fn until(&mut self, time: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + time;
        let mut last_byte = Instant::now();
        let mut events = vec![EpollEvent::empty(); MAX_EVENTS];
        while Instant::now() < end && self.active > 0 {
            let ready = match self.epoll.wait(&mut events, LOOK_EVERY_MILLIS) {
                Err(Errno::EINTR) => 0,
                ready => ready.map_err(LoadError::io("wait for sockets"))?,
            };
            if ready > 0 {
                last_byte = Instant::now();
            } else if last_byte.elapsed() > STALL_LIMIT {
                return Err(LoadError::Stalled);
            }
            for event in &events[..ready] {
                self.advance(usize::try_from(event.data()).unwrap_or(usize::MAX))?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, index: usize) -> Result<(), LoadError> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        if let Some(took) = connection.advance(&mut self.taken)? {
            self.streams[connection.stream].1.answered(took);
            self.active -= 1;
            self.ask(index)?;
        }
        Ok(())
    }

    fn open_window(&mut self) -> Instant {
        for connection in &mut self.connections {
            connection.window_bytes = 0;
        }
        for (_, tally) in &mut self.streams {
            *tally = Tally::default();
        }
        Instant::now()
    }

    fn outcome(self, seconds: f64, server: f64, client: f64) -> Result<Outcome, LoadError> {
        let congestion = self.connections[0].congestion()?;
        let of = |number: usize| -> Vec<u64> {
            self.connections.iter().filter(|c| c.stream == number).map(|c| c.window_bytes).collect()
        };
        let mut figures =
            self.streams.iter().enumerate().map(|(number, (_, tally))| tally.figures(&of(number), seconds));
        let main = figures.next().ok_or(LoadError::Plan("no stream"))?;
        Ok(Outcome::new(seconds, main, figures.next(), (server, client), congestion))
    }
}
