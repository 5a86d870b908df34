//! Where a registry may send the daemon: a redirect or a token's realm must not lead from outside into the
//! node's own network.
//!
//! The registry's own address is the operator's choice and is not judged. What the registry names afterwards
//! may be as far inside as the registry itself is, or in one of its `redirectNetworks`.
//!
//! Invariant: a name is judged by the addresses that are connected to, not by a look-up before that.

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use url::{Host, Url};

/// How far inside an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Public = 0,
    /// Private use, carrier-grade NAT, unique local.
    Private = 1,
    Loopback = 2,
    /// Link-local (clouds keep their metadata there), unspecified, multicast, broadcast, reserved.
    Nowhere = 3,
}

impl Reach {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Public,
            1 => Self::Private,
            _ => Self::Loopback,
        }
    }
}

/// Judges for one registry. Clones share what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    networks: Arc<[IpNet]>,
    /// Where the registry itself was last reached.
    registry: Arc<AtomicU8>,
}

#[derive(Debug, thiserror::Error)]
#[error("it leads to {0}, which is further inside than the registry (see redirectNetworks)")]
struct Inside(IpAddr);

impl Guard {
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self { networks: networks.into(), registry: Arc::new(AtomicU8::new(Reach::Public as u8)) }
    }

    /// The registry answered from here.
    pub(super) fn registry_is_at(&self, addr: Option<SocketAddr>) {
        // Behind a proxy it is not known, and counts as outside.
        let reach = addr.map_or(Reach::Public, |addr| reach(addr.ip())).min(Reach::Loopback);
        self.registry.store(reach as u8, Ordering::Relaxed);
    }

    pub(super) fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let from = Reach::from(self.registry.load(Ordering::Relaxed));
        reach(ip) <= from || self.networks.iter().any(|network| network.contains(&ip))
    }

    /// A URL whose host is an address; names are judged when they are resolved.
    pub(super) fn allows_literal(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(ip)) => self.allows(ip.into()),
            Some(Host::Ipv6(ip)) => self.allows(ip.into()),
            Some(Host::Domain(_)) => true,
            None => false,
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let refused = found.iter().find(|addr| !guard.allows(addr.ip())).map(SocketAddr::ip);
            let allowed: Vec<_> = found.into_iter().filter(|addr| guard.allows(addr.ip())).collect();
            match refused {
                Some(ip) if allowed.is_empty() => Err(Inside(ip).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    let [a, b, c, _] = ip.octets();
    if ip.is_loopback() {
        Reach::Loopback
    } else if ip.is_private() || (a == 100 && (64..128).contains(&b)) || (a == 198 && (18..20).contains(&b)) {
        Reach::Private
    } else if a == 0 || a >= 224 || ip.is_link_local() || (a, b, c) == (192, 0, 0) {
        Reach::Nowhere
    } else {
        Reach::Public
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let [first, second, ..] = ip.segments();
    // Addresses that stand for an IPv4 one are as far inside as that: NAT64, 6to4.
    if (first, second) == (0x64, 0xff9b) {
        let [.., a, b, c, d] = ip.octets();
        return reach_v4(Ipv4Addr::new(a, b, c, d));
    }
    if first == 0x2002 {
        let [_, _, a, b, c, d, ..] = ip.octets();
        return reach_v4(Ipv4Addr::new(a, b, c, d));
    }
    if ip.is_loopback() {
        Reach::Loopback
    } else if first & 0xfe00 == 0xfc00 {
        Reach::Private
    } else if ip.is_unspecified() || ip.is_multicast() || first & 0xffc0 == 0xfe80 {
        Reach::Nowhere
    } else {
        Reach::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(registry: &str, networks: &[&str]) -> Guard {
        let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
        let guard = Guard::new(&networks);
        guard.registry_is_at(Some(SocketAddr::new(registry.parse().unwrap(), 443)));
        guard
    }

    #[test]
    fn nothing_outside_leads_inside() {
        let public = guard("140.82.121.33", &[]);
        for ip in ["8.8.8.8", "2606:4700::1", "2002:808:808::1"] {
            assert!(public.allows(ip.parse().unwrap()), "{ip}");
        }
        let inside = [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ];
        for ip in inside {
            assert!(!public.allows(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_registry_inside_may_lead_as_far_as_it_is_itself() {
        let private = guard("10.0.0.5", &[]);
        assert!(private.allows("192.168.1.1".parse().unwrap()));
        assert!(!private.allows("127.0.0.1".parse().unwrap()));
        assert!(!private.allows("169.254.169.254".parse().unwrap()));
        let loopback = guard("127.0.0.1", &[]);
        assert!(loopback.allows("127.0.0.2".parse().unwrap()));
        assert!(!loopback.allows("169.254.169.254".parse().unwrap()), "never, unless it is listed");
        let listed = guard("140.82.121.33", &["10.1.0.0/16"]);
        assert!(listed.allows("10.1.2.3".parse().unwrap()) && !listed.allows("10.2.0.1".parse().unwrap()));
    }

    #[test]
    fn literals_are_judged_at_once() {
        let public = guard("140.82.121.33", &[]);
        // The last is 127.0.0.1 as one number; the URL's parser knows.
        for url in ["http://169.254.169.254/latest", "http://[::1]:5000/", "http://2130706433/"] {
            assert!(!public.allows_literal(&Url::parse(url).unwrap()), "{url}");
        }
        assert!(public.allows_literal(&Url::parse("https://cdn.example/x").unwrap()));
    }

    #[tokio::test]
    async fn names_are_judged_by_their_addresses() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(guard("140.82.121.33", &[]).resolve(name()).await.is_err());
        assert!(guard("127.0.0.1", &[]).resolve(name()).await.is_ok());
    }
}
