//! What the eBPF programs and the daemon share: the keys and values of the maps (`map`), the arithmetic of the
//! shared clock (`clock`) and of dividing a total by weights (`share`).
//!
//! Not the programs and not the maps themselves. `no_std`, plain data and pure functions, tested on the host.
//!
//! Invariant: an IPv4 peer and its v4-mapped IPv6 form are the same key.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod clock;
mod map;
mod share;

pub use map::{
    CLASS_LOCAL, CLASS_UNSET, Class, ClassCounters, Connection, Counters, Endpoint, FlowKey, Limit,
    MODE_ACCOUNT, MODE_CLOCK, MODE_EDT, PeerAddr, PeerState, Settings,
};
pub use share::{Share, water_level};
