//! The life of the process: signals in, one daemon, and whoever follows it.
//!
//! SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads the limits again; SIGUSR2 starts the program that is
//! on the disk now, with the same arguments, which takes over.
//!
//! Invariant: it ends within [`DRAIN_LIMIT`] of SIGTERM.

use crate::config::{Config, ConfigError};
use crate::daemon::{Daemon, Handed};
use anyhow::Context;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest time from SIGTERM to the end: below the 30 s after which Kubernetes kills a pod.
const DRAIN_LIMIT: Duration = Duration::from_secs(25);

/// What tells the process to end.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind, name: &'static str) -> anyhow::Result<Signal> {
    signal(kind).with_context(|| format!("listen for {name}"))
}

/// Runs until it is told to end, or another daemon has taken over; `load` reads the configuration again.
///
/// # Errors
/// It could not start, or not drain in time.
pub async fn run(config: Config, load: impl Fn() -> Result<Config, ConfigError>) -> anyhow::Result<()> {
    let terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut ending = Ending { terminate, interrupt: listen(SignalKind::interrupt(), "SIGINT")? };
    let mut hangup = listen(SignalKind::hangup(), "SIGHUP")?;
    let mut follow = listen(SignalKind::user_defined2(), "SIGUSR2")?;
    // Of the file as it is now: a package manager puts another in its place.
    let program = std::env::current_exe().context("find the path of this program")?;
    let children = TaskTracker::new();
    let mut daemon = tokio::select! {
        daemon = Daemon::bind(config) => daemon.context("start the daemon")?,
        () = ending.told() => return Ok(()),
    };
    loop {
        let request = tokio::select! {
            () = ending.told() => break,
            request = daemon.successor() => request,
            _ = hangup.recv() => {
                match load() {
                    Ok(config) => daemon.reload(&config),
                    Err(error) => tracing::error!(%error, "configuration not reloaded"),
                }
                continue;
            }
            _ = follow.recv() => {
                start_successor(&program, &children);
                continue;
            }
        };
        let stop = CancellationToken::new();
        let handing = daemon.hand_over(request, &stop);
        let mut handing = std::pin::pin!(handing);
        let handed = loop {
            tokio::select! {
                handed = handing.as_mut() => break handed.context("take the store back")?,
                () = ending.told() => {
                    anyhow::ensure!(!stop.is_cancelled(), "not drained: ended by a second signal");
                    stop.cancel();
                }
            }
        };
        match handed {
            Handed::Over => return Ok(()),
            Handed::Back(_) if stop.is_cancelled() => return Ok(()),
            Handed::Back(back) => daemon = *back,
        }
    }
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        drained = tokio::time::timeout(DRAIN_LIMIT, daemon.shutdown()) => {
            drained.with_context(|| format!("drain within {} s", DRAIN_LIMIT.as_secs()))
        }
        () = ending.told() => anyhow::bail!("not drained: ended by a second signal"),
    }
}

/// It knocks at the door of the store by itself; its end is waited for, so that nothing stays of it.
fn start_successor(program: &PathBuf, children: &TaskTracker) {
    let started = Command::new(program).args(std::env::args_os().skip(1)).spawn();
    match started {
        Err(error) => tracing::error!(program = %program.display(), %error, "start the next daemon"),
        Ok(mut child) => {
            tracing::info!(pid = child.id(), program = %program.display(), "started the next daemon");
            children.spawn(async move {
                let ended = child.wait().await;
                tracing::warn!(?ended, "the next daemon ended");
            });
        }
    }
}
