//! The fetching side of the peer protocol: pieces by range, and the feed of what a parent has.
//!
//! Not who to ask, and not whether the bytes are right: a piece goes through a
//! [`Sink`], which checks it.
//!
//! Invariant: whatever a parent sends, a call ends in bounded time and memory.

use super::body::{self, BodyError, Carriers};
use super::feed::{self, Line, MAX_LINE_BYTES};
use super::flow::Flow;
use super::pass::Pass;
use super::request::{MAX_HEAD_BYTES, MAX_HEADERS};
use crate::accounting::Accounting;
use crate::trace;
use hawker_abi::Class;
use hawker_api::pieces::{MAX_TASK_SIZE, PieceDigest};
use hawker_api::task::TaskId;
use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::Span;

/// Time to connect to a parent in the same cluster.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Time from a request to its response head.
pub const HEAD_LIMIT: Duration = Duration::from_millis(2500);
/// Time without a byte after which a parent counts as gone.
pub const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// Time without a line of the feed; the parent sends an empty one more often than that.
const FEED_IDLE_LIMIT: Duration = Duration::from_secs(15);

/// Why a parent did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("connect to {parent}: {source}")]
    Unreachable { parent: SocketAddr, source: io::Error },
    #[error("{parent} answered {status}")]
    Refused { parent: SocketAddr, status: u16 },
    #[error("{parent} broke the protocol: {detail}")]
    Protocol { parent: SocketAddr, detail: String },
    #[error("read from {parent}: {source}")]
    Broken { parent: SocketAddr, source: io::Error },
    /// Not the parent's fault.
    #[error("store what {parent} sent: {detail}")]
    Sink { parent: SocketAddr, detail: String },
}

/// Takes the bytes of one piece in order, and gives back what carried them, for the next ones.
pub trait Sink: Send {
    /// Bytes in memory.
    fn put(&mut self, bytes: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, String>> + Send;

    /// All that is in the flow's pipe; and, if it likes, what more comes, for as long as [`Flow::fill`] fills it.
    fn pump(&mut self, flow: Flow) -> impl Future<Output = Result<Flow, String>> + Send;
}

sockopt_impl!(
    /// The largest receive window that TCP offers, bytes (`TCP_WINDOW_CLAMP`); one that is there already is not taken back.
    WindowClamp,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_WINDOW_CLAMP,
    u32
);
/// Larger than any window.
const NO_CLAMP: u32 = 1 << 30;

/// Opens connections to parents.
#[derive(Clone)]
pub struct PeerClient {
    accounting: Accounting,
    pass: Pass,
}

impl PeerClient {
    /// Without proof that it is a node: for parents that let everybody in.
    pub fn new(accounting: Accounting) -> Self {
        Self::with_pass(accounting, Pass::open())
    }

    /// Proves with `pass` that this node belongs to its cluster.
    pub fn with_pass(accounting: Accounting, pass: Pass) -> Self {
        Self { accounting, pass }
    }

    /// A connection to fetch from.
    ///
    /// # Errors
    /// `Unreachable`, after at most [`CONNECT_LIMIT`].
    pub async fn connect(&self, parent: SocketAddr) -> Result<PeerConnection, ClientError> {
        self.accounting.expect(parent, Class::Download);
        let connected = timeout(CONNECT_LIMIT, TcpStream::connect(parent)).await;
        let socket = connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .map_err(|source| ClientError::Unreachable { parent, source })?;
        let stream = BufReader::with_capacity(MAX_HEAD_BYTES, socket);
        Ok(PeerConnection {
            parent,
            stream,
            accounting: self.accounting.clone(),
            pass: self.pass.clone(),
            carriers: Carriers::default(),
            window: None,
            traceparent: trace::traceparent(&Span::current()),
        })
    }
}

/// One connection to a parent, for one request at a time. After an error it is of no more use.
pub struct PeerConnection {
    parent: SocketAddr,
    stream: BufReader<TcpStream>,
    accounting: Accounting,
    pass: Pass,
    carriers: Carriers,
    /// What the parent may send ahead at most, where that was bounded once.
    window: Option<u32>,
    /// Goes with the first request: the parent's span of it stands for the connection.
    traceparent: Option<String>,
}

struct Head {
    status: u16,
    length: Option<u64>,
}

impl PeerConnection {
    /// Fetches `range` of a blob into `sink`.
    ///
    /// # Errors
    /// [`ClientError`]; the sink may have taken a part.
    pub async fn fetch(
        &mut self,
        task: &TaskId,
        range: Range<u64>,
        sink: &mut impl Sink,
    ) -> Result<(), ClientError> {
        self.bound_window();
        let extra = format!("Range: bytes={}-{}\r\n", range.start, range.end - 1);
        let head = self.ask(task, "", &extra).await?;
        let expected = range.end - range.start;
        if head.status != 206 || head.length != Some(expected) {
            if head.status == 206 {
                return Err(self.protocol(format!("{:?} bytes where {expected} were asked for", head.length)));
            }
            return Err(ClientError::Refused { parent: self.parent, status: head.status });
        }
        self.body(expected, sink).await
    }

    /// Opens the feed of what the parent has of a blob.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn have(mut self, task: &TaskId) -> Result<HaveFeed, ClientError> {
        let head = self.ask(task, "/have", "").await?;
        if head.status != 200 {
            return Err(ClientError::Refused { parent: self.parent, status: head.status });
        }
        Ok(HaveFeed { connection: self })
    }

    /// Lets the parent send no further ahead of a limit than that wants. A refusal costs exactness, nothing else.
    fn bound_window(&mut self) {
        let wanted = self.accounting.inflow(self.parent.ip(), Class::Download).ahead();
        if wanted != self.window {
            self.window = wanted;
            let _ = setsockopt(self.stream.get_ref(), WindowClamp, &wanted.unwrap_or(NO_CLAMP));
        }
    }

    async fn ask(&mut self, task: &TaskId, what: &str, extra: &str) -> Result<Head, ClientError> {
        let (parent, proof) = (self.parent, self.pass.header(task));
        let traced = self.traceparent.take().map(|parent| format!("{}: {parent}\r\n", trace::TRACEPARENT));
        let traced = traced.unwrap_or_default();
        let text =
            format!("GET /blobs/{task}{what} HTTP/1.1\r\nHost: {parent}\r\n{proof}{traced}{extra}\r\n");
        let asked = timeout(HEAD_LIMIT, async {
            self.stream.get_mut().write_all(text.as_bytes()).await?;
            self.head().await
        });
        asked
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.broken(error))
    }

    async fn head(&mut self) -> io::Result<Head> {
        let invalid = |detail: &str| io::Error::new(io::ErrorKind::InvalidData, detail.to_owned());
        let mut received = Vec::new();
        loop {
            let chunk = self.stream.fill_buf().await?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let before = received.len();
            received.extend_from_slice(chunk);
            let taken = chunk.len();
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&received).map_err(|error| invalid(&error.to_string()))?;
            if let httparse::Status::Complete(consumed) = parsed {
                let head = Head { status: response.code.unwrap_or(0), length: content_length(&response) };
                self.stream.consume(consumed - before);
                return Ok(head);
            }
            self.stream.consume(taken);
            if received.len() > MAX_HEAD_BYTES {
                return Err(invalid("response head is too long"));
            }
        }
    }

    async fn body(&mut self, bytes: u64, sink: &mut impl Sink) -> Result<(), ClientError> {
        let parent = self.parent;
        let inflow = self.accounting.inflow(parent.ip(), Class::Download);
        match body::receive(&mut self.stream, &mut self.carriers, bytes, sink, &inflow).await {
            Ok(()) => Ok(()),
            Err(BodyError::Socket(source)) => Err(self.broken(source)),
            Err(BodyError::Sink(detail)) => Err(ClientError::Sink { parent, detail }),
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        if source.kind() == io::ErrorKind::InvalidData {
            return self.protocol(source.to_string());
        }
        ClientError::Broken { parent: self.parent, source }
    }

    fn protocol(&self, detail: String) -> ClientError {
        ClientError::Protocol { parent: self.parent, detail }
    }
}

fn content_length(response: &httparse::Response<'_, '_>) -> Option<u64> {
    let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(header.value).ok()?.parse().ok()
}

/// News of one parent about one blob.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Size(u64),
    Pieces(Vec<(u32, PieceDigest)>),
    Complete,
}

/// The open feed of a parent.
pub struct HaveFeed {
    connection: PeerConnection,
}

impl HaveFeed {
    /// The next news; `None` where the parent closed the feed.
    ///
    /// # Errors
    /// [`ClientError`], also after 15 s without a sign of life.
    pub async fn next(&mut self) -> Result<Option<News>, ClientError> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.connection.stream).take(MAX_LINE_BYTES as u64);
            let read = timeout(FEED_IDLE_LIMIT, limited.read_until(b'\n', &mut line)).await;
            let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match read.map_err(|error| self.connection.broken(error))? {
                0 => return Ok(None),
                1 => continue,
                bytes => {
                    let parent = self.connection.parent.ip();
                    self.connection.accounting.received(parent, Class::Download, bytes as u64);
                }
            }
            let news = serde_json::from_slice(&line).ok().and_then(news);
            return news
                .map(Some)
                .ok_or_else(|| self.connection.protocol("malformed line in /have".to_owned()));
        }
    }
}

fn news(line: Line) -> Option<News> {
    Some(match line {
        Line::Size(size) if size <= MAX_TASK_SIZE => News::Size(size),
        Line::Size(_) => return None,
        Line::Complete(_) => News::Complete,
        Line::Pieces(pieces) => {
            let entries = pieces.into_iter().map(|(piece, text)| Some((piece, feed::digest(&text)?)));
            News::Pieces(entries.collect::<Option<_>>()?)
        }
    })
}
