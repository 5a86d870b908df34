//! The eBPF programs. In the daemon's own cgroup: `peer_egress` and `peer_ingress` count what crossed the interface,
//! `peer_sockets` follows connections and paces them.
//!
//! Thin shells: types and arithmetic are `hawker-abi`'s, tested on the host.
//!
//! Invariant: no program ever drops a packet or refuses a connection.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "core::sync::atomic has no read-modify-write on this target")]

mod account;
mod atomic;
mod maps;
mod pace;
mod packet;
mod sockets;

use aya_ebpf::macros::{cgroup_skb, sock_ops};
use aya_ebpf::programs::{SkBuffContext, SockOpsContext};
use hawker_abi::MODE_EDT;
use packet::Direction;

/// Verdict of a cgroup program: let it pass.
const PASS: i32 = 1;

#[cgroup_skb(egress)]
pub fn peer_egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(settings) = maps::SETTINGS.get(0) else { return PASS };
    let Some(packet) = packet::parse(skb, Direction::Egress) else { return PASS };
    let class = account::class(settings, skb, &packet);
    if settings.mode == MODE_EDT {
        pace::departure(settings, skb, &packet, class);
    }
    account::count(skb, &packet, class, Direction::Egress);
    PASS
}

#[cgroup_skb(ingress)]
pub fn peer_ingress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(settings) = maps::SETTINGS.get(0) else { return PASS };
    let Some(packet) = packet::parse(skb, Direction::Ingress) else { return PASS };
    let class = account::class(settings, skb, &packet);
    account::count(skb, &packet, class, Direction::Ingress);
    PASS
}

#[sock_ops]
pub fn peer_sockets(ctx: SockOpsContext) -> u32 {
    if let Some(settings) = maps::SETTINGS.get(0) {
        sockets::event(&ctx, settings);
    }
    1
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `bpf_ktime_get_ns` and the sk_storage helpers are for programs under a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
