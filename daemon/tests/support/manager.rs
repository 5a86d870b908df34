//! A manager that places everybody in one cluster: what the daemons see of the real one.

use hawker_api::v1;
use hawker_api::v1::manager_server::{self, ManagerServer};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct Manager {
    pub(crate) addr: SocketAddr,
    config: watch::Sender<v1::ClusterConfig>,
    /// The join token asked for.
    asked: Arc<Mutex<Option<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Manager {
    pub(crate) async fn start(scheduler: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (config, changes) = watch::channel(v1::ClusterConfig::default());
        let asked = Arc::new(Mutex::new(None));
        let gate = Gate(Arc::clone(&asked));
        let service = ManagerServer::with_interceptor(Placing { scheduler, config: changes }, gate);
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { addr, config, asked, serving }
    }

    /// What the cluster wants of its nodes from now on.
    pub(crate) fn push(&self, config: v1::ClusterConfig) {
        self.config.send_replace(config);
    }

    /// Asks for this join token from now on.
    pub(crate) fn ask_for(&self, token: &str) {
        *self.asked.lock().unwrap() = Some(token.to_owned());
    }

    pub(crate) fn asks(&self) -> bool {
        self.asked.lock().unwrap().is_some()
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
struct Gate(Arc<Mutex<Option<String>>>);

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let asked = self.0.lock().unwrap();
        let Some(token) = &*asked else { return Ok(request) };
        let shown = request.metadata().get("authorization");
        if shown.is_some_and(|shown| shown == format!("Bearer {token}").as_str()) {
            return Ok(request);
        }
        Err(Status::unauthenticated("this manager asks for a join token: manager.joinTokenFile"))
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
