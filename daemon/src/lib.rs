//! Hawker's node daemon as a library: everything `hawkerd` is made of. The program itself only
//! parses arguments and runs it.

pub mod accounting;
pub mod config;
pub mod control;
pub mod daemon;
pub mod engine;
pub mod metrics;
pub mod mirror;
pub mod origin;
pub mod peer;
pub mod pipe;
pub mod shaper;
pub mod status;
pub mod store;
pub mod swarm;
pub mod telemetry;
