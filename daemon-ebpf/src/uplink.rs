//! Counting everything on the node's uplinks, at tcx or clsact.
//!
//! Invariant: only interfaces that the daemon entered are counted.

use crate::atomic::add;
use crate::maps;
use crate::packet::{Direction, parse_at, segments};
use aya_ebpf::bindings::__sk_buff;

const FRAME_HEADER_BYTES: u32 = 14;

#[inline(always)]
pub fn count(skb: *mut __sk_buff, direction: Direction) {
    // SAFETY: fields of the context; the verifier checks what is read of the packet.
    unsafe {
        let Some(counters) = maps::UPLINKS.get_ptr_mut((*skb).ifindex) else { return };
        let (length, segments) = ((*skb).len as u64, segments(skb));
        // Headers matter only where one packet stands for many.
        let more = if segments > 1 { (segments - 1) * header_bytes(skb, direction) } else { 0 };
        let bytes = length + more;
        if direction == Direction::Egress {
            add(&raw mut (*counters).tx_bytes, bytes);
            add(&raw mut (*counters).tx_packets, segments);
        } else {
            add(&raw mut (*counters).rx_bytes, bytes);
            add(&raw mut (*counters).rx_packets, segments);
        }
    }
}

/// # Safety
/// `skb` is the context.
#[inline(always)]
unsafe fn header_bytes(skb: *mut __sk_buff, direction: Direction) -> u64 {
    // SAFETY: fields of the context; the verifier checks what is read of the packet.
    unsafe {
        let network = (*skb).data as usize + FRAME_HEADER_BYTES as usize;
        match parse_at(network, (*skb).data_end as usize, direction) {
            Some(packet) => (packet.header_bytes + FRAME_HEADER_BYTES) as u64,
            None => FRAME_HEADER_BYTES as u64,
        }
    }
}
