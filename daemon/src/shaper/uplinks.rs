//! Which interfaces lead to other nodes, and whether the `fq` queue paces what leaves on them.
//!
//! Invariant: in doubt there is no fair queue: departure times without one are no limit at all, while the shared
//! clock under one only sends too slowly.

use super::netlink::{Netlink, Queue, ROOT};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use std::collections::BTreeSet;

/// Most interfaces counted.
const MAX_UPLINKS: usize = 16;
/// Above this a driver does not know, Mbit/s: some say -1 as 32 bits without a sign.
const MAX_SPEED_MBIT: u64 = 10_000_000;
/// Drivers of cards that count a packet which the card, or the host behind it, is to segment as one.
const COUNTING_WHOLE: [&str; 2] = ["virtio_net", "vif"];

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

/// What an interface carries one way, bytes per second, where it is a card and its driver knows. What is made of software
/// has a number, too, and it means nothing.
pub(super) fn speed(index: u32, name: &str) -> Option<u64> {
    driver(index, name)?;
    let mbit = sys(name, "speed")?;
    (1..MAX_SPEED_MBIT).contains(&mbit).then_some(mbit * 125_000)
}

/// Whether the interface counts packets that are yet to be segmented, or came merged, as one each.
pub(super) fn counts_whole(index: u32, name: &str) -> bool {
    driver(index, name).is_none_or(|driver| COUNTING_WHOLE.contains(&driver.as_str()))
}

/// The driver of the card, `None` where there is none below the interface.
fn driver(index: u32, name: &str) -> Option<String> {
    // In a network namespace of its own, /sys may show somebody else's interface of this name.
    if sys(name, "ifindex") != Some(u64::from(index)) {
        return None;
    }
    let link = std::fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

fn sys(name: &str, file: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/{file}")).ok()?.trim().parse().ok()
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

/// What paces what leaves on `uplinks`: `Ok` names them where all have `fq`, `Err` says what is in the way.
pub(super) fn fair_queue(uplinks: &[(u32, String)]) -> Result<String, String> {
    if uplinks.is_empty() {
        return Err("no uplink is known".to_owned());
    }
    let queues = Netlink::open().and_then(|mut netlink| netlink.queues());
    let queues = queues.map_err(|error| format!("ask the kernel for its queues: {error}"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(interface: u32, handle: u32, parent: u32, kind: &str) -> Queue {
        Queue { interface, handle, parent, kind: kind.to_owned(), backlog: 0, drops: 0 }
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
}
