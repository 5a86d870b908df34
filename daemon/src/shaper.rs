//! Knows and limits the daemon's traffic, peer by peer: by eBPF programs on its own cgroup where the kernel lets it,
//! else in user space.
//!
//! Not who gets which piece, and not the serving: the data path tells what it moves and asks for leave through
//! [`Accounting`], and whichever backend stands behind it does the same thing.
//!
//! Invariant: which backend is in use, and why, is in the log, in `/status` and in `hawker_shaper_info`; with
//! `shaper.mode: require` there is no other than the kernel's.

mod attachment;
mod backend;
mod bucket;
mod cgroup;
mod controller;
mod division;
mod gauge;
mod kernel;
mod limits;
mod links;
mod meter;
mod netlink;
mod policy;
mod portable;
mod privileges;
mod report;
mod totals;
mod uplinks;
mod watch;
mod yielding;

pub(crate) use backend::Backend;
pub use backend::Grant;
pub(crate) use backend::{Direction, Scope};
pub(crate) use bucket::Bucket;
pub use meter::{CapacitySource, Sample};
pub(crate) use portable::Portable;

use crate::accounting::{Accounting, Inbound};
use crate::config::{ShaperConfig, ShaperMode};
use crate::handover::{KernelYield, ShaperHeritage};
use crate::metrics::Metrics;
use cgroup::Cgroup;
use controller::{Desk, Event, KernelFacts, State};
use hawker_abi::{Class, Counters, PeerAddr, Settings};
use hawker_api::policy::ShaperPolicy;
use kernel::{Kernel, Loaded, Places};
use links::Links;
use parking_lot::Mutex;
use policy::{Enforcer, Wanted};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use totals::Totals;
use yielding::{Wish, Yield};

/// eBPF was required and cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("eBPF was required by the configuration (shaper.mode: require): {reason}")]
pub struct ShaperUnavailable {
    reason: String,
}

/// Which backend is in use and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// `ebpf` or `user`.
    pub mode: &'static str,
    pub reason: String,
}

/// The running shaper; ends with [`Self::shutdown`] or drop.
pub struct Shaper {
    enforcer: Arc<Enforcer>,
    thread: Option<JoinHandle<()>>,
    /// Left when everything else of the shaper is gone.
    cgroup: Option<Cgroup>,
    /// The programs, where there are any; the backend is the same.
    kernel: Option<Arc<Kernel>>,
    shares_group: bool,
}

/// What another daemon needs to put its programs in the place of these.
pub(crate) struct Programs<'a> {
    /// In threes.
    pub(crate) links: Vec<BorrowedFd<'a>>,
    pub(crate) settings: Settings,
    /// Of limits and of peers.
    pub(crate) maps: Vec<BorrowedFd<'a>>,
    pub(crate) yielded: KernelYield,
    pub(crate) cgroup: &'a Path,
    pub(crate) former: Option<&'a Path>,
}

impl Shaper {
    /// Before the process makes its first socket: sockets stay in the cgroup they were made in.
    ///
    /// # Errors
    /// `ShaperUnavailable` where the configuration requires eBPF and it cannot be had.
    pub fn start(config: &ShaperConfig, metrics: &Metrics) -> Result<Self, ShaperUnavailable> {
        Self::follow((config, ShaperPolicy::default()), metrics, None)
    }

    /// As [`Self::start`], in the place of the programs of the daemon before, with what the cluster wanted last.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn follow(
        (config, cluster): (&ShaperConfig, ShaperPolicy),
        metrics: &Metrics,
        heritage: Option<ShaperHeritage>,
    ) -> Result<Self, ShaperUnavailable> {
        let mut state = State::default();
        let yielded = heritage.as_ref().map_or_else(KernelYield::default, |heritage| {
            state = State::following(&heritage.settings, heritage.yielded);
            heritage.yielded
        });
        let Chosen { backend, kernel, peers, cgroup, info, shares_group } =
            choose(config.mode, metrics, heritage)?;
        state.asked_by(peers);
        let facts = cgroup.as_ref().map(|cgroup| KernelFacts { place: place(cgroup) });
        let desk = Arc::new(Desk {
            backend,
            metrics: metrics.clone(),
            kernel: facts,
            totals: Mutex::new(Totals::default()),
            links: Mutex::new(Links::default()),
            info: Mutex::new(Info { mode: info.mode, reason: String::new() }),
            state: Mutex::new(state),
        });
        desk.say(info.reason);
        let (events, received) = mpsc::channel();
        let thread = {
            let desk = Arc::clone(&desk);
            let builder = std::thread::Builder::new().name("shaper".to_owned());
            let giving_way = Yield::following(yielded.limit, yielded.capacity);
            builder.spawn(move || controller::run(&desk, giving_way, &received))
        };
        watch::start(Arc::downgrade(&desk), events.clone());
        let thread = thread.map_err(|error| tracing::error!(%error, "start the shaper's thread")).ok();
        let wanted = Wanted { file: config.clone(), cluster };
        let enforcer = Enforcer { desk, inbound: Inbound::default(), events, wanted: Mutex::new(wanted) };
        enforcer.change(|_| {});
        Ok(Self { enforcer: Arc::new(enforcer), thread, cgroup, kernel, shares_group })
    }

    /// New limits of the node's own, from this moment on also for what is under way. The mode stays what it was at
    /// the start.
    pub fn apply(&self, config: &ShaperConfig) {
        self.enforcer.change(|wanted| wanted.file = config.clone());
    }

    /// A function that takes over what the cluster wants.
    #[must_use]
    pub fn follower(&self) -> Arc<dyn Fn(&ShaperPolicy) + Send + Sync> {
        let enforcer = Arc::clone(&self.enforcer);
        Arc::new(move |policy| enforcer.change(|wanted| wanted.cluster = policy.clone()))
    }

    /// Where pieces are served: connections accepted there are uploads.
    pub fn serves_on(&self, port: u16) {
        if let Err(error) = self.enforcer.desk.update(|state| state.piece_port = port) {
            tracing::error!(%error, port, "tell the eBPF programs the peers' port");
        }
    }

    /// The data path's handle.
    #[must_use]
    pub fn accounting(&self) -> Accounting {
        let Enforcer { desk, inbound, events, .. } = &*self.enforcer;
        let (desk, events) = (Arc::clone(desk), events.clone());
        let backend = Arc::clone(&desk.backend);
        let asks = move |peer: IpAddr| {
            if desk.asks(PeerAddr::from(peer)) {
                let _ = events.send(Event::Look);
            }
        };
        Accounting::over(backend, inbound.clone(), Arc::new(asks))
    }

    /// Whether sockets of the daemon before are in this daemon's cgroup, or nobody looks.
    pub(crate) fn shares_group(&self) -> bool {
        self.shares_group
    }

    /// Tells what the daemon counted up to this moment.
    pub(crate) fn counter(&self) -> impl Fn() -> [Counters; 4] + Send + Sync + 'static {
        let desk = Arc::clone(&self.enforcer.desk);
        move || {
            let _ = desk.read().inspect_err(|error| tracing::warn!(%error, "read the counters"));
            let totals = desk.totals.lock();
            Class::ALL.map(|class| totals.class(class))
        }
    }

    /// For who comes next; `None` without eBPF.
    pub(crate) fn programs(&self) -> Option<Programs<'_>> {
        let (kernel, cgroup) = (self.kernel.as_ref()?, self.cgroup.as_ref()?);
        let (settings, yielded) = self.enforcer.desk.in_force()?;
        let (links, maps) = (kernel.links().collect(), kernel.handed().collect());
        let (settings, former) = (kernel::settings(&settings), cgroup.former());
        Some(Programs { links, settings, maps, yielded, cgroup: cgroup.path(), former })
    }

    /// Another daemon serves: what is under way here ends, and leaves the limits to that one. The kernel's programs hold them
    /// over both; two processes that pace by themselves cannot.
    pub(crate) fn make_way(&self) {
        let result = self.enforcer.desk.update(|state| state.makes_way = true);
        if let Err(error) = result {
            tracing::error!(%error, "lower the limits of what is still under way");
        }
    }

    /// Another daemon's programs are in the place of these, and its processes in the group.
    pub(crate) fn leave_to_others(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.leave_to_others();
        }
    }

    #[must_use]
    pub fn info(&self) -> Info {
        self.enforcer.desk.info.lock().clone()
    }

    /// Detaches everything and leaves the cgroup.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _ = self.enforcer.events.send(Event::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the shaper's thread panicked");
        }
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How to give way; `None`: not at all.
fn wish(config: &ShaperConfig) -> Option<Wish> {
    config.yield_to_others.then_some(Wish {
        target: config.yield_target,
        floor: config.yield_floor.0 as f64,
        capacity: config.uplink_capacity.0 as f64,
        // Found with the uplinks.
        speed: None,
    })
}

struct Chosen {
    backend: Arc<dyn Backend>,
    kernel: Option<Arc<Kernel>>,
    /// Whom the daemon before knew.
    peers: Vec<PeerAddr>,
    cgroup: Option<Cgroup>,
    info: Info,
    shares_group: bool,
}

fn choose(
    mode: ShaperMode,
    metrics: &Metrics,
    heritage: Option<ShaperHeritage>,
) -> Result<Chosen, ShaperUnavailable> {
    let reason = match mode {
        ShaperMode::Off => "chosen by the configuration (shaper.mode: off)".to_owned(),
        ShaperMode::Auto | ShaperMode::Require => match with_kernel(metrics, heritage) {
            Ok((Loaded { kernel, peers }, cgroup, shares_group)) => {
                let (info, kernel) = (Info { mode: "ebpf", reason: place(&cgroup) }, Arc::new(kernel));
                let backend: Arc<dyn Backend> = Arc::<Kernel>::clone(&kernel);
                return Ok(Chosen {
                    backend,
                    kernel: Some(kernel),
                    peers,
                    cgroup: Some(cgroup),
                    info,
                    shares_group,
                });
            }
            Err(reason) if mode == ShaperMode::Require => return Err(ShaperUnavailable { reason }),
            Err(reason) => reason,
        },
    };
    let reason = format!("bytes as the sockets take them, not the wire's: {reason}");
    let (backend, info) = (Arc::new(Portable::new(metrics.clone())), Info { mode: "user", reason });
    Ok(Chosen { backend, kernel: None, peers: Vec::new(), cgroup: None, info, shares_group: true })
}

fn place(cgroup: &Cgroup) -> String {
    format!("cgroup {}", cgroup.path().display())
}

/// Loads and attaches, or says in words why not.
fn with_kernel(
    metrics: &Metrics,
    heritage: Option<ShaperHeritage>,
) -> Result<(Loaded, Cgroup, bool), String> {
    if let Some(missing) = privileges::missing() {
        return Err(missing);
    }
    let (places, cgroup, shares_group);
    match heritage {
        None => {
            (cgroup, shares_group) = (Cgroup::join().map_err(|error| error.to_string())?, false);
            places =
                Places { cgroup: Some(cgroup.file()), links: Vec::new(), settings: None, maps: Vec::new() };
        }
        Some(ShaperHeritage { links, settings, maps, cgroup: group, former, yielded: _ }) => {
            (cgroup, shares_group) = Cgroup::follow(&group, former).map_err(|error| error.to_string())?;
            let own = (!shares_group).then(|| cgroup.file());
            places = Places { cgroup: own, links, settings: Some(settings), maps };
        }
    }
    let loaded = Kernel::load(places, metrics).map_err(|error| error.to_string())?;
    Ok((loaded, cgroup, shares_group))
}
