//! `cargo xtask bench …`: what can be measured, each against a named rival in the same run.
//!
//! Not the measuring of containerd's pulls, which needs the whole lab (`bench_pull`). Invariant: a rival or
//! an engine that cannot be had is an error, never left out silently.

mod cage;
mod control;
mod engine;
mod footprint;
mod grid;
mod load;
mod receive;
mod scenarios;
mod servers;
mod stand;
mod streams;

use crate::{bench_get, bench_pull};
use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Pulls by real containerd against registries and the shaped origin.
    Pull,
    /// A large file by `hawker get`, against curl from nginx.
    Get(bench_get::Options),
    /// Serving pieces: hawkerd's engines against nginx and a naive tokio server.
    Engine(engine::Options),
    /// Receiving pieces into the store: hawkerd's client against plain tokio.
    Receive(receive::Options),
    /// Manager and scheduler: idle, and with 10,000 hosts.
    Control(control::Options),
    /// Limits: how exact, how fast a new one holds, how a total is divided, what the programs cost.
    Shaper(crate::shaper::bench::Options),
}

pub(crate) fn run(bench: Bench) -> Result<ExitCode> {
    match bench {
        Bench::Pull => bench_pull::run(),
        Bench::Get(options) => bench_get::run(&options),
        Bench::Engine(options) => engine::run(&options),
        Bench::Receive(options) => receive::run(&options),
        Bench::Control(options) => control::run(&options),
        Bench::Shaper(options) => crate::shaper::bench::run(&options),
    }
}
