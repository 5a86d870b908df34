//! Counting everything on the node's uplinks, at tcx or clsact.
//!
//! Invariant: only interfaces that the daemon entered are counted.

use crate::account::grow;
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
        let network = (*skb).data as usize + FRAME_HEADER_BYTES as usize;
        let header = match parse_at(network, (*skb).data_end as usize, direction) {
            Some(packet) => packet.header_bytes,
            None => 0,
        };
        let each = (header + FRAME_HEADER_BYTES) as u64;
        let bytes = length + (segments - 1) * each;
        grow(counters, direction, bytes, segments, bytes.wrapping_sub(segments * each));
    }
}
