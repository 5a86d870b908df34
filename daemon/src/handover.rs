//! One daemon follows another without a gap: the new one takes the listening sockets, the eBPF links, the store and the
//! totals of the one that runs, which lets its answers end and goes ([ADR 42](../../docs/adr/0042-one-store-one-daemon.md)).
//!
//! ```text
//!  successor                            incumbent
//!  Hello ─────────────────────────────►           both check each other's version
//!        ◄──────────────── Welcome + descriptors  listening sockets, links of the programs, maps
//!  Take  ─────────────────────────────►           downloads end at a piece's border
//!        ◄───────────────────────── Yours         the store's lock is free
//!  (programs in the place of the old ones)
//!  Counting ──────────────────────────►
//!        ◄──────────────────────── Totals         everything that was ever counted
//!  (store opened, sockets served)
//!  Serving ───────────────────────────►           answers under way go on with bytes from the successor
//!        ◄──────────────────────── Totals         once more, at the end
//! ```
//!
//! Invariant: who holds the lock of the store's directory is the only one that writes there.
//! Invariant: until the successor says that it serves, the incumbent can take everything back, and does where the
//! conversation ends early.

mod give;
mod heritage;
mod lock;
mod relay;
mod remote;
pub(crate) mod sockets;
pub mod systemd;
mod wire;

pub(crate) use give::Door;
pub use give::Request;
pub(crate) use heritage::{Heritage, ShaperHeritage};
pub(crate) use lock::Lock;
pub(crate) use relay::{Relay, Tenure};
pub(crate) use remote::{RelayServer, Remote};
pub(crate) use sockets::{Listeners, Place};
pub(crate) use wire::{Conversation, KernelYield, Message, Welcome};

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Longest time for one answer of the other side.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Why a daemon cannot follow the one that runs.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("{act} {path}: {source}", path = .path.display())]
    File { act: &'static str, path: PathBuf, source: io::Error },
    #[error("the store {dir} is another daemon's, which hands nothing over: {detail}", dir = .dir.display())]
    Held { dir: PathBuf, detail: String },
    #[error("{act} the daemon that runs: {source}")]
    Talk { act: &'static str, source: io::Error },
    #[error("the daemon that runs refuses: {0}")]
    Refused(String),
    #[error("the daemon that runs answered out of turn: {0}")]
    Confused(String),
}
