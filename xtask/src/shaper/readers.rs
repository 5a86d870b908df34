//! Peers that read: connections that ask for the blob over and over, and count.
//!
//! Invariant: threads and connections end with the value.

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 256 << 10;
/// Answers have a head of this size at most; it counts as payload, which is what it is to the kernel.
const MAX_HEAD_BYTES: usize = 4 << 10;

/// Who asks whom for what.
pub(crate) struct Whom {
    pub(crate) from: IpAddr,
    pub(crate) to: SocketAddr,
    pub(crate) path: String,
}

pub(crate) struct Readers {
    bytes: Arc<AtomicU64>,
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Opens the connections in the caller's namespace.
    pub(crate) fn open(whom: &Whom, connections: usize) -> Result<Self> {
        let bytes = Arc::new(AtomicU64::new(0));
        let mut readers = Self { bytes, sockets: Vec::new(), threads: Vec::new() };
        for _ in 0..connections {
            let socket = Socket::new(Domain::for_address(whom.to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(whom.from, 0).into()).context("bind a reader's address")?;
            socket.connect(&whom.to.into()).with_context(|| format!("connect to {}", whom.to))?;
            let stream = TcpStream::from(socket);
            readers.sockets.push(stream.try_clone()?);
            let (bytes, path) = (Arc::clone(&readers.bytes), whom.path.clone());
            readers.threads.push(std::thread::spawn(move || {
                // The end of a connection is how a reader is told to stop.
                let _ = read(stream, &path, &bytes);
            }));
        }
        Ok(readers)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bits per second over a window that begins after `warm_up`.
    pub(crate) fn rate(&self, warm_up: Duration, window: Duration) -> f64 {
        std::thread::sleep(warm_up);
        let (started, before) = (Instant::now(), self.bytes());
        std::thread::sleep(window);
        let (bytes, took) = (self.bytes() - before, started.elapsed());
        bytes as f64 * 8.0 / took.as_secs_f64()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn read(mut stream: TcpStream, path: &str, bytes: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let request = format!("GET {path} HTTP/1.1\r\nHost: hawker\r\n\r\n");
    loop {
        // In one piece: Nagle would hold the second for a delayed acknowledgement, 40 ms.
        stream.write_all(request.as_bytes())?;
        let mut left = head(&mut stream, &mut buffer, bytes)?;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            let got = stream.read(&mut buffer[..room])?;
            anyhow::ensure!(got > 0, "the server closed");
            bytes.fetch_add(got as u64, Ordering::Relaxed);
            left -= got as u64;
        }
    }
}

/// Reads the head of an answer; returns how much of the body is still to come.
fn head(stream: &mut TcpStream, buffer: &mut [u8], bytes: &AtomicU64) -> Result<u64> {
    let mut held = 0;
    loop {
        let got = stream.read(&mut buffer[held..MAX_HEAD_BYTES])?;
        anyhow::ensure!(got > 0, "the server closed, or its head is too long");
        bytes.fetch_add(got as u64, Ordering::Relaxed);
        held += got;
        let text = String::from_utf8_lossy(&buffer[..held]).to_ascii_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        anyhow::ensure!(head.contains(" 200 "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: u64 = length.context("no length")?.trim().parse()?;
        let end = buffer[..held].windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0) + 4;
        return Ok(length - (held - end) as u64);
    }
}

/// Threads of [`crowd`].
const CROWD_THREADS: usize = 16;
/// For one connection of it.
const CROWD_LIMIT: Duration = Duration::from_secs(20);

/// Each address connects, asks for what nobody has, and reads the answer; returns how many were answered.
pub(crate) fn crowd(from: impl Iterator<Item = Ipv4Addr> + Send, to: SocketAddr) -> Result<u32> {
    let (from, answered) = (Mutex::new(from), AtomicU32::new(0));
    let namespace =
        std::fs::File::open("/proc/thread-self/ns/net").context("open this thread's namespace")?;
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                .context("enter the namespace")?;
            loop {
                crate::interrupt::check()?;
                let next = from.lock().map_err(|_| anyhow::anyhow!("another thread panicked"))?.next();
                let Some(address) = next else { return Ok(()) };
                ask(address, to).with_context(|| format!("the peer {address}"))?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
        };
        let threads: Vec<_> = (0..CROWD_THREADS).map(|_| scope.spawn(work)).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("panicked"))?);
        joined.collect::<Result<Vec<()>>>().map(drop)
    })?;
    Ok(answered.into_inner())
}

fn ask(from: Ipv4Addr, to: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from.into(), 0).into()).context("bind its address")?;
    socket.set_read_timeout(Some(CROWD_LIMIT))?;
    socket.connect_timeout(&to.into(), CROWD_LIMIT)?;
    let mut stream = TcpStream::from(socket);
    let task = "0".repeat(64);
    let request = format!("GET /blobs/sha256:{task} HTTP/1.1\r\nHost: hawker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}
