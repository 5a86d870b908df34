//! The session with the cluster's scheduler: one stream for all tasks, begun again whenever it ends.
//!
//! Invariant: a session belongs to one placement; when the node is placed in another cluster, it ends.

use super::announcer::Announcer;
use super::batch::Batch;
use super::placement::Placed;
use super::report::{self, Reports};
use super::{Links, wire};
use crate::accounting::Accounting;
use crate::jobs::Jobs;
use crate::swarm::Swarm;
use crate::swarm::orders::{Notice, Order};
use hawker_abi::Class;
use hawker_api::protocol::{Protocol, TooFarApart};
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind;
use hawker_api::v1::scheduler_client::SchedulerClient;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// From the Hello to the Welcome.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Deltas are gathered for this long: nothing is sent per piece.
const GATHER: Duration = Duration::from_millis(10);
/// Messages waiting for the network.
const QUEUE_MESSAGES: usize = 256;
/// A scheduler that is silent is probed this often.
const PROBE: Duration = Duration::from_secs(5);

pub(super) struct Link {
    pub(super) host: v1::Host,
    pub(super) placement: watch::Receiver<Option<Placed>>,
    pub(super) swarm: Swarm,
    pub(super) jobs: Jobs,
    pub(super) announcer: Arc<Announcer>,
    pub(super) links: Arc<Links>,
    pub(super) accounting: Accounting,
    pub(super) reports: Reports,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("{code:?}: {message}", code = .0.code(), message = .0.message())]
    Status(#[from] tonic::Status),
    #[error("no welcome in {} s", WELCOME_LIMIT.as_secs())]
    NoWelcome,
    #[error(transparent)]
    Version(#[from] TooFarApart),
    #[error("the scheduler ended the session")]
    Ended,
    #[error("this node's queue overflowed")]
    Overflow,
    #[error("this node was placed in another cluster")]
    Moved,
}

impl Link {
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let placed = self.placed().await;
            for addr in &placed.schedulers {
                self.links.scheduler.lock().addr.clone_from(addr);
                let result = self.session(addr, &placed).await;
                let was_connected = std::mem::take(&mut self.links.scheduler.lock().connected);
                self.announcer.detach();
                self.swarm.order(Order::Disconnected);
                let Err(error) = result else { continue };
                self.links.scheduler.lock().error = Some(error.to_string());
                tracing::warn!(scheduler = addr, %error, "no scheduler");
                if was_connected {
                    pause = FIRST_PAUSE;
                    break; // Others of the cluster come back to the same one: so does this node.
                }
            }
            // A new placement is a reason to look at once.
            let spread = pause.mul_f64(rand::random_range(0.5..1.0));
            let _ = tokio::time::timeout(spread, self.placement.changed()).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// A placement with schedulers.
    async fn placed(&mut self) -> Placed {
        loop {
            let placed = self.placement.borrow_and_update().clone();
            match placed {
                Some(placed) if !placed.schedulers.is_empty() => return placed,
                Some(placed) => {
                    let error = format!("cluster {} has no live scheduler", placed.cluster_name);
                    self.links.scheduler.lock().error = Some(error);
                }
                None => {}
            }
            if self.placement.changed().await.is_err() {
                // The manager's link ended, and so does this one, any moment.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn session(&self, addr: &str, placed: &Placed) -> Result<(), SessionError> {
        self.accounting.expect_host(&format!("http://{addr}"), Class::Control).await;
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))?.connect_timeout(CONNECT_LIMIT);
        let endpoint = endpoint.http2_keep_alive_interval(PROBE).keep_alive_timeout(PROBE).tcp_nodelay(true);
        let mut client = SchedulerClient::new(endpoint.connect().await?);
        let (outgoing, messages) = mpsc::channel(QUEUE_MESSAGES);
        let hello = v1::Hello {
            host: Some(self.host.clone()),
            scheduler_cluster_id: placed.scheduler_cluster_id,
            protocol: Some(Protocol::spoken().into()),
        };
        // The channel is new and has room.
        let _ = outgoing.try_send(v1::DaemonMessage { kind: Some(Kind::Hello(hello)) });
        let opening = async {
            let mut incoming = client.session(ReceiverStream::new(messages)).await?.into_inner();
            let welcome = incoming.message().await?.ok_or(SessionError::Ended)?;
            Ok::<_, SessionError>((incoming, welcome))
        };
        let opened = tokio::time::timeout(WELCOME_LIMIT, opening).await;
        let (mut incoming, welcome) = opened.map_err(|_| SessionError::NoWelcome)??;
        if let Some(v1::scheduler_message::Kind::Welcome(welcome)) = welcome.kind {
            Protocol::spoken().works_with(Protocol::announced(welcome.protocol), "scheduler")?;
        }
        tracing::info!(scheduler = addr, cluster = placed.cluster_name, "in the swarm");
        {
            let mut link = self.links.scheduler.lock();
            (link.connected, link.error) = (true, None);
        }
        let notices = self.announcer.attach();
        self.swarm.order(Order::Connected);
        self.announcer.introduced();
        self.reports.anew();
        tokio::select! {
            error = receive(&mut incoming, &self.swarm, &self.jobs) => Err(error),
            error = send(notices, outgoing, &self.reports, &self.swarm) => Err(error),
            () = self.moved(placed) => Err(SessionError::Moved),
        }
    }

    /// Ends when this node belongs to another cluster. Fewer or other schedulers in the same one are
    /// no reason to leave a session that works.
    async fn moved(&self, placed: &Placed) {
        let mut placement = self.placement.clone();
        let moved = |now: &Option<Placed>| {
            now.as_ref().is_some_and(|now| now.scheduler_cluster_id != placed.scheduler_cluster_id)
        };
        if placement.wait_for(moved).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn receive(
    incoming: &mut tonic::Streaming<v1::SchedulerMessage>,
    swarm: &Swarm,
    jobs: &Jobs,
) -> SessionError {
    loop {
        match incoming.message().await {
            Err(status) => return status.into(),
            Ok(None) => return SessionError::Ended,
            Ok(Some(message)) => match wire::order(message) {
                Ok(Some(wire::Received::Swarm(order))) => swarm.order(order),
                Ok(Some(wire::Received::Jobs(order))) => jobs.order(order),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "ignoring a message of the scheduler"),
            },
        }
    }
}

async fn send(
    mut notices: mpsc::Receiver<Notice>,
    outgoing: mpsc::Sender<v1::DaemonMessage>,
    reports: &Reports,
    swarm: &Swarm,
) -> SessionError {
    let (mut batch, mut clock) = (Batch::default(), tokio::time::interval(report::EVERY));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let notice = tokio::select! {
            notice = notices.recv() => notice,
            _ = clock.tick() => {
                if let Some(report) = reports.due()
                    && outgoing.send(v1::DaemonMessage { kind: Some(Kind::Report(report)) }).await.is_err()
                {
                    return SessionError::Ended;
                }
                // Also without news: who has work and is silent counts as gone.
                let beat = v1::DaemonMessage { kind: Some(Kind::Beat(v1::Beat {})) };
                if swarm.is_at_work() && outgoing.send(beat).await.is_err() {
                    return SessionError::Ended;
                }
                continue;
            }
        };
        let Some(notice) = notice else { return SessionError::Overflow };
        let mut messages = batch.add(notice, Instant::now());
        if !batch.is_empty() {
            let gathered = tokio::time::sleep(GATHER);
            tokio::pin!(gathered);
            loop {
                tokio::select! {
                    () = &mut gathered => break,
                    more = notices.recv() => match more {
                        None => return SessionError::Overflow,
                        Some(notice) => messages.extend(batch.add(notice, Instant::now())),
                    },
                }
                if !messages.is_empty() {
                    break; // Something that should not wait, and everything before it.
                }
            }
        }
        messages.extend(batch.flush());
        for kind in messages {
            if outgoing.send(v1::DaemonMessage { kind: Some(kind) }).await.is_err() {
                return SessionError::Ended;
            }
        }
    }
}
