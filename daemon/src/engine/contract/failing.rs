//! A ring that fails while it serves: the twin goes on in its place.

use super::{Gathered, Kind, MIB, accept, bench, content, put, task};
use crate::engine::limits::MAX_CONNECTIONS_PER_PEER;
use crate::engine::uring::Sabotage;
use crate::engine::{Engine, EngineInfo, SendMode, Service, UringEngine};
use crate::peer::client::PeerClient;
use crate::peer::service::PieceService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_ring_that_the_kernel_refuses_is_replaced() {
    fail(Sabotage::Ring, "os error").await;
}

#[tokio::test]
async fn a_worker_that_panics_is_replaced() {
    fail(Sabotage::Panic, "it panicked").await;
}

#[tokio::test]
async fn zero_copy_that_brings_nothing_turns_itself_off() {
    let Some(bench) = bench(Kind::Splice).await else { return };
    put(&bench.store, 60 * MIB, &(0..15).collect::<Vec<_>>());
    let service: Arc<dyn Service> =
        Arc::new(PieceService::new(Arc::new(bench.store.clone()), bench.accounting.clone()));
    let engine = Arc::new(UringEngine::start(&service, SendMode::Zc).unwrap());
    let (addr, accepting) = accept(Arc::clone(&engine) as Arc<dyn Engine>).await;
    let mut info = engine.info();
    assert!(info.borrow().reason.contains("peer.send: zc"), "{}", info.borrow().reason);
    let mut connection = PeerClient::new(bench.accounting.clone()).connect(addr).await.unwrap();
    for _ in 0..2 {
        // Loopback copies all: some of it goes by mapping, then by splice, and the bytes are the same.
        let mut sink = Gathered::default();
        connection.fetch(&task(), 0..60 * MIB, &mut sink).await.unwrap();
        assert!(sink.0 == content(0..60 * MIB));
    }
    let off = timeout(LIMIT, info.wait_for(|info| info.reason.contains("zc is off"))).await;
    let off = off.unwrap_or_else(|_| panic!("{:?}", engine.info().borrow())).unwrap();
    let why = ["the kernel copied 8 of", "the kernel refuses SEND_ZC", "the kernel has no cachestat"];
    assert!(why.iter().any(|why| off.reason.contains(why)), "{}", off.reason);
    assert_eq!(off.name, "io_uring");
    drop(off);
    engine.shutdown().await;
    accepting.abort();
}

async fn told(info: &mut watch::Receiver<EngineInfo>) -> EngineInfo {
    timeout(LIMIT, info.wait_for(|info| info.name == "portable")).await.unwrap().unwrap().clone()
}

async fn fail(how: Sabotage, why: &str) {
    // Its store; the engine under test is one of our own.
    let Some(bench) = bench(Kind::Splice).await else { return };
    put(&bench.store, 9 * MIB, &[0, 1, 2]);
    let service: Arc<dyn Service> =
        Arc::new(PieceService::new(Arc::new(bench.store.clone()), bench.accounting.clone()));
    let engine = Arc::new(UringEngine::start(&service, SendMode::Splice).unwrap());
    let (addr, accepting) = accept(Arc::clone(&engine) as Arc<dyn Engine>).await;
    let client = PeerClient::new(bench.accounting.clone());
    let mut before = client.connect(addr).await.unwrap();
    before.fetch(&task(), 0..MIB, &mut Gathered::default()).await.unwrap();
    // Half a head is on its way, too.
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"GET /heal").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let mut info = engine.info();
    assert_eq!(info.borrow().name, "io_uring");
    engine.sabotage(how);
    let told = told(&mut info).await;
    assert!(told.reason.contains("ring 0 failed") && told.reason.contains(why), "{}", told.reason);

    let mut sink = Gathered::default();
    timeout(LIMIT, before.fetch(&task(), MIB..9 * MIB, &mut sink)).await.unwrap().unwrap();
    assert!(sink.0 == content(MIB..9 * MIB), "connections from before go on");
    half.write_all(b"thz HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, half.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let mut after = client.connect(addr).await.unwrap();
    let mut sink = Gathered::default();
    timeout(LIMIT, after.fetch(&task(), 0..9 * MIB, &mut sink)).await.unwrap().unwrap();
    assert!(sink.0 == content(0..9 * MIB), "new ones are served");

    // Both count together.
    let mut kept = Vec::new();
    let mut served = 0;
    for _ in 0..MAX_CONNECTIONS_PER_PEER {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let _ = socket.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await;
        served += usize::from(socket.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0));
        kept.push(socket);
    }
    assert_eq!(served, MAX_CONNECTIONS_PER_PEER - 2);
    timeout(LIMIT, engine.shutdown()).await.unwrap();
    assert_eq!(kept[0].read(&mut [0; 1]).await.unwrap(), 0, "shutdown closes them");
    accepting.abort();
}
