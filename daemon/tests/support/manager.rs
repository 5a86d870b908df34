//! A manager that places everybody in one cluster: what the daemons see of the real one.

use hawker_api::v1;
use hawker_api::v1::manager_server::{self, ManagerServer};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct Manager {
    pub(crate) addr: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Manager {
    pub(crate) async fn start(scheduler: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let service = ManagerServer::new(Placing { scheduler });
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { addr, serving }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Placing {
    scheduler: SocketAddr,
}

#[tonic::async_trait]
impl manager_server::Manager for Placing {
    async fn place(&self, _request: Request<v1::PlaceRequest>) -> Result<Response<v1::Placement>, Status> {
        let addr = self.scheduler.to_string();
        Ok(Response::new(v1::Placement {
            cluster_id: 1,
            cluster_name: "cluster-1".into(),
            scheduler_cluster_id: 1,
            schedulers: vec![v1::SchedulerEndpoint { id: 1, hostname: "s".into(), addr }],
            ..v1::Placement::default()
        }))
    }

    type KeepAliveStream = Pin<Box<dyn Stream<Item = Result<v1::KeepAliveResponse, Status>> + Send>>;

    async fn keep_alive(
        &self,
        _request: Request<Streaming<v1::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}
