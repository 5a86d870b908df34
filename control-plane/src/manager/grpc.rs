//! The gRPC service of `manager.proto`. Messages of the wire stop here.
//!
//! Invariants: a registration lives exactly as long as its stream and beats; no stream outlives the
//! manager's shutdown; every message is bounded before it is decoded; no call passes the [`Gate`](super::gate::Gate) by.

mod jobs;
mod keep_alive;
mod wire;

use super::Parts;
use super::directory::AssignError;
use super::host::HostError;
use futures::stream::BoxStream;
use hawker_api::v1;
use hawker_api::v1::manager_server::{Manager, ManagerServer};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Largest message taken, bytes: a host's texts at their limits fit.
const MAX_MESSAGE_BYTES: usize = 32 << 10;
/// Streams of one connection: a daemon needs two; proxies bundle many daemons.
const MAX_STREAMS_PER_CONNECTION: u32 = 4096;
/// A dead connection is noticed after these two.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(10);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until cancelled and the streams have ended.
pub(super) async fn serve(
    listener: TcpListener,
    parts: Parts,
    stale_after: Duration,
    cancel: CancellationToken,
) {
    let gate = parts.gate.clone();
    let service = Service { parts, stale_after, cancel: cancel.clone() };
    let service = ManagerServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder()
        // Before every service there is, and whatever they will be asked.
        .layer(InterceptorLayer::new(gate.clone()))
        .max_concurrent_streams(Some(MAX_STREAMS_PER_CONNECTION))
        .http2_keepalive_interval(Some(HTTP2_PING_EVERY))
        .http2_keepalive_timeout(Some(HTTP2_PING_TIMEOUT))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            cancel.clone().cancelled_owned(),
        );
    let serving = async {
        if let Err(error) = server.await {
            tracing::error!(%error, "serving gRPC ended");
        }
    };
    tokio::join!(serving, gate.follow_file(cancel));
}

#[derive(Debug, Clone)]
struct Service {
    parts: Parts,
    /// Also how long a stream may stay without its first message.
    stale_after: Duration,
    cancel: CancellationToken,
}

#[tonic::async_trait]
impl Manager for Service {
    async fn place(&self, request: Request<v1::PlaceRequest>) -> Result<Response<v1::Placement>, Status> {
        let answer = self.announce(request.into_inner());
        let code = answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.parts.metrics.grpc("Place", code);
        answer.map(Response::new)
    }

    type KeepAliveStream = BoxStream<'static, Result<v1::KeepAliveResponse, Status>>;

    async fn keep_alive(
        &self,
        request: Request<Streaming<v1::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        Ok(Response::new(keep_alive::answers(self.clone(), request.into_inner())))
    }
}

impl Service {
    fn announce(&self, request: v1::PlaceRequest) -> Result<v1::Placement, Status> {
        let (peer, wish) = wire::peer(request)?;
        let assigned =
            self.parts.directory.announce(peer, wish, Instant::now()).map_err(|error| refusal(&error))?;
        Ok(wire::placement(assigned, &self.parts.peer_keys))
    }
}

fn refusal(error: &AssignError) -> Status {
    let text = error.to_string();
    match error {
        AssignError::UnknownCluster { .. }
        | AssignError::UnknownSeedPeerCluster { .. }
        | AssignError::UnknownSchedulerCluster { .. } => Status::invalid_argument(text),
        AssignError::NoCluster => Status::failed_precondition(text),
        AssignError::Full { .. } => Status::resource_exhausted(text),
    }
}

fn unusable(error: &HostError) -> Status {
    Status::invalid_argument(error.to_string())
}
