//! Hawker's own image, pulled through Hawker, and run as the next node's daemon: started by containerd as a kubelet would
//! have it started, from the chart's DaemonSet, with exactly its security context.
//!
//! Not a kubelet: what lies between the manifest and runc is [`crate::kube::pod`]. Invariant: what the case judges by is read
//! from the running process and from outside, not from the specification.

use super::{has_all, image, origin_ratio};
use crate::command::{LONG, check};
use crate::image::{self as images, version};
use crate::kube::pod::{Host, Pod};
use crate::kube::tools;
use crate::kube::{object, objects};
use crate::lab::containerd::Via;
use crate::lab::network::{CONTROL, Cluster, ORIGIN};
use crate::lab::registry::Registry;
use crate::lab::{Lab, REGISTRY_NAME, data_dir, run_dir};
use crate::setup::Ability;
use crate::{http, interrupt, netns, workspace};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const NODE: &str = "a2";
const START_LIMIT: Duration = Duration::from_secs(20);
/// CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// Why the case cannot run here, if so.
pub(super) fn missing() -> Result<Option<String>> {
    Ok(tools::ready(&Ability::Lab)?.err())
}

pub(super) fn next_nodes_daemon(lab: &mut Lab) -> Result<()> {
    let tools = tools::ready(&Ability::Lab)?.map_err(anyhow::Error::msg)?;
    let own = own_image(lab)?;
    lab.node_mut(NODE)?.daemon.stop()?;
    lab.node_mut(NODE)?.containerd.restart_unified()?;
    let manifests = objects(&tools.template("hawker", "hawker-system", &["--values", &values()?])?)?;
    let daemon_set = object(&manifests, "DaemonSet", "hawker-dfdaemon")?;
    let host = Host {
        name: NODE,
        ip: lab.node(NODE)?.ip.to_string(),
        network: Path::new("/run/netns").join(netns::name(NODE)),
        root: data_dir(NODE).join("host"),
        pod_dir: data_dir(NODE).join("pod"),
        rootfs: data_dir(NODE).join("rootfs"),
    };
    let files = |object: &&Value| object["kind"] == "ConfigMap" || object["kind"] == "Secret";
    let files = manifests.iter().filter(files).collect();
    let pod = Pod { spec: &daemon_set["spec"]["template"]["spec"], files, host };
    let running = Running::start(lab, &pod, &own)?;
    running.shows_least_privilege()?;
    serves(lab, &pod.host.root)?;
    running.stop()
}

/// Makes the image, and pulls it: from the registry once, to the second node from the first.
fn own_image(lab: &Lab) -> Result<String> {
    let built = images::build(&workspace::target()?.join("image"))?;
    let daemon = built.iter().find(|image| image.name == "hawkerd").context("no image of hawkerd")?;
    lab.registry.push(&daemon.layout, version(), "hawkerd")?;
    let reference = Registry::reference("hawkerd");
    let before = lab.origin_bytes(Cluster::A)?;
    let first = lab.node("a1")?.containerd.pull(&reference, Via::Hawker)?;
    let next = lab.node(NODE)?.containerd.pull(&reference, Via::Mirror)?;
    let bytes = lab.origin_bytes(Cluster::A)? - before;
    let (mib, size) =
        (bytes as f64 / f64::from(1 << 20), daemon.compressed_bytes as f64 / f64::from(1 << 20));
    println!(
        "    own image of {size:.2} MiB: a1 {:.2} s, {NODE} through Hawker {:.2} s, {mib:.2} MiB from the registry for both",
        first.as_secs_f64(),
        next.as_secs_f64()
    );
    ensure!(bytes < daemon.compressed_bytes * 11 / 10 + 65536, "{bytes} bytes from the registry");
    Ok(reference)
}

/// The lab in the chart's words.
fn values() -> Result<String> {
    let values = json!({
        "manager": { "enable": false },
        "externalManager": { "enable": true, "host": CONTROL.to_string() },
        "containerRuntime": { "containerd": { "registries": [
            { "host": REGISTRY_NAME, "server": format!("http://{ORIGIN}:5000") },
        ] } },
        "dfdaemon": { "config": { "host": { "idc": Cluster::A.name() } } },
    });
    let path = data_dir(NODE).join("values.yaml");
    fs::write(&path, values.to_string()).context("write the values")?;
    Ok(path.display().to_string())
}

/// The pod's container, as containerd runs it.
struct Running<'l> {
    lab: &'l Lab,
    id: &'static str,
}

impl<'l> Running<'l> {
    fn start(lab: &'l Lab, pod: &Pod<'_>, reference: &str) -> Result<Self> {
        let running = Self { lab, id: "hawkerd" };
        fs::create_dir_all(&pod.host.rootfs).context("make the root's directory")?;
        running.ctr(&["images", "mount", "--rw", reference, &pod.host.rootfs.display().to_string()])?;
        let base = running.base(reference)?;
        for container in pod.init_containers() {
            let name = container["name"].as_str().context("a container without name")?;
            let spec = running.write(name, &pod.runtime_spec(&base, container)?)?;
            let said = running.ctr(&["run", "--rm", "--runc-root", &runc_root(), "--config", &spec, name])?;
            print!("{}", said.lines().map(|line| format!("    {name}: {line}\n")).collect::<String>());
        }
        let spec = running.write(running.id, &pod.runtime_spec(&base, pod.container()?)?)?;
        let log = data_dir(NODE).join("pod.log");
        running.ctr(&[
            "run",
            "--detach",
            "--runc-root",
            &runc_root(),
            "--log-uri",
            &format!("file://{}", log.display()),
            "--config",
            &spec,
            running.id,
        ])?;
        let ready = interrupt::poll("the daemon in the container is ready", START_LIMIT, || {
            let status = status()?;
            ensure!(status["scheduler"]["connected"] == true, "no scheduler: {}", status["scheduler"]);
            Ok(())
        });
        ready.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(running)
    }

    fn ctr(&self, words: &[&str]) -> Result<String> {
        Ok(check(self.lab.node(NODE)?.containerd.ctr()?.args(words), LONG)?.stdout)
    }

    /// What containerd itself makes for a container, less what its CRI plugin takes out: limits of open files, and /run.
    fn base(&self, reference: &str) -> Result<Value> {
        self.ctr(&["containers", "create", "--seccomp", reference, "base"])?;
        let info: Value = serde_json::from_str(&self.ctr(&["containers", "info", "base"])?)?;
        self.ctr(&["containers", "rm", "base"])?;
        let mut spec = info["Spec"].clone();
        let process = spec["process"].as_object_mut().context("a specification without process")?;
        process.remove("rlimits");
        let mounts = spec["mounts"].as_array_mut().context("a specification without mounts")?;
        mounts.retain(|mount| mount["destination"] != "/run");
        Ok(spec)
    }

    fn write(&self, name: &str, spec: &Value) -> Result<String> {
        let mut spec = spec.clone();
        spec["linux"]["cgroupsPath"] = json!(format!("/{}", group(name)));
        let path = data_dir(NODE).join(format!("{name}.spec.json"));
        fs::write(&path, spec.to_string()).context("write a specification")?;
        Ok(path.display().to_string())
    }

    /// From the process itself.
    fn shows_least_privilege(&self) -> Result<()> {
        let pid = self.pid()?;
        let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's status")?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
                .with_context(|| format!("no {name}"))
        };
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let held = u64::from_str_radix(field(name)?, 16)?;
            let expected = if ["CapInh:", "CapAmb:"].contains(&name) { 0 } else { CAPABILITIES };
            ensure!(held == expected, "{name} {held:x}, not {expected:x}");
        }
        let (filtered, privileges) = (field("Seccomp:")?, field("NoNewPrivs:")?);
        let mounts = fs::read_to_string(format!("/proc/{pid}/mounts"))?;
        let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).context("no root")?;
        let options = root.split(' ').nth(3).unwrap_or_default();
        println!(
            "    the process: CapEff {} (NET_ADMIN, PERFMON, BPF), Seccomp {filtered}, NoNewPrivs {privileges}, root {}",
            field("CapEff:")?,
            options.split(',').next().unwrap_or_default()
        );
        ensure!(filtered == "2" && privileges == "1", "Seccomp {filtered}, NoNewPrivs {privileges}");
        ensure!(options.split(',').any(|option| option == "ro"), "the root can be written: {root}");
        let status = status()?;
        println!("    engine {}: {}", status["engine"]["name"], status["engine"]["reason"]);
        println!("    shaper {}: {}", status["shaper"]["mode"], status["shaper"]["reason"]);
        ensure!(
            status["engine"]["name"] == "io_uring" && status["shaper"]["mode"] == "ebpf",
            "not accelerated"
        );
        // Mounting is not in the profile, a file of the root cannot be written.
        ensure!(status["warnings"] == json!([]), "warnings: {}", status["warnings"]);
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        let tasks = self.ctr(&["tasks", "ls"])?;
        let line = tasks.lines().find(|line| line.starts_with(self.id)).context("no task of the daemon")?;
        line.split_whitespace()
            .nth(1)
            .and_then(|pid| pid.parse().ok())
            .with_context(|| format!("no pid in {line}"))
    }

    fn stop(&self) -> Result<()> {
        self.ctr(&["tasks", "kill", "--signal", "SIGTERM", self.id])?;
        interrupt::poll("the daemon ends", Duration::from_secs(30), || {
            let tasks = self.ctr(&["tasks", "ls"])?;
            if tasks.contains("RUNNING") { bail!("{tasks}") } else { Ok(()) }
        })?;
        self.ctr(&["tasks", "rm", self.id]).map(drop)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.ctr(&["tasks", "rm", "--force", self.id]);
        let _ = self.ctr(&["containers", "rm", self.id]);
        let _ =
            self.ctr(&["images", "unmount", "--rm", &data_dir(NODE).join("rootfs").display().to_string()]);
        // Made by runc below the root of the one hierarchy, which this machine may have elsewhere.
        for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            for name in [self.id, "seccomp-profile", "container-runtime"] {
                let _ = fs::remove_dir(Path::new(mount).join(group(name)));
            }
        }
    }
}

/// Where runc keeps what it knows of containers: with the lab, so that it goes with it.
fn runc_root() -> String {
    run_dir(NODE).join("runc").display().to_string()
}

fn group(name: &str) -> String {
    format!("hwk-pod-{name}")
}

fn status() -> Result<Value> {
    netns::within(&netns::name(NODE), || http::get("http://127.0.0.1:4003/status", &[])?.json())
}

/// Pulls go through the daemon in the container, both ways: from the other node, and to it.
fn serves(lab: &Lab, root: &Path) -> Result<()> {
    let hosts = root.join("etc/containerd/certs.d");
    let (there, here) = (lab.node("a1")?, lab.node(NODE)?);
    let sent = |status: &Value| -> u64 {
        let classes = status["shaper"]["classes"].as_array().into_iter().flatten();
        classes.filter_map(|class| class["sent_bytes"].as_u64()).sum()
    };

    let first = image(lab, "pod-in", &[24])?;
    there.containerd.pull(&first.reference, Via::Hawker)?;
    let before = lab.origin_bytes(Cluster::A)?;
    let took = here.containerd.pull(&first.reference, Via::Dir(&hosts))?;
    has_all(here, &first)?;
    println!(
        "    {NODE} pulls from a1, by the hosts.toml that the init container wrote: {:.2} s",
        took.as_secs_f64()
    );
    ensure!(origin_ratio(lab, &first, before)? < 0.01, "it came from the registry");

    let second = image(lab, "pod-out", &[24])?;
    here.containerd.pull(&second.reference, Via::Dir(&hosts))?;
    let (before, served) = (lab.origin_bytes(Cluster::A)?, sent(&status()?));
    there.containerd.pull(&second.reference, Via::Hawker)?;
    has_all(there, &second)?;
    let served = sent(&status()?) - served;
    println!(
        "    a1 pulls from {NODE}: {served} bytes on the wire, by eBPF; the image has {}",
        second.bytes()
    );
    ensure!(origin_ratio(lab, &second, before)? < 0.01, "it came from the registry");
    ensure!(served >= second.bytes(), "the programs saw {served} bytes");
    Ok(())
}
