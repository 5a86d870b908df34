//! A manager that places everybody in one cluster: what the daemons see of the real one.

use hawker_api::v1;
use hawker_api::v1::manager_server::{self, ManagerServer};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct Manager {
    pub(crate) addr: SocketAddr,
    config: watch::Sender<v1::ClusterConfig>,
    serving: tokio::task::JoinHandle<()>,
}

impl Manager {
    pub(crate) async fn start(scheduler: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (config, changes) = watch::channel(v1::ClusterConfig::default());
        let service = ManagerServer::new(Placing { scheduler, config: changes });
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { addr, config, serving }
    }

    /// What the cluster wants of its nodes from now on.
    pub(crate) fn push(&self, config: v1::ClusterConfig) {
        self.config.send_replace(config);
    }

    pub(crate) fn stop(&self) {
        self.serving.abort();
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Placing {
    scheduler: SocketAddr,
    config: watch::Receiver<v1::ClusterConfig>,
}

impl Placing {
    fn placement(&self) -> v1::Placement {
        let addr = self.scheduler.to_string();
        v1::Placement {
            cluster_id: 1,
            cluster_name: "cluster-1".into(),
            scheduler_cluster_id: 1,
            peer_key: vec![7; 32],
            schedulers: vec![v1::SchedulerEndpoint { id: 1, hostname: "s".into(), addr }],
            config: Some(self.config.borrow().clone()),
            ..v1::Placement::default()
        }
    }
}

#[tonic::async_trait]
impl manager_server::Manager for Placing {
    async fn place(&self, _request: Request<v1::PlaceRequest>) -> Result<Response<v1::Placement>, Status> {
        Ok(Response::new(self.placement()))
    }

    type KeepAliveStream = Pin<Box<dyn Stream<Item = Result<v1::KeepAliveResponse, Status>> + Send>>;

    async fn keep_alive(
        &self,
        _request: Request<Streaming<v1::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let pushed = futures::stream::unfold(self.clone(), |mut placing| async {
            placing.config.changed().await.ok()?;
            let placement = Some(placing.placement());
            Some((Ok(v1::KeepAliveResponse { placement, ..v1::KeepAliveResponse::default() }), placing))
        });
        Ok(Response::new(Box::pin(pushed)))
    }
}
