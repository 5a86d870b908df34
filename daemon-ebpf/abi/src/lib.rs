//! Types that the eBPF programs and the daemon share: how traffic is keyed and counted.
//! `no_std`, plain data, sizes asserted at compile time.
//!
//! Invariant: an IPv4 peer and its v4-mapped IPv6 form are the same key.
#![no_std]

use core::net::{IpAddr, Ipv6Addr};

/// A peer's address: the two big-endian halves of its IPv6 form, IPv4 as v4-mapped.
///
/// Two words and not 16 bytes: the BPF back end turns byte arrays into calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerAddr {
    pub high: u64,
    pub low: u64,
}

impl From<IpAddr> for PeerAddr {
    fn from(ip: IpAddr) -> Self {
        let v6 = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let bits = v6.to_bits();
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of 128 bits")]
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }
}

impl From<PeerAddr> for IpAddr {
    /// IPv4 where the address is v4-mapped.
    fn from(peer: PeerAddr) -> Self {
        Ipv6Addr::from_bits((u128::from(peer.high) << 64) | u128::from(peer.low)).to_canonical()
    }
}

/// What a connection is for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Pieces served to peers.
    Upload = 0,
    /// Pieces fetched from peers.
    Download = 1,
    /// Bytes fetched from registries and other origins.
    Origin = 2,
    /// Scheduler and manager.
    Control = 3,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::Upload, Self::Download, Self::Origin, Self::Control];

    /// Value of the `class` label of `hawker_wire_bytes_total`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Origin => "origin",
            Self::Control => "control",
        }
    }
}

/// Totals of one peer in one class, both directions. Bytes and packets since the daemon started.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub tx_bytes: u64,
    pub rx_bytes: u64,
}

const _: () = assert!(size_of::<PeerAddr>() == 16 && size_of::<Counters>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_survive_a_round_trip(ip: IpAddr) {
            prop_assert_eq!(IpAddr::from(PeerAddr::from(ip)), ip.to_canonical());
        }
    }
}
