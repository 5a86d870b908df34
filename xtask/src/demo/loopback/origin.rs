//! A registry just big enough to be an origin: blobs by digest, with `Range`, and a count of what it sent.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A client that is silent for this long is dropped.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Origin {
    pub(super) addr: SocketAddr,
    sent: Arc<AtomicU64>,
}

pub(super) fn digest(blob: &[u8]) -> String {
    let hex = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

impl Origin {
    /// Serves until the process ends.
    pub(super) fn start(blobs: Vec<Vec<u8>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen as the origin")?;
        let addr = listener.local_addr().context("the origin's address")?;
        let sent = Arc::new(AtomicU64::new(0));
        let named: Vec<(String, Vec<u8>)> = blobs.into_iter().map(|blob| (digest(&blob), blob)).collect();
        let (shared, counter) = (Arc::new(named), Arc::clone(&sent));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (blobs, sent) = (Arc::clone(&shared), Arc::clone(&counter));
                // A client that goes away in the middle is none of the origin's business.
                std::thread::spawn(move || drop(serve(socket, &blobs, &sent)));
            }
        });
        Ok(Self { addr, sent })
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

fn serve(socket: TcpStream, blobs: &[(String, Vec<u8>)], sent: &AtomicU64) -> Result<()> {
    socket.set_read_timeout(Some(IDLE_LIMIT))?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut socket = socket;
    loop {
        let (mut first, mut range) = (String::new(), None);
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            range = line.strip_prefix("range: bytes=").map(str::to_owned).or(range);
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let Some((_, blob)) = blobs.iter().find(|(digest, _)| path.ends_with(digest.as_str())) else {
            write!(socket, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let (start, last) = span(range.as_deref(), blob.len());
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let size = blob.len();
        write!(socket, "HTTP/1.1 {status}\r\nContent-Range: bytes {start}-{}/{size}\r\n", last - 1)?;
        write!(socket, "Content-Length: {}\r\n\r\n", last - start)?;
        socket.write_all(&blob[start..last])?;
        sent.fetch_add((last - start) as u64, Ordering::SeqCst);
    }
}

fn span(range: Option<&str>, size: usize) -> (usize, usize) {
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else { return (0, size) };
    let first = first.parse().unwrap_or(0).min(size);
    (first, last.parse().map_or(size, |last: usize| (last + 1).min(size)).max(first))
}
