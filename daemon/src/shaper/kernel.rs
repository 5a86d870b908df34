//! The eBPF programs: loaded, attached, ordered and read. The one file that knows aya.
//!
//! Everything hangs on file descriptors of this process: when it ends, however it ends, the kernel takes programs,
//! links and maps away.
//!
//! Invariant: a program that does not load or attach is an error with the kernel's own words, never half a shaper.

use super::backend::{Backend, BackendError, Direction, Grant, Mode, Orders, Reading, Scope};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::tc::{self, TcAttachType};
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, SchedClassifier, SockOps};
use aya::{Ebpf, Pod};
use hawker_abi::clock::BURST_NS;
use hawker_abi::{
    Class, Counters, Endpoint, FlowKey, Limit, MODE_ACCOUNT, MODE_CLOCK, MODE_EDT, PeerAddr, PeerState,
    Settings,
};
use parking_lot::Mutex;
use std::collections;
use std::fmt::Display;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};

/// Committed with the hash of its sources (`daemon/build.rs` checks it).
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon-ebpf/object/hawker.bpf.o"));
/// Most entries walked of one map: while programs add and forget entries, a walk may meet some twice.
const MAX_WALK: usize = 2 * 16_384;

/// Types of `hawker-abi` as aya wants them.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

macro_rules! plain {
    ($($name:ty),*) => {$(
        #[expect(unsafe_code, reason = "aya asks for a promise about layout")]
        // SAFETY: repr(C) without padding or pointers: every pattern of bytes is a value (`hawker_abi::map`).
        unsafe impl Pod for Plain<$name> {}
    )*};
}
plain!(PeerAddr, FlowKey, Counters, PeerState, Limit, Settings, Endpoint);

type Map<K, V> = HashMap<MapData, Plain<K>, Plain<V>>;

/// The loaded programs.
pub(super) struct Kernel {
    maps: Mutex<Maps>,
    /// Programs and links: dropped, they are detached.
    _programs: Ebpf,
}

struct Maps {
    settings: Array<MapData, Plain<Settings>>,
    limits: Map<PeerAddr, Limit>,
    peers: Map<PeerAddr, PeerState>,
    flows: Map<FlowKey, Counters>,
    classes: PerCpuArray<MapData, Plain<Counters>>,
    endpoints: HashMap<MapData, Plain<Endpoint>, u32>,
    uplinks: HashMap<MapData, u32, Plain<Counters>>,
    /// What `LIMITS` holds.
    written: collections::HashMap<PeerAddr, Limit>,
    /// Interface names by index.
    names: Vec<(u32, String)>,
}

fn failed<E: Display>(act: &'static str) -> impl FnOnce(E) -> BackendError {
    // Alternate form: anyhow-like chains where there are any; aya's Display already names its cause.
    move |error| BackendError { act, detail: format!("{error:#}") }
}

impl Kernel {
    /// Loads everything and attaches to `cgroup`, before the first socket is made in it, and to `uplinks`.
    pub(super) fn load(cgroup: &File, uplinks: &[(u32, String)]) -> Result<Self, BackendError> {
        let mut ebpf = Ebpf::load(OBJECT)
            .map_err(|error| BackendError { act: "load the eBPF maps", detail: chain(&error) })?;
        attach_to_cgroup(&mut ebpf, cgroup)?;
        let mut uplink_map: HashMap<_, u32, Plain<Counters>> = take(&mut ebpf, "UPLINKS")?;
        for (index, _) in uplinks {
            uplink_map.insert(index, Plain(Counters::default()), 0).map_err(failed("enter an uplink"))?;
        }
        attach_to_uplinks(&mut ebpf, uplinks);
        let maps = Maps {
            settings: take(&mut ebpf, "SETTINGS")?,
            limits: take(&mut ebpf, "LIMITS")?,
            peers: take(&mut ebpf, "PEERS")?,
            flows: take(&mut ebpf, "FLOWS")?,
            classes: take(&mut ebpf, "CLASSES")?,
            endpoints: take(&mut ebpf, "ENDPOINTS")?,
            uplinks: uplink_map,
            written: collections::HashMap::new(),
            names: uplinks.to_vec(),
        };
        Ok(Self { maps: Mutex::new(maps), _programs: ebpf })
    }
}

fn take<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, BackendError> {
    let map = ebpf
        .take_map(name)
        .ok_or(BackendError { act: "find a map of the object", detail: name.to_owned() })?;
    T::try_from(map).map_err(failed("open a map"))
}

fn attach_to_cgroup(ebpf: &mut Ebpf, cgroup: &File) -> Result<(), BackendError> {
    // With links it is always "multi": other programs on the cgroup stay and run, too.
    let mode = CgroupAttachMode::Single;
    let packets =
        [("peer_egress", CgroupSkbAttachType::Egress), ("peer_ingress", CgroupSkbAttachType::Ingress)];
    for (name, kind) in packets {
        let program: &mut CgroupSkb = program(ebpf, name)?;
        program.load().map_err(|error| load_failed(&error))?;
        program.attach(cgroup, kind, mode).map_err(|error| attach_failed(&error))?;
    }
    let program: &mut SockOps = program(ebpf, "peer_sockets")?;
    program.load().map_err(|error| load_failed(&error))?;
    program.attach(cgroup, mode).map_err(|error| attach_failed(&error))?;
    Ok(())
}

/// The node's other traffic is good to know; without it the daemon's own is still counted and limited.
fn attach_to_uplinks(ebpf: &mut Ebpf, uplinks: &[(u32, String)]) {
    let sides = [("uplink_egress", TcAttachType::Egress), ("uplink_ingress", TcAttachType::Ingress)];
    for (name, side) in sides {
        let program: &mut SchedClassifier = match program(ebpf, name) {
            Ok(program) => program,
            Err(error) => return tracing::warn!(%error, "counters of the uplinks"),
        };
        if let Err(error) = program.load() {
            return tracing::warn!(error = chain(&error), "load the counters of the uplinks");
        }
        for (_, uplink) in uplinks {
            // Before 6.6 filters hang on a qdisc, and those of a daemon that was killed stayed.
            if !has_tcx() {
                let _ = tc::qdisc_add_clsact(uplink);
                let _ = tc::qdisc_detach_program(uplink, side, name);
            }
            if let Err(error) = program.attach(uplink, side) {
                tracing::warn!(uplink, error = chain(&error), "count what crosses an uplink");
            }
        }
    }
}

fn has_tcx() -> bool {
    super::privileges::kernel_version().is_some_and(|version| version >= (6, 6))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, BackendError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let found = ebpf.program_mut(name);
    let found = found.ok_or(BackendError { act: "find a program of the object", detail: name.to_owned() })?;
    found.try_into().map_err(failed("open a program"))
}

fn load_failed(error: &dyn std::error::Error) -> BackendError {
    BackendError { act: "load the eBPF programs", detail: chain(error) }
}

fn attach_failed(error: &dyn std::error::Error) -> BackendError {
    BackendError { act: "attach the eBPF programs to the cgroup", detail: chain(error) }
}

/// An error with its causes, the verifier's log cut to its last words.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let short: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match short.as_slice() {
        [first, .., last] => format!("{first} … {last}"),
        _ => text,
    }
}

impl Backend for Kernel {
    fn apply(&self, orders: &Orders) -> Result<(), BackendError> {
        let mut maps = self.maps.lock();
        let gone: Vec<PeerAddr> =
            maps.written.keys().filter(|peer| !orders.peers.contains_key(peer)).copied().collect();
        for peer in gone {
            let _ = maps.limits.remove(&Plain(peer));
            maps.written.remove(&peer);
        }
        for (peer, limit) in &orders.peers {
            if maps.written.get(peer) != Some(limit) {
                maps.limits.insert(Plain(*peer), Plain(*limit), 0).map_err(failed("write a peer's limit"))?;
                maps.written.insert(*peer, *limit);
            }
        }
        let settings = Settings {
            mode: match orders.mode {
                Mode::Account => MODE_ACCOUNT,
                Mode::Clock => MODE_CLOCK,
                Mode::Departure => MODE_EDT,
            },
            piece_port: orders.piece_port.into(),
            burst_ns: BURST_NS,
            total_rate: orders.total_rate,
            level: orders.level,
            default_limit: orders.default_limit,
        };
        maps.settings.set(0, Plain(settings), 0).map_err(failed("write the settings"))
    }

    fn expect(&self, far_end: SocketAddr, class: Class) {
        let endpoint =
            Endpoint { addr: far_end.ip().into(), port: far_end.port().into(), ..Endpoint::default() };
        if let Err(error) = self.maps.lock().endpoints.insert(Plain(endpoint), class as u32, 0) {
            tracing::debug!(%far_end, %error, "announce a connection to the eBPF programs");
        }
    }

    fn moved(&self, _peer: IpAddr, _class: Class, _direction: Direction, _bytes: u64) {}

    fn pace(&self, _peer: IpAddr, bytes: u64) -> Grant {
        Grant::all(bytes)
    }

    fn read(&self, scope: Scope<'_>) -> Result<Reading, BackendError> {
        let maps = self.maps.lock();
        match scope {
            Scope::All => maps.all(),
            Scope::Peers(peers) => {
                let state = |peer: &PeerAddr| Some((*peer, maps.peers.get(&Plain(*peer), 0).ok()?.0));
                Ok(Reading { peers: peers.iter().filter_map(state).collect(), ..Reading::default() })
            }
        }
    }
}

impl Maps {
    fn all(&self) -> Result<Reading, BackendError> {
        let mut classes = [Counters::default(); 4];
        for class in Class::ALL {
            let each = self.classes.get(&(class as u32), 0).map_err(failed("read the totals"))?;
            classes[class as usize] = each.iter().fold(Counters::default(), |sum, cpu| sum.plus(cpu.0));
        }
        let flows: collections::HashMap<_, _> =
            self.flows.iter().take(MAX_WALK).flatten().map(|(key, value)| (key.0, value.0)).collect();
        let peers: collections::HashMap<_, _> =
            self.peers.iter().take(MAX_WALK).flatten().map(|(peer, state)| (peer.0, state.0)).collect();
        let known = |(key, counters): (FlowKey, Counters)| {
            Class::from_number(key.class).map(|class| (key.peer, class, counters))
        };
        let uplinks = self
            .names
            .iter()
            .filter_map(|(index, name)| Some((name.clone(), self.uplinks.get(index, 0).ok()?.0)));
        Ok(Reading {
            classes,
            flows: flows.into_iter().filter_map(known).collect(),
            peers: peers.into_iter().collect(),
            uplinks: uplinks.collect(),
        })
    }
}
