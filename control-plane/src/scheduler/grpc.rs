//! The scheduler's gRPC service: one stream per daemon, in and out of the core.
//!
//! Invariant: a daemon that sends nonsense, or does not read what it is sent, loses its stream with a
//! status that says why; it never costs others anything.

use super::core::{Core, Stats};
use super::limits::Limits;
use super::messages::{Command, Event, Order, SessionId};
use super::wire;
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind;
use hawker_api::v1::scheduler_message::Kind as Out;
use hawker_api::v1::scheduler_server;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Messages waiting for one daemon; one that lets more pile up is dropped.
const QUEUE_MESSAGES: usize = 4096;
/// Time for a new stream's Hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Clones share the core.
#[derive(Clone)]
pub(super) struct Service {
    shared: Arc<Shared>,
}

struct Shared {
    cluster_id: u64,
    epoch: String,
    next_session: AtomicU64,
    /// Held for the short time of one event.
    core: Mutex<Core>,
    sessions: Mutex<HashMap<SessionId, Outgoing>>,
    cancel: CancellationToken,
}

type Item = Result<v1::SchedulerMessage, Status>;

struct Outgoing {
    queue: mpsc::Sender<Item>,
    closed: CancellationToken,
}

impl Service {
    pub(super) fn new(cluster_id: u64, cancel: CancellationToken) -> Self {
        let seed: u64 = rand::random();
        let shared = Shared {
            cluster_id,
            epoch: format!("{seed:016x}"),
            next_session: AtomicU64::new(1),
            core: Mutex::new(Core::new(Limits::default(), seed)),
            sessions: Mutex::default(),
            cancel,
        };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn stats(&self) -> Stats {
        self.shared.core.lock().stats()
    }

    pub(super) fn tick(&self) {
        let mut core = self.shared.core.lock();
        let commands = core.tick(Instant::now());
        self.send(commands);
    }

    /// Under the core's lock until the commands are queued: their order is what the daemons rely on.
    fn handle(&self, event: Event) {
        let mut core = self.shared.core.lock();
        let commands = core.handle(Instant::now(), event);
        self.send(commands);
    }

    fn send(&self, commands: Vec<Command>) {
        let mut sessions = self.shared.sessions.lock();
        for Command { session, order } in commands {
            let Some(outgoing) = sessions.get(&session) else { continue };
            let replaced = matches!(order, Order::Replaced);
            let full = outgoing.queue.try_send(wire::message(order)).is_err();
            if full || replaced {
                if full {
                    tracing::warn!(session, "a daemon does not read what it is sent; dropping its stream");
                }
                outgoing.closed.cancel();
                sessions.remove(&session);
            }
        }
    }

    async fn converse(
        self,
        session: SessionId,
        mut incoming: Streaming<v1::DaemonMessage>,
        closed: CancellationToken,
    ) {
        let status = loop {
            let message = tokio::select! {
                () = closed.cancelled() => break None,
                () = self.shared.cancel.cancelled() => break Some(Status::unavailable("the scheduler shuts down")),
                message = incoming.message() => message,
            };
            match message {
                Ok(None) | Err(_) => break None,
                Ok(Some(message)) => match wire::event(session, message) {
                    Ok(event) => self.handle(event),
                    Err(error) => break Some(Status::invalid_argument(error.to_string())),
                },
            }
        };
        if let Some(status) = status
            && let Some(outgoing) = self.shared.sessions.lock().get(&session)
        {
            // Best effort: the stream ends either way.
            let _ = outgoing.queue.try_send(Err(status));
        }
        self.handle(Event::Disconnected { session });
        self.shared.sessions.lock().remove(&session);
    }
}

#[tonic::async_trait]
impl scheduler_server::Scheduler for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Item> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::DaemonMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_LIMIT, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello"))??;
        let Some(v1::DaemonMessage { kind: Some(Kind::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first message must be a Hello"));
        };
        if hello.scheduler_cluster_id != self.shared.cluster_id {
            let (theirs, ours) = (hello.scheduler_cluster_id, self.shared.cluster_id);
            return Err(Status::failed_precondition(format!(
                "this daemon belongs to scheduler cluster {theirs}, this scheduler serves {ours}"
            )));
        }
        let host = wire::host(hello).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let session = self.shared.next_session.fetch_add(1, Ordering::Relaxed);
        let (queue, outgoing) = mpsc::channel(QUEUE_MESSAGES);
        let welcome =
            v1::Welcome { scheduler_cluster_id: self.shared.cluster_id, epoch: self.shared.epoch.clone() };
        // The channel is new and has room.
        let _ = queue.try_send(Ok(v1::SchedulerMessage { kind: Some(Out::Welcome(welcome)) }));
        let closed = CancellationToken::new();
        self.shared.sessions.lock().insert(session, Outgoing { queue, closed: closed.clone() });
        self.handle(Event::Connected { session, host });
        let serving = tokio::spawn(self.clone().converse(session, incoming, closed));
        // The task ends with the daemon's side of the stream; its handle lives in ours.
        let stream = tokio_stream::wrappers::ReceiverStream::new(outgoing).map(move |item| {
            let _held = &serving;
            item
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
