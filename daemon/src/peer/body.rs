//! The body of a piece, from the socket into a sink: through two pipes, one filling while the other is
//! being stored; or through a buffer where pipes come too small.
//!
//! What is stored is one copy away from the network: kernel to page cache.
//!
//! Invariant: the sink gets exactly the announced bytes, in order, or the call ends with an error.

use super::client::{IDLE_LIMIT, Sink};
use crate::accounting::Inflow;
use crate::pipe::Pipe;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::AsRawFd;
use tokio::io::{AsyncReadExt, BufReader, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes that go to the sink at once.
const STEP_BYTES: usize = 1 << 20;
/// So many are worth a trip to the sink, when no more have come.
const BATCH_BYTES: usize = 256 << 10;
/// Bodies below this are not worth two pipes.
const MIN_SPLICED_BYTES: u64 = 512 << 10;

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
    pipes: Vec<Pipe>,
    /// Pipes of a useful size cannot be had.
    no_pipes: bool,
    buffer: Vec<u8>,
}

impl Carriers {
    /// Two empty pipes.
    fn pair(&mut self) -> Option<(Pipe, Pipe)> {
        while self.pipes.len() < 2 && !self.no_pipes {
            match Pipe::new() {
                Ok(pipe) if pipe.capacity() >= BATCH_BYTES * 2 => self.pipes.push(pipe),
                Ok(_) | Err(_) => self.no_pipes = true,
            }
        }
        if self.pipes.len() < 2 { None } else { self.pipes.pop().zip(self.pipes.pop()) }
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
    let pipes = if left >= MIN_SPLICED_BYTES { carriers.pair() } else { None };
    let buffered = if pipes.is_some() { early } else { bytes };
    // What came with the head is in memory already.
    by_buffer(stream, carriers, buffered, sink, inflow).await?;
    let Some(pipes) = pipes else { return Ok(()) };
    let (one, other) = by_pipes(stream.get_ref(), pipes, left, sink, inflow).await?;
    carriers.pipes.extend([one, other]);
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
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(STEP_BYTES);
        let mut buffer = std::mem::take(&mut carriers.buffer);
        buffer.clear();
        buffer.reserve(step);
        let mut limited = (&mut *stream).take(step as u64);
        while buffer.len() < step {
            inflow.ready().await;
            let read = timeout(IDLE_LIMIT, limited.read_buf(&mut buffer)).await;
            match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(0) => return Err(BodyError::Socket(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => inflow.count(read as u64),
                Err(error) => return Err(BodyError::Socket(error)),
            }
        }
        left -= step as u64;
        carriers.buffer = sink.put(buffer).await.map_err(BodyError::Sink)?;
    }
    Ok(())
}

/// Gives the pipes back, empty.
async fn by_pipes(
    socket: &TcpStream,
    (mut filling, mut idle): (Pipe, Pipe),
    bytes: u64,
    sink: &mut impl Sink,
    inflow: &Inflow,
) -> Result<(Pipe, Pipe), BodyError> {
    let mut left = bytes;
    fill(socket, &mut filling, &mut left, inflow).await.map_err(BodyError::Socket)?;
    while filling.held() > 0 {
        // The next bytes come in while the last are hashed and written.
        let (filled, stored) = tokio::join!(fill(socket, &mut idle, &mut left, inflow), sink.splice(filling));
        let stored = stored.map_err(BodyError::Sink)?;
        filled.map_err(BodyError::Socket)?;
        (filling, idle) = (idle, stored);
    }
    Ok((filling, idle))
}

/// Fills a pipe with what comes, up to a step, the rest of the body, or a batch after which nothing is there.
async fn fill(socket: &TcpStream, pipe: &mut Pipe, left: &mut u64, inflow: &Inflow) -> io::Result<()> {
    while *left > 0 && pipe.held() < STEP_BYTES {
        inflow.ready().await;
        let room = usize::try_from(*left).unwrap_or(usize::MAX).min(STEP_BYTES - pipe.held());
        match pipe.fill_from_socket(socket, room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(filled) => {
                *left -= filled as u64;
                inflow.count(filled as u64);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // Either nothing is there, or nothing fits: small segments take a place of the pipe each.
                if pipe.held() >= BATCH_BYTES || (pipe.held() > 0 && has_bytes(socket)?) {
                    return Ok(());
                }
                let waited = timeout(IDLE_LIMIT, socket.async_io(Interest::READABLE, || peek(socket))).await;
                waited.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn has_bytes(socket: &TcpStream) -> io::Result<bool> {
    match peek(socket) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether something (or the end) is there to be read.
fn peek(socket: &TcpStream) -> io::Result<()> {
    recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::Accounting;
    use crate::metrics::Metrics;
    use hawker_abi::Class;
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

        async fn splice(&mut self, mut pipe: Pipe) -> Result<Pipe, String> {
            self.spliced += pipe.held();
            self.bytes.extend(pipe.take().map_err(|error| error.to_string())?);
            Ok(pipe)
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
