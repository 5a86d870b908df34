//! The portable engine: one task a connection, `sendfile` from the page cache into the socket.
//!
//! Works on every kernel. `sendfile` may wait for the disk on a runtime thread; slices of
//! [`SEND_STEP_BYTES`] keep that short.
//!
//! Invariant: every connection is one task, which ends with the engine.

use super::limits::{
    Admitted, Census, DRAIN_LIMIT, IDLE_LIMIT, REFUSAL_LIMIT, REFUSED_INPUT_BYTES, SEND_LIMIT,
    SEND_STEP_BYTES,
};
use super::{Answer, Connection, Engine, EngineInfo, PORTABLE, Service, drained, feed};
use crate::peer::request::{self, MAX_HEAD_BYTES, Parsed};
use crate::store::BlobFile;
use futures::future::BoxFuture;
use nix::sys::sendfile::sendfile;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub struct PortableEngine {
    service: Arc<dyn Service>,
    reason: String,
    census: Census,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl PortableEngine {
    pub fn new(service: Arc<dyn Service>, reason: String) -> Self {
        Self::beside(service, reason, Census::default())
    }

    /// One that counts its connections together with another engine's.
    pub(super) fn beside(service: Arc<dyn Service>, reason: String, census: Census) -> Self {
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        Self { service, reason, census, tracker, cancel }
    }

    /// Goes on with a connection that has its place already; `received` is what was read from it and not answered.
    /// Within a runtime.
    pub(super) fn take_over(&self, connection: Connection, admitted: Admitted, received: Vec<u8>) {
        let (service, cancel) = (Arc::clone(&self.service), self.cancel.clone());
        self.tracker.spawn(async move {
            let peer = connection.peer;
            let mut exchange = Exchange { connection, service, received };
            if let Err(error) = exchange.run(&cancel).await {
                tracing::debug!(%peer, %error, "connection of a peer ended");
            }
            drop(admitted);
        });
    }
}

impl Engine for PortableEngine {
    fn info(&self) -> watch::Receiver<EngineInfo> {
        watch::channel(EngineInfo { name: PORTABLE, reason: self.reason.clone() }).1
    }

    fn adopt(&self, connection: Connection) -> Result<(), Connection> {
        let Some(admitted) = self.census.admit(connection.peer) else { return Err(connection) };
        self.take_over(connection, admitted, Vec::new());
        Ok(())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.cancel.cancel();
            self.tracker.close();
            if timeout(DRAIN_LIMIT, self.tracker.wait()).await.is_err() {
                tracing::warn!("answers to peers were cut at shutdown");
            }
        })
    }
}

struct Exchange {
    connection: Connection,
    service: Arc<dyn Service>,
    received: Vec<u8>,
}

impl Exchange {
    async fn run(&mut self, cancel: &CancellationToken) -> io::Result<()> {
        self.connection.socket.set_nodelay(true)?;
        loop {
            let request = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                request = timeout(IDLE_LIMIT, self.request()) => request,
            };
            let request = match request {
                Err(_idle) => return Ok(()),
                Ok(request) => match request? {
                    None => return Ok(()),
                    Some(Err(bad)) => return self.refuse(&bad).await,
                    Some(Ok(request)) => request,
                },
            };
            let close = request.close;
            let answer = self.service.answer(self.connection.peer, request).await;
            let ends = matches!(answer, Answer::Feed { .. });
            tokio::select! {
                () = drained(cancel) => return Ok(()),
                sent = self.reply(answer) => sent?,
            }
            if close || ends {
                return self.connection.socket.shutdown().await;
            }
        }
    }

    /// The next request; `None` where the peer closed between requests.
    async fn request(&mut self) -> io::Result<Option<Result<crate::peer::Request, request::BadRequest>>> {
        loop {
            match request::parse(&self.received) {
                Err(bad) => return Ok(Some(Err(bad))),
                Ok(Parsed::Complete { request, consumed }) => {
                    self.received.drain(..consumed);
                    return Ok(Some(Ok(request)));
                }
                Ok(Parsed::Partial) => {}
            }
            if self.received.capacity() < MAX_HEAD_BYTES {
                self.received.reserve(MAX_HEAD_BYTES);
            }
            if self.connection.socket.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Answers, and reads on for a moment: closing with unread input would reset the connection and
    /// take the answer with it.
    async fn refuse(&mut self, bad: &request::BadRequest) -> io::Result<()> {
        self.send(&bad.answer()).await?;
        self.connection.socket.shutdown().await?;
        let mut rest = (&mut self.connection.socket).take(REFUSED_INPUT_BYTES);
        let mut sink = tokio::io::sink();
        let _ = timeout(REFUSAL_LIMIT, tokio::io::copy(&mut rest, &mut sink)).await;
        Ok(())
    }

    async fn reply(&mut self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Text(bytes) => self.send(&bytes).await,
            Answer::Slice { head, blob, range } => {
                self.send(&head).await?;
                self.send_slice(&blob, range).await
            }
            Answer::Feed { head, lines } => {
                let to = (self.connection.peer, &*self.service);
                feed::send(&mut self.connection.socket, to, &head, lines).await
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let to = (self.connection.peer, &*self.service);
        feed::send_bytes(&mut self.connection.socket, to, bytes).await
    }

    async fn send_slice(&mut self, blob: &BlobFile, range: Range<u64>) -> io::Result<()> {
        let (mut offset, mut granted) = (range.start, range.start);
        while offset < range.end {
            if offset == granted {
                let grant = self.service.pace(self.connection.peer, range.end - offset);
                if !grant.wait.is_zero() {
                    tokio::time::sleep(grant.wait).await;
                }
                granted += grant.bytes;
            }
            let step = (granted - offset).min(SEND_STEP_BYTES);
            let sent = timeout(SEND_LIMIT, send_step(&self.connection.socket, blob, offset, step)).await??;
            if sent == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.service.sent(self.connection.peer, sent);
            offset += sent;
        }
        Ok(())
    }
}

async fn send_step(socket: &TcpStream, blob: &BlobFile, offset: u64, bytes: u64) -> io::Result<u64> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let start = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let sent = socket.async_io(Interest::WRITABLE, || {
        let mut position = start;
        sendfile(socket, blob.file(), Some(&mut position), bytes).map_err(io::Error::from)
    });
    Ok(sent.await? as u64)
}
