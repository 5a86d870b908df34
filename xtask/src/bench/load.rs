//! Drives the load generator, a program of its own on the client's CPU.
//!
//! Invariant: the server that is asked is the one whose CPU is counted.

use super::servers::Server;
use super::stand::{Blob, Network, SOURCES, Stand};
use crate::command::{LONG, check};
use anyhow::{Context, Result, ensure};
use hawker_bench::load::Outcome;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Connections that check a server's bytes.
const VERIFY_CONNECTIONS: usize = 4;

/// One measurement's terms.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) piece: u64,
    pub(crate) warm_up_millis: u64,
    pub(crate) window_millis: u64,
    /// Bodies are copied into a buffer, not dropped in the kernel.
    pub(crate) copy: bool,
    /// One more connection asks for pieces of the cold blob.
    pub(crate) cold: bool,
}

impl Default for Load {
    fn default() -> Self {
        let (connections, piece) = (4, 1 << 20);
        Self { connections, piece, warm_up_millis: 200, window_millis: 600, copy: false, cold: false }
    }
}

/// Measures one server.
pub(crate) fn measure(stand: &Stand, network: Network, server: &Server, load: &Load) -> Result<Outcome> {
    let mut command = begin(stand, (network, server), "run", &stand.warm, (load.connections, load.piece));
    let pids: Vec<String> = server.pids.iter().map(ToString::to_string).collect();
    command.args(["--pids", &pids.join(",")]);
    command.args(["--warm-up-millis", &load.warm_up_millis.to_string()]);
    command.args(["--window-millis", &load.window_millis.to_string()]);
    command.args(["--body", if load.copy { "copy" } else { "discard" }]);
    if load.cold {
        command.args(["--side-path", &stand.cold.path, "--side-size", &stand.cold.bytes.to_string()]);
    }
    let outcome = parse(&mut command).with_context(|| format!("measure {}", server.kind.name()))?;
    ensure!(outcome.congestion == stand.congestion, "the client's sockets use {}", outcome.congestion);
    Ok(outcome)
}

/// Every byte of a blob, once; also what brings it into the page cache.
pub(crate) fn verify(stand: &Stand, server: &Server, blob: &Blob) -> Result<()> {
    let mut command = begin(stand, (Network::Lo, server), "verify", blob, (VERIFY_CONNECTIONS, 4 << 20));
    command.arg("--file").arg(&blob.data);
    parse(&mut command).map(drop)
}

/// Connections that are open and silent, until released.
pub(crate) struct Held {
    child: Child,
}

/// Opens `load.connections`, each asking one piece; `stopped` ones don't read the answer.
pub(crate) fn hold(
    stand: &Stand,
    network: Network,
    server: &Server,
    load: &Load,
    stopped: bool,
) -> Result<Held> {
    let mut command = begin(stand, (network, server), "hold", &stand.warm, (load.connections, load.piece));
    command.args(["--asked", &load.piece.to_string()]);
    if stopped {
        command.arg("--stopped");
    }
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start bench-load")?;
    let mut held = Held { child };
    let stdout = held.child.stdout.as_mut().context("bench-load has an output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("read what bench-load says")?;
    ensure!(line.trim() == "ready", "not everybody got a connection to {}", server.kind.name());
    Ok(held)
}

impl Held {
    pub(crate) fn release(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        ensure!(self.child.wait().context("wait for bench-load")?.success(), "bench-load failed");
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Released ones have ended; of the others only the connections matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `cycles` rude clients that come and go.
pub(crate) fn churn(stand: &Stand, network: Network, server: &Server, cycles: usize) -> Result<()> {
    let mut command = begin(stand, (network, server), "churn", &stand.warm, (1, 4 << 20));
    check(command.args(["--cycles", &cycles.to_string()]), LONG).map(drop)
}

fn begin(
    stand: &Stand,
    (network, server): (Network, &Server),
    verb: &str,
    blob: &Blob,
    (connections, piece): (usize, u64),
) -> Command {
    let mut command = stand.client(network, &stand.programs.load);
    command.args([verb, "--server", &format!("{}:{}", network.server(), server.port)]);
    command.args(["--source", &network.first_source().to_string(), "--sources", &SOURCES.to_string()]);
    command.args(["--path", &blob.path, "--size", &blob.bytes.to_string()]);
    command.args(["--connections", &connections.to_string(), "--piece", &piece.to_string()]);
    command.args(["--congestion", &stand.congestion]);
    command
}

fn parse(command: &mut Command) -> Result<Outcome> {
    let finished = check(command, LONG)?;
    serde_json::from_str(&finished.stdout).with_context(|| format!("read figures of {}", finished.stdout))
}
