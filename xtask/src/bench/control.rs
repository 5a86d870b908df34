//! `cargo xtask bench control`: manager and scheduler, idle, and with 10,000 hosts that report each second while people
//! read; against bounds of their own.
//!
//! Invariants: the database is full of history before the load begins, so that what is rolled up and forgotten is part of
//! the measurement; every byte that was reported is in the history afterwards, or the run is an error.

mod pair;

use super::footprint::peak_kib;
use crate::lab::processes::Process;
use crate::{binaries, interrupt, setup, workspace};
use anyhow::{Context, Result, ensure};
use clap::Args;
use hawker_bench::control_report::{HostsOutcome, ReadsOutcome};
use hawker_bench::{Figure, Report, cpu};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pair::{MANAGER, PASSWORD, Pair, REST, SCHEDULER, START_LIMIT, fill_history, get, token, uploaded};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Beside a connection of each host.
const SPARE_DESCRIPTORS: u64 = 1000;
/// For what a start touches once to be done with.
const SETTLE: Duration = Duration::from_secs(8);
/// After the last host came: lists and indices are warm, and nobody connects any more.
const STEADY: Duration = Duration::from_secs(15);
/// Of the reports at most this part is late, or it was not the load that is meant.
const MAX_LATE: f64 = 0.01;
/// Two processes, as one has descriptors for half of the hosts' connections.
const LOADERS: u32 = 2;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 10_000)]
    hosts: u32,
    /// Measured for so long, after all hosts have come.
    #[arg(long, default_value_t = 65)]
    seconds: u64,
}

struct Programs {
    control: PathBuf,
    load: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::need(&[("sqlite3", "sqlite3")])?;
    let programs = build()?;
    more_descriptors(options.hosts)?;
    let dir =
        tempfile::Builder::new().prefix("hawker-bench-control-").tempdir().context("make a directory")?;
    std::fs::write(dir.path().join("password"), PASSWORD).context("write the password")?;
    let mut report = Report::new("control", Vec::new());
    report.figures = idle(&programs, dir.path())?;
    report.figures.extend(loaded(&programs, dir.path(), options)?);
    print!("{}", report.render());
    let whole = options.hosts == 10_000;
    let to =
        if whole { workspace::root()?.join("bench/results") } else { workspace::target()?.join("bench") };
    let file = to.join("control.json");
    report.write(&file).with_context(|| format!("write {}", file.display()))?;
    println!("written to {}", file.display());
    Ok(ExitCode::SUCCESS)
}

fn build() -> Result<Programs> {
    let control = binaries::build()?.control;
    Ok(Programs { control, load: workspace::program("bench-control")? })
}

/// What is started from here may open a connection for each host.
fn more_descriptors(hosts: u32) -> Result<()> {
    let needed = u64::from(hosts) + SPARE_DESCRIPTORS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("ask for the limit of descriptors")?;
    if soft >= needed {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
    raised.with_context(|| format!("allow {needed} descriptors: the limit is {hard}"))
}

/// Nobody there: memory after the start, and after people signed in.
fn idle(programs: &Programs, dir: &Path) -> Result<Vec<Figure>> {
    let pair = Pair::start(&programs.control, dir)?;
    std::thread::sleep(SETTLE);
    let before = pair.mebibytes()?;
    for _ in 0..4 {
        token()?;
    }
    std::thread::sleep(SETTLE);
    let after = pair.mebibytes()?;
    pair.stop()?;
    Ok(vec![
        Figure::new("manager and scheduler idle, resident together", before, "MiB", 40.0),
        Figure::new("the same after four sign-ins", after, "MiB", 40.0),
    ])
}

fn loaded(programs: &Programs, dir: &Path, options: &Options) -> Result<Vec<Figure>> {
    fill_history(&dir.join("manager.db"), options.hosts)?;
    let pair = Pair::start(&programs.control, dir)?;
    let token = token()?;
    std::fs::write(dir.join("token"), &token).context("write the token")?;
    let before = uploaded(&token)?;
    let mut loaders = Vec::new();
    for number in 0..LOADERS {
        loaders.push(loader(programs, dir, number, options.hosts / LOADERS)?);
    }
    let ramping = Duration::from_secs(60 + u64::from(options.hosts) / 200);
    interrupt::poll("all hosts register", ramping, || {
        let listed = get(&token, "/api/v1/peers?per_page=1")?["total"].as_u64().unwrap_or(0);
        loaders.iter_mut().try_for_each(Process::check)?;
        ensure!(
            listed >= u64::from(options.hosts / LOADERS * LOADERS),
            "{listed} of {} hosts",
            options.hosts
        );
        Ok(())
    })?;
    std::thread::sleep(STEADY);
    let (measured, reads) = measure(programs, dir, &pair, options.seconds)?;
    let mut hosts = HostsOutcome::default();
    for (number, mut loader) in loaders.into_iter().enumerate() {
        loader.stop()?;
        let of_one: HostsOutcome = last_line(&dir.join(format!("hosts-{number}.log")))?;
        ensure!(of_one.lost_streams == 0, "{} streams were lost: {}", of_one.lost_streams, of_one.first_loss);
        hosts.reports += of_one.reports;
        hosts.late_reports += of_one.late_reports;
        hosts.bytes += of_one.bytes;
        hosts.cpu_seconds += of_one.cpu_seconds;
    }
    interrupt::poll("the history has what was reported", START_LIMIT, || {
        let counted = uploaded(&token)? - before;
        ensure!(counted == hosts.bytes, "{counted} bytes in the history, {} reported", hosts.bytes);
        Ok(())
    })?;
    println!(
        "{} reports ({} late), {} bytes, all in the history",
        hosts.reports, hosts.late_reports, hosts.bytes
    );
    let late = hosts.late_reports as f64 / hosts.reports as f64;
    ensure!(
        late <= MAX_LATE,
        "{:.1} % of the reports were late: this machine cannot bring the load",
        late * 100.0
    );
    pair.stop()?;
    Ok(figures(&measured, &reads))
}

fn figures(measured: &Measured, reads: &ReadsOutcome) -> Vec<Figure> {
    let mut figures = vec![
        Figure::new("manager, CPU", measured.manager_cores, "cores", 1.0),
        Figure::new("manager, most memory resident", measured.manager_mebibytes, "MiB", 512.0),
        Figure::new("REST reads, p99", reads.all.p99, "ms", 50.0),
        Figure::new("REST reads, failed", reads.all.failed as f64, "requests", 0.0),
    ];
    // Not bound, but worth knowing.
    figures.extend([
        Figure::told("REST reads", reads.all.requests as f64, "requests"),
        Figure::told("REST reads, p50", reads.all.p50, "ms"),
        Figure::told("REST reads, longest", reads.all.max, "ms"),
        Figure::told("scheduler, CPU", measured.scheduler_cores, "cores"),
        Figure::told("scheduler, most memory resident", measured.scheduler_mebibytes, "MiB"),
    ]);
    figures.extend(
        reads
            .by_path
            .iter()
            .map(|(path, latency)| Figure::told(&format!("p99 of {path}"), latency.p99, "ms")),
    );
    figures
}

struct Measured {
    manager_cores: f64,
    manager_mebibytes: f64,
    scheduler_cores: f64,
    scheduler_mebibytes: f64,
}

fn measure(programs: &Programs, dir: &Path, pair: &Pair, seconds: u64) -> Result<(Measured, ReadsOutcome)> {
    let (manager, scheduler) = (pair.manager.pid()?, pair.scheduler.pid()?);
    let log = dir.join("reads.log");
    let mut command = Command::new(&programs.load);
    command.args(["reads", "--rest", REST, "--seconds", &seconds.to_string(), "--token-file"]);
    let mut readers = Process::start("readers", command.arg(dir.join("token")).args(PATHS), &log)?;
    let began = Instant::now();
    let cpu = || (cpu::of_processes(&[manager]), cpu::of_processes(&[scheduler]));
    let before = cpu();
    let (mut after, mut wall) = (before, 0.0);
    while began.elapsed() < Duration::from_secs(seconds) {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(500));
        (after, wall) = (cpu(), began.elapsed().as_secs_f64());
    }
    readers.ends_within(START_LIMIT)?;
    let measured = Measured {
        manager_cores: (after.0 - before.0) / wall,
        manager_mebibytes: peak_kib(manager)? as f64 / 1024.0,
        scheduler_cores: (after.1 - before.1) / wall,
        scheduler_mebibytes: peak_kib(scheduler)? as f64 / 1024.0,
    };
    Ok((measured, last_line(&log)?))
}

/// What console and tool ask while somebody looks; of the last so many seconds where they say `since`.
const PATHS: [&str; 14] = [
    "/api/v1/clusters",
    "/api/v1/clusters/1",
    "/api/v1/peers?per_page=50",
    "/api/v1/peers?per_page=100&page=90",
    "/api/v1/schedulers",
    "/api/v1/bandwidth?step=1&since=-60",
    "/api/v1/bandwidth?step=60&since=-3600",
    "/api/v1/bandwidth?by=host&step=10&per_page=100&since=-60",
    "/api/v1/bandwidth?by=zone",
    "/api/v1/bandwidth?by=peer",
    "/api/v1/rollouts",
    "/api/v1/tasks",
    "/api/v1/jobs",
    "/api/v1/placements?ip=10.1.0.7",
];

fn loader(programs: &Programs, dir: &Path, number: u32, hosts: u32) -> Result<Process> {
    let mut command = Command::new(&programs.load);
    command.args(["hosts", "--manager", MANAGER, "--scheduler", &format!("http://{SCHEDULER}")]);
    command.args(["--first", &(number * hosts).to_string(), "--count", &hosts.to_string()]);
    Process::start("hosts", &mut command, &dir.join(format!("hosts-{number}.log")))
}

fn last_line<T: DeserializeOwned>(log: &Path) -> Result<T> {
    let text = std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    let line = text.lines().last().with_context(|| format!("{} is empty", log.display()))?;
    serde_json::from_str(line).with_context(|| format!("read figures of {line}"))
}
