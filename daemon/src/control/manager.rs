//! The link to the manager: asks for the placement, keeps the registration alive, hears of changes.
//!
//! Invariant: a lost manager changes nothing; the last placement stays in force.

use super::placement::{Placed, PlacementFile};
use super::{Follower, Links};
use crate::accounting::Accounting;
use crate::peer::Pass;
use hawker_abi::Class;
use hawker_api::join::{Bearer, JoinRefused, JoinTokenError, Joining};
use hawker_api::protocol::{Protocol, TooFarApart};
use hawker_api::v1;
use hawker_api::v1::manager_client::ManagerClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

/// Time to connect, and for an answer.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Beats of a registration; the manager forgets one after three times this.
const BEAT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Links that are silent are checked this often.
const PROBE: Duration = Duration::from_secs(10);

/// Shows the join token with every call.
type Client = ManagerClient<InterceptedService<Channel, Bearer>>;

pub(super) struct Link {
    pub(super) addrs: Vec<String>,
    pub(super) joining: Joining,
    pub(super) request: v1::PlaceRequest,
    pub(super) file: PlacementFile,
    pub(super) publish: watch::Sender<Option<Placed>>,
    pub(super) links: Arc<Links>,
    pub(super) accounting: Accounting,
    pub(super) follow: Follower,
    pub(super) pass: Pass,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("{code:?}: {message}", code = .0.code(), message = .0.message())]
    Status(#[from] tonic::Status),
    #[error(transparent)]
    JoinToken(#[from] JoinTokenError),
    #[error(transparent)]
    Refused(#[from] JoinRefused),
    #[error(transparent)]
    Version(#[from] TooFarApart),
    #[error("no answer in {} s", CALL_LIMIT.as_secs())]
    TimedOut,
    #[error("the manager ended the registration")]
    Ended,
}

impl Link {
    pub(super) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        for addr in self.addrs.iter().cycle() {
            self.links.manager.lock().addr.clone_from(addr);
            let error = match self.keep(addr).await {
                Err(error) => error,
                Ok(()) => LinkError::Ended,
            };
            let was_connected = {
                let mut link = self.links.manager.lock();
                link.error = Some(error.to_string());
                std::mem::take(&mut link.connected)
            };
            if was_connected {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(manager = addr, %error, "no manager; going on with the last known placement");
            // Spread, so that a restarted manager is not met by everybody at once.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Registers and stays registered.
    async fn keep(&self, addr: &str) -> Result<(), LinkError> {
        self.accounting.expect_host(addr, Class::Control).await;
        let endpoint = Endpoint::from_shared(addr.to_owned())?.connect_timeout(CALL_LIMIT);
        let endpoint = endpoint.http2_keep_alive_interval(PROBE).keep_alive_timeout(PROBE);
        let channel = endpoint.connect().await?;
        let (mut client, placed) = self.register(&channel).await?;
        Protocol::spoken().works_with(Protocol::announced(placed.protocol), "manager")?;
        self.place(placed);
        {
            let mut link = self.links.manager.lock();
            (link.connected, link.error) = (true, None);
        }
        self.beat(&mut client).await
    }

    /// Asks for the placement, with the first of the join tokens that is taken.
    async fn register(&self, channel: &Channel) -> Result<(Client, v1::Placement), LinkError> {
        let mut refusal = LinkError::Ended;
        // As the file is now: a new token needs no restart.
        for bearer in self.joining.bearers()? {
            let mut client = ManagerClient::with_interceptor(channel.clone(), bearer);
            let placing = client.place(self.request.clone());
            match tokio::time::timeout(CALL_LIMIT, placing).await.map_err(|_| LinkError::TimedOut)? {
                Ok(placed) => return Ok((client, placed.into_inner())),
                Err(status) if status.code() == Code::Unauthenticated => {
                    refusal = self.joining.refused(&status).into();
                }
                Err(status) => return Err(status.into()),
            }
        }
        Err(refusal)
    }

    async fn beat(&self, client: &mut Client) -> Result<(), LinkError> {
        use v1::keep_alive_request::Kind;
        let message = |kind| v1::KeepAliveRequest { kind: Some(kind) };
        let (beats, outgoing) = mpsc::channel(2);
        // The channel is new and has room.
        let _ = beats.try_send(message(Kind::Peer(self.request.clone())));
        let opening = client.keep_alive(ReceiverStream::new(outgoing));
        let opened = tokio::time::timeout(CALL_LIMIT, opening).await.map_err(|_| LinkError::TimedOut)??;
        let mut answers = opened.into_inner();
        let mut clock = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                answer = answers.message() => match answer? {
                    None => return Ok(()),
                    Some(answer) => {
                        if let Some(placement) = answer.placement {
                            self.place(placement);
                        }
                    }
                },
                _ = clock.tick() => {
                    // Full: the network is slow, and the probe of the connection decides.
                    let _ = beats.try_send(message(Kind::Beat(v1::Beat {})));
                }
            }
        }
    }

    fn place(&self, placement: v1::Placement) {
        let last = self.publish.borrow().as_ref().map(|last| (last.limits.clone(), last.nodes.clone()));
        let placed = Placed::new(placement, last.unwrap_or_default());
        if self.publish.borrow().as_ref() == Some(&placed) {
            return;
        }
        tracing::info!(cluster = placed.cluster_name, reason = placed.reason, schedulers = ?placed.schedulers, "placed");
        if let Err(error) = self.file.save(&placed) {
            tracing::warn!(%error, "remember the placement for a start without manager");
        }
        (self.follow)(&placed.limits, &placed.nodes);
        self.pass.set(placed.peer_key.clone());
        self.publish.send_replace(Some(placed));
    }
}
