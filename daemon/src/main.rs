//! `hawkerd`, the node daemon: reads its configuration, runs, drains. SIGHUP reads the limits again.
//!
//! No logic here: everything is in the library.
//!
//! Invariant: it ends within [`DRAIN_LIMIT`] of SIGTERM; the exit code tells a bad configuration (2)
//! from a daemon that could not start or drain (1).

use anyhow::Context;
use clap::Parser;
use hawker_daemon::config::{Config, ConfigError};
use hawker_daemon::daemon::Daemon;
use hawker_daemon::telemetry;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Longest time from SIGTERM to the end: below the 30 s after which Kubernetes kills a pod.
const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// Exit code of a refused configuration.
const BAD_CONFIGURATION: u8 = 2;

/// Hawker's node daemon: registry mirror and peer.
#[derive(Parser)]
#[command(name = "hawkerd", version)]
struct Arguments {
    /// Configuration file; without it, defaults and HAWKER_… variables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "what a command says before logging starts")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match load(&arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("hawkerd: {error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    if arguments.check_config {
        println!("configuration is valid");
        return ExitCode::SUCCESS;
    }
    telemetry::start(&config.telemetry);
    match run(config, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(arguments: &Arguments) -> Result<Config, ConfigError> {
    // Not `vars()`: it panics where any variable of the environment is not UTF-8.
    let environment =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    Config::load(arguments.config.as_deref(), environment)
}

#[tokio::main]
async fn run(config: Config, arguments: &Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let daemon = tokio::select! {
        daemon = Daemon::bind(config) => daemon.context("start the daemon")?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match load(arguments) {
                Ok(config) => daemon.reload(&config),
                Err(error) => tracing::error!(%error, "configuration not reloaded"),
            },
        }
    }
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        drained = tokio::time::timeout(DRAIN_LIMIT, daemon.shutdown()) => {
            drained.with_context(|| format!("drain within {} s", DRAIN_LIMIT.as_secs()))?;
        }
        _ = terminate.recv() => anyhow::bail!("not drained: ended by a second signal"),
        _ = interrupt.recv() => anyhow::bail!("not drained: ended by a second signal"),
    }
    Ok(())
}
