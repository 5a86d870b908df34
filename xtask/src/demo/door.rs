//! A way from this machine's browser to the manager in its network namespace: a listener on loopback, whose connections go on
//! from inside. Not part of the lab, which no packet leaves.
//!
//! Invariant: when a [`Door`] is dropped, its threads have ended and its connections are closed.

use crate::netns;
use anyhow::{Context, Result};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Connections at a time; a browser opens six.
const MAX_CONNECTIONS: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Door {
    addr: SocketAddr,
    closed: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens at 127.0.0.1:`port`, or at any port where that one is taken.
    pub(super) fn open(namespace: String, target: SocketAddr, port: u16) -> Result<Self> {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = bind(port).or_else(|_| bind(0)).context("listen for the browser")?;
        listener.set_nonblocking(true).context("listen for the browser")?;
        let addr = listener.local_addr().context("listen for the browser")?;
        let closed = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&closed);
        let accepting = thread::spawn(move || accept(&listener, &namespace, target, &told));
        Ok(Self { addr, closed, accepting: Some(accepting) })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, namespace: &str, target: SocketAddr, closed: &AtomicBool) {
    let mut passages: Vec<Passage> = Vec::new();
    while !closed.load(Ordering::Relaxed) {
        passages.retain(|passage| !passage.has_ended());
        match listener.accept() {
            Ok((outside, _)) if passages.len() < MAX_CONNECTIONS => {
                // A connection that cannot go on is closed: the browser says so.
                passages.extend(Passage::open(outside, namespace, target).ok());
            }
            Ok(_) => {}
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Two sockets, and a thread for each direction.
struct Passage {
    sockets: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Passage {
    fn open(outside: TcpStream, namespace: &str, target: SocketAddr) -> Result<Self> {
        outside.set_nonblocking(false)?;
        let inside = netns::within(namespace, || Ok(TcpStream::connect(target)?))?;
        let copy = |from: &TcpStream, to: &TcpStream| -> Result<JoinHandle<()>> {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            Ok(thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            }))
        };
        let threads = vec![copy(&outside, &inside)?, copy(&inside, &outside)?];
        Ok(Self { sockets: [outside, inside], threads })
    }

    fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
