//! A PostgreSQL server of our own, for tests: a data directory that is thrown away, a port of its own, trust for who
//! is on this machine, and nothing of the system's servers.
//!
//! Invariants: the server never runs as root; it and its directory end with the value, and with this process if that
//! is killed.

use crate::command::{self, LONG};
use crate::interrupt;
use crate::lab::processes::Process;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User, chown};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Who runs it where we are root: Debian's package makes this user.
const USER: &str = "postgres";
/// Where Debian's packages put the servers, one folder a version.
const PROGRAMS: &str = "/usr/lib/postgresql";
const START_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where the server listens, and in which network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) addr: SocketAddr,
    pub(crate) namespace: Option<String>,
}

pub(crate) struct Postgres {
    place: Place,
    programs: PathBuf,
    dir: PathBuf,
    server: Process,
}

/// Whether there is a server to start.
pub(crate) fn installed() -> bool {
    programs().is_ok()
}

impl Postgres {
    /// Starts one on the loopback interface.
    pub(crate) fn start() -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("look for a free port")?;
        let addr = free.local_addr().context("look for a free port")?;
        drop(free);
        Self::start_at(Place { addr, namespace: None })
    }

    /// Makes a data directory, and starts a server on it.
    pub(crate) fn start_at(place: Place) -> Result<Self> {
        let programs = programs()?;
        let dir = std::env::temp_dir().join(format!("hawker-postgres-{}", std::process::id()));
        remove(&dir)?;
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let made = make_cluster(&programs, &dir);
        let started = made.and_then(|()| serve(&programs, &dir, &place));
        match started {
            Ok(server) => Ok(Self { place, programs, dir, server }),
            Err(error) => {
                remove(&dir)?;
                Err(error)
            }
        }
    }

    /// What a manager writes in `manager.database`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://{USER}@{}/{USER}", self.place.addr)
    }

    /// Ends it as a power cut would; what was committed is on disk.
    pub(crate) fn crash(&mut self) -> Result<()> {
        // SIGQUIT: no checkpoint, no farewell; SIGKILL would leave its shared memory behind.
        self.server.signal(Signal::SIGQUIT)?;
        self.server.stop()
    }

    /// Starts it again on the same data.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.server = serve(&self.programs, &self.dir, &self.place)?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.signal(Signal::SIGQUIT);
        let ended = self.server.stop().and_then(|()| remove(&self.dir));
        if let Err(error) = ended {
            eprintln!("{error:?}");
        }
    }
}

/// The folder of the newest version installed.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir(PROGRAMS).with_context(|| format!("look into {PROGRAMS}"))?;
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let found = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = found.filter(|path| path.join("bin/initdb").is_file()).max_by_key(|path| number(path));
    newest.map(|path| path.join("bin")).with_context(|| format!("no PostgreSQL server in {PROGRAMS}"))
}

fn make_cluster(programs: &Path, dir: &Path) -> Result<()> {
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).context("set permissions")?;
    if Uid::effective().is_root() {
        let user = User::from_name(USER).context("look up a user")?;
        let user = user.with_context(|| format!("there is no user {USER}"))?;
        chown(dir, Some(user.uid), Some(user.gid)).with_context(|| format!("give away {}", dir.display()))?;
    }
    let mut initdb = unprivileged(programs.join("initdb"));
    let words = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER];
    command::check(initdb.args(words).arg("--pgdata").arg(dir.join("data")), LONG)?;
    Ok(())
}

fn serve(programs: &Path, dir: &Path, place: &Place) -> Result<Process> {
    let mut server = unprivileged(programs.join("postgres"));
    if let Some(namespace) = &place.namespace {
        let inside = server;
        server = crate::netns::command(namespace, inside.get_program());
        server.args(inside.get_args());
    }
    server.arg("-D").arg(dir.join("data")).arg("-k").arg(dir);
    server.args(["-h", &place.addr.ip().to_string(), "-p", &place.addr.port().to_string()]);
    // Tests lose nothing by a power cut, and many of them connect at once.
    server.args(["-c", "fsync=off", "-c", "max_connections=300", "-c", "shared_buffers=32MB"]);
    let log = std::env::temp_dir().join(format!("hawker-postgres-{}.log", std::process::id()));
    let mut process = Process::start("PostgreSQL", server.current_dir("/"), &log)?;
    let ready = || -> Result<()> {
        process.check()?;
        let connect = || TcpStream::connect_timeout(&place.addr, LOOK_EVERY).map(drop).context("connect");
        match &place.namespace {
            Some(namespace) => crate::netns::within(namespace, connect),
            None => connect(),
        }
    };
    let ready = interrupt::poll("PostgreSQL listens", START_LIMIT, ready);
    let _ = std::fs::remove_file(&log);
    ready?;
    Ok(process)
}

/// A command that runs as who may run a server, and ends with us.
fn unprivileged(program: PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig").arg("QUIT");
    if Uid::effective().is_root() {
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("remove {}: {error}", dir.display())
        }
        _ => Ok(()),
    }
}

/// Installs Debian's package where that is possible.
pub(crate) fn need() -> Result<()> {
    if !installed() {
        crate::setup::need(&[("pg_lsclusters", "postgresql")])?;
    }
    ensure!(installed(), "there is no PostgreSQL server in {PROGRAMS}, and none could be installed");
    Ok(())
}
