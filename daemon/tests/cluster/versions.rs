//! Daemons of other versions at a scheduler: one minor version apart they work, further apart they are told why not.

use super::support::Cluster;
use hawker_api::protocol::Protocol;
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind;
use hawker_api::v1::scheduler_client::SchedulerClient;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

type Session = (mpsc::Sender<v1::DaemonMessage>, Streaming<v1::SchedulerMessage>);

async fn session(cluster: &Cluster, protocol: Option<v1::Protocol>) -> Result<Session, Status> {
    let addr = format!("http://{}", cluster.scheduler_addr());
    let mut client = SchedulerClient::connect(addr).await.unwrap();
    let host =
        v1::Host { id: "other".into(), ip: "127.0.0.1".into(), piece_port: 4000, ..v1::Host::default() };
    let hello = v1::Hello { host: Some(host), scheduler_cluster_id: 1, protocol };
    let (sender, messages) = mpsc::channel(4);
    sender.send(v1::DaemonMessage { kind: Some(Kind::Hello(hello)) }).await.unwrap();
    Ok((sender, client.session(ReceiverStream::new(messages)).await?.into_inner()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_are_welcome_others_are_refused_by_name() {
    let cluster = Cluster::start(0, 1).await;
    let own = Protocol::spoken();
    let announced = |minor| Some(v1::Protocol { major: own.major, minor });
    for protocol in [None, announced(own.minor), announced(own.minor + 1)] {
        let (sender, mut incoming) = session(&cluster, protocol).await.unwrap();
        let welcome = incoming.message().await.unwrap().unwrap().kind;
        let Some(v1::scheduler_message::Kind::Welcome(welcome)) = welcome else { panic!("{welcome:?}") };
        assert_eq!(Protocol::announced(welcome.protocol), own);
        // A message that only a later version knows ends nothing.
        sender.send(v1::DaemonMessage { kind: None }).await.unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(200), incoming.message()).await;
        assert!(silence.is_err(), "{silence:?}");
    }
    let far = session(&cluster, announced(own.minor + 2)).await.map(drop).unwrap_err();
    assert_eq!(far.code(), Code::FailedPrecondition);
    let both = [own.minor, own.minor + 2].map(|minor| format!("{}.{minor}", own.major));
    assert!(both.iter().all(|version| far.message().contains(version)), "{far:?}");
}
