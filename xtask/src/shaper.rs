//! The shaper under real traffic: a `hawkerd` that serves one blob at one end of a veth pair, readers at the other.
//! Its end-to-end cases (`cases`) and its benchmark (`bench`).
//!
//! Invariant: traffic stays between the two namespaces, and both go with the stand.

mod adverse;
pub(crate) mod bench;
mod capabilities;
mod cases;
mod inbound;
mod queues;
mod readers;
mod stand;
mod succession;
mod yields;

pub(crate) use cases::{run, run_with};
pub(crate) use queues::{fair_queue, run as run_on_queues};
pub(crate) use stand::{Programs, Stand};
