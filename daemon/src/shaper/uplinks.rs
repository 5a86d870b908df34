//! Which interfaces lead to other nodes, and whether the `fq` queue paces what leaves on them.
//!
//! Invariant: in doubt there is no fair queue: departure times without one are no limit at all, while the shared
//! clock under one only sends too slowly.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

/// Most interfaces counted.
const MAX_UPLINKS: usize = 16;
/// Longest wait for an answer of the kernel, seconds.
const ANSWER_LIMIT_S: i64 = 1;
/// Largest part of an answer, bytes; the kernel makes them of 32 KiB.
const ANSWER_BYTES: usize = 64 << 10;
/// Most parts of an answer read: a few queues each of thousands of interfaces.
const MAX_PARTS: usize = 4096;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const HEADER_BYTES: usize = 16;
const TCMSG_BYTES: usize = 20;
/// Both.
const REQUEST_BYTES: u32 = 36;
const TCA_KIND: u16 = 1;
/// `TC_H_ROOT`
const ROOT: u32 = u32::MAX;

/// Index and name of the interfaces with a default route; where there is none, of all that are up and have an
/// address of more than local scope.
pub(super) fn find() -> Vec<(u32, String)> {
    let mut names = default_routes(
        &std::fs::read_to_string("/proc/net/route").unwrap_or_default(),
        &std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default(),
    );
    if names.is_empty() {
        names = addressed();
    }
    let indexed = |name: String| Some((if_nametoindex(name.as_str()).ok()?, name));
    names.into_iter().filter_map(indexed).take(MAX_UPLINKS).collect()
}

fn default_routes(v4: &str, v6: &str) -> BTreeSet<String> {
    let v4 = v4.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000"))
            .then(|| fields[0].to_owned())
    });
    let v6 = v6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = fields.first()?.bytes().all(|byte| byte == b'0') && fields.get(1) == Some(&"00");
        default.then(|| fields.last().map(|name| (*name).to_owned()))?
    });
    v4.chain(v6).filter(|name| name != "lo").collect()
}

fn addressed() -> BTreeSet<String> {
    let Ok(addresses) = getifaddrs() else { return BTreeSet::new() };
    let reaches = addresses.filter(|entry| {
        let up = entry.flags.contains(InterfaceFlags::IFF_UP)
            && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let address = entry.address.as_ref();
        let v4 = address.and_then(|address| address.as_sockaddr_in()).is_some();
        let v6 = address.and_then(|address| address.as_sockaddr_in6()).map(|address| address.ip());
        up && (v4 || v6.is_some_and(|ip| !ip.is_unicast_link_local()))
    });
    reaches.map(|entry| entry.interface_name).collect()
}

/// A queue of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Queue {
    interface: u32,
    handle: u32,
    parent: u32,
    kind: String,
}

/// What paces what leaves on `uplinks`: `Ok` names them where all have `fq`, `Err` says what is in the way.
pub(super) fn fair_queue(uplinks: &[(u32, String)]) -> Result<String, String> {
    if uplinks.is_empty() {
        return Err("no uplink is known".to_owned());
    }
    let queues = queues().map_err(|error| format!("ask the kernel for its queues: {error}"))?;
    for (index, name) in uplinks {
        if let Err(kind) = is_fair(*index, &queues) {
            return Err(format!("{name} is queued by {kind}, not fq"));
        }
    }
    let names: Vec<&str> = uplinks.iter().map(|(_, name)| name.as_str()).collect();
    Ok(format!("fq on {}", names.join(", ")))
}

/// `fq` at the root, or `mq` whose every leaf is `fq`.
fn is_fair(interface: u32, queues: &[Queue]) -> Result<(), String> {
    let of_it = || queues.iter().filter(|queue| queue.interface == interface);
    let Some(root) = of_it().find(|queue| queue.parent == ROOT) else {
        return Err("nothing known".to_owned());
    };
    if root.kind != "mq" {
        return if root.kind == "fq" { Ok(()) } else { Err(root.kind.clone()) };
    }
    let mut leaves = of_it().filter(|queue| queue.parent != ROOT && queue.parent >> 16 == root.handle >> 16);
    match (leaves.clone().next(), leaves.find(|leaf| leaf.kind != "fq")) {
        (None, _) => Err("mq without leaves".to_owned()),
        (_, Some(other)) => Err(format!("mq with {}", other.kind)),
        (Some(_), None) => Ok(()),
    }
}

fn queues() -> io::Result<Vec<Queue>> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_LIMIT_S, 0))?;
    let mut request = [0u8; REQUEST_BYTES as usize];
    request[..4].copy_from_slice(&REQUEST_BYTES.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETQDISC.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let (mut found, mut buffer) = (Vec::new(), vec![0; ANSWER_BYTES]);
    for _ in 0..MAX_PARTS {
        let bytes = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if parse(&buffer[..bytes], &mut found) {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Adds what a part of the answer tells; true: it was the last.
fn parse(mut part: &[u8], found: &mut Vec<Queue>) -> bool {
    while let Some(bytes) = number(part, 0).map(|bytes| bytes as usize) {
        let Some(message) = part.get(..bytes).filter(|message| message.len() >= HEADER_BYTES) else {
            return true;
        };
        match short(message, 4) {
            Some(NLMSG_DONE | NLMSG_ERROR) | None => return true,
            Some(RTM_NEWQDISC) => found.extend(queue(&message[HEADER_BYTES..])),
            Some(_) => {}
        }
        part = part.get(bytes.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn queue(body: &[u8]) -> Option<Queue> {
    let (interface, handle, parent) = (number(body, 4)?, number(body, 8)?, number(body, 12)?);
    let mut attributes = body.get(TCMSG_BYTES..)?;
    while let (Some(bytes), Some(kind)) = (short(attributes, 0), short(attributes, 2)) {
        let bytes = usize::from(bytes);
        let value = attributes.get(4..bytes)?;
        if kind == TCA_KIND {
            let kind = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
            return Some(Queue { interface, handle, parent, kind });
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

    fn queue(interface: u32, handle: u32, parent: u32, kind: &str) -> Queue {
        Queue { interface, handle, parent, kind: kind.to_owned() }
    }

    #[test]
    fn fair_is_fq_at_the_root_or_at_every_leaf() {
        let queues = [
            queue(2, 0x8001_0000, ROOT, "fq"),
            queue(3, 0x1_0000, ROOT, "mq"),
            queue(3, 0x10_0000, 0x1_0001, "fq"),
            queue(3, 0x11_0000, 0x1_0002, "fq"),
            queue(4, 0, ROOT, "mq"),
            queue(4, 0, 1, "fq"),
            queue(4, 0, 2, "fq_codel"),
            queue(5, 0, ROOT, "noqueue"),
            queue(5, 0xffff_0000, 0xffff_fff1, "clsact"),
        ];
        assert!(is_fair(2, &queues).is_ok() && is_fair(3, &queues).is_ok());
        assert_eq!(is_fair(4, &queues), Err("mq with fq_codel".to_owned()));
        assert_eq!(is_fair(5, &queues), Err("noqueue".to_owned()));
        assert_eq!(is_fair(6, &queues), Err("nothing known".to_owned()));
    }

    #[test]
    fn the_kernel_answers() {
        let queues = queues().unwrap();
        assert!(queues.iter().all(|queue| !queue.kind.is_empty()), "{queues:?}");
    }

    #[test]
    fn default_routes_are_found() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                  eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
                  eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let zeros = "0".repeat(32);
        let v6 = format!(
            "{zeros} 00 {zeros} 00 fe80 00000400 00000001 00000000 00000003     eth2\n\
                          {zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default_routes(v4, &v6).into_iter().collect::<Vec<_>>(), ["eth0", "eth2"]);
    }

    proptest! {
        #[test]
        fn no_answer_panics(part: Vec<u8>) {
            parse(&part, &mut Vec::new());
        }
    }
}
