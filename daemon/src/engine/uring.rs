//! The io_uring engine: page cache to socket without a copy, on one or two threads with a ring each.
//!
//! What is in memory goes out by `splice` or `sendfile`, a bounded step a turn, and never waits; what is not
//! is spliced into a pipe by the ring (a kernel thread waits for the disk), then from the pipe into the
//! socket. The ring watches sockets and files; nothing in the loop blocks. Not the protocol's meaning,
//! which is the service's, and not feeds, which a task of the runtime takes over.
//!
//! Invariant: the number of threads does not depend on peers; a slow disk or peer slows nobody else.

mod exchange;
mod mailbox;
mod outside;
mod pipes;
mod residency;
mod ring;
mod sleepers;
mod slots;
mod turns;
mod worker;

use super::limits::{Census, DRAIN_LIMIT};
use super::{Connection, Engine, EngineInfo, SendMode, Service};
use futures::future::BoxFuture;
use mailbox::{Inbox, Letter, Mailbox};
use outside::Outside;
use parking_lot::Mutex;
use ring::{Buffers, Ring};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use worker::Worker;

/// Threads at most: two move more than a 100 Gbit/s link.
const MAX_THREADS: usize = 2;
/// Processors for each: the rest of the node is there for its pods.
const PROCESSORS_PER_THREAD: usize = 4;
/// Buffers of a thread that sends by copies (16 MiB).
const BUFFERS: usize = 64;

pub struct UringEngine {
    reason: String,
    lanes: Vec<Lane>,
    census: Census,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// One thread.
struct Lane {
    mailbox: Mailbox,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl UringEngine {
    /// Starts the threads, within a runtime that does what they leave to it.
    ///
    /// # Errors
    /// In words: why this machine has no io_uring for us.
    pub fn start(service: &Arc<dyn Service>, mode: SendMode) -> Result<Self, String> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (processors / PROCESSORS_PER_THREAD).clamp(1, MAX_THREADS);
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let mut engine =
            Self { reason: reason(mode), lanes: Vec::new(), census: Census::default(), tasks, cancel };
        for number in 0..threads {
            let lane = engine.lane(service, mode, number)?;
            engine.lanes.push(lane);
        }
        Ok(engine)
    }

    fn lane(&self, service: &Arc<dyn Service>, mode: SendMode, number: usize) -> Result<Lane, String> {
        let inbox = Inbox::new().map_err(|error| format!("make an eventfd: {error}"))?;
        let (mailbox, outside) = (inbox.mailbox(), self.outside(service));
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("hawker-ring-{number}")).spawn(move || {
            let buffers = (mode == SendMode::Copy).then(|| Buffers::new(BUFFERS));
            // The ring belongs to the thread that makes it.
            match Ring::new(buffers) {
                Ok(ring) => {
                    let _ = ready.send(Ok(()));
                    Worker::new(outside, ring, inbox).run();
                }
                Err(reason) => drop(ready.send(Err(reason))),
            }
        });
        let thread = thread.map_err(|error| format!("start an engine thread: {error}"))?;
        started.recv().map_err(|_| "an engine thread ended at once".to_owned())??;
        Ok(Lane { mailbox, thread: Mutex::new(Some(thread)) })
    }

    fn outside(&self, service: &Arc<dyn Service>) -> Outside {
        let (tasks, cancel) = (self.tasks.clone(), self.cancel.clone());
        Outside { service: Arc::clone(service), runtime: Handle::current(), tasks, cancel }
    }

    fn lane_of(&self, peer: IpAddr, port: u16) -> Option<&Lane> {
        let spread = match peer {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let lanes = self.lanes.len() as u128;
        let lane = spread.wrapping_add(u128::from(port)).checked_rem(lanes)?;
        self.lanes.get(usize::try_from(lane).ok()?)
    }
}

fn reason(mode: SendMode) -> String {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let how = match mode {
        SendMode::Splice => "zero-copy by splice and sendfile",
        SendMode::Copy => "by copies (peer.send: copy)",
    };
    format!("available on Linux {}; {how}", release.unwrap_or_default())
}

impl Engine for UringEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: "io_uring", reason: self.reason.clone() }
    }

    fn adopt(&self, connection: Connection) -> Result<(), Connection> {
        let Some(admitted) = self.census.admit(connection.peer) else { return Err(connection) };
        let port = connection.socket.peer_addr().map_or(0, |addr| addr.port());
        let Some(lane) = self.lane_of(connection.peer, port) else { return Err(connection) };
        match connection.socket.into_std() {
            Ok(socket) => {
                let peer = connection.peer;
                lane.mailbox.send(Letter::Adopt { socket, peer, admitted });
            }
            Err(error) => tracing::debug!(peer = %connection.peer, %error, "take a connection over"),
        }
        Ok(())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.cancel.cancel();
            for lane in &self.lanes {
                lane.mailbox.send(Letter::Drain);
            }
            self.tasks.close();
            let threads: Vec<_> = self.lanes.iter().filter_map(|lane| lane.thread.lock().take()).collect();
            let joined =
                tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
            let both = async { tokio::join!(joined, self.tasks.wait()).0 };
            // Twice: a thread looks at its deadline at its next tick.
            if !matches!(timeout(DRAIN_LIMIT * 2, both).await, Ok(Ok(true))) {
                tracing::warn!("answers to peers were cut at shutdown");
            }
        })
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.mailbox.send(Letter::Stop);
        }
    }
}
