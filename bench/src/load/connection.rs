//! One connection of the load generator: asks for a range, takes the answer apart.
//!
//! Invariant: an answer that is not 206 with exactly the asked length ends the run.

use super::{Body, LoadError, Plan};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, getsockopt, recv, send,
    setsockopt, socket, sockopt,
};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Longest response head, bytes; what comes with it belongs to the body.
const MAX_HEAD_BYTES: usize = 1024;
const MAX_HEADERS: usize = 32;
/// Buffer of a copying receiver, bytes: what a plain program would use.
const COPY_BYTES: usize = 256 << 10;
/// Most that is dropped by one call, bytes: the largest piece.
const DISCARD_BYTES: usize = 16 << 20;
/// Calls on one connection before the next one's turn.
const RECEIVES_PER_TURN: usize = 2;

/// Where bodies go.
pub(super) struct Taken {
    /// With `MSG_TRUNC` only its length matters; its pages are never touched.
    buffer: Vec<u8>,
    flags: MsgFlags,
    compare: Option<(File, Vec<u8>)>,
}

impl Taken {
    pub(super) fn new(body: &Body) -> Self {
        let buffer = |bytes| vec![0; bytes];
        let quiet = MsgFlags::MSG_DONTWAIT;
        match body {
            Body::Discard => {
                Self { buffer: buffer(DISCARD_BYTES), flags: quiet | MsgFlags::MSG_TRUNC, compare: None }
            }
            Body::Copy => Self { buffer: buffer(COPY_BYTES), flags: quiet, compare: None },
            Body::Compare(file) => {
                let compare = file.try_clone().ok().map(|file| (file, buffer(COPY_BYTES)));
                Self { buffer: buffer(COPY_BYTES), flags: quiet, compare }
            }
        }
    }

    /// Receives body bytes that stand at `offset` of the blob, at most `left`.
    fn receive(&mut self, socket: RawFd, offset: u64, left: u64) -> Result<Option<u64>, LoadError> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        let Some(count) = receive(socket, &mut self.buffer[..most], self.flags)? else { return Ok(None) };
        if let Some((file, expected)) = &mut self.compare {
            compare(file, expected, &self.buffer[..count], offset)?;
        }
        Ok(Some(count as u64))
    }

    /// Body bytes that came together with the head.
    fn came_along(&mut self, bytes: &[u8], offset: u64) -> Result<(), LoadError> {
        match &mut self.compare {
            Some((file, expected)) => compare(file, expected, bytes, offset),
            None => Ok(()),
        }
    }
}

fn compare(file: &File, expected: &mut [u8], bytes: &[u8], offset: u64) -> Result<(), LoadError> {
    let expected = &mut expected[..bytes.len()];
    let failed = |source| LoadError::Io { act: "read the file to compare with", source };
    file.read_exact_at(expected, offset).map_err(failed)?;
    match bytes.iter().zip(expected.iter()).position(|(came, right)| came != right) {
        None => Ok(()),
        Some(at) => Err(LoadError::Mismatch { offset: offset + at as u64 }),
    }
}

/// `None`: nothing there yet.
fn receive(socket: RawFd, buffer: &mut [u8], flags: MsgFlags) -> Result<Option<usize>, LoadError> {
    match recv(socket, buffer, flags) {
        Ok(0) => Err(LoadError::Closed),
        Ok(count) => Ok(Some(count)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(LoadError::Io { act: "receive", source: errno.into() }),
    }
}

pub(super) struct Connection {
    socket: OwnedFd,
    pub(super) stream: usize,
    pub(super) window_bytes: u64,
    request_line: String,
    asked_at: Instant,
    range: Range<u64>,
    /// What came of the head so far; empty once it was read.
    head: Vec<u8>,
    /// Where the next body byte stands; `None` while the head is outstanding.
    next: Option<u64>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    pub(super) fn open(plan: &Plan, from: Ipv4Addr, path: &str, stream: usize) -> Result<Self, LoadError> {
        let socket = open(plan.server, from, plan.congestion.as_deref())?;
        let request_line = request_line(path, plan.server);
        let (asked_at, head) = (Instant::now(), Vec::with_capacity(MAX_HEAD_BYTES));
        Ok(Self { socket, stream, window_bytes: 0, request_line, asked_at, range: 0..0, head, next: None })
    }

    pub(super) fn ask(&mut self, range: Range<u64>) -> Result<(), LoadError> {
        ask(&self.socket, &self.request_line, &range)?;
        self.asked_at = Instant::now();
        (self.range, self.next) = (range, None);
        self.head.clear();
        Ok(())
    }

    /// Takes what came. The time the answer took, once it is complete.
    pub(super) fn advance(&mut self, taken: &mut Taken) -> Result<Option<Duration>, LoadError> {
        for _ in 0..RECEIVES_PER_TURN {
            let came = match self.next {
                None => self.read_head(taken)?,
                Some(offset) => taken
                    .receive(self.socket.as_raw_fd(), offset, self.range.end - offset)?
                    .inspect(|count| {
                        self.next = Some(offset + count);
                    }),
            };
            let Some(count) = came else { return Ok(None) };
            self.window_bytes += count;
            if self.next == Some(self.range.end) {
                return Ok(Some(self.asked_at.elapsed()));
            }
        }
        Ok(None)
    }

    /// Reads on in the head; the number of body bytes that came along.
    fn read_head(&mut self, taken: &mut Taken) -> Result<Option<u64>, LoadError> {
        let before = self.head.len();
        self.head.resize(MAX_HEAD_BYTES, 0);
        let quiet = MsgFlags::MSG_DONTWAIT;
        let came = receive(self.socket.as_raw_fd(), &mut self.head[before..], quiet);
        self.head.truncate(before + came.as_ref().map_or(0, |count| count.unwrap_or(0)));
        if came?.is_none() {
            return Ok(None);
        }
        let Some(consumed) = check_head(&self.head, self.range.end - self.range.start)? else {
            return Ok(Some(0));
        };
        let along = &self.head[consumed..];
        if along.len() as u64 > self.range.end - self.range.start {
            return Err(LoadError::Answer { detail: "more than was asked for".to_owned() });
        }
        taken.came_along(along, self.range.start)?;
        let along = along.len() as u64;
        self.next = Some(self.range.start + along);
        Ok(Some(along))
    }

    pub(super) fn congestion(&self) -> Result<String, LoadError> {
        let name = getsockopt(&self.socket, sockopt::TcpCongestion);
        let name = name.map_err(LoadError::io("ask for the congestion control"))?;
        Ok(name.to_string_lossy().trim_end_matches('\0').to_owned())
    }
}

/// Bytes of the head, once it is whole and right.
fn check_head(received: &[u8], expected: u64) -> Result<Option<usize>, LoadError> {
    let wrong = |detail: String| LoadError::Answer { detail };
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let consumed = match head.parse(received).map_err(|error| wrong(error.to_string()))? {
        httparse::Status::Complete(consumed) => consumed,
        httparse::Status::Partial if received.len() >= MAX_HEAD_BYTES => {
            return Err(wrong("a head that does not end".to_owned()));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<u64>().ok());
    if head.code != Some(206) || length != Some(expected) {
        return Err(wrong(format!("status {:?}, {length:?} of {expected} bytes", head.code)));
    }
    Ok(Some(consumed))
}

pub(super) fn request_line(path: &str, server: SocketAddrV4) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nRange: bytes=")
}

pub(super) fn ask(socket: &OwnedFd, request_line: &str, range: &Range<u64>) -> Result<(), LoadError> {
    let request = format!("{request_line}{}-{}\r\n\r\n", range.start, range.end - 1);
    let sent = send(socket.as_raw_fd(), request.as_bytes(), MsgFlags::MSG_NOSIGNAL);
    match sent.map_err(LoadError::io("send a request"))? {
        sent if sent == request.len() => Ok(()),
        _ => Err(LoadError::Io { act: "send a whole request", source: io::ErrorKind::WriteZero.into() }),
    }
}

/// A connection from one of our addresses: no Nagle, not blocking.
pub(super) fn open(to: SocketAddrV4, from: Ipv4Addr, congestion: Option<&str>) -> Result<OwnedFd, LoadError> {
    let made = || -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        if let Some(name) = congestion {
            setsockopt(&socket, sockopt::TcpCongestion, &name.into())?;
        }
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
        connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(socket)
    };
    made().map_err(|errno| LoadError::Connect { from, to, source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_length_passes() {
        let head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\nabc";
        assert_eq!(check_head(head, 10).unwrap(), Some(head.len() - 3));
        assert_eq!(check_head(&head[..20], 10).unwrap(), None);
        assert!(check_head(head, 11).is_err());
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
        assert!(check_head(whole, 10).is_err());
    }
}
