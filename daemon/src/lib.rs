//! Hawker's node daemon as a library: everything `hawkerd` is made of. The program itself only
//! parses arguments and runs it.

pub mod access;
pub mod accounting;
pub mod config;
pub mod control;
pub mod daemon;
mod digest;
pub mod engine;
pub mod handover;
pub mod init_runtime;
pub mod jobs;
pub mod lifetime;
pub mod mapping;
pub mod metrics;
pub mod mirror;
pub mod origin;
pub mod peer;
pub mod pipe;
pub mod run;
pub mod seccomp;
pub mod shaper;
pub mod status;
pub mod store;
pub mod swarm;
pub mod telemetry;
mod trace;
