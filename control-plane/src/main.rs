//! `hawker-control`: arguments, logging, configuration, run, drain. No logic of its own.

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use hawker_control::config::{Config, DEFAULT_PATH};
use hawker_control::health::{self, Health};
use hawker_control::manager::{self, Database, Manager};
use hawker_control::memory;
use hawker_control::scheduler::Scheduler;
use hawker_control::telemetry;
use prometheus_client::registry::Registry;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Hawker's control plane.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Manager and one scheduler in one process.
    Standalone(Options),
    /// Clusters, users and the placement of nodes.
    Manager(Options),
    /// Who fetches what from whom, inside one cluster.
    Scheduler(Options),
    /// Writes the manager's whole database to a new file, also while a manager works with it.
    Backup(FileOptions),
    /// Fills a new database, of either kind, from a backup.
    Restore(FileOptions),
}

#[derive(Debug, Args)]
struct FileOptions {
    #[command(flatten)]
    options: Options,
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Options {
    /// Configuration file [default: /etc/hawker/control.yaml where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Validate the configuration and exit.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    memory::give_back_large_blocks();
    started()
}

#[tokio::main]
async fn started() -> ExitCode {
    match start(&Arguments::parse().part).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: our messages name their causes already. Nothing to be done if it cannot be written.
            let _ = writeln!(std::io::stderr(), "hawker-control: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start(part: &Part) -> Result<()> {
    let (options, with_manager, with_scheduler) = match part {
        Part::Backup(FileOptions { options, .. }) | Part::Restore(FileOptions { options, .. }) => {
            (options, false, false)
        }
        Part::Standalone(options) => (options, true, true),
        Part::Manager(options) => (options, true, false),
        Part::Scheduler(options) => (options, false, true),
    };
    let config = Config::read(options.config.as_deref(), environment(), &hostname())?;
    if options.check_config {
        let file = options.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
        writeln!(std::io::stdout(), "configuration {} is valid", file.display())?;
        return Ok(());
    }
    if let Some(done) = by_file(part, &config.manager.database).await? {
        writeln!(std::io::stdout(), "{done}")?;
        return Ok(());
    }
    let filter = std::env::var("RUST_LOG").unwrap_or_default();
    let traces = telemetry::start(&config.telemetry, &hostname(), &filter)
        .map_err(|error| anyhow::anyhow!("start logging: {error}"))?;
    let ended = run(config, with_manager, with_scheduler).await;
    // Bounded by `FLUSH_LIMIT`.
    let _ = tokio::task::spawn_blocking(move || traces.flush()).await;
    ended
}

/// What has a file and an end, and what it did.
async fn by_file(part: &Part, database: &Database) -> Result<Option<String>> {
    let (rows, did, file) = match part {
        Part::Backup(FileOptions { file, .. }) => {
            (manager::backup(database, file).await?, "backed up to", file)
        }
        Part::Restore(FileOptions { file, .. }) => {
            (manager::restore(database, file).await?, "restored from", file)
        }
        _ => return Ok(None),
    };
    Ok(Some(format!("{database}: {rows} rows {did} {}", file.display())))
}

async fn run(config: Config, with_manager: bool, with_scheduler: bool) -> Result<()> {
    // Before anything is bound: a signal during the start ends it cleanly too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut registry = Registry::default();
    let mut scheduler_config = config.scheduler;
    let manager = if with_manager {
        // In one process what the manager asks for is what its scheduler shows.
        if config.manager.join_token_file.is_some() {
            scheduler_config.join_token_file.clone_from(&config.manager.join_token_file);
        }
        let manager = Manager::bind(config.manager).await?;
        manager.register_metrics(&mut registry);
        scheduler_config.manager_addrs = vec![manager.local_uri()];
        Some(manager)
    } else {
        None
    };
    let scheduler = if with_scheduler { Some(Scheduler::bind(scheduler_config).await?) } else { None };
    if let Some(scheduler) = &scheduler {
        scheduler.register_metrics(&mut registry);
    }
    health::register_process(&mut registry);
    let health = Health::bind(config.metrics, registry).await?;
    tracing::info!(
        rest = manager.as_ref().map(|manager| tracing::field::display(manager.rest_addr())),
        manager = manager.as_ref().map(|manager| tracing::field::display(manager.grpc_addr())),
        scheduler = scheduler.as_ref().map(|scheduler| tracing::field::display(scheduler.local_addr())),
        metrics = %health.local_addr(),
        "started"
    );

    tokio::select! {
        _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
        _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
    }
    if let Some(scheduler) = scheduler {
        scheduler.shutdown().await;
    }
    if let Some(manager) = manager {
        manager.shutdown().await;
    }
    health.shutdown().await;
    Ok(())
}

/// The variables that are text; a name or value that is not cannot be one of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// This machine's name; empty where the kernel does not tell.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
