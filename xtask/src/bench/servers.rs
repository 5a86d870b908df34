//! The servers that are compared: hawkerd with either engine, nginx with sendfile, the naive one. All serve
//! the same two files under the same paths, next to each other, one at a time under load.
//!
//! Invariant: a running [`Server`] is what its name says (engine and congestion control were asked back) and
//! gave every byte of the blob right.

use super::load::{self, Load};
use super::stand::{Network, SERVER_CPU, Stand, server_namespace};
use crate::command::{SHORT, check};
use crate::lab::processes::Process;
use crate::{http, interrupt, netns};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time for a server to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    #[value(name = "io_uring")]
    IoUring,
    Portable,
    Nginx,
    Naive,
    /// hawkerd with io_uring and `peer.send: copy`.
    Copy,
    /// The same with `peer.send: zc`.
    Zc,
}

impl Kind {
    /// What the grid compares.
    pub(crate) const ALL: [Self; 4] = [Self::IoUring, Self::Portable, Self::Nginx, Self::Naive];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Portable => "portable",
            Self::Nginx => "nginx",
            Self::Naive => "naive",
            Self::Copy => "copy",
            Self::Zc => "zc",
        }
    }

    /// Whether it is hawkerd.
    pub(crate) fn is_ours(self) -> bool {
        !matches!(self, Self::Nginx | Self::Naive)
    }

    /// As hawkerd calls its engine, and how it sends.
    fn engine(self) -> (&'static str, &'static str) {
        match self {
            Self::Portable => ("portable", "splice"),
            Self::Copy => ("io_uring", "copy"),
            Self::Zc => ("io_uring", "zc"),
            _ => ("io_uring", "splice"),
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::IoUring => 4100,
            Self::Portable => 4200,
            Self::Nginx => 4300,
            Self::Naive => 4400,
            Self::Copy => 4500,
            Self::Zc => 4600,
        }
    }
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    /// All its processes: CPU, memory and descriptors are theirs together.
    pub(crate) pids: Vec<i32>,
    process: Process,
}

impl Server {
    /// Starts it, and does not return before it proved to be what was asked for.
    pub(crate) fn start(stand: &Stand, kind: Kind) -> Result<Self> {
        let dir = stand.dir.join(kind.name());
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let mut command = match kind {
            Kind::IoUring | Kind::Portable | Kind::Copy | Kind::Zc => hawkerd(stand, kind, &dir)?,
            Kind::Nginx => nginx(stand, kind.port(), &dir)?,
            Kind::Naive => naive(stand, kind.port()),
        };
        let process = Process::start(kind.name(), &mut command, &dir.join("log"))?;
        let mut server = Self { kind, port: kind.port(), pids: Vec::new(), process };
        server.prove(stand).with_context(|| format!("server {}", kind.name()))?;
        Ok(server)
    }

    fn prove(&mut self, stand: &Stand) -> Result<()> {
        let process = &mut self.process;
        let kind = self.kind;
        interrupt::poll("the server listens", START_LIMIT, || match process.check() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) => listening(kind).map(Ok),
        })??;
        if kind.is_ours() {
            let (engine, _) = self.engine()?;
            let asked = kind.engine().0;
            ensure!(engine == asked, "it reports engine {engine}, asked for was {asked}");
        }
        self.pids = family(self.process.pid()?)?;
        self.congestion_control(stand)?;
        for blob in [&stand.warm, &stand.cold] {
            load::verify(stand, self, blob).with_context(|| format!("verify {}", blob.path))?;
        }
        Ok(())
    }

    /// Name and reason of hawkerd's engine, as it says now.
    pub(crate) fn engine(&self) -> Result<(String, String)> {
        let url = format!("http://127.0.0.1:{}/status", self.port + 1);
        let status = netns::within(&server_namespace(), || http::get(&url, &[])?.json())?;
        let text = |key: &str| status["engine"][key].as_str().unwrap_or("none").to_owned();
        Ok((text("name"), text("reason")))
    }

    /// The kernel's word on what the server's sockets use.
    fn congestion_control(&self, stand: &Stand) -> Result<()> {
        let load = Load { connections: 1, ..Load::default() };
        let held = load::hold(stand, Network::Lo, self, &load, false)?;
        let filter = format!("sport = :{}", self.port);
        let mut ss = netns::command(&server_namespace(), "ss");
        let told = check(ss.args(["-tinH", "state", "established", &filter]), SHORT)?.stdout;
        held.release()?;
        let wanted = &stand.congestion;
        ensure!(
            told.split_whitespace().any(|word| word == wanted),
            "its sockets don't use {wanted}:\n{told}"
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.check().is_err() {
            return;
        }
        // By SIGTERM, so that nginx ends its worker.
        if let Err(error) = interrupt::shielded(|| self.process.stop()) {
            eprintln!("{error:?}");
        }
    }
}

fn listening(kind: Kind) -> Result<()> {
    let port = if kind.is_ours() { kind.port() + 1 } else { kind.port() };
    netns::within(&server_namespace(), || {
        std::net::TcpStream::connect((Network::Lo.server(), port)).map(drop).context("connect")
    })
}

fn hawkerd(stand: &Stand, kind: Kind, dir: &Path) -> Result<Command> {
    let store = dir.join("store");
    stand.link_blobs(&store)?;
    let (port, config) = (kind.port(), dir.join("daemon.yaml"));
    let text = format!(
        "host: {{ hostname: bench }}\n\
         engine: {}\n\
         peer: {{ addr: \"0.0.0.0:{port}\", tls: \"off\", auth: \"off\", send: {} }}\n\
         metrics: {{ addr: \"127.0.0.1:{}\" }}\n\
         mirror: {{ addr: \"127.0.0.1:{}\" }}\n\
         storage: {{ dir: {}, capacity: 0 }}\n\
         shaper: {{ mode: \"off\" }}\n\
         api: {{ socket: \"\" }}\n",
        kind.engine().0,
        kind.engine().1,
        port + 1,
        port + 2,
        store.display()
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = stand.server(&stand.programs.hawkerd);
    command.arg("--config").arg(&config);
    Ok(command)
}

/// One worker, sendfile, nothing that is not needed.
fn nginx(stand: &Stand, port: u16, dir: &Path) -> Result<Command> {
    let location = |path: &str, file: &Path| format!("location = {path} {{ alias {}; }}\n", file.display());
    let places = ["body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = places
        .map(|name| {
            let key =
                if name == "body" { "client_body_temp_path".to_owned() } else { format!("{name}_temp_path") };
            format!("{key} {};\n", dir.join(name).display())
        })
        .concat();
    let text = format!(
        "daemon off; user root; worker_processes 1; worker_rlimit_nofile 8192;\n\
         pid {pid}; error_log {log} warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         {temporary}\
         access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;\n\
         keepalive_timeout 1h; keepalive_requests 1000000000; send_timeout 1h;\n\
         open_file_cache max=16 inactive=1h; open_file_cache_valid 1h;\n\
         server {{\nlisten 0.0.0.0:{port} backlog=4096;\n{warm}{cold}}}\n\
         }}\n",
        pid = dir.join("pid").display(),
        log = dir.join("error.log").display(),
        warm = location(&stand.warm.path, &stand.warm.data),
        cold = location(&stand.cold.path, &stand.cold.data),
    );
    let config = dir.join("nginx.conf");
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = stand.server("nginx");
    command.arg("-p").arg(dir).arg("-e").arg(dir.join("error.log")).arg("-c").arg(&config);
    Ok(command)
}

fn naive(stand: &Stand, port: u16) -> Command {
    let mut command = stand.server(&stand.programs.naive);
    command.args(["--listen", &format!("0.0.0.0:{port}")]);
    for blob in [&stand.warm, &stand.cold] {
        command.arg("--serve").arg(format!("{}={}", blob.path, blob.data.display()));
    }
    command
}

/// The process and its children, pinned as they should be.
fn family(root: i32) -> Result<Vec<i32>> {
    let mut pids = vec![root];
    for entry in fs::read_dir("/proc").context("list processes")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
        if parent == Some(root) {
            pids.push(pid);
        }
    }
    for pid in &pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a server's status")?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if allowed.map(str::trim) != Some(&SERVER_CPU.to_string()) {
            bail!("process {pid} is not on CPU {SERVER_CPU} alone: {allowed:?}");
        }
    }
    Ok(pids)
}
