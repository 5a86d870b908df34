//! Nodes, an origin and a scheduler's mailbox for the tests of the swarm.

use super::super::orders::{Announce, Notice, Parent};
use super::super::{Parts, Swarm};
use crate::accounting::Accounting;
use crate::config::{
    ClusterRegistries, MirrorConfig, PeerAuth, PeerConfig, PeerTls, Registry, SendMode, StorageConfig, Verify,
};
use crate::engine::{self, PortableEngine};
use crate::metrics::Metrics;
use crate::origin::{ObjectKind, OriginClient, OriginObject};
use crate::peer::PeerServer;
use crate::peer::client::PeerClient;
use crate::peer::service::PieceService;
use crate::store::{BlobFile, Store};
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use hawker_api::pieces::PieceDigest;
use hawker_api::task::{Algorithm, TaskId};
use hawker_api::units::ByteSize;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use sha2::Digest;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

pub(super) const MIB: usize = 1 << 20;
/// The node of this name is a seed.
pub(super) const SEED: &str = "seed";

pub(super) fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    rand::rngs::StdRng::seed_from_u64(seed).fill(bytes.as_mut_slice());
    bytes
}

pub(super) fn task_of(bytes: &[u8]) -> TaskId {
    TaskId::from_digest(Algorithm::Sha256, &sha2::Sha256::digest(bytes)).unwrap()
}

pub(super) fn pieces_of(bytes: &[u8]) -> Vec<PieceDigest> {
    bytes.chunks(4 * MIB).map(|piece| *blake3::hash(piece).as_bytes()).collect()
}

pub(super) fn object() -> OriginObject {
    OriginObject {
        registry: "registry.test".into(),
        repository: "library/thing".into(),
        kind: ObjectKind::Blob,
        version: String::new(),
    }
}

/// A registry with one blob that knows `Range` and counts what it sends.
pub(super) struct Origin {
    addr: SocketAddr,
    sent: Arc<AtomicU64>,
    serving: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub(super) async fn start(bytes: &[u8]) -> Self {
        Self::with([(task_of(bytes), bytes)]).await
    }

    /// Serves blobs under names that may be others'.
    pub(super) async fn with<'a>(blobs: impl IntoIterator<Item = (TaskId, &'a [u8])>) -> Self {
        let blobs = blobs.into_iter().map(|(task, bytes)| (task.to_string(), Arc::new(bytes.to_vec())));
        let blobs: Vec<_> = blobs.collect();
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let answer = move |uri: http::Uri, headers: HeaderMap| {
            let known = blobs.iter().find(|(digest, _)| uri.path().ends_with(digest));
            let (blob, counted) = (known.map(|(_, blob)| Arc::clone(blob)), Arc::clone(&counted));
            async move {
                blob.map_or_else(|| status(StatusCode::NOT_FOUND), |blob| serve(&blob, &headers, &counted))
            }
        };
        let app = axum::Router::new().fallback(answer);
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, sent, serving }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn serve(blob: &[u8], headers: &HeaderMap, sent: &AtomicU64) -> Response<Body> {
    let range =
        headers.get("range").map(|value| value.to_str().unwrap().strip_prefix("bytes=").unwrap().to_owned());
    let Some(range) = range else {
        sent.fetch_add(blob.len() as u64, Ordering::SeqCst);
        return Response::new(Body::from(blob.to_vec()));
    };
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(usize::MAX).min(blob.len().saturating_sub(1));
    if first >= blob.len() {
        let mut answer = status(StatusCode::RANGE_NOT_SATISFIABLE);
        answer.headers_mut().insert("content-range", format!("bytes */{}", blob.len()).parse().unwrap());
        return answer;
    }
    let part = blob[first..=last].to_vec();
    sent.fetch_add(part.len() as u64, Ordering::SeqCst);
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("content-range", format!("bytes {first}-{last}/{}", blob.len()))
        .body(Body::from(part))
        .unwrap()
}

/// What a scheduler would have been told.
#[derive(Default)]
pub(super) struct Told {
    connected: AtomicBool,
    notices: Mutex<Vec<Notice>>,
    more: Notify,
}

impl Announce for Told {
    fn tell(&self, notice: Notice) {
        self.notices.lock().push(notice);
        self.more.notify_waiters();
    }

    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::SeqCst)
    }
}

impl Told {
    pub(super) fn connect(&self) {
        self.connected.store(true, Ordering::SeqCst);
    }

    pub(super) fn disconnect(&self) {
        self.connected.store(false, Ordering::SeqCst);
    }

    pub(super) fn count(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices.lock().iter().filter(|notice| wanted(notice)).count()
    }

    pub(super) async fn wait(&self, wanted: impl Fn(&Notice) -> bool) {
        let waiting = async {
            loop {
                let more = self.more.notified();
                if self.count(&wanted) > 0 {
                    return;
                }
                more.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("not told; told: {:?}", self.notices.lock()));
    }
}

pub(super) struct Node {
    name: &'static str,
    dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) swarm: Swarm,
    pub(super) told: Arc<Told>,
    peers: PeerServer,
}

impl Node {
    pub(super) async fn start(name: &'static str, origin: &Origin, capacity: u64) -> Self {
        Self::in_dir(name, origin, capacity, tempfile::tempdir().unwrap()).await
    }

    async fn in_dir(name: &'static str, origin: &Origin, capacity: u64, dir: tempfile::TempDir) -> Self {
        let (metrics, told) = (Metrics::new(), Arc::new(Told::default()));
        let store = open_store(dir.path(), capacity);
        let server = format!("http://{}", origin.addr).parse().unwrap();
        let registries = vec![Registry::new(&object().registry, server)];
        let mirror = MirrorConfig {
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            registries,
            cluster_registries: ClusterRegistries::Narrow,
        };
        let accounting = Accounting::new(metrics.clone());
        let swarm = Swarm::new(Parts {
            host_id: name.to_owned(),
            idc: String::new(),
            location: String::new(),
            seed: name == SEED,
            verify: Verify::Streaming,
            store: store.clone(),
            origin: OriginClient::new(&mirror, metrics.clone()).unwrap(),
            client: PeerClient::new(accounting.clone()),
            metrics,
            announce: told.clone(),
        });
        let service = PieceService::new(Arc::new(swarm.clone()), accounting);
        let engine: Arc<dyn engine::Engine> = Arc::new(PortableEngine::new(Arc::new(service), "test".into()));
        let config = PeerConfig {
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: PeerTls::Off,
            auth: PeerAuth::Off,
            send: SendMode::Splice,
        };
        let peers = PeerServer::bind(&config, engine).await.unwrap();
        Self { name, dir, store, swarm, told, peers }
    }

    pub(super) async fn restart(self, origin: &Origin) -> Self {
        let Self { name, dir, swarm, peers, .. } = self;
        swarm.shutdown().await;
        peers.shutdown().await;
        Self::in_dir(name, origin, 0, dir).await
    }

    /// Waits until no download runs any more.
    pub(super) async fn settled(&self) {
        while !self.swarm.downloads().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn as_parent(&self) -> Parent {
        let (idc, location) = (String::new(), String::new());
        let (host_id, addr) = (self.name.to_owned(), self.peers.addr());
        Parent { host_id, addr, seed: false, idc, location, reserve: false }
    }

    pub(super) fn put(&self, bytes: &[u8]) {
        self.put_as(task_of(bytes), bytes);
    }

    /// Holds `bytes` under a name that may be another one's.
    pub(super) fn put_as(&self, task: TaskId, bytes: &[u8]) {
        let blob = self.store.create(&task, bytes.len() as u64).unwrap();
        let count = blob.geometry().count();
        write(&blob, bytes, &(0..count).collect::<Vec<_>>());
        self.store.seal(&blob).unwrap();
    }

    pub(super) fn put_pieces(&self, bytes: &[u8], pieces: &[u32]) {
        write(&self.store.create(&task_of(bytes), bytes.len() as u64).unwrap(), bytes, pieces);
    }

    /// Damages a byte behind the daemon's back.
    pub(super) fn flip(&self, task: &TaskId, offset: u64) {
        let blob = self.store.get(task).unwrap().unwrap();
        let mut byte = [0];
        blob.read(&mut byte, offset).unwrap();
        blob.file().write_all_at(&[!byte[0]], offset).unwrap();
    }
}

fn open_store(dir: &Path, capacity: u64) -> Store {
    Store::open(&StorageConfig { dir: dir.to_owned(), capacity: ByteSize(capacity) }).unwrap()
}

fn write(blob: &BlobFile, bytes: &[u8], pieces: &[u32]) {
    for piece in pieces {
        let range = blob.geometry().range(*piece);
        let part = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        blob.write(part, range.start).unwrap();
        blob.commit(*piece, *blake3::hash(part).as_bytes()).unwrap();
    }
}
