//! Where engines are measured: two namespaces with a veth pair between them, a control group, blobs on disk,
//! the programs.
//!
//! Invariant: namespaces, group and files go with the value; what an earlier run left is cleared first.

use super::cage::Cage;
use crate::command::{self, LONG, SHORT};
use crate::{binaries, interrupt, netns, workspace};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The server's CPU and the load generator's.
pub(crate) const SERVER_CPU: usize = 0;
const CLIENT_CPU: usize = 1;
/// Addresses of the load generator: hawkerd allows 64 connections for one, and 1024 in all.
pub(crate) const SOURCES: u32 = 32;
const SERVER_VETH: Ipv4Addr = Ipv4Addr::new(10, 72, 0, 1);
const FIRST_CLIENT_VETH: Ipv4Addr = Ipv4Addr::new(10, 72, 0, 10);
const FIRST_CLIENT_LO: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// The way between server and client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    Lo,
    Veth,
}

impl Network {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lo => "lo",
            Self::Veth => "veth",
        }
    }

    pub(crate) fn server(self) -> Ipv4Addr {
        match self {
            Self::Lo => Ipv4Addr::LOCALHOST,
            Self::Veth => SERVER_VETH,
        }
    }

    pub(crate) fn first_source(self) -> Ipv4Addr {
        match self {
            Self::Lo => FIRST_CLIENT_LO,
            Self::Veth => FIRST_CLIENT_VETH,
        }
    }

    pub(crate) fn client_namespace(self) -> String {
        match self {
            Self::Lo => server_namespace(),
            Self::Veth => client_namespace(),
        }
    }
}

/// A blob in the prepared store.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) data: PathBuf,
    pub(crate) pieces: PathBuf,
    /// As peers ask for it, at every server.
    pub(crate) path: String,
    pub(crate) bytes: u64,
}

impl Blob {
    pub(crate) fn task(&self) -> &str {
        self.path.trim_start_matches("/blobs/")
    }
}

#[derive(Deserialize)]
struct Filled {
    task: String,
    hex: String,
}

/// Programs built from this tree.
pub(crate) struct Programs {
    pub(crate) hawkerd: PathBuf,
    pub(crate) load: PathBuf,
    pub(crate) naive: PathBuf,
    pub(crate) receive: PathBuf,
    fill: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        let hawkerd = binaries::build()?.hawkerd;
        Ok(Self {
            hawkerd,
            load: workspace::program("bench-load")?,
            naive: workspace::program("bench-naive")?,
            receive: workspace::program("bench-receive")?,
            fill: workspace::program("bench-fill")?,
        })
    }
}

pub(crate) struct Stand {
    pub(crate) programs: Programs,
    pub(crate) dir: PathBuf,
    pub(crate) cage: Cage,
    pub(crate) congestion: String,
    /// What is asked all the time.
    pub(crate) warm: Blob,
    /// What may be pushed out of the page cache.
    pub(crate) cold: Blob,
    /// Removes the directory, after everything else.
    _temporary: tempfile::TempDir,
}

impl Stand {
    pub(crate) fn build(congestion: &str, warm_bytes: u64, cold_bytes: u64) -> Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        ensure!(cpus > CLIENT_CPU, "server and client need a CPU each; here is {cpus}");
        let programs = Programs::build()?;
        clear()?;
        // On a disk, beside the build: a tmpfs has other pages and no disk to limit.
        let target = workspace::target()?;
        let temporary = tempfile::Builder::new().prefix("bench-").tempdir_in(&target)?;
        let dir = temporary.path().to_owned();
        let fill = |bytes, seed| fill(&programs, &dir.join("prepared"), bytes, seed);
        let (warm, cold) = (fill(warm_bytes, 1)?, fill(cold_bytes, 2)?);
        let cage = Cage::make(SERVER_CPU)?;
        let congestion = congestion.to_owned();
        let stand = Self { programs, dir, cage, congestion, warm, cold, _temporary: temporary };
        stand.connect()?;
        Ok(stand)
    }

    fn connect(&self) -> Result<()> {
        let (server, client) = (server_namespace(), client_namespace());
        for namespace in [&server, &client] {
            netns::create(namespace)?;
            let setting = format!("net.ipv4.tcp_congestion_control={}", self.congestion);
            let set = command::check(netns::command(namespace, "sysctl").args(["-qw", &setting]), SHORT);
            set.with_context(|| format!("congestion control {} in a namespace", self.congestion))?;
        }
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &client];
        netns::ip(&[&["link", "add", "eth0", "netns", &server][..], &peer].concat())?;
        netns::ip(&["-n", &server, "addr", "add", &format!("{SERVER_VETH}/24"), "dev", "eth0"])?;
        for number in 0..SOURCES {
            let address = Ipv4Addr::from(u32::from(FIRST_CLIENT_VETH) + number);
            netns::ip(&["-n", &client, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        }
        for namespace in [&server, &client] {
            netns::ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// A server's command: in the server's namespace and groups, on the server's CPU.
    pub(crate) fn server(&self, program: impl AsRef<OsStr>) -> Command {
        caged(&server_namespace(), &self.cage.enter_as_server(), &SERVER_CPU.to_string(), program)
    }

    /// A client's command: on the other end, on the other CPU.
    pub(crate) fn client(&self, network: Network, program: impl AsRef<OsStr>) -> Command {
        self.client_on(network, &CLIENT_CPU.to_string(), program)
    }

    /// The same on CPUs to choose, as `taskset -c` takes them.
    pub(crate) fn client_on(&self, network: Network, cpus: &str, program: impl AsRef<OsStr>) -> Command {
        caged(&network.client_namespace(), &self.cage.enter_as_client(), cpus, program)
    }

    /// Makes `dir` a store with both blobs, by reference to the prepared files: the page cache is the same.
    pub(crate) fn link_blobs(&self, dir: &Path) -> Result<()> {
        let blobs = dir.join("blobs");
        std::fs::create_dir_all(&blobs).with_context(|| format!("make {}", blobs.display()))?;
        for file in [&self.warm.data, &self.warm.pieces, &self.cold.data, &self.cold.pieces] {
            let to = blobs.join(file.file_name().context("a blob's file has a name")?);
            // Here already where the server was started before.
            if !to.exists() {
                std::fs::hard_link(file, &to).with_context(|| format!("link {}", to.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Err(error) = clear() {
            eprintln!("take the benchmark's namespaces down: {error:?}");
        }
    }
}

/// The shell goes in and becomes the program, so that it is what it seems: one process from the start.
fn caged(namespace: &str, enter: &str, cpus: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = netns::command(namespace, "sh");
    command.arg("-c").arg(format!("{enter}exec taskset -c {cpus} \"$@\"")).arg("sh").arg(program);
    command
}

/// Puts a blob into the prepared store.
fn fill(programs: &Programs, store: &Path, bytes: u64, seed: u64) -> Result<Blob> {
    let mut command = Command::new(&programs.fill);
    command.arg("--dir").arg(store).args(["--size", &bytes.to_string(), "--seed", &seed.to_string()]);
    let filled: Filled = serde_json::from_str(&command::check(&mut command, LONG)?.stdout)?;
    let file = |ending: &str| store.join("blobs").join(format!("sha256-{}.{ending}", filled.hex));
    let path = format!("/blobs/{}", filled.task);
    Ok(Blob { data: file("data"), pieces: file("pieces"), path, bytes })
}

pub(crate) fn server_namespace() -> String {
    netns::name("bench-server")
}

fn client_namespace() -> String {
    netns::name("bench-client")
}

/// Ends what runs in the bench's namespaces and removes them.
fn clear() -> Result<()> {
    interrupt::shielded(|| {
        let ours = [server_namespace(), client_namespace()];
        for namespace in netns::standing()?.into_iter().filter(|name| ours.contains(name)) {
            let own = i32::try_from(std::process::id()).context("a pid")?;
            for pid in netns::pids(&namespace)?.into_iter().filter(|pid| *pid != own) {
                // Gone meanwhile is as good.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            netns::delete(&namespace)?;
        }
        Ok(())
    })
}

/// A version line of a program, for the report.
pub(crate) fn version(program: &str, argument: &str) -> Result<String> {
    let finished = command::run(Command::new(program).arg(argument), SHORT)?;
    let text = if finished.stdout.trim().is_empty() { finished.stderr } else { finished.stdout };
    match text.lines().next() {
        Some(line) => Ok(line.trim().to_owned()),
        None => bail!("{program} {argument} said nothing"),
    }
}
