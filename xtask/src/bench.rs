//! `cargo xtask bench …`: what can be measured, each against a named rival in the same run.
//!
//! Not the measuring of containerd's pulls, which needs the whole lab (`bench_pull`). Invariant: a rival or
//! an engine that cannot be had is an error, never left out silently.

mod cage;
mod engine;
mod footprint;
mod grid;
mod load;
mod receive;
mod scenarios;
mod servers;
mod stand;

use crate::bench_pull;
use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Pulls by real containerd against registries and the shaped origin.
    Pull,
    /// Serving pieces: hawkerd's engines against nginx and a naive tokio server.
    Engine(engine::Options),
    /// Receiving pieces into the store: hawkerd's client against plain tokio.
    Receive(receive::Options),
    /// Limits: how exact, how fast a new one holds, how a total is divided, what the programs cost.
    Shaper,
}

pub(crate) fn run(bench: Bench) -> Result<ExitCode> {
    match bench {
        Bench::Pull => bench_pull::run(),
        Bench::Engine(options) => engine::run(&options),
        Bench::Receive(options) => receive::run(&options),
        Bench::Shaper => crate::shaper::bench::run(),
    }
}
