//! The body of a piece, from the socket into a sink: through a pipe, or through a buffer where pipes come too
//! small.
//!
//! Here is what waits; what comes without waiting is stored by the sink, on a thread that may block, for as long as
//! more is there. What is stored is one copy away from the network: kernel to page cache.
//!
//! Invariant: the sink gets exactly the announced bytes, in order, or the call ends with an error.

use super::client::{IDLE_LIMIT, Sink};
use super::flow::{BATCH_BYTES, Flow, Step, peek};
use crate::accounting::Inflow;
use crate::pipe::Pipe;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, BufReader, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes that go to the sink at once, from a buffer.
const BUFFER_BYTES: usize = 1 << 20;
/// Bodies below this are not worth a pipe.
const MIN_SPLICED_BYTES: u64 = 512 << 10;
/// What came is stored after this long without more: it is what the sender is judged by.
const HOARD_LIMIT: Duration = Duration::from_millis(200);

/// Why a body ended early.
#[derive(Debug)]
pub(super) enum BodyError {
    Socket(io::Error),
    /// Not the parent's fault.
    Sink(String),
}

/// What carries bytes; kept from one piece to the next.
#[derive(Default)]
pub(super) struct Carriers {
    pipe: Option<Pipe>,
    /// Pipes of a useful size cannot be had.
    no_pipes: bool,
    /// The connection's socket, for the thread that stores.
    socket: Option<Arc<OwnedFd>>,
    buffer: Vec<u8>,
}

impl Carriers {
    /// The socket again, and an empty pipe.
    fn pair(&mut self, socket: &TcpStream) -> Option<(Arc<OwnedFd>, Pipe)> {
        if self.socket.is_none() {
            self.socket = socket.as_fd().try_clone_to_owned().ok().map(Arc::new);
        }
        let socket = self.socket.clone()?;
        if self.pipe.is_none() && !self.no_pipes {
            match Pipe::new() {
                Ok(pipe) if pipe.capacity() >= BATCH_BYTES * 2 => self.pipe = Some(pipe),
                Ok(_) | Err(_) => self.no_pipes = true,
            }
        }
        Some((socket, self.pipe.take()?))
    }
}

/// Receives `bytes` into `sink`; `inflow` is asked before each read and told after it.
pub(super) async fn receive(
    stream: &mut BufReader<TcpStream>,
    carriers: &mut Carriers,
    bytes: u64,
    sink: &mut impl Sink,
    inflow: &Inflow,
) -> Result<(), BodyError> {
    let early = stream.buffer().len().min(usize::try_from(bytes).unwrap_or(usize::MAX)) as u64;
    let left = bytes - early;
    let pair = if left >= MIN_SPLICED_BYTES { carriers.pair(stream.get_ref()) } else { None };
    let buffered = if pair.is_some() { early } else { bytes };
    // What came with the head is in memory already.
    by_buffer(stream, carriers, buffered, sink, inflow).await?;
    let Some((socket, pipe)) = pair else { return Ok(()) };
    let flow = Flow::new(socket, pipe, left, inflow.clone());
    carriers.pipe = Some(by_pipe(stream.get_ref(), flow, sink).await?);
    Ok(())
}

async fn by_buffer(
    stream: &mut BufReader<TcpStream>,
    carriers: &mut Carriers,
    bytes: u64,
    sink: &mut impl Sink,
    inflow: &Inflow,
) -> Result<(), BodyError> {
    let mut left = bytes;
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        let mut buffer = std::mem::take(&mut carriers.buffer);
        buffer.clear();
        buffer.reserve(step);
        let mut limited = (&mut *stream).take(step as u64);
        while buffer.len() < step {
            inflow.ready().await;
            let limit = if buffer.is_empty() { IDLE_LIMIT } else { HOARD_LIMIT };
            let read = timeout(limit, limited.read_buf(&mut buffer)).await;
            if read.is_err() && !buffer.is_empty() {
                break;
            }
            match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(0) => return Err(BodyError::Socket(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => inflow.count(read as u64),
                Err(error) => return Err(BodyError::Socket(error)),
            }
        }
        left -= buffer.len() as u64;
        carriers.buffer = sink.put(buffer).await.map_err(BodyError::Sink)?;
    }
    Ok(())
}

/// Gives the pipe back, empty.
async fn by_pipe(socket: &TcpStream, mut flow: Flow, sink: &mut impl Sink) -> Result<Pipe, BodyError> {
    loop {
        match flow.fill() {
            Step::Filled => flow = sink.pump(flow).await.map_err(BodyError::Sink)?,
            Step::Held => {
                if flow.pipe().held() > 0 {
                    flow = sink.pump(flow).await.map_err(BodyError::Sink)?;
                }
                flow.await_limit().await;
            }
            Step::Dry if flow.has_failed() => break,
            Step::Dry => {
                let holds = flow.pipe().held() > 0;
                let limit = if holds { HOARD_LIMIT } else { IDLE_LIMIT };
                let waited = timeout(limit, socket.async_io(Interest::READABLE, || peek(socket))).await;
                if waited.is_err() && holds {
                    flow = sink.pump(flow).await.map_err(BodyError::Sink)?;
                    continue;
                }
                waited.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(BodyError::Socket)?;
            }
            Step::Done => break,
        }
    }
    match flow.end() {
        (None, pipe) => Ok(pipe),
        (Some(error), _) => Err(BodyError::Socket(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::Accounting;
    use crate::metrics::Metrics;
    use hawker_abi::Class;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// Keeps what it gets, and how.
    #[derive(Default)]
    struct Kept {
        bytes: Vec<u8>,
        spliced: usize,
    }

    impl Sink for Kept {
        async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
            self.bytes.extend_from_slice(&bytes);
            Ok(bytes)
        }

        async fn pump(&mut self, mut flow: Flow) -> Result<Flow, String> {
            self.spliced += flow.pipe().held();
            self.bytes.extend(flow.pipe().take().map_err(|error| error.to_string())?);
            Ok(flow)
        }
    }

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes as u64).map(|at| (at % 251) as u8).collect()
    }

    /// What is received of `sent` bytes that come in writes of these sizes, in turns.
    async fn received(sent: usize, announced: u64, writes: &[usize]) -> (Result<(), BodyError>, Kept) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut sender, _) = listener.accept().await.unwrap();
        sender.set_nodelay(true).unwrap();
        let writes = writes.to_vec();
        let sending = tokio::spawn(async move {
            let (content, mut at) = (content(sent), 0);
            for length in writes.iter().cycle() {
                let end = (at + length).min(content.len());
                if at == end || sender.write_all(&content[at..end]).await.is_err() {
                    break;
                }
                at = end;
            }
        });
        let (mut stream, mut kept) = (BufReader::with_capacity(8 << 10, socket), Kept::default());
        let inflow = Accounting::new(Metrics::new()).inflow([127, 0, 0, 1].into(), Class::Download);
        let result = receive(&mut stream, &mut Carriers::default(), announced, &mut kept, &inflow).await;
        sending.await.unwrap();
        (result, kept)
    }

    #[tokio::test]
    async fn bodies_arrive_whole_however_they_are_cut() {
        let cases: [(usize, &[usize]); 4] =
            [(5 << 20, &[1 << 20]), (1 << 20, &[100, 1448]), (3 << 20, &[1, 65_536, 7]), (100_000, &[4096])];
        for (bytes, writes) in cases {
            let (result, kept) = received(bytes, bytes as u64, writes).await;
            result.unwrap();
            assert!(kept.bytes == content(bytes), "{bytes} bytes in {writes:?}");
            assert_eq!(kept.spliced > 0, bytes >= 512 << 10, "{bytes} bytes");
        }
    }

    /// Counts, for whoever looks meanwhile.
    struct Counted(Arc<AtomicUsize>);

    impl Sink for Counted {
        async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
            self.0.fetch_add(bytes.len(), Ordering::Relaxed);
            Ok(bytes)
        }

        async fn pump(&mut self, mut flow: Flow) -> Result<Flow, String> {
            let bytes = flow.pipe().take().map_err(|error| error.to_string())?;
            self.0.fetch_add(bytes.len(), Ordering::Relaxed);
            Ok(flow)
        }
    }

    #[tokio::test]
    async fn what_came_is_stored_while_more_is_waited_for() {
        for (announced, first) in [(3 << 20, 700_000), (100_000, 1000)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut sender, _) = listener.accept().await.unwrap();
            let count = Arc::new(AtomicUsize::new(0));
            let mut sink = Counted(Arc::clone(&count));
            let receiving = tokio::spawn(async move {
                let mut stream = BufReader::with_capacity(8 << 10, socket);
                let inflow = Accounting::new(Metrics::new()).inflow([127, 0, 0, 1].into(), Class::Download);
                receive(&mut stream, &mut Carriers::default(), announced, &mut sink, &inflow).await
            });
            let content = content(usize::try_from(announced).unwrap());
            sender.write_all(&content[..first]).await.unwrap();
            let all = async {
                while count.load(Ordering::Relaxed) < first {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(IDLE_LIMIT - Duration::from_secs(1), all).await.expect("it is kept back");
            sender.write_all(&content[first..]).await.unwrap();
            receiving.await.unwrap().unwrap();
            assert_eq!(count.load(Ordering::Relaxed), content.len());
        }
    }

    #[tokio::test]
    async fn a_body_cut_short_is_an_error() {
        for sent in [1000, 2 << 20] {
            let (result, kept) = received(sent, 3 << 20, &[1 << 20]).await;
            assert!(
                matches!(result, Err(BodyError::Socket(ref e)) if e.kind() == io::ErrorKind::UnexpectedEof),
                "{result:?}"
            );
            assert!(kept.bytes.len() <= sent);
        }
    }
}
