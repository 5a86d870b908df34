//! The rivals: what one writes with tokio and files.
//!
//! Not an example. Invariant: nothing in them is slow on purpose, and what they write is right.

use super::{Clock, Hasher, Job, Pieces, Way, compare};
use crate::receive_report::Received;
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io::SeekFrom;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Buffer of a connection, bytes.
const BUFFER_BYTES: usize = 256 << 10;
const MAX_HEADERS: usize = 32;

pub(super) async fn run(way: Way, job: &Job) -> Result<Received> {
    let path = job.dir.join("plain.data");
    let file = Arc::new(create(&path, job.size)?);
    let mut connections = connect(job).await?;
    if job.overwrite {
        connections = fetch_all(way, connections, (&path, &file), job).await?;
    }
    let clock = Clock::start();
    fetch_all(way, connections, (&path, &file), job).await?;
    let received = clock.stop(job.size);
    if let Some(source) = &job.compare {
        compare(&file, source)?;
    }
    std::fs::remove_file(&path)?;
    Ok(received)
}

pub(super) async fn connect(job: &Job) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..job.connections {
        let socket = TcpStream::connect(job.server).await?;
        socket.set_nodelay(true)?;
        let request_line = format!("GET /blobs/{} HTTP/1.1\r\nHost: {}\r\n", job.task, job.server);
        connections.push(Connection { socket, request_line, buffer: vec![0; BUFFER_BYTES] });
    }
    Ok(connections)
}

/// Every piece once, over all connections.
async fn fetch_all(
    way: Way,
    connections: Vec<Connection>,
    (path, file): (&Path, &Arc<File>),
    job: &Job,
) -> Result<Vec<Connection>> {
    let pieces = Pieces::of(job.size)?;
    let mut workers = JoinSet::new();
    for connection in connections {
        let (pieces, file, path, digest) =
            (Arc::clone(&pieces), Arc::clone(file), path.to_owned(), job.digest);
        workers.spawn(async move {
            match way {
                Way::Naive => naive(connection, &path, &pieces, digest).await,
                _ => plain(connection, &file, &pieces, digest).await,
            }
        });
    }
    let mut connections = Vec::new();
    while let Some(ended) = workers.join_next().await {
        connections.push(ended.context("a worker ended")??);
    }
    Ok(connections)
}

/// Reads what is there into a buffer, hashes it, writes it.
async fn plain(
    mut connection: Connection,
    file: &File,
    pieces: &Pieces,
    digest: super::DigestKind,
) -> Result<Connection> {
    while let Some((_, range)) = pieces.next() {
        let mut hasher = Hasher::new(digest);
        let along = connection.ask(&range).await?;
        let mut offset = range.start;
        let mut take = |bytes: &[u8], offset: u64| -> Result<()> {
            hasher.update(bytes);
            Ok(file.write_all_at(bytes, offset)?)
        };
        take(&connection.buffer[along.clone()], offset)?;
        offset += along.len() as u64;
        while offset < range.end {
            let most = usize::try_from(range.end - offset)?.min(BUFFER_BYTES);
            let count = connection.socket.read(&mut connection.buffer[..most]).await?;
            ensure!(count > 0, "the server closed in the middle");
            take(&connection.buffer[..count], offset)?;
            offset += count as u64;
        }
        std::hint::black_box(hasher.finish());
    }
    Ok(connection)
}

/// Reads a whole piece into a vector, hashes it, hands it to `tokio::fs`.
async fn naive(
    mut connection: Connection,
    path: &Path,
    pieces: &Pieces,
    digest: super::DigestKind,
) -> Result<Connection> {
    let mut file = tokio::fs::OpenOptions::new().write(true).open(path).await?;
    while let Some((_, range)) = pieces.next() {
        let along = connection.ask(&range).await?;
        let mut piece = vec![0; usize::try_from(range.end - range.start)?];
        piece[..along.len()].copy_from_slice(&connection.buffer[along.clone()]);
        connection.socket.read_exact(&mut piece[along.len()..]).await?;
        let mut hasher = Hasher::new(digest);
        hasher.update(&piece);
        std::hint::black_box(hasher.finish());
        file.seek(SeekFrom::Start(range.start)).await?;
        file.write_all(&piece).await?;
        file.flush().await?;
    }
    Ok(connection)
}

pub(super) struct Connection {
    pub(super) socket: TcpStream,
    request_line: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// Asks for a range and reads the head. Where in the buffer body bytes are that came along.
    pub(super) async fn ask(&mut self, range: &Range<u64>) -> Result<Range<usize>> {
        let request = format!("{}Range: bytes={}-{}\r\n\r\n", self.request_line, range.start, range.end - 1);
        self.socket.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let count = self.socket.read(&mut self.buffer[filled..]).await?;
            ensure!(count > 0, "the server closed before it answered");
            filled += count;
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut head = httparse::Response::new(&mut headers);
            match head.parse(&self.buffer[..filled])? {
                httparse::Status::Complete(consumed) if head.code == Some(206) => return Ok(consumed..filled),
                httparse::Status::Complete(_) => bail!("the server answered {:?}", head.code),
                httparse::Status::Partial => {}
            }
        }
    }
}

pub(super) fn create(path: &Path, size: u64) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, i64::try_from(size)?).context("reserve the file's space")?;
    Ok(file)
}
