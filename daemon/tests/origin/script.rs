//! An origin that follows a script: exact bytes on a loopback socket, and silence where a test wants it.
//!
//! Shared by the tests of the origin client and of the mirror.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

type Answer = dyn Fn(&str) -> Vec<Step> + Send + Sync;

/// What the origin does next on a connection; after the last step it closes.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Says nothing for a while.
    Pause(std::time::Duration),
    /// Says nothing more, and does not close either.
    Stall,
}

/// A running scripted origin; ends on drop.
pub(crate) struct Script {
    pub(crate) addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Script {
    /// Answers each request (one a connection) with what `answer` makes of its head.
    pub(crate) async fn start(answer: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let answer: Arc<Answer> = Arc::new(answer);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(play(stream, Arc::clone(&answer), Arc::clone(&seen)));
            }
        });
        Self { addr, heads, accepting }
    }

    /// The heads of the requests so far, lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A whole answer; `Content-Length` is the body's unless `headers` has its own.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let lower = headers.to_ascii_lowercase();
    let length = if lower.contains("content-length") || lower.contains("transfer-encoding") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{length}{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

async fn play(mut stream: TcpStream, answer: Arc<Answer>, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    seen.lock().unwrap().push(head.clone());
    for step in answer(&head) {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Stall => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn the_script_is_followed_to_the_byte() {
    let script = Script::start(|_| answer("200 OK", "X: y\r\n", b"abc")).await;
    let mut stream = TcpStream::connect(script.addr).await.unwrap();
    stream.write_all(b"GET /A HTTP/1.1\r\n\r\n").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\nX: y\r\n\r\nabc");
    assert_eq!(script.heads(), ["get /a http/1.1\r\n\r\n"]);
}
