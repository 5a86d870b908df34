//! `hawkerd`: reads the configuration, runs the daemon until it is told to stop.

use anyhow::Context;
use clap::Parser;
use hawker_daemon::config::{Config, LogFormat};
use hawker_daemon::daemon::Daemon;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Hawker's node daemon: registry mirror for the container runtime, and peer of the other nodes.
#[derive(Parser)]
#[command(name = "hawkerd", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "/etc/hawker/daemon.yaml")]
    config: PathBuf,
    /// Only say whether the configuration is valid.
    #[arg(long)]
    check_config: bool,
}

/// Orchestrators kill after 30 s; what is not drained by then is cut.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::load(Some(&arguments.config), std::env::vars())?;
    if arguments.check_config {
        return Ok(());
    }
    start_tracing(config.telemetry.log_format);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(serve(config))?;
    // Reads that hang in the disk do not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let daemon = tokio::select! {
        daemon = Daemon::bind(config) => daemon?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    if tokio::time::timeout(DRAIN_LIMIT, daemon.shutdown()).await.is_err() {
        tracing::warn!("stopped before everything was drained");
    }
    Ok(())
}

fn start_tracing(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

#[expect(clippy::print_stderr, reason = "the program's last words, before or after tracing")]
fn complain(error: &anyhow::Error) {
    eprintln!("hawkerd: {error:#}");
}
