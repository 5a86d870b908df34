//! Knows and limits the daemon's traffic, peer by peer: by eBPF programs on its own cgroup where the kernel lets it,
//! else in user space.
//!
//! Not who gets which piece, and not the serving: the data path tells what it moves and asks for leave through
//! [`Accounting`], and whichever backend stands behind it does the same thing.
//!
//! Invariant: which backend is in use, and why, is in the log, in `/status` and in `hawker_shaper_info`; with
//! `shaper.mode: require` there is no other than the kernel's.

mod backend;
mod bucket;
mod cgroup;
mod controller;
mod division;
mod kernel;
mod limits;
mod portable;
mod privileges;
mod report;
mod totals;
mod uplinks;

pub(crate) use backend::Backend;
pub use backend::Grant;
pub(crate) use backend::{Direction, Scope};
pub(crate) use bucket::Bucket;
pub(crate) use portable::Portable;

use crate::accounting::{Accounting, Inbound};
use crate::config::{ShaperConfig, ShaperMode};
use crate::metrics::Metrics;
use cgroup::Cgroup;
use controller::{Desk, Event, KernelFacts, State};
use hawker_abi::PeerAddr;
use kernel::Kernel;
use limits::Limits;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use totals::Totals;

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
    desk: Arc<Desk>,
    inbound: Inbound,
    events: mpsc::Sender<Event>,
    thread: Option<JoinHandle<()>>,
    /// Left when everything else of the shaper is gone.
    _cgroup: Option<Cgroup>,
}

impl Shaper {
    /// Before the process makes its first socket: sockets stay in the cgroup they were made in.
    ///
    /// # Errors
    /// `ShaperUnavailable` where the configuration requires eBPF and it cannot be had.
    pub fn start(config: &ShaperConfig, metrics: &Metrics) -> Result<Self, ShaperUnavailable> {
        let (backend, kernel, cgroup, info) = choose(config.mode, metrics)?;
        let desk = Arc::new(Desk {
            backend,
            metrics: metrics.clone(),
            kernel,
            totals: Mutex::new(Totals::default()),
            info: Mutex::new(Info { mode: info.mode, reason: String::new() }),
            state: Mutex::new(State::default()),
        });
        desk.say(info.reason);
        let (events, received) = mpsc::channel();
        let thread = {
            let desk = Arc::clone(&desk);
            let builder = std::thread::Builder::new().name("shaper".to_owned());
            builder.spawn(move || controller::run(&desk, &received))
        };
        let thread = thread.map_err(|error| tracing::error!(%error, "start the shaper's thread")).ok();
        let shaper = Self { desk, inbound: Inbound::default(), events, thread, _cgroup: cgroup };
        shaper.apply(config);
        Ok(shaper)
    }

    /// New limits, from this moment on also for what is under way. The mode stays what it was at the start.
    pub fn apply(&self, config: &ShaperConfig) {
        self.inbound.download.set(config.download_limit.0);
        self.inbound.origin.set(config.origin_limit.0);
        let limits = Limits::from(config);
        let result = self.desk.update(|state| state.set_limits(limits)).and_then(|()| self.desk.probe());
        if let Err(error) = result {
            tracing::error!(%error, "set the limits");
        }
        let _ = self.events.send(Event::Look);
    }

    /// Where pieces are served: connections accepted there are uploads.
    pub fn serves_on(&self, port: u16) {
        if let Err(error) = self.desk.update(|state| state.piece_port = port) {
            tracing::error!(%error, port, "tell the eBPF programs the peers' port");
        }
    }

    /// The data path's handle.
    #[must_use]
    pub fn accounting(&self) -> Accounting {
        let (desk, events) = (Arc::clone(&self.desk), self.events.clone());
        let asks = move |peer: IpAddr| {
            if desk.asks(PeerAddr::from(peer)) {
                let _ = events.send(Event::Look);
            }
        };
        Accounting::over(Arc::clone(&self.desk.backend), self.inbound.clone(), Arc::new(asks))
    }

    #[must_use]
    pub fn info(&self) -> Info {
        self.desk.info.lock().clone()
    }

    /// Detaches everything and leaves the cgroup.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _ = self.events.send(Event::Stop);
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

type Chosen = (Arc<dyn Backend>, Option<KernelFacts>, Option<Cgroup>, Info);

fn choose(mode: ShaperMode, metrics: &Metrics) -> Result<Chosen, ShaperUnavailable> {
    let reason = match mode {
        ShaperMode::Off => "chosen by the configuration (shaper.mode: off)".to_owned(),
        ShaperMode::Auto | ShaperMode::Require => match with_kernel() {
            Ok((kernel, facts, cgroup)) => {
                let info = Info { mode: "ebpf", reason: facts.place.clone() };
                return Ok((Arc::new(kernel), Some(facts), Some(cgroup), info));
            }
            Err(reason) if mode == ShaperMode::Require => return Err(ShaperUnavailable { reason }),
            Err(reason) => reason,
        },
    };
    let reason = format!("bytes as the sockets take them, not the wire's: {reason}");
    Ok((Arc::new(Portable::new(metrics.clone())), None, None, Info { mode: "user", reason }))
}

/// Loads and attaches, or says in words why not.
fn with_kernel() -> Result<(Kernel, KernelFacts, Cgroup), String> {
    if let Some(missing) = privileges::missing() {
        return Err(missing);
    }
    let cgroup = Cgroup::join().map_err(|error| error.to_string())?;
    let uplinks = uplinks::find();
    let kernel = Kernel::load(cgroup.file(), &uplinks).map_err(|error| error.to_string())?;
    let facts = KernelFacts { place: format!("cgroup {}", cgroup.path().display()), uplinks };
    Ok((kernel, facts, cgroup))
}
