//! Load on the control plane: hosts that register and report each second, and people who read.
//!
//! Not daemons: nothing is downloaded. Invariant: each host has connections of its own, to its manager and its
//! scheduler, as daemons have.

mod host;
mod reads;

pub use host::{HostsPlan, run as hosts};
pub use reads::{ReadsPlan, run as reads};
