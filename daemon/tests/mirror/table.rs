//! A swarm that is a table, and a client that speaks HTTP byte by byte: both for the mirror's tests.

use bytes::Bytes;
use futures::future::BoxFuture;
use hawker_api::task::{Algorithm, TaskId};
use hawker_daemon::mirror::blobs::{Blob, BlobReader, BlobRequest, Blobs, OpenError, ReadError};
use hawker_daemon::swarm::orders::Image;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the table has for a digest.
#[derive(Clone)]
pub(crate) enum Plan {
    Held(Bytes),
    /// Announces a size, then follows these steps, whatever the range.
    Reads(u64, Vec<Read>),
    NoSpace,
    Unavailable,
    HangsOpening,
}

#[derive(Clone)]
pub(crate) enum Read {
    Bytes(Bytes),
    Slow(Duration),
    NoSpace,
    Mismatch,
    Hang,
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) plans: HashMap<TaskId, Plan>,
    pub(crate) opened: AtomicUsize,
    /// Of the last opened one.
    pub(crate) asked: Mutex<Option<BlobRequest>>,
}

pub(crate) fn task(bytes: &[u8]) -> TaskId {
    TaskId::from_digest(Algorithm::Sha256, &Sha256::digest(bytes)).unwrap()
}

impl Blobs for Table {
    fn open(&self, request: BlobRequest) -> BoxFuture<'_, Result<Box<dyn Blob>, OpenError>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let plan = self.plans.get(&request.task).cloned();
        *self.asked.lock().unwrap() = Some(request);
        Box::pin(async move {
            let (size, reads) = match plan {
                Some(Plan::Held(bytes)) => (bytes.len() as u64, vec![Read::Bytes(bytes)]),
                Some(Plan::Reads(size, reads)) => (size, reads),
                Some(Plan::NoSpace) => return Err(OpenError::NoSpace("disk full".to_owned())),
                Some(Plan::HangsOpening) => std::future::pending().await,
                Some(Plan::Unavailable) | None => {
                    return Err(OpenError::Unavailable("nobody".to_owned()));
                }
            };
            Ok(Box::new(Opened { size, reads }) as Box<dyn Blob>)
        })
    }

    fn wanted(&self, _: Image) {}

    fn held_size(&self, task: &TaskId) -> Option<u64> {
        match self.plans.get(task) {
            Some(Plan::Held(bytes)) => Some(bytes.len() as u64),
            _ => None,
        }
    }
}

struct Opened {
    size: u64,
    reads: Vec<Read>,
}

impl Blob for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> Box<dyn BlobReader> {
        let part = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let reads = match self.reads.as_slice() {
            [Read::Bytes(bytes)] if bytes.len() as u64 == self.size => vec![Read::Bytes(bytes.slice(part))],
            reads => reads.to_vec(),
        };
        Box::new(Reader(reads.into()))
    }
}

struct Reader(VecDeque<Read>);

impl BlobReader for Reader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async {
            loop {
                match self.0.pop_front() {
                    None => return Ok(None),
                    Some(Read::Bytes(bytes)) => return Ok(Some(bytes)),
                    Some(Read::Slow(time)) => tokio::time::sleep(time).await,
                    Some(Read::NoSpace) => return Err(ReadError::NoSpace("disk full".to_owned())),
                    Some(Read::Mismatch) => return Err(ReadError::Mismatch),
                    Some(Read::Hang) => std::future::pending().await,
                }
            }
        })
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.header("content-length") == Some(self.body.len().to_string().as_str())
    }
}

/// Sends a request and reads until the mirror closes; `headers` lines end in CRLF.
pub(crate) async fn send(addr: SocketAddr, method: &str, target: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // A cut must be a plain end: on a reset containerd does not resume.
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.unwrap().unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: all[end + 4..].to_vec() }
}
