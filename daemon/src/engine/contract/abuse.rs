//! What peers and disks do to an engine: bytes that are not in memory, files that shrink, peers that
//! stop, hang up, or ask for everything at once.

use super::{Bench, Gathered, MIB, content, put, raw, task};
use crate::engine::limits::MAX_CONNECTIONS_PER_PEER;
use crate::peer::client::PeerClient;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time for anything here.
const LIMIT: Duration = Duration::from_secs(20);

fn request(range: &str) -> String {
    format!("GET /blobs/{} HTTP/1.1\r\nRange: bytes={range}\r\n\r\n", task())
}

pub(super) async fn bytes_come_from_the_disk_too(bench: Bench) {
    let blob = put(&bench.store, 9 * MIB, &[0, 1, 2]);
    bench.store.seal(&blob).unwrap();
    let client = PeerClient::new(bench.accounting.clone());
    let mut connection = client.connect(bench.addr).await.unwrap();
    for range in [0..9 * MIB, 4097..8 * MIB - 3, MIB - 1..MIB + 1] {
        // Sealed blobs are clean: their pages go. (On tmpfs they stay, and this says nothing.)
        posix_fadvise(blob.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        let mut sink = Gathered::default();
        connection.fetch(&task(), range.clone(), &mut sink).await.unwrap();
        assert!(sink.0 == content(range.clone()), "{range:?}");
    }
}

pub(super) async fn a_file_that_shrinks_ends_the_answer(bench: Bench) {
    let blob = put(&bench.store, 60 * MIB, &(0..15).collect::<Vec<_>>());
    let mut socket = TcpStream::connect(bench.addr).await.unwrap();
    socket.write_all(request("0-").as_bytes()).await.unwrap();
    let mut answer = vec![0; 64 << 10];
    socket.read_exact(&mut answer).await.unwrap();
    blob.file().set_len(MIB).unwrap();
    tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer)).await.unwrap().ok();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let body = &answer[head..];
    assert!(body.len() < 60 << 20, "{} bytes of a file that has less", body.len());
    // Pages cut off while they were on their way may read as zeros: the child's digest is for that.
    assert!(body[..1 << 20] == content(0..MIB), "the bytes that stayed");
    assert!(raw(bench.addr, "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").await.contains("200 OK"));
}

pub(super) async fn a_thousand_requests_at_once_are_answered_in_order(bench: Bench) {
    put(&bench.store, 1000, &[0]);
    let mut all: String = (0..1000).map(|at| request(&format!("{at}-{at}"))).collect();
    all.push_str("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n");
    let socket = TcpStream::connect(bench.addr).await.unwrap();
    let (mut reading, mut writing) = socket.into_split();
    let asking = tokio::spawn(async move { writing.write_all(all.as_bytes()).await.map(|()| writing) });
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, reading.read_to_end(&mut answer)).await.unwrap().unwrap();
    asking.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer);
    let places: Vec<_> = (0..1000).map(|at| text.find(&format!("bytes {at}-{at}/1000\r\n"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    assert!(text.ends_with("ok\n"), "the last one");
}

pub(super) async fn peers_that_stop_reading_stop_nobody_else(bench: Bench) {
    let blob = put(&bench.store, 36 * MIB, &(0..9).collect::<Vec<_>>());
    bench.store.seal(&blob).unwrap();
    let mut stopped = Vec::new();
    for at in 0..MAX_CONNECTIONS_PER_PEER - 1 {
        // Some of them in the middle of what has to come from the disk: more than there are pipes.
        if at % 2 == 0 {
            posix_fadvise(blob.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        }
        let mut socket = TcpStream::connect(bench.addr).await.unwrap();
        socket.write_all(request("0-").as_bytes()).await.unwrap();
        stopped.push(socket);
    }
    posix_fadvise(blob.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    let client = PeerClient::new(bench.accounting.clone());
    let mut connection = client.connect(bench.addr).await.unwrap();
    let mut sink = Gathered::default();
    tokio::time::timeout(LIMIT, connection.fetch(&task(), 0..36 * MIB, &mut sink)).await.unwrap().unwrap();
    // And they get the right bytes when they go on after all. (Nothing is compared before: on a slow machine that takes
    // longer than a peer may stop for.)
    let mut answer = Vec::new();
    let mut last = stopped.pop().unwrap();
    let want = 36 << 20;
    while answer.len() < want {
        let read = tokio::time::timeout(LIMIT, last.read_buf(&mut answer)).await.unwrap().unwrap();
        assert!(read > 0, "cut after {} bytes", answer.len());
    }
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let content = content(0..36 * MIB);
    assert!(sink.0 == content);
    assert!(answer[head..] == content[..answer.len() - head]);
}

pub(super) async fn connections_that_break_are_forgotten(bench: Bench) {
    let blob = put(&bench.store, 9 * MIB, &[0, 1, 2]);
    for round in 0..300 {
        let mut socket = TcpStream::connect(bench.addr).await.unwrap();
        match round % 4 {
            0 => {}
            1 => socket.write_all(request("0-").as_bytes()).await.unwrap(),
            2 => {
                socket.write_all(request("5-").as_bytes()).await.unwrap();
                socket.read_exact(&mut [0; 10]).await.unwrap();
            }
            _ => socket.write_all(b"GET /blo").await.unwrap(),
        }
        if round % 50 == 0 {
            posix_fadvise(blob.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        }
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
    // All places are free again.
    let started = Instant::now();
    loop {
        let mut all = Vec::new();
        let mut answered = 0;
        for _ in 0..MAX_CONNECTIONS_PER_PEER {
            let mut socket = TcpStream::connect(bench.addr).await.unwrap();
            socket.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
            answered += usize::from(socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0));
            all.push(socket);
        }
        if answered == MAX_CONNECTIONS_PER_PEER {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{answered} places are free");
        drop(all);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
