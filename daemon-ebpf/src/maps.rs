//! The maps. Capacities are bounds: the least recently used entries are forgotten first, and totals by class
//! (`CLASSES`) do not depend on them.

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SkStorage};
use aya_ebpf::macros::btf_map;
use hawker_abi::{
    ClassCounters, Connection, Counters, Endpoint, FlowKey, Limit, PeerAddr, PeerState, Settings,
};

/// Peers × classes remembered one by one; the daemon polls faster than a node meets this many peers.
const MAX_FLOWS: usize = 16_384;
const MAX_PEERS: usize = 16_384;
const MAX_ENDPOINTS: usize = 4_096;
/// One a class.
const CLASS_COUNT: usize = 4;

#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
/// The clock of all uploads together.
#[btf_map]
pub static TOTAL: Array<PeerState, 1> = Array::new();
#[btf_map]
pub static LIMITS: HashMap<PeerAddr, Limit, MAX_PEERS> = HashMap::new();
#[btf_map]
pub static PEERS: LruHashMap<PeerAddr, PeerState, MAX_PEERS> = LruHashMap::new();
#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, Counters, MAX_FLOWS> = LruHashMap::new();
#[btf_map]
pub static CLASSES: PerCpuArray<ClassCounters, CLASS_COUNT> = PerCpuArray::new();
#[btf_map]
pub static ENDPOINTS: LruHashMap<Endpoint, u32, MAX_ENDPOINTS> = LruHashMap::new();
#[btf_map]
pub static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

/// `BPF_NOEXIST`: another processor's entry is not overwritten.
const IF_ABSENT: u64 = 1;

#[inline(always)]
pub fn peer(addr: &PeerAddr) -> Option<*mut PeerState> {
    if let Some(state) = PEERS.get_ptr_mut(addr) {
        return Some(state);
    }
    let _ = PEERS.insert(addr, PeerState::default(), IF_ABSENT);
    PEERS.get_ptr_mut(addr)
}

#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<*mut Counters> {
    if let Some(counters) = FLOWS.get_ptr_mut(key) {
        return Some(counters);
    }
    let _ = FLOWS.insert(key, Counters::default(), IF_ABSENT);
    FLOWS.get_ptr_mut(key)
}
