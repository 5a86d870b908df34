//! The scheduler's gRPC service: one stream per daemon, in and out of the core.
//!
//! Invariant: a daemon that sends nonsense, or does not read what it is sent, loses its stream with a
//! status that says why; it never costs others anything.

use super::core::{Core, Stats};
use super::ledger::Ledger;
use super::limits::Limits;
use super::messages::{Command, Event, HostInfo, Order, SessionId};
use super::metrics::Metrics;
use super::relay::Relay;
use super::summary::Summary;
use super::trace::Traced;
use super::wire;
use hawker_api::protocol::Protocol;
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
    ledger: Arc<Ledger>,
    relay: Relay,
    traced: Traced,
    metrics: Metrics,
    cancel: CancellationToken,
}

type Item = Result<v1::SchedulerMessage, Status>;

struct Outgoing {
    queue: mpsc::Sender<Item>,
    closed: CancellationToken,
}

impl Service {
    pub(super) fn new(cluster_id: u64, use_reports: bool, cancel: CancellationToken) -> Self {
        let seed: u64 = rand::random();
        let shared = Shared {
            cluster_id,
            epoch: format!("{seed:016x}"),
            next_session: AtomicU64::new(1),
            core: Mutex::new(Core::new(Limits { use_reports, ..Limits::default() }, seed)),
            sessions: Mutex::default(),
            ledger: Arc::default(),
            relay: Relay::default(),
            traced: Traced::default(),
            metrics: Metrics::new(),
            cancel,
        };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn stats(&self) -> Stats {
        self.shared.core.lock().stats()
    }

    /// What hosts reported, for the manager.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.shared.ledger)
    }

    /// The busiest tasks since the last call, for the manager.
    pub(super) fn summaries(&self, most: usize) -> Vec<Summary> {
        self.shared.core.lock().summaries(most)
    }

    /// What nodes say of the manager's orders.
    pub(super) fn relay(&self) -> &Relay {
        &self.shared.relay
    }

    /// Passes an order of the manager on to the node it is for. `false`: it is not connected, or reads nothing.
    pub(super) fn pass(&self, order: v1::JobOrder) -> bool {
        let Some(session) = self.shared.core.lock().session_of(&order.host_id) else { return false };
        let message = v1::SchedulerMessage { kind: Some(Out::Job(order)) };
        let sessions = self.shared.sessions.lock();
        sessions.get(&session).is_some_and(|outgoing| outgoing.queue.try_send(Ok(message)).is_ok())
    }

    /// What changed of images on their way, and how many nodes are connected.
    pub(super) fn rollouts(&self) -> (Vec<v1::Rollout>, usize) {
        let (rollouts, nodes) = self.shared.core.lock().rollouts(Instant::now());
        (rollouts.into_iter().map(wire::rollout).collect(), nodes)
    }

    /// The next answer of [`Self::rollouts`] is for somebody who knows nothing.
    pub(super) fn rollouts_anew(&self) {
        self.shared.core.lock().rollouts_anew();
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(super) fn tick(&self) {
        let mut core = self.shared.core.lock();
        let commands = core.tick(Instant::now());
        self.send(commands);
    }

    /// Under the core's lock until the commands are queued: their order is what the daemons rely on.
    fn handle(&self, event: Event) {
        let began = Instant::now();
        let mut core = self.shared.core.lock();
        let commands = core.handle(Instant::now(), event);
        self.send(commands);
        drop(core);
        self.shared.metrics.handled(began.elapsed());
    }

    fn send(&self, commands: Vec<Command>) {
        let mut sessions = self.shared.sessions.lock();
        for Command { session, order } in commands {
            let Some(outgoing) = sessions.get(&session) else { continue };
            let replaced = matches!(order, Order::Replaced | Order::Silent);
            self.shared.metrics.ordered(&order);
            let traceparent = self.shared.traced.outgoing(session, &order);
            let message = wire::message(order).map(|message| wire::traced(message, traceparent));
            let full = outgoing.queue.try_send(message).is_err();
            if full || replaced {
                if full {
                    self.shared.metrics.dropped();
                    tracing::warn!(session, "a daemon does not read what it is sent; dropping its stream");
                }
                outgoing.closed.cancel();
                sessions.remove(&session);
            }
        }
    }

    async fn converse(
        self,
        (session, host): (SessionId, HostInfo),
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
                Ok(Some(v1::DaemonMessage { kind: None })) => {
                    tracing::debug!(session, "a message that only a later version knows");
                }
                Ok(Some(message)) => {
                    if let Some(usage) = wire::usage(&message) {
                        self.shared.ledger.add(&host.id, &usage);
                        self.shared.ledger.uploaded(&host, wire::uploads(&message));
                    }
                    self.shared.traced.incoming(session, &host.id, &message);
                    let taken = match message.kind {
                        Some(Kind::Job(report)) => {
                            wire::job_report(&host.id, report).map(|report| self.shared.relay.add(report))
                        }
                        _ => wire::event(session, message).map(|event| self.handle(event)),
                    };
                    if let Err(error) = taken {
                        break Some(Status::invalid_argument(error.to_string()));
                    }
                }
            }
        };
        if let Some(status) = status
            && let Some(outgoing) = self.shared.sessions.lock().get(&session)
        {
            // Best effort: the stream ends either way.
            let _ = outgoing.queue.try_send(Err(status));
        }
        self.shared.ledger.left(&host);
        self.handle(Event::Disconnected { session });
        self.shared.traced.gone(session);
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
        Protocol::spoken()
            .works_with(Protocol::announced(hello.protocol), "daemon")
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        if hello.scheduler_cluster_id != self.shared.cluster_id {
            let (theirs, ours) = (hello.scheduler_cluster_id, self.shared.cluster_id);
            return Err(Status::failed_precondition(format!(
                "this daemon belongs to scheduler cluster {theirs}, this scheduler serves {ours}"
            )));
        }
        let host = wire::host(hello).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let session = self.shared.next_session.fetch_add(1, Ordering::Relaxed);
        let (queue, outgoing) = mpsc::channel(QUEUE_MESSAGES);
        let welcome = v1::Welcome {
            scheduler_cluster_id: self.shared.cluster_id,
            epoch: self.shared.epoch.clone(),
            protocol: Some(Protocol::spoken().into()),
        };
        // The channel is new and has room.
        let _ = queue.try_send(Ok(v1::SchedulerMessage { kind: Some(Out::Welcome(welcome)) }));
        let closed = CancellationToken::new();
        self.shared.sessions.lock().insert(session, Outgoing { queue, closed: closed.clone() });
        self.shared.ledger.joined(&host);
        self.handle(Event::Connected { session, host: host.clone() });
        let serving = tokio::spawn(self.clone().converse((session, host), incoming, closed));
        // The task ends with the daemon's side of the stream; its handle lives in ours.
        let stream = tokio_stream::wrappers::ReceiverStream::new(outgoing).map(move |item| {
            let _held = &serving;
            item
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
