//! What the programs need to know of a packet.
//!
//! Invariant: nothing is read past the linear data, and a packet that is not understood is still counted.

use aya_ebpf::bindings::__sk_buff;
use hawker_abi::PeerAddr;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Egress,
    Ingress,
}

pub struct Packet {
    /// The far end.
    pub remote: PeerAddr,
    /// 0 where it is not TCP.
    pub local_port: u16,
    pub remote_port: u16,
    /// Network and transport header, bytes; each segment on the wire has its own.
    pub header_bytes: u32,
    pub tcp: bool,
}

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const TCP_HEADER_BYTES: usize = 20;
const TCP: u8 = 6;

/// Parses a packet that begins at its network header, as in a cgroup program.
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, direction: Direction) -> Option<Packet> {
    // SAFETY: each read lies before data_end, which the verifier follows.
    unsafe {
        let (network, end) = ((*skb).data as usize, (*skb).data_end as usize);
        if network + IPV4_HEADER_BYTES > end {
            return None;
        }
        let first = *(network as *const u8);
        let (remote, ip_bytes, protocol);
        if first >> 4 == 4 {
            let at = if direction == Direction::Egress { 16 } else { 12 };
            remote = PeerAddr::v4(u32::from_be(*((network + at) as *const u32)));
            ip_bytes = ((first & 15) as usize) << 2;
            protocol = *((network + 9) as *const u8);
        } else {
            if first >> 4 != 6 || network + IPV6_HEADER_BYTES > end {
                return None;
            }
            let at = network + if direction == Direction::Egress { 24 } else { 8 };
            remote = PeerAddr {
                high: u64::from_be(*(at as *const u64)),
                low: u64::from_be(*((at + 8) as *const u64)),
            };
            ip_bytes = IPV6_HEADER_BYTES;
            protocol = *((network + 6) as *const u8);
        }
        let transport = network + ip_bytes;
        if protocol != TCP || transport + TCP_HEADER_BYTES > end {
            let header_bytes = ip_bytes as u32;
            return Some(Packet { remote, local_port: 0, remote_port: 0, header_bytes, tcp: false });
        }
        let source = u16::from_be(*(transport as *const u16));
        let destination = u16::from_be(*((transport + 2) as *const u16));
        let tcp_bytes = ((*((transport + 12) as *const u8)) >> 4) as u32 * 4;
        let (local_port, remote_port) =
            if direction == Direction::Egress { (source, destination) } else { (destination, source) };
        Some(Packet { remote, local_port, remote_port, header_bytes: ip_bytes as u32 + tcp_bytes, tcp: true })
    }
}

/// Packets that this one becomes, or came as, on the wire.
#[inline(always)]
pub fn segments(skb: *mut __sk_buff) -> u64 {
    // SAFETY: a field of the context.
    let segments = unsafe { (*skb).gso_segs };
    if segments == 0 { 1 } else { segments as u64 }
}
