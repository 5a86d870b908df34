//! Hawker's control plane: the manager, which knows the clusters and places nodes in them, and the scheduler,
//! which decides inside one cluster who fetches what from whom. `hawker-control` runs either or both.
//!
//! Invariant: nothing here is on the data path; a daemon that runs goes on without it.

pub mod config;
pub mod health;
mod http;
pub mod manager;
pub mod memory;
pub mod placement;
pub mod scheduler;
pub mod telemetry;
mod usage;
