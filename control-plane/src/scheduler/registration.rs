//! Makes the scheduler known to the manager, and keeps it known.
//!
//! Invariant: a lost manager costs nothing but that new daemons do not hear of this scheduler.

use super::SchedulerConfig;
use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use hawker_api::v1::manager_client::ManagerClient;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Beats of a registration; the manager forgets one after three times this.
const BEAT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Registration {
    addrs: Vec<String>,
    message: v1::SchedulerRegistration,
}

impl Registration {
    pub(super) fn new(config: &SchedulerConfig, listening: SocketAddr) -> Self {
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
        };
        Self { addrs: config.manager_addrs.clone(), message }
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
        let mut client = ManagerClient::new(endpoint.connect().await.map_err(unavailable)?);
        let message = |kind| v1::KeepAliveRequest { kind: Some(kind) };
        let (beats, outgoing) = mpsc::channel(2);
        // The channel is new and has room.
        let _ = beats.try_send(message(Kind::Scheduler(self.message.clone())));
        let opening = client.keep_alive(ReceiverStream::new(outgoing));
        let opened = tokio::time::timeout(CALL_LIMIT, opening).await;
        let mut answers = opened.map_err(|_| tonic::Status::deadline_exceeded("no answer"))??.into_inner();
        *connected = true;
        tracing::info!(manager = addr, advertised = self.message.advertise_addr, "registered");
        let mut clock = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                answer = answers.message() => if answer?.is_none() { return Ok(()) },
                _ = clock.tick() => {
                    // Full: the network is slow, and the probe of the connection decides.
                    let _ = beats.try_send(message(Kind::Beat(v1::Beat {})));
                }
            }
        }
    }
}
