//! Holding limits: the shared clock by `SO_MAX_PACING_RATE` (`reserve`), or departure times for the `fq` queue
//! (`departure`). Each fails in the other's place, so the daemon picks one for the node.
//!
//! Invariant: a slot is reserved by one atomic addition; no count of connections is kept, so idle ones cost nothing.

use crate::atomic::{add, fetch_add, replace};
use crate::maps;
use crate::packet::Packet;
use aya_ebpf::bindings::{__sk_buff, bpf_sock_ops};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_setsockopt};
use core::ptr::read_volatile;
use hawker_abi::clock::{self, UNPACED};
use hawker_abi::{Class, PeerAddr, Settings};

const SOL_SOCKET: i32 = 1;
const SO_MAX_PACING_RATE: i32 = 47;

/// The peer's rate as things stand, bytes per second; 0: unlimited.
#[inline(always)]
pub fn rate(settings: &Settings, peer: &PeerAddr) -> u64 {
    let limit = match maps::LIMITS.get_ptr(peer) {
        // SAFETY: a live map value; a torn read lasts one segment.
        Some(limit) => unsafe { *limit },
        None => settings.default_limit,
    };
    clock::rate_of(limit.rate, limit.weight, settings.level)
}

/// Reserves the slot of `bytes` at `rate` on a clock; returns when it ends.
///
/// # Safety
/// `clock_ns` points into a live map value.
#[inline(always)]
unsafe fn slot_end(clock_ns: *mut u64, cost: u64, now: u64, burst_ns: u64) -> u64 {
    // SAFETY: as the caller promises.
    unsafe {
        let stands = read_volatile(clock_ns);
        let adjusted = clock::adjusted(stands, now, burst_ns);
        if adjusted != stands {
            // Lost to another processor: that one adjusted.
            replace(clock_ns, stands, adjusted);
        }
        fetch_add(clock_ns, cost) + cost
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without conditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Charges a segment that is about to leave, and paces its connection to the end of the slot.
#[inline(always)]
pub fn reserve(ops: *mut bpf_sock_ops, settings: &Settings, peer: &PeerAddr, bytes: u32) {
    let Some(state) = maps::peer(peer) else { return };
    let (rate, now) = (rate(settings, peer), now());
    let (mut end, mut cap) = (0, u64::MAX);
    // SAFETY: live map values.
    unsafe {
        add(&raw mut (*state).charged, bytes as u64);
        if rate > 0 {
            let cost = clock::cost_ns(bytes, rate);
            end = slot_end(&raw mut (*state).clock_ns, cost, now, settings.burst_ns);
            cap = rate;
        }
        if settings.total_rate > 0
            && let Some(total) = maps::TOTAL.get_ptr_mut(0)
        {
            let cost = clock::cost_ns(bytes, settings.total_rate);
            let total_end = slot_end(&raw mut (*total).clock_ns, cost, now, settings.burst_ns);
            end = if total_end > end { total_end } else { end };
            cap = if settings.total_rate < cap { settings.total_rate } else { cap };
        }
    }
    set(ops, if end == 0 { UNPACED } else { clock::pacing_rate(bytes, end, now, cap) });
}

/// Paces a connection; [`UNPACED`]: no longer.
#[inline(always)]
pub fn set(ops: *mut bpf_sock_ops, rate: u32) {
    let mut rate = rate;
    // SAFETY: the helper copies four bytes out of `rate`.
    unsafe { bpf_setsockopt(ops.cast(), SOL_SOCKET, SO_MAX_PACING_RATE, (&raw mut rate).cast(), 4) };
}

/// Gives a packet its earliest departure time.
#[inline(always)]
pub fn departure(settings: &Settings, skb: *mut __sk_buff, packet: &Packet, class: u32) {
    // SAFETY: a field of the context.
    let bytes = unsafe { (*skb).len }.wrapping_sub(packet.header_bytes);
    if class != Class::Upload as u32 || !packet.tcp || bytes == 0 {
        return;
    }
    let Some(state) = maps::peer(&packet.remote) else { return };
    let (rate, now) = (rate(settings, &packet.remote), now());
    // SAFETY: live map values, and a field of the context.
    unsafe {
        add(&raw mut (*state).charged, bytes as u64);
        let mut at = 0;
        if rate > 0 {
            let cost = clock::cost_ns(bytes, rate);
            at = slot_end(&raw mut (*state).clock_ns, cost, now, settings.burst_ns) - cost;
        }
        if settings.total_rate > 0
            && let Some(total) = maps::TOTAL.get_ptr_mut(0)
        {
            let cost = clock::cost_ns(bytes, settings.total_rate);
            let total_at = slot_end(&raw mut (*total).clock_ns, cost, now, settings.burst_ns) - cost;
            at = if total_at > at { total_at } else { at };
        }
        if at > (*skb).tstamp {
            (*skb).tstamp = at;
        }
    }
}
