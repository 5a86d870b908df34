//! The suite every engine passes, in every mode: the peer protocol over real sockets and a real store.

mod abuse;
mod differential;
mod failing;

use super::limits::MAX_CONNECTIONS_PER_PEER;
use super::{Connection, Engine, PortableEngine, SendMode, Service, UringEngine};
use crate::accounting::Accounting;
use crate::config::StorageConfig;
use crate::metrics::Metrics;
use crate::peer::client::{ClientError, News, PeerClient, Sink};
use crate::peer::flow::Flow;
use crate::peer::service::{Found, Holdings, PieceService};
use crate::store::{BlobFile, Store, StoreError};
use hawker_api::task::{Algorithm, TaskId};
use hawker_api::units::ByteSize;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MIB: u64 = 1 << 20;

struct Bench {
    _dir: tempfile::TempDir,
    kind: Kind,
    store: Store,
    engine: Arc<dyn Engine>,
    addr: SocketAddr,
    accounting: Accounting,
    accepting: tokio::task::JoinHandle<()>,
}

impl Holdings for Store {
    fn find(&self, task: &TaskId) -> Found {
        self.get(task).unwrap().map_or(Found::Nothing, Found::Here)
    }

    fn spoiled(&self, task: &TaskId, _error: &StoreError) {
        self.remove(task).unwrap();
    }
}

/// The engines and modes under test.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Portable,
    Splice,
    Copy,
    /// Also where the kernel copies, as it does here.
    Zc,
}

/// `None` only where `HAWKER_SKIP_IO_URING` says that this machine has none; `cargo xtask test` then counts a
/// skip.
fn engine(kind: Kind, service: PieceService) -> Option<Arc<dyn Engine>> {
    let service: Arc<dyn Service> = Arc::new(service);
    let mode = match kind {
        Kind::Portable => return Some(Arc::new(PortableEngine::new(service, "test".into()))),
        Kind::Splice => SendMode::Splice,
        Kind::Copy => SendMode::Copy,
        Kind::Zc => SendMode::Zc,
    };
    match UringEngine::tolerant(&service, mode, u32::MAX) {
        Ok(engine) => Some(Arc::new(engine)),
        Err(_) if std::env::var_os("HAWKER_SKIP_IO_URING").is_some() => None,
        Err(reason) => panic!("no io_uring ({reason}): HAWKER_SKIP_IO_URING=1 leaves its tests out"),
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        contract!(@of portable, Portable, $($name),*);
        contract!(@of io_uring_splice, Splice, $($name),*);
        contract!(@of io_uring_copy, Copy, $($name),*);
        contract!(@of io_uring_zc, Zc, $($name),*);
    };
    (@of $module:ident, $kind:ident, $($name:ident),*) => {
        mod $module {
            $(#[tokio::test]
            async fn $name() {
                if let Some(bench) = super::bench(super::Kind::$kind).await {
                    super::$name(bench).await;
                }
            })*
        }
    };
}

contract!(
    pieces_come_as_asked_over_one_connection,
    pipelined_requests_are_answered_in_order,
    the_head_tells_the_digest_of_a_whole_piece,
    bad_requests_get_a_clear_answer,
    the_feed_tells_new_pieces_as_they_come,
    damage_on_disk_is_not_served,
    too_many_connections_are_given_back,
    bytes_come_from_the_disk_too,
    a_file_that_shrinks_ends_the_answer,
    a_thousand_requests_at_once_are_answered_in_order,
    peers_that_stop_reading_stop_nobody_else,
    connections_that_break_are_forgotten,
);

use abuse::{
    a_file_that_shrinks_ends_the_answer, a_thousand_requests_at_once_are_answered_in_order,
    bytes_come_from_the_disk_too, connections_that_break_are_forgotten,
    peers_that_stop_reading_stop_nobody_else,
};

async fn bench(kind: Kind) -> Option<Bench> {
    let dir = tempfile::tempdir().unwrap();
    let config = StorageConfig { dir: dir.path().to_owned(), capacity: ByteSize(0) };
    let store = Store::open(&config).unwrap();
    let accounting = Accounting::new(Metrics::new());
    let service = PieceService::new(Arc::new(store.clone()), accounting.clone());
    let engine = engine(kind, service)?;
    let (addr, accepting) = accept(Arc::clone(&engine)).await;
    Some(Bench { _dir: dir, kind, store, engine, addr, accounting, accepting })
}

/// Gives an engine whoever connects.
async fn accept(engine: Arc<dyn Engine>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let (socket, peer) = listener.accept().await.unwrap();
            let _ = engine.adopt(Connection { socket, peer: peer.ip() });
        }
    });
    (addr, accepting)
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn task() -> TaskId {
    TaskId::from_digest(Algorithm::Sha256, &[7; 32]).unwrap()
}

fn content(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(|offset| (offset % 251) as u8).collect()
}

fn put(store: &Store, size: u64, pieces: &[u32]) -> Arc<BlobFile> {
    let blob = store.create(&task(), size).unwrap();
    for piece in pieces {
        let bytes = content(blob.geometry().range(*piece));
        blob.write(&bytes, blob.geometry().range(*piece).start).unwrap();
        blob.commit(*piece, *blake3::hash(&bytes).as_bytes()).unwrap();
    }
    blob
}

#[derive(Default)]
struct Gathered(Vec<u8>);

impl Sink for Gathered {
    async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        self.0.extend_from_slice(&bytes);
        Ok(bytes)
    }

    async fn pump(&mut self, mut flow: Flow) -> Result<Flow, String> {
        self.0.extend(flow.pipe().take().map_err(|error| error.to_string())?);
        Ok(flow)
    }
}

/// Sends `request` and reads until the other side closes.
async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = socket.read_to_end(&mut answer);
    tokio::time::timeout(std::time::Duration::from_secs(20), reading).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn pieces_come_as_asked_over_one_connection(bench: Bench) {
    put(&bench.store, 9 * MIB, &[0, 2]);
    let client = PeerClient::new(bench.accounting.clone());
    let mut connection = client.connect(bench.addr).await.unwrap();
    for range in [0..4 * MIB, 8 * MIB..9 * MIB, 17..18, 3 * MIB..4 * MIB] {
        let mut sink = Gathered::default();
        connection.fetch(&task(), range.clone(), &mut sink).await.unwrap();
        assert!(sink.0 == content(range.clone()), "{range:?}");
    }
    let missing = connection.fetch(&task(), 3 * MIB..5 * MIB, &mut Gathered::default()).await;
    assert!(matches!(missing, Err(ClientError::Refused { status: 404, .. })), "{missing:?}");
    let sent: u64 = bench.accounting.peers().iter().map(|(_, counters)| counters.tx_bytes).sum();
    assert!(sent > 6 * MIB, "{sent}");
}

async fn pipelined_requests_are_answered_in_order(bench: Bench) {
    put(&bench.store, 10, &[0]);
    let one = |range: &str, more: &str| {
        format!("GET /blobs/{} HTTP/1.1\r\nRange: bytes={range}\r\n{more}\r\n", task())
    };
    let answer = raw(bench.addr, &format!("{}{}", one("0-3", ""), one("4-9", "Connection: close\r\n"))).await;
    let bodies: Vec<_> = answer.split("\r\n\r\n").collect();
    assert_eq!(bodies.len(), 3, "{answer:?}");
    assert!(bodies[0].contains("Content-Range: bytes 0-3/10"));
    assert!(bodies[1].starts_with("\0\u{1}\u{2}\u{3}HTTP/1.1 206"), "{answer:?}");
    assert_eq!(bodies[2].as_bytes(), content(4..10));
}

async fn the_head_tells_the_digest_of_a_whole_piece(bench: Bench) {
    let blob = put(&bench.store, 10, &[0]);
    let request = format!("HEAD /blobs/{} HTTP/1.1\r\nConnection: close\r\n\r\n", task());
    let answer = raw(bench.addr, &request).await;
    use base64::Engine as _;
    let digest = base64::prelude::BASE64_STANDARD.encode(blob.digest(0).unwrap());
    assert!(answer.contains(&format!("Content-Digest: blake3=:{digest}:")), "{answer}");
    assert!(answer.ends_with("Content-Length: 10\r\n\r\n"), "{answer}");
}

async fn bad_requests_get_a_clear_answer(bench: Bench) {
    put(&bench.store, 10, &[0]);
    let close = "Connection: close\r\n\r\n";
    let cases = [
        (format!("GET /blobs/{} HTTP/1.1\r\nRange: bytes=10-\r\n{close}", task()), "416 ", "bytes */10"),
        (format!("GET /blobs/sha256:{} HTTP/1.1\r\n{close}", "0".repeat(64)), "404 ", "not held"),
        (format!("GET /blobs/../../etc/passwd HTTP/1.1\r\n{close}"), "404 ", "no such resource"),
        (format!("PUT /blobs/{} HTTP/1.1\r\n\r\n", task()), "405 ", "Allow"),
        ("\x16\x03\x01\r\n\r\n".to_owned(), "400 ", "malformed"),
        (format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(9000)), "431 ", "longer"),
    ];
    for (request, status, text) in cases {
        let answer = raw(bench.addr, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(text),
            "{request:?}: {answer}"
        );
    }
}

async fn the_feed_tells_new_pieces_as_they_come(bench: Bench) {
    put(&bench.store, 9 * MIB, &[1]);
    let client = PeerClient::new(bench.accounting.clone());
    let mut feed = client.connect(bench.addr).await.unwrap().have(&task()).await.unwrap();
    assert_eq!(feed.next().await.unwrap(), Some(News::Size(9 * MIB)));
    assert!(matches!(feed.next().await.unwrap(), Some(News::Pieces(pieces)) if pieces[0].0 == 1));
    let blob = put(&bench.store, 9 * MIB, &[0, 2]);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let Some(News::Pieces(pieces)) = feed.next().await.unwrap() else { panic!() };
        seen.extend(pieces.iter().map(|(piece, _)| *piece));
    }
    assert_eq!(seen, [0, 2]);
    bench.store.seal(&blob).unwrap();
    assert_eq!(feed.next().await.unwrap(), Some(News::Complete));
    assert_eq!(feed.next().await.unwrap(), None);
}

async fn damage_on_disk_is_not_served(bench: Bench) {
    let blob = put(&bench.store, 9 * MIB, &[0, 1, 2]);
    bench.store.seal(&blob).unwrap();
    drop(blob);
    let config = StorageConfig { dir: bench.store.dir().to_owned(), capacity: ByteSize(0) };
    let reopened = Store::open(&config).unwrap();
    let data = reopened.get(&task()).unwrap().unwrap();
    std::os::unix::fs::FileExt::write_all_at(data.file(), &[0xff], 5 * MIB).unwrap();
    let service = PieceService::new(Arc::new(reopened.clone()), bench.accounting.clone());
    let engine = engine(bench.kind, service).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = PeerClient::new(bench.accounting.clone());
    let mut connection = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, peer) = listener.accept().await.unwrap();
    assert!(engine.adopt(Connection { socket, peer: peer.ip() }).is_ok());
    connection.fetch(&task(), 0..4 * MIB, &mut Gathered::default()).await.unwrap();
    let spoiled = connection.fetch(&task(), 4 * MIB..8 * MIB, &mut Gathered::default()).await;
    assert!(matches!(spoiled, Err(ClientError::Refused { status: 404, .. })), "{spoiled:?}");
    assert!(reopened.get(&task()).unwrap().is_none());
    engine.shutdown().await;
}

async fn too_many_connections_are_given_back(bench: Bench) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (mut kept, mut refused) = (Vec::new(), 0);
    for _ in 0..MAX_CONNECTIONS_PER_PEER + 3 {
        kept.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (socket, peer) = listener.accept().await.unwrap();
        refused += usize::from(bench.engine.adopt(Connection { socket, peer: peer.ip() }).is_err());
    }
    assert_eq!(refused, 3);
    // Shutdown closes idle connections at once.
    bench.engine.shutdown().await;
    assert_eq!(kept[0].read(&mut [0; 1]).await.unwrap(), 0);
}
