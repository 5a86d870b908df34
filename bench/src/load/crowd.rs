//! Connections that do nothing good: idle ones, readers that stop, clients that come and go.
//!
//! Invariant: what is opened here is closed when the call returns.

use super::LoadError;
use super::connection::{ask, open, request_line};
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Connections open at once while coming and going.
const CHURN_OPEN: usize = 48;
/// Receive buffer of a reader that stops, bytes: what it takes before the server notices.
const STOPPED_RECEIVE_BYTES: usize = 64 << 10;
/// Pause after which idle connections have been accepted by everybody.
const SETTLE: Duration = Duration::from_millis(500);

/// Who comes.
#[derive(Debug, Clone)]
pub struct Crowd {
    pub server: SocketAddrV4,
    pub sources: Vec<Ipv4Addr>,
    pub path: String,
    pub connections: usize,
    /// First range asked by everybody, from the blob's beginning, bytes; 0: nothing is asked.
    pub asked_bytes: u64,
    /// Whether the answer is read.
    pub read: bool,
}

/// Opens all, asks, reads or does not read, calls `ready`, closes all.
///
/// # Errors
/// [`LoadError`] where not everybody got in.
pub fn hold(crowd: &Crowd, ready: impl FnOnce()) -> Result<(), LoadError> {
    let line = request_line(&crowd.path, crowd.server);
    let mut open_ones = Vec::with_capacity(crowd.connections);
    for index in 0..crowd.connections {
        let socket = open(crowd.server, crowd.sources[index % crowd.sources.len()], None)?;
        if !crowd.read {
            let set = setsockopt(&socket, sockopt::RcvBuf, &STOPPED_RECEIVE_BYTES);
            set.map_err(LoadError::io("shrink a receive buffer"))?;
        }
        if crowd.asked_bytes > 0 {
            ask(&socket, &line, &(0..crowd.asked_bytes))?;
            if crowd.read {
                read_some(&socket, crowd.asked_bytes)?;
            }
        }
        open_ones.push(socket);
    }
    std::thread::sleep(SETTLE);
    ready();
    drop(open_ones);
    Ok(())
}

/// Reads until `bytes` came; the head makes it a little more than that.
fn read_some(socket: &OwnedFd, bytes: u64) -> Result<(), LoadError> {
    let (mut came, mut buffer) = (0, vec![0; 64 << 10]);
    while came < bytes {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) => return Err(LoadError::Closed),
            Ok(count) => came += count as u64,
            Err(nix::errno::Errno::EAGAIN) => std::thread::sleep(Duration::from_micros(50)),
            Err(errno) => return Err(LoadError::io("receive")(errno)),
        }
    }
    // What is left of the answer is the length of its head.
    std::thread::sleep(Duration::from_micros(200));
    let _ = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
    Ok(())
}

/// `cycles` clients that connect, do one of a few rude things and go: half a head, a request whose answer
/// is not read, some of the answer; by reset or by an ordinary close.
///
/// # Errors
/// [`LoadError`] where the server stopped to accept.
pub fn churn(crowd: &Crowd, cycles: usize) -> Result<(), LoadError> {
    let line = request_line(&crowd.path, crowd.server);
    let mut random = StdRng::seed_from_u64(1);
    let mut open_ones: VecDeque<OwnedFd> = VecDeque::new();
    let mut buffer = vec![0; 64 << 10];
    for cycle in 0..cycles {
        let socket = open(crowd.server, crowd.sources[cycle % crowd.sources.len()], None)?;
        match random.random_range(0..4) {
            0 => {}
            1 => {
                let _ = nix::sys::socket::send(socket.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_NOSIGNAL);
            }
            _ => ask(&socket, &line, &(0..crowd.asked_bytes))?,
        }
        if random.random_bool(0.5) {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&socket, sockopt::Linger, &linger).map_err(LoadError::io("ask for a reset"))?;
        }
        open_ones.push_back(socket);
        if open_ones.len() >= CHURN_OPEN
            && let Some(oldest) = open_ones.pop_front()
            && random.random_bool(0.5)
        {
            // Some of the answer was read, the rest is thrown at it.
            let _ = recv(oldest.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        }
    }
    Ok(())
}
