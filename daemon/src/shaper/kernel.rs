//! The eBPF programs: loaded, attached, ordered and read. The one file that knows aya.
//!
//! Everything hangs on file descriptors of this process: when it ends, however it ends, the kernel takes programs,
//! links and maps away.
//!
//! Where a queue that paced connections (`fq`) went away, the kernel paces those connections no more, whatever is asked
//! of it: then the twin paces them before they write, and the programs count.
//!
//! Invariant: a program that does not load or attach is an error with the kernel's own words, never half a shaper.

use super::Portable;
use super::attachment::Attachment;
use super::backend::{Backend, BackendError, Direction, Grant, Mode, Orders, Reading, Scope};
use crate::metrics::Metrics;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{CgroupSkb, ProgramFd, SockOps};
use aya::{Ebpf, Pod};
use hawker_abi::clock::{BURST_NS, DEPARTURE_BURST_NS};
use hawker_abi::{
    Class, ClassCounters, Counters, Endpoint, FlowKey, Limit, MODE_ACCOUNT, MODE_CLOCK, MODE_EDT, PeerAddr,
    PeerState, Settings,
};
use parking_lot::Mutex;
use std::collections;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

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
plain!(PeerAddr, FlowKey, Counters, ClassCounters, PeerState, Limit, Settings, Endpoint);

type Map<K, V> = HashMap<MapData, Plain<K>, Plain<V>>;

/// The loaded programs.
pub(super) struct Kernel {
    maps: Mutex<Maps>,
    /// Paces in [`Mode::Grants`]; counts nothing.
    twin: Portable,
    by_twin: AtomicBool,
    /// Of limits and of peers, for who comes next.
    handed: [OwnedFd; 2],
    /// What the programs hang by: dropped, they are detached.
    attachments: Vec<Attachment>,
    _programs: Ebpf,
}

struct Maps {
    settings: Array<MapData, Plain<Settings>>,
    limits: Map<PeerAddr, Limit>,
    peers: Map<PeerAddr, PeerState>,
    flows: Map<FlowKey, Counters>,
    classes: PerCpuArray<MapData, Plain<ClassCounters>>,
    endpoints: HashMap<MapData, Plain<Endpoint>, u32>,
    /// What `LIMITS` holds.
    written: collections::HashMap<PeerAddr, Limit>,
}

fn failed<E: Display>(act: &'static str) -> impl FnOnce(E) -> BackendError {
    // Alternate form: anyhow-like chains where there are any; aya's Display already names its cause.
    move |error| BackendError { act, detail: format!("{error:#}") }
}

/// Where programs come to hang.
pub(super) struct Places<'a> {
    /// A group without the daemon's programs.
    pub(super) cgroup: Option<&'a File>,
    /// Links of the daemon before, in threes.
    pub(super) links: Vec<OwnedFd>,
    /// What its programs went by.
    pub(super) settings: Option<Settings>,
    /// Its maps of limits and of peers.
    pub(super) maps: Vec<OwnedFd>,
}

/// Loaded, and who the daemon before had to do with.
pub(super) struct Loaded {
    pub(super) kernel: Kernel,
    pub(super) peers: Vec<PeerAddr>,
}

impl Kernel {
    /// Loads everything and attaches it, before the first socket is made in the group.
    pub(super) fn load(mut places: Places<'_>, metrics: &Metrics) -> Result<Loaded, BackendError> {
        let mut ebpf = Ebpf::load(OBJECT)
            .map_err(|error| BackendError { act: "load the eBPF maps", detail: chain(&error) })?;
        load_programs(&mut ebpf)?;
        let handed = [share(&ebpf, "LIMITS")?, share(&ebpf, "PEERS")?];
        let mut maps = Maps {
            settings: take(&mut ebpf, "SETTINGS")?,
            limits: take(&mut ebpf, "LIMITS")?,
            peers: take(&mut ebpf, "PEERS")?,
            flows: take(&mut ebpf, "FLOWS")?,
            classes: take(&mut ebpf, "CLASSES")?,
            endpoints: take(&mut ebpf, "ENDPOINTS")?,
            written: collections::HashMap::new(),
        };
        if let Some(settings) = places.settings {
            // From the first packet on that the former programs do not see.
            maps.settings.set(0, Plain(settings), 0).map_err(failed("write the settings"))?;
        }
        let peers = maps.inherit(std::mem::take(&mut places.maps));
        let peers = peers.unwrap_or_else(|error| {
            // What the settings say of every peer holds all the same.
            tracing::warn!(%error, "the limits of single peers begin anew");
            Vec::new()
        });
        let attachments = attach(&ebpf, places)?;
        let (maps, twin) = (Mutex::new(maps), Portable::new(metrics.clone()));
        let kernel =
            Self { maps, twin, by_twin: AtomicBool::new(false), handed, attachments, _programs: ebpf };
        Ok(Loaded { kernel, peers })
    }

    /// The maps that the next daemon begins with.
    pub(super) fn handed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.handed.iter().map(AsFd::as_fd)
    }

    /// What the programs hang by, in threes.
    pub(super) fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.attachments.iter().flat_map(Attachment::links)
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

/// Another descriptor of a map.
fn share(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, BackendError> {
    let missing = || BackendError { act: "find a map of the object", detail: name.to_owned() };
    let (aya::maps::Map::HashMap(map) | aya::maps::Map::LruHashMap(map)) =
        ebpf.map(name).ok_or_else(missing)?
    else {
        return Err(missing());
    };
    map.fd().as_fd().try_clone_to_owned().map_err(failed("share a map"))
}

/// In the order of [`super::attachment::PLACES`].
const PROGRAMS: [&str; 3] = ["peer_egress", "peer_ingress", "peer_sockets"];

fn load_programs(ebpf: &mut Ebpf) -> Result<(), BackendError> {
    for name in [PROGRAMS[0], PROGRAMS[1]] {
        program::<&mut CgroupSkb>(ebpf, name)?.load().map_err(|error| load_failed(&error))?;
    }
    program::<&mut SockOps>(ebpf, PROGRAMS[2])?.load().map_err(|error| load_failed(&error))
}

fn attach(ebpf: &Ebpf, places: Places<'_>) -> Result<Vec<Attachment>, BackendError> {
    let descriptors = || -> Option<[BorrowedFd<'_>; 3]> {
        let fd = |name| ebpf.program(name)?.fd().ok().map(ProgramFd::as_fd);
        Some([fd(PROGRAMS[0])?, fd(PROGRAMS[1])?, fd(PROGRAMS[2])?])
    };
    let missing = || BackendError { act: "find a program of the object", detail: PROGRAMS.join(", ") };
    let (programs, mut attachments) = (descriptors().ok_or_else(missing)?, Vec::new());
    let mut links = places.links.into_iter();
    while let (Some(egress), Some(ingress), Some(sockets)) = (links.next(), links.next(), links.next()) {
        match Attachment::taken_over([egress, ingress, sockets], programs) {
            Ok(attachment) => attachments.push(attachment),
            // With the container of the daemon before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!("a cgroup of a former daemon is gone");
            }
            Err(error) => return Err(failed("take the links of the daemon before over")(error)),
        }
    }
    if let Some(cgroup) = places.cgroup {
        let attached = Attachment::new(cgroup.as_fd(), programs);
        attachments.push(attached.map_err(failed("attach the eBPF programs to the cgroup"))?);
    }
    Ok(attachments)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<P, BackendError>
where
    P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let found = ebpf.program_mut(name);
    let found = found.ok_or(BackendError { act: "find a program of the object", detail: name.to_owned() })?;
    found.try_into().map_err(failed("open a program"))
}

fn load_failed(error: &dyn std::error::Error) -> BackendError {
    BackendError { act: "load the eBPF programs", detail: chain(error) }
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

/// What the programs go by, but for the limits of single peers.
pub(super) fn settings(orders: &Orders) -> Settings {
    Settings {
        mode: match orders.mode {
            Mode::Account | Mode::Grants => MODE_ACCOUNT,
            Mode::Clock => MODE_CLOCK,
            Mode::Departure => MODE_EDT,
        },
        piece_port: orders.piece_port.into(),
        burst_ns: if orders.mode == Mode::Departure { DEPARTURE_BURST_NS } else { BURST_NS },
        total_rate: orders.total_rate,
        level: orders.level,
        default_limit: orders.default_limit,
    }
}

impl Backend for Kernel {
    fn apply(&self, orders: &Orders) -> Result<(), BackendError> {
        self.twin.apply(orders)?;
        self.by_twin.store(orders.mode == Mode::Grants, Ordering::Relaxed);
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
        maps.settings.set(0, Plain(settings(orders)), 0).map_err(failed("write the settings"))
    }

    fn expect(&self, far_end: SocketAddr, class: Class) {
        let endpoint =
            Endpoint { addr: far_end.ip().into(), port: far_end.port().into(), ..Endpoint::default() };
        if let Err(error) = self.maps.lock().endpoints.insert(Plain(endpoint), class as u32, 0) {
            tracing::debug!(%far_end, %error, "announce a connection to the eBPF programs");
        }
    }

    fn moved(&self, _peer: IpAddr, _class: Class, _direction: Direction, _bytes: u64) {}

    fn pace(&self, peer: IpAddr, bytes: u64) -> Grant {
        if self.by_twin.load(Ordering::Relaxed) { self.twin.pace(peer, bytes) } else { Grant::all(bytes) }
    }

    fn read(&self, scope: Scope<'_>) -> Result<Reading, BackendError> {
        let maps = self.maps.lock();
        match scope {
            Scope::All => maps.all(),
            // What was charged is known to who charges.
            Scope::Peers(_) if self.by_twin.load(Ordering::Relaxed) => self.twin.read(scope),
            Scope::Peers(peers) => {
                let state = |peer: &PeerAddr| Some((*peer, maps.peers.get(&Plain(*peer), 0).ok()?.0));
                let peers = peers.iter().filter_map(state).collect();
                Ok(Reading { peers, ..maps.classes()? })
            }
        }
    }
}

impl Maps {
    /// Begins with the limits of the daemon before; returns the peers that it knew. Sizes that differ are an error.
    fn inherit(&mut self, from: Vec<OwnedFd>) -> Result<Vec<PeerAddr>, BackendError> {
        let mut from = from.into_iter();
        let (Some(limits), Some(peers)) = (from.next(), from.next()) else { return Ok(Vec::new()) };
        let open = |fd| MapData::from_fd(fd).map_err(failed("open a map of the daemon before"));
        let (limits, peers) =
            (aya::maps::Map::HashMap(open(limits)?), aya::maps::Map::LruHashMap(open(peers)?));
        let limits = Map::<PeerAddr, Limit>::try_from(limits).map_err(failed("read the limits before"))?;
        let peers = Map::<PeerAddr, PeerState>::try_from(peers).map_err(failed("read the peers before"))?;
        for (peer, limit) in limits.iter().take(MAX_WALK).flatten() {
            self.limits.insert(peer, limit, 0).map_err(failed("write a peer's limit"))?;
            self.written.insert(peer.0, limit.0);
        }
        let known: collections::HashSet<PeerAddr> = peers
            .keys()
            .take(MAX_WALK)
            .flatten()
            .map(|peer| peer.0)
            .chain(self.written.keys().copied())
            .collect();
        Ok(known.into_iter().collect())
    }

    /// The totals alone.
    fn classes(&self) -> Result<Reading, BackendError> {
        let mut reading = Reading::default();
        for class in Class::ALL {
            let each = self.classes.get(&(class as u32), 0).map_err(failed("read the totals"))?;
            let total = &mut reading.classes[class as usize];
            for Plain(cpu) in each.iter() {
                *total = total.plus(cpu.wire);
                reading.whole.sent += cpu.tx_whole;
                reading.whole.received += cpu.rx_whole;
            }
        }
        Ok(reading)
    }

    fn all(&self) -> Result<Reading, BackendError> {
        let flows: collections::HashMap<_, _> =
            self.flows.iter().take(MAX_WALK).flatten().map(|(key, value)| (key.0, value.0)).collect();
        let peers: collections::HashMap<_, _> =
            self.peers.iter().take(MAX_WALK).flatten().map(|(peer, state)| (peer.0, state.0)).collect();
        let known = |(key, counters): (FlowKey, Counters)| {
            Class::from_number(key.class).map(|class| (key.peer, class, counters))
        };
        Ok(Reading {
            flows: flows.into_iter().filter_map(known).collect(),
            peers: peers.into_iter().collect(),
            ..self.classes()?
        })
    }
}
