//! What the kernel tells of interfaces over rtnetlink: their queues, and what they counted. No privilege is needed.
//!
//! Not routes and addresses, which `uplinks` finds elsewhere. Invariant: no answer panics, and no wait is without end.

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Longest wait for an answer of the kernel, seconds.
const ANSWER_LIMIT_S: i64 = 1;
/// Largest part of an answer, bytes; the kernel makes them of 32 KiB.
const ANSWER_BYTES: usize = 64 << 10;
/// Most parts of an answer read: a few queues each of thousands of interfaces.
const MAX_PARTS: usize = 4096;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`
const ASK: u16 = 1;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const HEADER_BYTES: usize = 16;
const TCMSG_BYTES: usize = 20;
/// `struct if_stats_msg`
const STATS_BYTES: usize = 12;
/// The bit of `IFLA_STATS_LINK_64` in a request, and its number in the answer.
const LINK_64: u32 = 1;
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
/// In [`TCA_STATS2`]: `struct gnet_stats_queue`.
const TCA_STATS_QUEUE: u16 = 3;
/// `TC_H_ROOT`
pub(super) const ROOT: u32 = u32::MAX;

/// A queue of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) interface: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    pub(super) kind: String,
    /// Bytes that wait.
    pub(super) backlog: u32,
    pub(super) drops: u32,
}

/// What an interface counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LinkBytes {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// A conversation with the kernel. After an error, begin another: late answers would be taken for the next ones.
pub(super) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_LIMIT_S, 0))?;
        Ok(Self { socket, buffer: vec![0; ANSWER_BYTES] })
    }

    /// All queues of all interfaces.
    pub(super) fn queues(&mut self) -> io::Result<Vec<Queue>> {
        self.ask(RTM_GETQDISC, DUMP, &[0; TCMSG_BYTES])?;
        let mut found = Vec::new();
        for _ in 0..MAX_PARTS {
            let part = self.part()?;
            if parse(part, RTM_NEWQDISC, |body| found.extend(queue(body))) {
                return Ok(found);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// What the interface of this index counted; `None`: there is none.
    pub(super) fn counted(&mut self, interface: u32) -> io::Result<Option<LinkBytes>> {
        let mut body = [0; STATS_BYTES];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        body[8..].copy_from_slice(&LINK_64.to_ne_bytes());
        self.ask(RTM_GETSTATS, ASK, &body)?;
        let mut found = None;
        parse(self.part()?, RTM_NEWSTATS, |body| found = link_bytes(body));
        Ok(found)
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let bytes = HEADER_BYTES + body.len();
        let mut request = vec![0; HEADER_BYTES];
        request[..4].copy_from_slice(&u32::try_from(bytes).unwrap_or(0).to_ne_bytes());
        request[4..6].copy_from_slice(&kind.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        request.extend_from_slice(body);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        Ok(())
    }

    fn part(&mut self) -> io::Result<&[u8]> {
        let bytes = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        Ok(&self.buffer[..bytes])
    }
}

/// Gives what a part of the answer tells; true: it was the last.
fn parse(mut part: &[u8], wanted: u16, mut tell: impl FnMut(&[u8])) -> bool {
    while let Some(bytes) = number(part, 0).map(|bytes| bytes as usize) {
        let Some(message) = part.get(..bytes).filter(|message| message.len() >= HEADER_BYTES) else {
            return true;
        };
        match short(message, 4) {
            Some(NLMSG_DONE | NLMSG_ERROR) | None => return true,
            Some(kind) if kind == wanted => tell(&message[HEADER_BYTES..]),
            Some(_) => {}
        }
        part = part.get(bytes.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn queue(body: &[u8]) -> Option<Queue> {
    let (interface, handle, parent) = (number(body, 4)?, number(body, 8)?, number(body, 12)?);
    let attributes = body.get(TCMSG_BYTES..)?;
    let kind = attribute(attributes, TCA_KIND)?;
    let kind = String::from_utf8_lossy(kind).trim_end_matches('\0').to_owned();
    let stats = attribute(attributes, TCA_STATS2).and_then(|stats| attribute(stats, TCA_STATS_QUEUE));
    let figure = |at| stats.and_then(|stats| number(stats, at)).unwrap_or(0);
    Some(Queue { interface, handle, parent, kind, backlog: figure(4), drops: figure(8) })
}

fn link_bytes(body: &[u8]) -> Option<LinkBytes> {
    // struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, …
    let stats = attribute(body.get(STATS_BYTES..)?, 1)?;
    let long = |at: usize| Some(u64::from_ne_bytes(stats.get(at..at + 8)?.try_into().ok()?));
    Some(LinkBytes { received: long(16)?, sent: long(24)? })
}

/// The value of the first attribute of this type.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(bytes), Some(kind)) = (short(attributes, 0), short(attributes, 2)) {
        let bytes = usize::from(bytes);
        let value = attributes.get(4..bytes)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(bytes.next_multiple_of(4)..)?;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_answers() {
        let mut netlink = Netlink::open().unwrap();
        let queues = netlink.queues().unwrap();
        assert!(queues.iter().all(|queue| !queue.kind.is_empty()), "{queues:?}");
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        let before = netlink.counted(loopback).unwrap().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[0; 1000], socket.local_addr().unwrap()).unwrap();
        let after = netlink.counted(loopback).unwrap().unwrap();
        assert!(after.sent >= before.sent + 1000 && after.received >= before.received + 1000);
        assert_eq!(netlink.counted(i32::MAX as u32).unwrap(), None);
        assert!(netlink.counted(loopback).unwrap().is_some(), "an error leaves nothing behind");
    }

    proptest! {
        #[test]
        fn no_answer_panics(part: Vec<u8>, body: Vec<u8>) {
            parse(&part, RTM_NEWQDISC, |body| drop(queue(body)));
            let _ = (queue(&body), link_bytes(&body));
        }
    }
}
