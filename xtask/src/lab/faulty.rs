//! A registry or a peer that misbehaves: a proxy before the lab's own one, broken in a way that can be changed.
//!
//! Invariant: what is not broken passes as it is, and every connection ends with the proxy.

use super::network;
use crate::netns;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

const PORT: u16 = 5004;
const REGISTRY_PORT: u16 = 5000;
/// Where daemons serve pieces.
const PEER_PORT: u16 = 4000;
/// Bytes of a body that pass before something happens to it.
const GOOD_BYTES: usize = 1 << 20;
const READ_LIMIT: Duration = Duration::from_secs(20);

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    None,
    /// Connections are reset.
    Dead,
    /// Takes requests and never answers.
    Silent,
    /// Bodies of blobs stop after a mebibyte.
    Stalls,
    /// Bodies of blobs come at a byte a second after a mebibyte.
    Crawls,
    /// A byte of each blob is another one.
    Corrupts,
    /// 500 for everything.
    Errors,
    /// Redirects blobs to themselves.
    Loops,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] =
        [Self::Dead, Self::Silent, Self::Stalls, Self::Crawls, Self::Errors, Self::Loops, Self::Corrupts];

    fn from(number: u8) -> Self {
        Self::ALL.into_iter().find(|fault| *fault as u8 == number).unwrap_or(Self::None)
    }
}

/// The running proxy.
pub(crate) struct Faulty {
    fault: Arc<AtomicU8>,
    ended: Arc<AtomicBool>,
}

impl Faulty {
    /// Before the lab's registry, at [`Self::url`].
    pub(crate) fn before_registry() -> Result<Self> {
        Self::start("origin", (network::ORIGIN, PORT), REGISTRY_PORT)
    }

    /// Before the peer on a node whose daemon serves pieces on loopback alone.
    pub(crate) fn before_peer(node: &str, ip: Ipv4Addr) -> Result<Self> {
        Self::start(node, (ip, PEER_PORT), PEER_PORT)
    }

    fn start(node: &str, address: (Ipv4Addr, u16), behind: u16) -> Result<Self> {
        let namespace = netns::name(node);
        let listener =
            netns::within(&namespace, || TcpListener::bind(address).context("listen as what misbehaves"))?;
        listener.set_nonblocking(true).context("make the faulty proxy's socket non-blocking")?;
        let (fault, ended) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, until) = (Arc::clone(&fault), Arc::clone(&ended));
        std::thread::spawn(move || {
            // Threads made in here stay in the namespace.
            let served = netns::within(&namespace, || {
                while !until.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let (fault, until) =
                                (Fault::from(seen.load(Ordering::Relaxed)), Arc::clone(&until));
                            std::thread::spawn(move || {
                                // A client that goes away is part of the game.
                                let _ = serve(&stream, behind, fault, &until);
                                let _ = stream.shutdown(Shutdown::Both);
                            });
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
                Ok(())
            });
            if let Err(error) = served {
                eprintln!("faulty proxy: {error:#}");
            }
        });
        Ok(Self { fault, ended })
    }

    pub(crate) fn url() -> String {
        format!("http://{}:{PORT}", network::ORIGIN)
    }

    /// From the next connection on.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn serve(client: &TcpStream, behind: u16, fault: Fault, ended: &AtomicBool) -> Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(READ_LIMIT))?;
    if fault == Fault::Dead {
        return Ok(socket2::SockRef::from(client).set_linger(Some(Duration::ZERO))?);
    }
    let request = head(client)?;
    let line = request.lines().next().unwrap_or_default().to_owned();
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    // What a peer tells of the pieces it holds is no blob.
    let blob = line.starts_with("GET ") && path.contains("/blobs/") && !path.ends_with("/have");
    let mut out = client;
    match fault {
        Fault::Silent => wait(ended),
        Fault::Errors => {
            out.write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        }
        Fault::Loops if blob => {
            let answer = "HTTP/1.1 307 Again\r\nContent-Length: 0\r\nConnection: close\r\nLocation: ";
            out.write_all(format!("{answer}{path}\r\n\r\n").as_bytes())?;
        }
        fault => pass((client, behind), &request, if blob { fault } else { Fault::None }, ended)?,
    }
    Ok(())
}

/// Passes a request on and its answer back, the body with its fault.
fn pass((client, behind): (&TcpStream, u16), request: &str, fault: Fault, ended: &AtomicBool) -> Result<()> {
    let sound = TcpStream::connect(("127.0.0.1", behind)).context("connect to what is sound")?;
    sound.set_read_timeout(Some(READ_LIMIT))?;
    let rest: Vec<&str> = request.lines().filter(|line| !line.is_empty()).collect();
    let kept = rest.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let kept: Vec<&str> = kept.copied().collect();
    let (mut out, mut back) = (&sound, client);
    out.write_all(format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n")).as_bytes())?;
    back.write_all(head(&sound)?.as_bytes())?;
    let (mut sent, mut buffer) = (0usize, vec![0; 64 << 10]);
    loop {
        let read = out.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        let bytes = &mut buffer[..read];
        match fault {
            Fault::Corrupts if sent == 0 => bytes[read / 2] ^= 1,
            Fault::Stalls if sent >= GOOD_BYTES => wait(ended),
            Fault::Crawls if sent >= GOOD_BYTES => {
                for byte in bytes.iter() {
                    if ended.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    back.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_secs(1));
                }
                continue;
            }
            _ => {}
        }
        back.write_all(bytes)?;
        sent += read;
    }
}

fn wait(ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Up to and with the empty line.
fn head(mut stream: &TcpStream) -> Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}
