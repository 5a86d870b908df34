//! `bench-naive`: the file server one writes first. Every range is read into a vector by `tokio::fs` and
//! written by `write_all`.
//!
//! A rival to measure against, not an example. Invariant: it answers the load generator's requests
//! correctly; nothing in it is made slow on purpose.

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Longest line of a request head, bytes.
const MAX_LINE_BYTES: u64 = 8 << 10;
/// Longest range, bytes.
const MAX_RANGE_BYTES: u64 = 64 << 20;

/// A naive server of one directory's files.
#[derive(Parser)]
#[command(name = "bench-naive")]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    /// `path=file`: what is served under which path.
    #[arg(long = "serve", required = true)]
    served: Vec<String>,
}

type Served = Vec<(String, PathBuf)>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let pairs = arguments.served.iter().map(|pair| pair.split_once('=').context("--serve path=file"));
    let served: Arc<Served> = Arc::new(
        pairs
            .map(|pair| pair.map(|(path, file)| (path.to_owned(), PathBuf::from(file))))
            .collect::<Result<_>>()?,
    );
    let listener = TcpListener::bind(arguments.listen).await.context("listen")?;
    loop {
        let (socket, _) = listener.accept().await.context("accept")?;
        let served = Arc::clone(&served);
        // A client that misbehaves loses its own connection.
        tokio::spawn(async move { serve(socket, &served).await.ok() });
    }
}

async fn serve(socket: TcpStream, served: &Served) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    let mut opened: Option<(String, File)> = None;
    while let Some((path, range)) = request(&mut socket).await? {
        let same = opened.as_ref().is_some_and(|(open, _)| *open == path);
        if !same {
            let file = served.iter().find(|(name, _)| *name == path).context("no such path")?;
            opened = Some((path, open(&file.1).await?));
        }
        let Some((_, file)) = &mut opened else { bail!("nothing open") };
        answer(socket.get_mut(), file, range).await?;
    }
    Ok(())
}

async fn open(path: &Path) -> Result<File> {
    File::open(path).await.with_context(|| format!("open {}", path.display()))
}

async fn answer(socket: &mut TcpStream, file: &mut File, range: Range<u64>) -> Result<()> {
    let length = range.end.saturating_sub(range.start);
    anyhow::ensure!((1..=MAX_RANGE_BYTES).contains(&length), "a range of {length} bytes");
    let mut body = vec![0; usize::try_from(length)?];
    file.seek(std::io::SeekFrom::Start(range.start)).await?;
    file.read_exact(&mut body).await?;
    let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(&body).await?;
    Ok(())
}

/// Path and range of the next request; `None` where the client closed.
async fn request(socket: &mut BufReader<TcpStream>) -> Result<Option<(String, Range<u64>)>> {
    let (mut path, mut range) = (None, None);
    loop {
        let mut line = String::new();
        if socket.take(MAX_LINE_BYTES).read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some((path.context("no request line")?, range.context("no range")?)));
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().map(str::to_owned);
        } else if let Some((first, last)) = line.strip_prefix("Range: bytes=").and_then(|r| r.split_once('-'))
        {
            range = Some(first.parse()?..last.parse::<u64>()? + 1);
        }
    }
}
