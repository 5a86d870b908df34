//! What TCP tells of the daemon's connections: their beginning and end, round-trip times, retransmissions, and
//! each segment before it leaves.
//!
//! Invariant: a connection's class is decided once, when it is established.

use crate::atomic::{add, add32};
use crate::{account, maps, pace};
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_RETRANS_CB, BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, bpf_sock,
    bpf_sock_ops,
};
use aya_ebpf::helpers::bpf_sk_storage_get;
use aya_ebpf::programs::SockOpsContext;
use core::ptr::{addr_of, null_mut, read_volatile};
use hawker_abi::clock::{UNPACED, pacing_rate};
use hawker_abi::{CLASS_LOCAL, CLASS_UNSET, Class, Connection, Endpoint, MODE_CLOCK, PeerAddr, Settings};

const AF_INET: u32 = 2;
const TCP_CLOSE: u32 = 7;
/// `args[0]` of `HDR_OPT_LEN_CB` where no segment leaves yet: asked by `tcp_current_mss`.
const ONLY_ASKING: u32 = 1;
/// What every connection is followed by.
const FOLLOW: u32 = BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG;
/// First segments of a connection, bytes: the initial window, before any slot was reserved.
const FIRST_BYTES: u32 = 14_480;

/// What is remembered with a socket.
#[inline(always)]
pub fn connection(socket: *mut bpf_sock, create: bool) -> Option<*mut Connection> {
    if socket.is_null() {
        return None;
    }
    let map = addr_of!(maps::CONNECTIONS).cast_mut().cast();
    // SAFETY: the map is a socket storage, the socket the context's.
    let found = unsafe { bpf_sk_storage_get(map, socket.cast(), null_mut(), create as u64) };
    if found.is_null() { None } else { Some(found.cast()) }
}

#[inline(always)]
pub fn event(ctx: &SockOpsContext, settings: &Settings) {
    let ops = ctx.ops;
    match ctx.op() {
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => segment(ops, settings),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ctx, settings, true),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ctx, settings, false),
        BPF_SOCK_OPS_RTT_CB => round_trip(ctx, settings),
        BPF_SOCK_OPS_RETRANS_CB => {
            if let Some(state) = maps::peer(&remote(ops)) {
                // SAFETY: a live map value; args[1] is the number of segments.
                unsafe {
                    add(
                        &raw mut (*state).retransmits,
                        read_volatile(&raw const (*ops).__bindgen_anon_1.args[1]) as u64,
                    );
                }
            }
        }
        BPF_SOCK_OPS_STATE_CB => state_changed(ops),
        _ => {}
    }
}

#[inline(always)]
fn segment(ops: *mut bpf_sock_ops, settings: &Settings) {
    // SAFETY: fields of the context.
    let (asking, bytes) = unsafe {
        (read_volatile(&raw const (*ops).__bindgen_anon_1.args[0]), read_volatile(&raw const (*ops).skb_len))
    };
    if asking != ONLY_ASKING && bytes != 0 {
        pace::reserve(ops, settings, &remote(ops), bytes);
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext, settings: &Settings, passive: bool) {
    let ops = ctx.ops;
    let peer = remote(ops);
    // SAFETY: fields of the context; remote_port is in network order in its upper half.
    let (local_port, remote_port) = unsafe {
        (
            read_volatile(&raw const (*ops).local_port),
            u32::from_be(read_volatile(&raw const (*ops).remote_port)),
        )
    };
    let mut class = if passive && local_port == settings.piece_port {
        Class::Upload as u32
    } else if passive {
        CLASS_LOCAL
    } else {
        account::endpoint_class(&Endpoint { addr: peer, port: remote_port, reserved: 0 })
    };
    // SAFETY: the socket is the context's, the storage and the state are live map values.
    unsafe {
        if let Some(connection) = connection((*ops).__bindgen_anon_2.sk, true) {
            if (*connection).class == CLASS_UNSET {
                (*connection).class = class + 1;
            } else {
                class = (*connection).class - 1;
            }
        }
        if class != CLASS_LOCAL
            && let Some(state) = maps::peer(&peer)
        {
            add32(&raw mut (*state).connections, 1);
            add(&raw mut (*state).opened, 1);
        }
    }
    if class == CLASS_LOCAL {
        return;
    }
    let paced = settings.mode == MODE_CLOCK && class == Class::Upload as u32;
    let _ = ctx.set_cb_flags((FOLLOW | if paced { BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG } else { 0 }) as i32);
    if paced {
        let rate = pace::rate(settings, &peer);
        if rate > 0 {
            pace::set(ops, pacing_rate(FIRST_BYTES, 0, 0, rate));
        }
    }
}

/// A measurement; also where a live connection learns that the mode changed.
#[inline(always)]
fn round_trip(ctx: &SockOpsContext, settings: &Settings) {
    let ops = ctx.ops;
    // SAFETY: fields of the context, live map values.
    unsafe {
        let class = match connection((*ops).__bindgen_anon_2.sk, false) {
            Some(connection) => read_volatile(&raw const (*connection).class),
            None => adopted(ops, settings),
        };
        if let Some(state) = maps::peer(&remote(ops)) {
            (*state).srtt_us = read_volatile(&raw const (*ops).srtt_us) >> 3;
            acknowledged(ops, state);
        }
        let flags = read_volatile(&raw const (*ops).bpf_sock_ops_cb_flags);
        let wanted = if settings.mode == MODE_CLOCK && class == Class::Upload as u32 + 1 {
            flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG
        } else {
            flags & !BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG
        };
        if wanted != flags {
            let _ = ctx.set_cb_flags(wanted as i32);
            if wanted & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG == 0 {
                pace::set(ops, UNPACED);
            }
        }
    }
}

/// A connection that another daemon's programs followed until these took their place: an upload by its port, it goes on under
/// the same clock as its peer's new connections. Returns its class as it is stored.
#[inline(always)]
fn adopted(ops: *mut bpf_sock_ops, settings: &Settings) -> u32 {
    const UPLOAD: u32 = Class::Upload as u32 + 1;
    // SAFETY: fields of the context, live map values.
    unsafe {
        if read_volatile(&raw const (*ops).local_port) != settings.piece_port {
            return CLASS_UNSET;
        }
        let acked = read_volatile(&raw const (*ops).bytes_acked);
        let Some(connection) = connection((*ops).__bindgen_anon_2.sk, true) else { return CLASS_UNSET };
        (*connection).class = UPLOAD;
        (*connection).acked = acked;
        if let Some(state) = maps::peer(&remote(ops)) {
            add32(&raw mut (*state).connections, 1);
        }
    }
    UPLOAD
}

#[inline(always)]
fn state_changed(ops: *mut bpf_sock_ops) {
    // SAFETY: a field of the context, and a live map value.
    unsafe {
        // What another daemon's programs followed to its end was never counted here.
        if read_volatile(&raw const (*ops).__bindgen_anon_1.args[1]) == TCP_CLOSE
            && connection((*ops).__bindgen_anon_2.sk, false).is_some()
            && let Some(state) = maps::peer(&remote(ops))
        {
            acknowledged(ops, state);
            // An entry that was forgotten meanwhile has no connection to take away.
            if read_volatile(&raw const (*state).connections) > 0 {
                add32(&raw mut (*state).connections, u32::MAX);
            }
        }
    }
}

/// # Safety
/// `state` is a live map value.
#[inline(always)]
unsafe fn acknowledged(ops: *mut bpf_sock_ops, state: *mut hawker_abi::PeerState) {
    // SAFETY: as the caller promises.
    unsafe {
        if let Some(connection) = connection((*ops).__bindgen_anon_2.sk, true) {
            let acked = read_volatile(&raw const (*ops).bytes_acked);
            add(&raw mut (*state).acked, acked - (*connection).acked);
            (*connection).acked = acked;
        }
    }
}

/// The far end's address.
#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> PeerAddr {
    // SAFETY: fields of the context. All are read before choosing: reads in two branches are merged into one
    // at a computed offset, which the verifier refuses ("dereference of modified ctx ptr").
    unsafe {
        let v4 = read_volatile(&raw const (*ops).remote_ip4);
        let words = (&raw const (*ops).remote_ip6).cast::<u32>();
        let high = (be(read_volatile(words)) << 32) | be(read_volatile(words.add(1)));
        let low = (be(read_volatile(words.add(2))) << 32) | be(read_volatile(words.add(3)));
        if read_volatile(&raw const (*ops).family) == AF_INET {
            PeerAddr::v4(u32::from_be(v4))
        } else {
            PeerAddr { high, low }
        }
    }
}

#[inline(always)]
fn be(word: u32) -> u64 {
    u32::from_be(word) as u64
}
