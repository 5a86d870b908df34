//! Network namespaces, veth pairs and bridges, by the `ip` and `tc` programs.
//!
//! Not a topology: see [`crate::lab::network`]. Invariant: everything made here is named with the
//! lab's prefix, so that it is found again after a crash.

use crate::command::{SHORT, check};
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

/// What every namespace and link of the lab in the host's own namespace is called by.
pub(crate) const PREFIX: &str = "hwk-";

/// The full name of the namespace of `host`.
pub(crate) fn name(host: &str) -> String {
    format!("{PREFIX}{host}")
}

/// Makes a namespace with its loopback up.
pub(crate) fn create(namespace: &str) -> Result<()> {
    ip(&["netns", "add", namespace])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])
}

/// Removes a namespace and the links in it.
pub(crate) fn delete(namespace: &str) -> Result<()> {
    ip(&["netns", "del", namespace])
}

/// The lab's namespaces that stand.
pub(crate) fn standing() -> Result<Vec<String>> {
    let listed = check(Command::new("ip").args(["netns", "list"]), SHORT)?.stdout;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
}

/// The processes whose network is this namespace.
pub(crate) fn pids(namespace: &str) -> Result<Vec<i32>> {
    let listed = check(Command::new("ip").args(["netns", "pids", namespace]), SHORT)?.stdout;
    Ok(listed.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// A bridge that is up, with an address.
pub(crate) fn bridge(namespace: &str, bridge: &str, address: Ipv4Addr) -> Result<()> {
    ip(&["-n", namespace, "link", "add", bridge, "type", "bridge"])?;
    // Without it the first seconds of every port are lost to listening and learning.
    ip(&["-n", namespace, "link", "set", bridge, "type", "bridge", "forward_delay", "0"])?;
    ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", bridge])?;
    ip(&["-n", namespace, "link", "set", bridge, "up"])
}

/// Connects `namespace` by `eth0` to a bridge of another namespace.
pub(crate) fn plug(namespace: &str, address: Ipv4Addr, switch: (&str, &str), port: &str) -> Result<()> {
    let (switch, bridge) = switch;
    let veth = ["type", "veth", "peer", "name", port, "netns", switch];
    ip(&[&["link", "add", "eth0", "netns", namespace][..], &veth].concat())?;
    ip(&["-n", switch, "link", "set", port, "master", bridge, "up"])?;
    ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    ip(&["-n", namespace, "link", "set", "eth0", "up"])
}

/// Sends what goes to `network` to `gateway`.
pub(crate) fn route(namespace: &str, network: &str, gateway: Ipv4Addr) -> Result<()> {
    ip(&["-n", namespace, "route", "add", network, "via", &gateway.to_string()])
}

/// Shapes what leaves `device` to `rate` (in tc's words) with a token bucket.
pub(crate) fn shape(namespace: &str, device: &str, rate: &str) -> Result<()> {
    // The bucket must hold a few of the 64 KiB segments that veth hands over whole.
    let bucket = ["tbf", "rate", rate, "burst", "256k", "latency", "50ms"];
    let mut tc = Command::new("tc");
    check(tc.args(["-n", namespace, "qdisc", "replace", "dev", device, "root"]).args(bucket), SHORT)?;
    Ok(())
}

/// Runs one `ip` command.
pub(crate) fn ip(words: &[&str]) -> Result<()> {
    check(Command::new("ip").args(words), SHORT).map(drop)
}

/// A command that runs inside the namespace. `nsenter`, because `ip netns exec` hides cgroup2.
pub(crate) fn command(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", handle(namespace).display())).arg("--").arg(program);
    command
}

/// Runs `work` on a thread of its own whose sockets live in the namespace.
pub(crate) fn within<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = handle(namespace);
    let file = File::open(&path).with_context(|| format!("open namespace {}", path.display()))?;
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
            work()
        });
        inside.join().map_err(|_| anyhow!("the thread inside {namespace} panicked"))?
    })
}

fn handle(namespace: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace)
}
