//! Makes the scheduler known to the manager, and keeps it known.
//!
//! Invariant: a lost manager costs nothing but that new daemons do not hear of this scheduler.

use super::SchedulerConfig;
use super::grpc::Service;
use super::ledger::Cell;
use super::messages::HostId;
use super::wire;
use crate::usage::Usage;
use hawker_api::join::{JoinTokenError, Joining, SCHEDULER_KEY};
use hawker_api::protocol::Protocol;
use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use hawker_api::v1::manager_client::ManagerClient;
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Beats of a registration; the manager forgets one after three times this.
const BEAT: Duration = Duration::from_secs(5);
/// What hosts moved is told this often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Of tasks less often: a list of them is no live view.
const TASKS_EVERY: Duration = Duration::from_secs(5);
/// Tasks told of in one turn, the busiest.
const TASKS_PER_TURN: usize = 128;
/// Room in one message, bytes: 32 KiB is what a manager takes.
const MESSAGE_BYTES: usize = 24 << 10;
/// Hosts in one message: 32 KiB is what a manager takes.
const HOSTS_PER_MESSAGE: usize = 96;
/// Pairs of zones in the same message.
const CELLS_PER_MESSAGE: usize = 8;
/// Rollouts in one message: two with everything at its limits are what a manager takes.
const ROLLOUTS_PER_MESSAGE: usize = 2;
/// Reports on orders in one message, encoded bytes: with the last one at its limit, the manager takes it.
const MAX_REPORTS_BYTES: usize = 4 << 10;
/// Messages of one turn: 10,000 hosts and some; what is left waits for the next.
const MESSAGES_PER_TURN: usize = 128;
/// Messages waiting for the network.
const QUEUE_MESSAGES: usize = MESSAGES_PER_TURN + 2;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What goes to the manager, and what comes from it.
type Stream = (mpsc::Sender<v1::KeepAliveRequest>, Streaming<v1::KeepAliveResponse>);

pub(super) struct Registration {
    addrs: Vec<String>,
    joining: Joining,
    message: v1::SchedulerRegistration,
    service: Service,
}

impl Registration {
    pub(super) fn new(config: &SchedulerConfig, listening: SocketAddr, service: Service) -> Self {
        let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let hostname = hostname.unwrap_or_else(|_| "unknown".to_owned());
        let advertise_addr = match config.advertise_addr.as_str() {
            "" => format!("{hostname}:{}", listening.port()),
            given => given.to_owned(),
        };
        let message = v1::SchedulerRegistration {
            hostname,
            advertise_addr,
            scheduler_cluster_id: config.cluster_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: Some(Protocol::spoken().into()),
        };
        let joining = Joining::new(SCHEDULER_KEY, config.join_token_file.clone());
        Self { addrs: config.manager_addrs.clone(), joining, message, service }
    }

    pub(super) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        for addr in self.addrs.iter().cycle() {
            let mut connected = false;
            let error = match self.keep(addr, &mut connected).await {
                Ok(()) => "the manager ended the registration".to_owned(),
                Err(status) => status.message().to_owned(),
            };
            if connected {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(manager = addr, error, "not registered at the manager");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn keep(&self, addr: &str, connected: &mut bool) -> Result<(), tonic::Status> {
        let unavailable = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
        let endpoint =
            Endpoint::from_shared(addr.to_owned()).map_err(unavailable)?.connect_timeout(CALL_LIMIT);
        let endpoint = endpoint.http2_keep_alive_interval(BEAT).keep_alive_timeout(BEAT);
        let channel = endpoint.connect().await.map_err(unavailable)?;
        let (beats, mut answers) = self.open(&channel).await?;
        *connected = true;
        tracing::info!(manager = addr, advertised = self.message.advertise_addr, "registered");
        self.service.rollouts_anew();
        let (mut clock, mut telling) = (tokio::time::interval(BEAT), tokio::time::interval(TELL_EVERY));
        let mut tasks = tokio::time::interval(TASKS_EVERY);
        loop {
            tokio::select! {
                answer = answers.message() => match answer? {
                    None => return Ok(()),
                    Some(answer) => {
                        check(answer.protocol)?;
                        self.pass(answer);
                    }
                },
                () = self.service.relay().news() => self.relay(&beats),
                _ = telling.tick() => {
                    self.tell(&beats);
                    self.tell_rollouts(&beats);
                }
                _ = tasks.tick() => self.tell_tasks(&beats),
                _ = clock.tick() => {
                    // Full: the network is slow, and the probe of the connection decides.
                    let _ = beats.try_send(message(Kind::Beat(v1::Beat {})));
                }
            }
        }
    }

    /// Registers, with the first of the join tokens that is taken.
    async fn open(&self, channel: &Channel) -> Result<Stream, tonic::Status> {
        let unusable = |error: JoinTokenError| tonic::Status::failed_precondition(error.to_string());
        let mut refusal = None;
        for bearer in self.joining.bearers().map_err(unusable)? {
            let mut client = ManagerClient::with_interceptor(channel.clone(), bearer);
            let (beats, outgoing) = mpsc::channel(QUEUE_MESSAGES);
            // The channel is new and has room.
            let _ = beats.try_send(message(Kind::Scheduler(self.message.clone())));
            let opening = client.keep_alive(ReceiverStream::new(outgoing));
            let opened = tokio::time::timeout(CALL_LIMIT, opening).await;
            match opened.map_err(|_| tonic::Status::deadline_exceeded("no answer"))? {
                Ok(answers) => return Ok((beats, answers.into_inner())),
                Err(status) if status.code() == Code::Unauthenticated => {
                    let refused = self.joining.refused(&status);
                    refusal = Some(tonic::Status::unauthenticated(refused.to_string()));
                }
                Err(status) => return Err(status),
            }
        }
        Err(refusal.unwrap_or_else(|| tonic::Status::internal("there is no join token to try")))
    }

    /// An order for a node. One that is not here says nothing, and the manager asks again.
    fn pass(&self, answer: v1::KeepAliveResponse) {
        if let Some(order) = answer.job {
            let (job, host) = (order.job.clone(), order.host_id.clone());
            if !self.service.pass(order) {
                tracing::debug!(job, host, "an order for a node that is not here");
            }
        }
    }

    /// What the nodes said of orders. Where the network is slow it stays in the relay.
    fn relay(&self, beats: &mpsc::Sender<v1::KeepAliveRequest>) {
        for _ in 0..MESSAGES_PER_TURN {
            let Ok(place) = beats.try_reserve() else { return };
            let reports = self.service.relay().take(MAX_REPORTS_BYTES);
            if reports.is_empty() {
                return;
            }
            place.send(v1::KeepAliveRequest { kind: Some(Kind::Jobs(v1::JobReports { reports })) });
        }
    }

    /// How images come into the cluster. What a slow network does not take is told when it changes again.
    fn tell_rollouts(&self, beats: &mpsc::Sender<v1::KeepAliveRequest>) {
        let (rollouts, nodes) = self.service.rollouts();
        let nodes_total = u32::try_from(nodes).unwrap_or(u32::MAX);
        for rollouts in rollouts.chunks(ROLLOUTS_PER_MESSAGE) {
            let told = v1::Rollouts { rollouts: rollouts.to_vec(), nodes_total };
            let _ = beats.try_send(v1::KeepAliveRequest { kind: Some(Kind::Rollouts(told)) });
        }
    }

    /// What the hosts moved. Where the network is slow it stays in the ledger.
    fn tell(&self, beats: &mpsc::Sender<v1::KeepAliveRequest>) {
        let ledger = self.service.ledger();
        for _ in 0..MESSAGES_PER_TURN {
            let Ok(place) = beats.try_reserve() else { return };
            let (hosts, cells) = (ledger.take(HOSTS_PER_MESSAGE), ledger.take_cells(CELLS_PER_MESSAGE));
            if hosts.is_empty() && cells.is_empty() {
                return;
            }
            let usage = |(host, usage): (HostId, Usage)| v1::HostUsage {
                host_id: host.to_string(),
                usage: Some(usage.into()),
            };
            let hosts = hosts.into_iter().map(usage).collect();
            let zone = |((from, to), bytes): (Cell, u64)| v1::ZoneTraffic {
                from: from.to_string(),
                to: to.to_string(),
                bytes,
            };
            let zones = cells.into_iter().map(zone).collect();
            place.send(report(v1::BandwidthReport { hosts, zones, tasks: Vec::new() }));
        }
    }

    /// What happened to which tasks.
    fn tell_tasks(&self, beats: &mpsc::Sender<v1::KeepAliveRequest>) {
        let mut waiting = self.service.summaries(TASKS_PER_TURN).into_iter().map(wire::summary).peekable();
        while waiting.peek().is_some() {
            // Full: these are not told. What hosts moved is; a list of tasks may miss some of a slow second.
            let Ok(place) = beats.try_reserve() else { return };
            let (mut tasks, mut room) = (Vec::new(), MESSAGE_BYTES);
            while let Some(task) = waiting.next_if(|task| tasks.is_empty() || task.encoded_len() <= room) {
                room = room.saturating_sub(task.encoded_len());
                tasks.push(task);
            }
            place.send(report(v1::BandwidthReport { tasks, ..v1::BandwidthReport::default() }));
        }
    }
}

fn message(kind: Kind) -> v1::KeepAliveRequest {
    v1::KeepAliveRequest { kind: Some(kind) }
}

fn report(report: v1::BandwidthReport) -> v1::KeepAliveRequest {
    v1::KeepAliveRequest { kind: Some(Kind::Bandwidth(report)) }
}

/// A manager too far away in versions. One that says nothing here is not the first answer's, or older.
fn check(announced: Option<v1::Protocol>) -> Result<(), tonic::Status> {
    let Some(announced) = announced else { return Ok(()) };
    let fits = Protocol::spoken().works_with(Protocol::announced(Some(announced)), "manager");
    fits.map_err(|error| tonic::Status::failed_precondition(error.to_string()))
}
