//! Two namespaces with a veth pair, a store with a blob in it, and a `hawkerd` that serves it.
//!
//! Invariant: namespaces, daemon and files go with the value; what an earlier run left is cleared first.

use super::readers::{Readers, Whom};
use crate::command::{self, LONG, SHORT};
use crate::lab::processes::Process;
use crate::{http, interrupt, netns, workspace};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0, 0, 0, 0, 0, 0, 1);
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 11);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0, 0, 0, 0, 0, 0, 11);
/// Peers: addresses of the reading end.
pub(crate) const PEERS: u8 = 3;
const PIECE_PORT: u16 = 4000;
const STATUS: &str = "http://127.0.0.1:4003";
/// Served over and over.
const BLOB_BYTES: u64 = 64 << 20;
const START_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Stand {
    hawkerd: PathBuf,
    dir: tempfile::TempDir,
    path: String,
    daemon: Option<Process>,
}

impl Stand {
    pub(crate) fn build() -> Result<Self> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(workspace::root()?);
        cargo.args(["build", "--release", "-p", "hawker-daemon", "-p", "hawker-bench"]);
        ensure!(command::show(&mut cargo)?, "cargo build failed");
        clear()?;
        let dir = tempfile::Builder::new().prefix("shaper-").tempdir()?;
        let mut fill = Command::new(workspace::program("bench-fill")?);
        fill.arg("--dir").arg(dir.path().join("store")).args(["--size", &BLOB_BYTES.to_string()]);
        let filled: Value = serde_json::from_str(&command::check(&mut fill, LONG)?.stdout)?;
        let path = format!("/blobs/{}", filled["task"].as_str().context("bench-fill names its task")?);
        let stand = Self { hawkerd: workspace::program("hawkerd")?, dir, path, daemon: None };
        connect()?;
        Ok(stand)
    }

    /// Starts the daemon with this `shaper` section, waits until it serves, reads the blob once.
    pub(crate) fn start(&mut self, shaper: &str) -> Result<()> {
        self.start_by(&[], shaper)
    }

    /// As [`Self::start`], by a command that becomes the daemon.
    pub(crate) fn start_by(&mut self, by: &[&str], shaper: &str) -> Result<()> {
        self.stop()?;
        self.configure(shaper)?;
        let (first, rest) = by.split_first().map_or(("env", &[][..]), |(first, rest)| (*first, rest));
        let mut command = netns::command(&server(), first);
        command.args(rest).arg(&self.hawkerd).arg("--config").arg(self.config());
        let daemon =
            self.daemon.insert(Process::start("hawkerd", &mut command, &self.dir.path().join("daemon.log"))?);
        let serves = interrupt::poll("hawkerd serves", START_LIMIT, || {
            if let Err(ended) = daemon.check() {
                return Ok(Err(ended));
            }
            let healthy = || http::get(&format!("{STATUS}/healthz"), &[]).map(drop);
            netns::within(&server(), healthy).map(Ok)
        })?;
        if serves.is_err() {
            // It ended by itself: there is nobody to end.
            daemon.leave();
            self.daemon = None;
        }
        serves
    }

    /// Other limits for the running daemon.
    pub(crate) fn reload(&self, shaper: &str) -> Result<()> {
        self.configure(shaper)?;
        self.daemon.as_ref().context("no daemon runs")?.signal(Signal::SIGHUP)
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.stop())
    }

    pub(crate) fn crash(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.crash())
    }

    pub(crate) fn status(&self) -> Result<Value> {
        netns::within(&server(), || http::get(&format!("{STATUS}/status"), &[])?.json())
    }

    pub(crate) fn metrics(&self) -> Result<String> {
        Ok(netns::within(&server(), || http::get(&format!("{STATUS}/metrics"), &[]))?.text())
    }

    /// Readers of peer `peer` (0 to [`PEERS`]).
    pub(crate) fn read(&self, peer: u8, connections: usize) -> Result<Readers> {
        self.open(address(peer).into(), SERVER.into(), connections)
    }

    pub(crate) fn read_v6(&self, connections: usize) -> Result<Readers> {
        self.open(CLIENT_V6.into(), SERVER_V6.into(), connections)
    }

    fn open(&self, from: IpAddr, to: IpAddr, connections: usize) -> Result<Readers> {
        let whom = Whom { from, to: SocketAddr::new(to, PIECE_PORT), path: self.path.clone() };
        netns::within(&client(), || Readers::open(&whom, connections))
    }

    /// Congestion control of what the daemon sends, by the route: a namespace may not have it as its default.
    pub(crate) fn congestion(&self, name: &str) -> Result<()> {
        let words = ["route", "change", "10.73.0.0/24", "dev", "eth0", "src", "10.73.0.1", "congctl", name];
        netns::ip(&[&["-n", &server()][..], &words].concat())
    }

    /// Bytes that the interface counted, sent and received.
    pub(crate) fn interface(&self) -> Result<(u64, u64)> {
        // The namespace is the thread's, not the process's.
        let text = netns::within(&server(), || Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let fields: Vec<u64> = line
            .context("no eth0 in /proc/net/dev")?
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        Ok((*fields.get(8).context("too few columns")?, fields[0]))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> Result<i32> {
        self.daemon.as_ref().context("no daemon runs")?.pid()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("daemon.yaml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    fn configure(&self, shaper: &str) -> Result<()> {
        let text = format!(
            "peer: {{ addr: \"[::]:{PIECE_PORT}\" }}\n\
             storage: {{ dir: {}, capacity: 4GiB }}\n\
             api: {{ socket: \"\" }}\n\
             shaper: {shaper}\n",
            self.dir.path().join("store").display()
        );
        fs::write(self.config(), text).context("write the daemon's configuration")
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.daemon = None;
        if let Err(error) = clear() {
            eprintln!("take the shaper's namespaces down: {error:?}");
        }
    }
}

fn connect() -> Result<()> {
    let (server, client) = (server(), client());
    netns::create(&server)?;
    netns::create(&client)?;
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", &client];
    netns::ip(&[&["link", "add", "eth0", "netns", &server][..], &peer].concat())?;
    let add = |namespace: &str, address: String| {
        netns::ip(&["-n", namespace, "addr", "add", &address, "dev", "eth0", "nodad"])
    };
    netns::ip(&["-n", &server, "addr", "add", &format!("{SERVER}/24"), "dev", "eth0"])?;
    add(&server, format!("{SERVER_V6}/64"))?;
    add(&client, format!("{CLIENT_V6}/64"))?;
    for number in 0..PEERS {
        netns::ip(&["-n", &client, "addr", "add", &format!("{}/24", address(number)), "dev", "eth0"])?;
    }
    for namespace in [&server, &client] {
        netns::ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
    }
    Ok(())
}

/// One segment a packet, so that the veth counts packets as a wire would see them.
pub(crate) fn without_segmentation() -> Result<()> {
    for namespace in [server(), client()] {
        netns::ip(&["-n", &namespace, "link", "set", "eth0", "gso_max_segs", "1"])?;
    }
    Ok(())
}

/// The address of a peer.
pub(crate) fn address(peer: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST_CLIENT) + u32::from(peer))
}

pub(crate) fn server() -> String {
    netns::name("shaper-server")
}

fn client() -> String {
    netns::name("shaper-client")
}

fn clear() -> Result<()> {
    interrupt::shielded(|| {
        let ours = [server(), client()];
        for namespace in netns::standing()?.into_iter().filter(|name| ours.contains(name)) {
            command::run(Command::new("ip").args(["netns", "del", &namespace]), SHORT)?;
        }
        Ok(())
    })
}
