//! The io_uring engine: page cache to socket without a copy, on one or two threads with a ring each.
//!
//! What is in memory goes out by `splice` or `sendfile`, a bounded step a turn, and never waits; what is not
//! is spliced into a pipe by the ring (a kernel thread waits for the disk), then from the pipe into the
//! socket. The ring watches sockets and files; nothing in the loop blocks. Not the protocol's meaning,
//! which is the service's, and not feeds, which a task of the runtime takes over.
//!
//! Invariant: the number of threads does not depend on peers; a slow disk or peer slows nobody else.

mod exchange;
mod lane;
mod mailbox;
mod outside;
mod pipes;
mod residency;
mod ring;
mod sending;
mod sleepers;
mod slots;
mod standing;
mod turns;
mod worker;
mod zero_copy;

use super::limits::{Census, DRAIN_LIMIT};
use super::{Connection, Engine, EngineInfo, PortableEngine, SendMode, Service};
use futures::future::BoxFuture;
use hawker_api::node_policy::EnginePolicy;
use lane::{Backing, Lane};
use mailbox::Letter;
#[cfg(test)]
pub(super) use mailbox::Sabotage;
use outside::Outside;
use standing::Standing;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zero_copy::COPIES_TOLERATED;

/// Threads at most: two move more than a 100 Gbit/s link.
const MAX_THREADS: usize = 2;
/// Processors for each: the rest of the node is there for its pods.
const PROCESSORS_PER_THREAD: usize = 4;

pub struct UringEngine {
    standing: Standing,
    lanes: Vec<Lane>,
    census: Census,
    /// Serves in the place of a ring that failed, and where the cluster wants no ring.
    twin: Arc<PortableEngine>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl UringEngine {
    /// Starts the threads, within a runtime that does what they leave to it.
    ///
    /// # Errors
    /// In words: why this machine has no io_uring for us.
    pub fn start(service: &Arc<dyn Service>, mode: SendMode) -> Result<Self, String> {
        Self::tolerant(service, mode, COPIES_TOLERATED)
    }

    /// As [`Self::start`], with a tolerance of its own for copies in the mode that wants none.
    pub(super) fn tolerant(service: &Arc<dyn Service>, mode: SendMode, copies: u32) -> Result<Self, String> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (processors / PROCESSORS_PER_THREAD).clamp(1, MAX_THREADS);
        let (tasks, cancel, census) = (TaskTracker::new(), CancellationToken::new(), Census::default());
        let standing = Standing::new(reason(mode), threads);
        let reason = "in the place of a ring that failed".to_owned();
        let twin = Arc::new(PortableEngine::beside(Arc::clone(service), reason, census.clone()));
        let mut engine = Self { standing, lanes: Vec::new(), census, twin, tasks, cancel };
        for number in 0..threads {
            let backing = Backing::new(Arc::clone(&engine.twin), engine.standing.clone());
            let lane = Lane::start(number, engine.outside(service), (mode, copies), backing)?;
            engine.lanes.push(lane);
        }
        Ok(engine)
    }

    /// Breaks every lane.
    #[cfg(test)]
    pub(super) fn sabotage(&self, how: Sabotage) {
        self.lanes.iter().for_each(|lane| lane.tell(Letter::Sabotage(how)));
    }

    fn outside(&self, service: &Arc<dyn Service>) -> Outside {
        let (tasks, cancel) = (self.tasks.clone(), self.cancel.clone());
        let standing = self.standing.clone();
        Outside { service: Arc::clone(service), runtime: Handle::current(), standing, tasks, cancel }
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
        SendMode::Zc => "zero-copy from mappings (peer.send: zc)",
    };
    format!("available on Linux {}; {how}", release.unwrap_or_default())
}

impl Engine for UringEngine {
    fn info(&self) -> watch::Receiver<EngineInfo> {
        self.standing.info()
    }

    fn adopt(&self, connection: Connection) -> Result<(), Connection> {
        let Some(admitted) = self.census.admit(connection.peer) else { return Err(connection) };
        if self.standing.is_set_aside() {
            self.twin.take_over(connection, admitted, Vec::new());
            return Ok(());
        }
        let port = connection.socket.peer_addr().map_or(0, |addr| addr.port());
        let Some(lane) = self.lane_of(connection.peer, port) else { return Err(connection) };
        lane.adopt(connection, admitted);
        Ok(())
    }

    fn follow(&self, policy: EnginePolicy) {
        self.standing.follow(policy);
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.cancel.cancel();
            for lane in &self.lanes {
                lane.tell(Letter::Drain);
            }
            self.tasks.close();
            let threads: Vec<_> = self.lanes.iter().filter_map(Lane::thread).collect();
            let joined =
                tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
            let all = async { tokio::join!(joined, self.tasks.wait(), self.twin.shutdown()).0 };
            // Twice: a thread looks at its deadline at its next tick.
            if !matches!(timeout(DRAIN_LIMIT * 2, all).await, Ok(Ok(true))) {
                tracing::warn!("answers to peers were cut at shutdown");
            }
        })
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.tell(Letter::Stop);
        }
    }
}
