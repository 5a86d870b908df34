//! Keys and values of the maps. Laid out alike on both sides: `repr(C)`, explicit padding, sizes asserted.
//!
//! Invariant: who writes a map is said at its type; nobody else does.

use core::net::{IpAddr, Ipv6Addr};

/// A peer's address: the two halves of its IPv6 form as numbers, IPv4 as v4-mapped.
///
/// Two words and not 16 bytes: the BPF back end turns byte arrays into calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerAddr {
    pub high: u64,
    pub low: u64,
}

/// What stands above the 32 bits of an IPv4 address in [`PeerAddr::low`] (RFC 4291 §2.5.5.2).
const V4_MAPPED: u64 = 0xffff_0000_0000;

impl PeerAddr {
    /// From an IPv4 address as a number in the host's byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bits: u32) -> Self {
        Self { high: 0, low: V4_MAPPED | bits as u64 }
    }

    /// 127.0.0.0/8 and ::1.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.high == 0 && (self.low == 1 || self.low >> 24 == (V4_MAPPED >> 24) | 127)
    }
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

/// In [`Connection::class`]: not decided yet; a class is stored as its number plus one.
pub const CLASS_UNSET: u32 = 0;

/// Number of what never meets a wire: the runtime at the mirror, people at the status. Not counted.
pub const CLASS_LOCAL: u32 = 4;

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

    /// From a key that a program wrote.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u32 == number)
    }
}

/// Key of the map of flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub peer: PeerAddr,
    /// A [`Class`] as its number.
    pub class: u32,
    pub reserved: u32,
}

/// What crossed the interface, both directions. Written by programs.
///
/// Bytes are those of frames on an Ethernet (without preamble and checksum), each of a segmented packet's frames
/// with its own headers: what a network card counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub tx_bytes: u64,
    pub tx_packets: u64,
    /// TCP payload, retransmissions included.
    pub tx_payload: u64,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_payload: u64,
}

impl Counters {
    /// Field by field, with `combine`.
    #[must_use]
    pub fn zip(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            tx_bytes: combine(self.tx_bytes, other.tx_bytes),
            tx_packets: combine(self.tx_packets, other.tx_packets),
            tx_payload: combine(self.tx_payload, other.tx_payload),
            rx_bytes: combine(self.rx_bytes, other.rx_bytes),
            rx_packets: combine(self.rx_packets, other.rx_packets),
            rx_payload: combine(self.rx_payload, other.rx_payload),
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// Growth since `before`. An entry that the map forgot and made anew has less than before: all of it is growth.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let anew = self.tx_packets < before.tx_packets || self.rx_packets < before.rx_packets;
        if anew { self } else { self.zip(before, u64::saturating_sub) }
    }
}

/// A peer's TCP health and clock. Written by programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    /// The shared clock: monotonic time at which the last reserved slot ends.
    pub clock_ns: u64,
    /// Payload handed to the interface on shaped connections, bytes.
    pub charged: u64,
    /// Payload the peer acknowledged, bytes.
    pub acked: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Connections ever established.
    pub opened: u64,
    /// Smoothed round-trip time of the connection that measured last, microseconds.
    pub srtt_us: u32,
    /// Connections that stand.
    pub connections: u32,
}

/// All of one class. Written by programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    pub wire: Counters,
    /// Bytes with the headers of a packet that is yet to be segmented, or came merged, counted once: what interfaces
    /// made of software count, and some drivers.
    pub tx_whole: u64,
    pub rx_whole: u64,
}

/// A peer's share of what is uploaded. Written by the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes per second; 0: none of its own.
    pub rate: u64,
    /// Parts of the total; 0 counts as 1.
    pub weight: u32,
    pub reserved: u32,
}

/// Programs count only.
pub const MODE_ACCOUNT: u32 = 0;
/// Connections are paced by the shared clock; for egress without a fair queue.
pub const MODE_CLOCK: u32 = 1;
/// Packets carry their earliest departure time; for egress with the `fq` queue everywhere.
pub const MODE_EDT: u32 = 2;

/// How the programs behave. Written by the daemon, as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// One of `MODE_…`.
    pub mode: u32,
    /// Where this node serves pieces.
    pub piece_port: u32,
    /// How far the clock may lie behind, nanoseconds: what an idle peer may send at once.
    pub burst_ns: u64,
    /// Upload to all peers together, bytes per second; 0: no limit.
    pub total_rate: u64,
    /// Rate of one part of weight, bytes per second; 0: the total is not divided.
    pub level: u64,
    /// Limit of peers that have no entry.
    pub default_limit: Limit,
}

/// A far end the daemon is about to connect to, so that the connection gets its class. Written by the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub addr: PeerAddr,
    pub port: u32,
    pub reserved: u32,
}

/// What a program remembers with a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// `bytes_acked` as last added to the peer's.
    pub acked: u64,
    /// [`CLASS_UNSET`], or a class plus one.
    pub class: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<PeerAddr>() == 16 && size_of::<FlowKey>() == 24);
const _: () = assert!(size_of::<ClassCounters>() == 64);
const _: () = assert!(size_of::<Counters>() == 48 && size_of::<PeerState>() == 48);
const _: () = assert!(size_of::<Limit>() == 16 && size_of::<Settings>() == 48);
const _: () = assert!(size_of::<Endpoint>() == 24 && size_of::<Connection>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn counters() -> impl Strategy<Value = Counters> {
        proptest::array::uniform6(0u64..1 << 60).prop_map(|n| Counters {
            tx_bytes: n[0],
            tx_packets: n[1],
            tx_payload: n[2],
            rx_bytes: n[3],
            rx_packets: n[4],
            rx_payload: n[5],
        })
    }

    #[test]
    fn class_numbers_are_those_of_the_programs() {
        for class in Class::ALL {
            assert_eq!(Class::from_number(class as u32), Some(class));
        }
        assert_eq!(Class::from_number(4), None);
    }

    proptest! {
        #[test]
        fn addresses_survive_a_round_trip(ip: IpAddr) {
            prop_assert_eq!(IpAddr::from(PeerAddr::from(ip)), ip.to_canonical());
        }

        #[test]
        fn the_programs_form_of_an_ipv4_address_is_the_same(bits: u32) {
            prop_assert_eq!(PeerAddr::v4(bits), PeerAddr::from(IpAddr::from(Ipv4Addr::from_bits(bits))));
        }

        #[test]
        fn loopback_is_what_the_library_says(ip: IpAddr, bits: u32) {
            let near = IpAddr::from(Ipv4Addr::from_bits((127 << 24) | (bits >> 7)));
            for ip in [ip, near, IpAddr::from(Ipv6Addr::LOCALHOST)] {
                prop_assert_eq!(PeerAddr::from(ip).is_loopback(), ip.to_canonical().is_loopback());
            }
        }

        #[test]
        fn growth_adds_up(before in counters(), more in counters()) {
            prop_assert_eq!(before.plus(more).since(before), more);
        }

        #[test]
        fn an_entry_made_anew_counts_whole(before in counters(), mut now in counters()) {
            now.tx_packets = now.tx_packets.min(before.tx_packets.saturating_sub(1));
            prop_assume!(before.tx_packets > 0);
            prop_assert_eq!(now.since(before), now);
        }
    }
}
