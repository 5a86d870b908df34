//! `hawkerd`, the node daemon: reads its configuration and runs.
//!
//! No logic here: everything is in the library.
//!
//! Invariant: the exit code tells a bad configuration (2) from a daemon that could not start or drain (1).

use clap::{Parser, Subcommand};
use hawker_daemon::config::{Config, ConfigError};
use hawker_daemon::init_runtime::InitRuntime;
use hawker_daemon::seccomp::SeccompProfile;
use hawker_daemon::telemetry;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code of a refused configuration.
const BAD_CONFIGURATION: u8 = 2;

/// Hawker's node daemon: registry mirror and peer.
#[derive(Parser)]
#[command(name = "hawkerd", version)]
struct Arguments {
    /// Configuration file; without it, defaults and HAWKER_… variables.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do instead of running the daemon.
#[derive(Subcommand)]
enum Command {
    InitRuntime(InitRuntime),
    SeccompProfile(SeccompProfile),
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "what a command says before logging starts")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let failed = |error: &dyn std::fmt::Display, code| {
        eprintln!("hawkerd: {error}");
        code
    };
    if let Some(Command::SeccompProfile(command)) = &arguments.command {
        return match command.run() {
            Ok(said) => {
                print!("{said}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error, ExitCode::FAILURE),
        };
    }
    let config = match load(&arguments) {
        Ok(config) => config,
        Err(error) => return failed(&error, ExitCode::from(BAD_CONFIGURATION)),
    };
    if arguments.check_config {
        println!("configuration is valid");
        return ExitCode::SUCCESS;
    }
    if let Some(Command::InitRuntime(command)) = &arguments.command {
        return match command.run(&config.mirror) {
            Ok(outcome) => {
                print!("{outcome}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error, ExitCode::FAILURE),
        };
    }
    run(config, &arguments).map_or_else(
        |error| {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn load(arguments: &Arguments) -> Result<Config, ConfigError> {
    // Not `vars()`: it panics where any variable of the environment is not UTF-8.
    let environment =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    Config::load(arguments.config.as_deref(), environment)
}

#[tokio::main]
async fn run(config: Config, arguments: &Arguments) -> anyhow::Result<()> {
    let traces = telemetry::start(&config.telemetry, &config.host.hostname);
    let ended = hawker_daemon::run::run(config, || load(arguments)).await;
    // Bounded by `FLUSH_LIMIT`.
    let _ = tokio::task::spawn_blocking(move || traces.flush()).await;
    ended
}
