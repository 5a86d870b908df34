//! Counting in the daemon's cgroup: by peer and class, and by class alone.
//!
//! Invariant: what `CLASSES` says is complete, whatever the flows' map forgot.

use crate::atomic::add;
use crate::maps;
use crate::packet::{Direction, Packet, segments};
use crate::sockets;
use aya_ebpf::bindings::__sk_buff;
use core::ptr::read_volatile;
use hawker_abi::{CLASS_LOCAL, CLASS_UNSET, Class, Counters, Endpoint, FlowKey, Settings};

/// Frame header of an Ethernet, bytes: added to each packet, because interfaces count it.
const FRAME_HEADER_BYTES: u64 = 14;

/// The class of a packet: what comes from the piece port is an upload, whatever stands with its connection, since nothing
/// else can have that port; else its connection's, or where that has none (handshake, end), by the ports.
#[inline(always)]
pub fn class(settings: &Settings, skb: *mut __sk_buff, packet: &Packet) -> u32 {
    if packet.tcp && packet.local_port as u32 == settings.piece_port {
        return Class::Upload as u32;
    }
    // SAFETY: the pointer is the context's; the storage, where there is one, is live.
    unsafe {
        if let Some(connection) = sockets::connection((*skb).__bindgen_anon_2.sk, false) {
            let class = read_volatile(&raw const (*connection).class);
            if class != CLASS_UNSET {
                return class - 1;
            }
        }
    }
    if !packet.tcp {
        // Name resolution and the like.
        return Class::Control as u32;
    }
    endpoint_class(&Endpoint { addr: packet.remote, port: packet.remote_port as u32, reserved: 0 })
}

/// The class of what the daemon connects to: as it announced, else an origin; on this machine: nothing's.
#[inline(always)]
pub fn endpoint_class(endpoint: &Endpoint) -> u32 {
    match maps::ENDPOINTS.get_ptr(endpoint) {
        // SAFETY: a live map value.
        Some(class) => unsafe { read_volatile(class) },
        None if endpoint.addr.is_loopback() => CLASS_LOCAL,
        None => Class::Origin as u32,
    }
}

#[inline(always)]
pub fn count(skb: *mut __sk_buff, packet: &Packet, class: u32, direction: Direction) {
    if class == CLASS_LOCAL {
        return;
    }
    // SAFETY: a field of the context.
    let length = unsafe { (*skb).len } as u64;
    let segments = segments(skb);
    let header = packet.header_bytes as u64;
    let payload = if packet.tcp { length.wrapping_sub(header) } else { 0 };
    let bytes = length + (segments - 1) * header + segments * FRAME_HEADER_BYTES;
    if let Some(counters) = maps::flow(&FlowKey { peer: packet.remote, class, reserved: 0 }) {
        // SAFETY: a live map value.
        unsafe { grow(counters, direction, bytes, segments, payload) };
    }
    if let Some(counters) = maps::CLASSES.get_ptr_mut(class) {
        let whole = length + FRAME_HEADER_BYTES;
        // SAFETY: a live map value.
        unsafe {
            grow(&raw mut (*counters).wire, direction, bytes, segments, payload);
            if direction == Direction::Egress {
                add(&raw mut (*counters).tx_whole, whole);
            } else {
                add(&raw mut (*counters).rx_whole, whole);
            }
        }
    }
}

/// # Safety
/// `counters` is a live map value.
#[inline(always)]
unsafe fn grow(counters: *mut Counters, direction: Direction, bytes: u64, packets: u64, payload: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        if direction == Direction::Egress {
            add(&raw mut (*counters).tx_bytes, bytes);
            add(&raw mut (*counters).tx_packets, packets);
            add(&raw mut (*counters).tx_payload, payload);
        } else {
            add(&raw mut (*counters).rx_bytes, bytes);
            add(&raw mut (*counters).rx_packets, packets);
            add(&raw mut (*counters).rx_payload, payload);
        }
    }
}
