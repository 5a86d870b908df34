//! One thread of the engine with its ring, and who serves in its place when that fails.
//!
//! Invariant: a connection that was accepted is served, by the ring or by the twin; only answers that are being
//! sent when a ring fails are cut.

use super::mailbox::{Inbox, Letter, Mailbox};
use super::outside::Outside;
use super::ring::{Buffers, Ring, Way};
use super::standing::Standing;
use super::worker::{Leftover, Worker};
use super::zero_copy::ZeroCopy;
use crate::engine::limits::Admitted;
use crate::engine::{Connection, PortableEngine, SendMode};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

/// Buffers of a thread that sends by copies (16 MiB).
const BUFFERS: usize = 64;

pub(super) struct Lane {
    mailbox: Mailbox,
    thread: Mutex<Option<JoinHandle<()>>>,
    backing: Backing,
}

/// Who takes over from a ring that failed.
#[derive(Clone)]
pub(super) struct Backing {
    twin: Arc<PortableEngine>,
    standing: Standing,
    /// Held while a connection is given to the ring, so that none is given to one that has failed meanwhile.
    failed: Arc<Mutex<bool>>,
}

impl Lane {
    /// Starts the thread, within a runtime that does what it leaves to it.
    ///
    /// # Errors
    /// In words: why this machine has no ring for us.
    pub(super) fn start(
        number: usize,
        outside: Outside,
        (mode, copies): (SendMode, u32),
        backing: Backing,
    ) -> Result<Self, String> {
        let inbox = Inbox::new().map_err(|error| format!("make an eventfd: {error}"))?;
        let mailbox = inbox.mailbox();
        let (ready, started) = sync_channel(1);
        let behind = backing.clone();
        let thread = std::thread::Builder::new().name(format!("hawker-ring-{number}")).spawn(move || {
            let way = match mode {
                SendMode::Splice => Way::Descriptors,
                SendMode::Copy => Way::Buffers(Buffers::new(BUFFERS)),
                SendMode::Zc => Way::Mappings(ZeroCopy::new(copies)),
            };
            // The ring belongs to the thread that makes it.
            match Ring::new(way) {
                Ok(ring) => {
                    let _ = ready.send(Ok(()));
                    let runtime = outside.runtime.clone();
                    let _context = runtime.enter();
                    behind.run(number, Worker::new(outside, ring, inbox));
                }
                Err(reason) => drop(ready.send(Err(reason))),
            }
        });
        let thread = thread.map_err(|error| format!("start an engine thread: {error}"))?;
        started.recv().map_err(|_| "an engine thread ended at once".to_owned())??;
        Ok(Self { mailbox, thread: Mutex::new(Some(thread)), backing })
    }

    /// Takes a connection over. Within a runtime.
    pub(super) fn adopt(&self, connection: Connection, admitted: Admitted) {
        let failed = self.backing.failed.lock();
        if *failed {
            drop(failed);
            return self.backing.twin.take_over(connection, admitted, Vec::new());
        }
        match connection.socket.into_std() {
            Ok(socket) => self.mailbox.send(Letter::Adopt { socket, peer: connection.peer, admitted }),
            Err(error) => tracing::debug!(peer = %connection.peer, %error, "take a connection over"),
        }
    }

    pub(super) fn tell(&self, letter: Letter) {
        self.mailbox.send(letter);
    }

    /// The thread, for whoever waits for its end; once.
    pub(super) fn thread(&self) -> Option<JoinHandle<()>> {
        self.thread.lock().take()
    }
}

impl Backing {
    pub(super) fn new(twin: Arc<PortableEngine>, standing: Standing) -> Self {
        Self { twin, standing, failed: Arc::default() }
    }

    fn run(&self, number: usize, mut worker: Worker) {
        let why = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_panic) => "it panicked".to_owned(),
        };
        *self.failed.lock() = true;
        self.standing.ring_failed(number, &why);
        for Leftover { socket, peer, admitted, received } in worker.leave() {
            if let Err(error) = self.go_on(socket, peer, admitted, received) {
                tracing::debug!(%peer, %error, "take a connection over from a ring that failed");
            }
        }
    }

    fn go_on(
        &self,
        socket: TcpStream,
        peer: IpAddr,
        admitted: Admitted,
        received: Vec<u8>,
    ) -> io::Result<()> {
        let socket = tokio::net::TcpStream::from_std(socket)?;
        self.twin.take_over(Connection { socket, peer }, admitted, received);
        Ok(())
    }
}
