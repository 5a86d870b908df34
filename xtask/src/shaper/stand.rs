//! Two namespaces with a veth pair, a store with a blob in it, and a `hawkerd` that serves it.
//!
//! Invariant: namespaces, daemon and files go with the value; what an earlier run left is cleared first.

use super::readers::{Readers, Whom};
use crate::command::{self, LONG, SHORT};
use crate::lab::processes::Process;
use crate::{binaries, http, interrupt, netns, workspace};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0, 0, 0, 0, 0, 0, 1);
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 11);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0, 0, 0, 0, 0, 0, 11);
/// Peers: addresses of the reading end.
pub(crate) const PEERS: u8 = 3;
const PIECE_PORT: u16 = 4000;
const STATUS: &str = "http://127.0.0.1:4003";
const BLOB_BYTES: u64 = 64 << 20;
const CROWD: u32 = 100_000;
const START_LIMIT: Duration = Duration::from_secs(20);

/// What the stand runs.
pub(crate) struct Programs {
    pub(crate) hawkerd: PathBuf,
    /// Fills its store.
    pub(crate) fill: PathBuf,
    /// Served over and over.
    pub(crate) blob_bytes: u64,
    /// Peers that come one after the other where there have to be many.
    pub(crate) crowd: u32,
}

impl Programs {
    /// Built from this tree.
    pub(crate) fn build() -> Result<Self> {
        let hawkerd = binaries::build()?.hawkerd;
        let fill = workspace::program("bench-fill")?;
        Ok(Self { hawkerd, fill, blob_bytes: BLOB_BYTES, crowd: CROWD })
    }
}

pub(crate) struct Stand {
    hawkerd: PathBuf,
    dir: tempfile::TempDir,
    path: String,
    daemon: Option<Process>,
    crowd: u32,
}

impl Stand {
    pub(crate) fn build(programs: &Programs) -> Result<Self> {
        clear()?;
        let dir = tempfile::Builder::new().prefix("shaper-").tempdir()?;
        let mut fill = Command::new(&programs.fill);
        fill.arg("--dir").arg(dir.path().join("store")).args(["--size", &programs.blob_bytes.to_string()]);
        let filled: Value = serde_json::from_str(&command::check(&mut fill, LONG)?.stdout)?;
        let path = format!("/blobs/{}", filled["task"].as_str().context("bench-fill names its task")?);
        let stand =
            Self { hawkerd: programs.hawkerd.clone(), dir, path, daemon: None, crowd: programs.crowd };
        connect()?;
        Ok(stand)
    }

    /// Starts the daemon with this `shaper` section and waits until it serves.
    pub(crate) fn start(&mut self, shaper: &str) -> Result<()> {
        self.start_by(&[], shaper)
    }

    /// As [`Self::start`], by a command that becomes the daemon.
    pub(crate) fn start_by(&mut self, by: &[&str], shaper: &str) -> Result<()> {
        self.stop()?;
        self.configure(shaper)?;
        let started = Process::start("hawkerd", &mut self.command(by), &self.log())?;
        let daemon = self.daemon.insert(started);
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

    /// Starts another daemon beside it and waits until that serves; returns the former. `look` is called meanwhile.
    pub(crate) fn follow(
        &mut self,
        mut look: impl FnMut() -> Result<()>,
        every: Duration,
    ) -> Result<Process> {
        let taken_over = |status: Value| status["lifetime"]["taken_over"].as_u64();
        let before = taken_over(self.status()?);
        let mut next = Process::start("the next hawkerd", &mut self.command(&[]), &self.log())?;
        let deadline = Instant::now() + START_LIMIT;
        while !self.status().is_ok_and(|status| taken_over(status) > before) {
            next.check()?;
            ensure!(Instant::now() < deadline, "the next hawkerd does not serve:\n{}", next.log_tail());
            std::thread::sleep(every);
            look()?;
        }
        self.daemon.replace(next).context("no daemon runs")
    }

    /// What the program says of a configuration that it refuses.
    pub(crate) fn refused(&self, shaper: &str) -> Result<String> {
        let path = self.dir.path().join("refused.yaml");
        fs::write(&path, format!("shaper: {shaper}\n")).context("write a configuration")?;
        let mut check = Command::new(&self.hawkerd);
        let finished = command::run(check.arg("--check-config").arg("--config").arg(&path), SHORT)?;
        ensure!(finished.status.code() == Some(2), "{shaper} is taken: {}", finished.status);
        Ok(finished.stderr.trim().to_owned())
    }

    fn command(&self, by: &[&str]) -> Command {
        let (first, rest) = by.split_first().map_or(("env", &[][..]), |(first, rest)| (*first, rest));
        let mut command = netns::command(&server(), first);
        command.args(rest).arg(&self.hawkerd).arg("--config").arg(self.config());
        command
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
        let readers = netns::within(&client(), || Readers::open(&whom, connections))?;
        if connections == 0 {
            return Ok(readers);
        }
        // The first to ask for a blob waits until its pieces are checked.
        interrupt::poll("bytes flow", START_LIMIT, || {
            ensure!(readers.bytes() > 0, "nothing came from {}", whom.to);
            Ok(())
        })?;
        Ok(readers)
    }

    /// Congestion control of what the daemon sends, by the route: a namespace may not have it as its default.
    pub(crate) fn congestion(&self, name: &str) -> Result<()> {
        let words = ["route", "change", "10.73.0.0/24", "dev", "eth0", "src", "10.73.0.1", "congctl", name];
        netns::ip(&[&["-n", &server()][..], &words].concat())
    }

    /// Filters that hang on the uplink's qdisc, as `tc` lists them.
    pub(crate) fn filters(&self) -> Result<Vec<String>> {
        let mut filters = Vec::new();
        for side in ["ingress", "egress"] {
            let mut tc = Command::new("tc");
            tc.args(["-n", &server(), "filter", "show", "dev", "eth0", side]);
            let listed = command::check(&mut tc, SHORT)?.stdout;
            filters.extend(listed.lines().filter(|line| line.contains(" handle ")).map(str::to_owned));
        }
        Ok(filters)
    }

    pub(crate) fn crowd(&self) -> u32 {
        self.crowd
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
            "peer: {{ addr: \"[::]:{PIECE_PORT}\", auth: off }}\n\
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

/// Bytes that the interface counted, and when.
pub(crate) struct Counted {
    pub(crate) at: Instant,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What the daemon's interface has counted.
pub(crate) fn interface() -> Result<Counted> {
    // The namespace is the thread's, not the process's.
    let (at, text) = netns::within(&server(), || {
        let text = fs::read_to_string("/proc/thread-self/net/dev")?;
        Ok((Instant::now(), text))
    })?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    let fields: Vec<u64> = line
        .context("no eth0 in /proc/net/dev")?
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    Ok(Counted { at, sent: *fields.get(8).context("too few columns")?, received: fields[0] })
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

/// Where pieces are served.
pub(crate) fn piece_server() -> SocketAddr {
    SocketAddr::new(SERVER.into(), PIECE_PORT)
}

pub(crate) fn server() -> String {
    netns::name("shaper-server")
}

pub(crate) fn client() -> String {
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
