//! The successor's blobs for the answers that its predecessor still gives: a line of JSON each way over a unix socket,
//! then the bytes.
//!
//! Invariant: the socket lies in the store's directory, which no other user may enter: requests carry callers'
//! credentials.

use crate::mirror::blobs::{Blob, BlobReader, BlobRequest, Blobs, OpenError, ReadError};
use crate::origin::{Credentials, ObjectKind, OriginObject};
use crate::status::listen_unix;
use crate::swarm::orders::Image;
use bytes::Bytes;
use futures::future::BoxFuture;
use hawker_api::task::TaskId;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NAME: &str = "relay.sock";
/// Longest line: a request with a caller's headers.
const MAX_LINE_BYTES: u64 = 128 << 10;
/// Bytes read at once.
const STEP_BYTES: usize = 256 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    task: String,
    registry: String,
    repository: String,
    kind: String,
    version: String,
    authorization: Option<String>,
    /// The node's own account, which either daemon finds for itself.
    #[serde(default)]
    account: bool,
    query: Option<String>,
    headers: Vec<(String, String)>,
    /// `None`: only how large it is.
    range: Option<(u64, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Size(u64),
    Failed(String),
}

impl Ask {
    fn of(request: &BlobRequest, range: Option<Range<u64>>) -> Self {
        let BlobRequest { task, object, credentials } = request;
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let headers =
            credentials.headers().filter_map(|(name, value)| Some((name.to_string(), text(value)?)));
        Self {
            task: task.to_string(),
            registry: object.registry.clone(),
            repository: object.repository.clone(),
            kind: object.kind.path().to_owned(),
            version: object.version.clone(),
            authorization: credentials.authorization().and_then(text),
            account: credentials.is_account(),
            query: credentials.query().map(str::to_owned),
            headers: headers.collect(),
            range: range.map(|range| (range.start, range.end)),
        }
    }

    fn request(self) -> Result<BlobRequest, String> {
        let task: TaskId = self.task.parse().map_err(|_| format!("no task: {}", self.task))?;
        let kind =
            ObjectKind::of_path(&self.kind).ok_or_else(|| format!("no kind of object: {}", self.kind))?;
        let (mut own, mut headers) = (HeaderMap::new(), HeaderMap::new());
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        if let Some(authorization) = &self.authorization {
            own.insert(http::header::AUTHORIZATION, value(authorization)?);
        }
        for (name, text) in &self.headers {
            headers.append(name.parse::<HeaderName>().map_err(|error| error.to_string())?, value(text)?);
        }
        let credentials = match self.account {
            true => Credentials::account(),
            false => Credentials::from_headers(&own).of_file(self.query, headers),
        };
        let (registry, repository) = (self.registry, self.repository);
        let object = OriginObject { registry, repository, kind, version: self.version };
        Ok(BlobRequest { task, object, credentials })
    }
}

/// The successor, as its predecessor sees it.
pub(crate) struct Remote {
    path: PathBuf,
}

impl Remote {
    /// Of the store in `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { path: dir.join(NAME) }
    }
}

impl Blobs for Remote {
    /// Its own mirror tells it.
    fn wanted(&self, _: Image) {}

    fn open(&self, request: BlobRequest) -> BoxFuture<'_, Result<Box<dyn Blob>, OpenError>> {
        Box::pin(async move {
            let opened = ask(&self.path, &Ask::of(&request, None)).await;
            let (size, _) =
                opened.map_err(|error| OpenError::Unavailable(format!("the next daemon: {error}")))?;
            Ok(Box::new(RemoteBlob { path: self.path.clone(), request, size }) as Box<dyn Blob>)
        })
    }
}

struct RemoteBlob {
    path: PathBuf,
    request: BlobRequest,
    size: u64,
}

impl Blob for RemoteBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> Box<dyn BlobReader> {
        let (path, left) = (self.path.clone(), range.end.saturating_sub(range.start));
        let ask = Ask::of(&self.request, Some(range));
        Box::new(RemoteReader { path, ask, left, stream: None })
    }
}

struct RemoteReader {
    path: PathBuf,
    ask: Ask,
    left: u64,
    stream: Option<BufReader<UnixStream>>,
}

impl RemoteReader {
    async fn step(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(ask(&self.path, &self.ask).await?.1),
        };
        let room = usize::try_from(self.left).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        let mut buffer = vec![0; room];
        let got = stream.read(&mut buffer).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.truncate(got);
        self.left -= got as u64;
        Ok(Some(buffer.into()))
    }
}

impl BlobReader for RemoteReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async {
            self.step().await.map_err(|error| ReadError::Io(format!("the next daemon: {error}")))
        })
    }
}

/// Asks; returns the blob's size, and what the bytes come over.
async fn ask(path: &Path, ask: &Ask) -> io::Result<(u64, BufReader<UnixStream>)> {
    let mut stream = BufReader::new(UnixStream::connect(path).await?);
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    match serde_json::from_str(&read_line(&mut stream).await?)? {
        Answer::Size(size) => Ok((size, stream)),
        Answer::Failed(why) => Err(io::Error::other(why)),
    }
}

async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(MAX_LINE_BYTES).read_line(&mut line).await?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Gives blobs to the daemon before this one; ends with [`Self::shutdown`] or drop.
pub(crate) struct RelayServer {
    tasks: TaskTracker,
    closing: CancellationToken,
    cancel: CancellationToken,
    _socket: Box<dyn Send + Sync>,
}

impl RelayServer {
    /// Listens in `dir`, in the place of the one before.
    pub(crate) fn start(dir: &Path, blobs: Arc<dyn Blobs>) -> io::Result<Self> {
        let (listener, socket) = listen_unix(&dir.join(NAME))?;
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let closing = cancel.child_token();
        tasks.spawn(accept(listener, blobs, tasks.clone(), (closing.clone(), cancel.clone())));
        Ok(Self { tasks, closing, cancel, _socket: Box::new(socket) })
    }

    pub(crate) async fn shutdown(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Accepts no more, lets what runs end until `limit` ends.
    pub(crate) async fn drain(self, limit: impl Future<Output = ()>) {
        self.closing.cancel();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = limit => self.shutdown().await,
        }
    }
}

impl Drop for RelayServer {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn accept(
    listener: UnixListener,
    blobs: Arc<dyn Blobs>,
    tasks: TaskTracker,
    (closing, cancel): (CancellationToken, CancellationToken),
) {
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (blobs, cancel) = (Arc::clone(&blobs), cancel.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        given = give(BufReader::new(stream), &*blobs) => if let Err(error) = given {
                            tracing::debug!(%error, "give bytes to the daemon before");
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept the daemon before");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn give(mut stream: BufReader<UnixStream>, blobs: &dyn Blobs) -> io::Result<()> {
    let asked: Ask = serde_json::from_str(&read_line(&mut stream).await?)?;
    let range = asked.range;
    let opened = match asked.request() {
        Ok(request) => blobs.open(request).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    let answer = match (&opened, range) {
        (Err(why), _) => Answer::Failed(why.clone()),
        (Ok(blob), Some((start, end))) if start > end || end > blob.size() => {
            Answer::Failed(format!("{start}..{end} of {} bytes", blob.size()))
        }
        (Ok(blob), _) => Answer::Size(blob.size()),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let (Ok(blob), Answer::Size(_), Some((start, end))) = (opened, answer, range) else { return Ok(()) };
    let mut reader = blob.read(start..end);
    while let Some(bytes) = reader.next().await.map_err(io::Error::other)? {
        stream.write_all(&bytes).await?;
    }
    stream.shutdown().await
}
