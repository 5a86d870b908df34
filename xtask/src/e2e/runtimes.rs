//! Runtimes set up and reverted by the real commands: containerd and podman pull through Hawker in between, and
//! straight afterwards; the doctor is content with a good node and names what is wrong with broken ones.
//!
//! The node's files lie in a directory of the lab: `--root` for the commands, `--hosts-dir` for `ctr`, a bind mount
//! over `/etc/containers` in a mount namespace of its own for podman.

use super::private::delivered_from;
use super::{has_all, image};
use crate::command::{self, Finished, LONG, SHORT, check};
use crate::lab::containerd::Via;
use crate::lab::images::Image;
use crate::lab::network::{Cluster, ORIGIN};
use crate::lab::{Lab, REGISTRY_NAME, data_dir};
use crate::netns;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

const NODE: &str = "a1";
const CONFIG: &str = "etc/containerd/config.toml";
const CONF: &str = "etc/containers/registries.conf";
const OWN_CONF: &str = "etc/containers/registries.conf.d/zz-hawker.conf";

pub(super) fn set_up_and_reverted(lab: &mut Lab) -> Result<()> {
    let image = image(lab, "runtime", &[5, 1])?;
    let root = data_dir(NODE).join("root");
    operators_files(&root)?;
    let before = tree(&root)?;
    let out = init(lab, &root, &[])?;
    print!("{}", indented(&out));
    ensure!(init(lab, &root, &[])?.starts_with("nothing to change"), "a second run changes something");
    dumped(&root)?;

    pulls(lab, &root, &image, Way::Hawker)?;
    doctor_is_content(lab, &root, &image)?;
    broken_nodes(lab, &root)?;

    init(lab, &root, &["--revert"])?;
    ensure!(tree(&root)? == before, "--revert left something else than was there");
    pulls(lab, &root, &image, Way::Direct)?;

    init(lab, &root, &[])?;
    touch(&root, SystemTime::UNIX_EPOCH)?;
    lab.node_mut(NODE)?.daemon.crash()?;
    names(lab, &root, &[], "mirror-silent")
}

/// What was on the node before Hawker: the registry's address is known nowhere else.
fn operators_files(root: &Path) -> Result<()> {
    let server = format!("http://{ORIGIN}:5000");
    let hosts = format!(
        "# the lab's registry\nserver = \"{server}\"\n\n[host.\"{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    let conf = format!(
        "[[registry]]\nprefix = \"{REGISTRY_NAME}\"\nlocation = \"{ORIGIN}:5000\"\ninsecure = true # no TLS\n"
    );
    let config =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause:3.9\" # pinned\n";
    for (name, text) in [
        (format!("etc/containerd/certs.d/{REGISTRY_NAME}/hosts.toml"), hosts.as_str()),
        (CONF.to_owned(), conf.as_str()),
        (CONFIG.to_owned(), config),
        (
            "etc/containers/policy.json".to_owned(),
            "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n",
        ),
    ] {
        put(root, &name, text)?;
    }
    Ok(())
}

/// A file of the node with this root directory.
pub(super) fn put(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(name);
    fs::create_dir_all(path.parent().context("a file without directory")?)?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn init(lab: &Lab, root: &Path, more: &[&str]) -> Result<String> {
    let mut command = Command::new(&lab.binaries.hawkerd);
    command.args(["init-runtime", "--runtime", "containerd", "--runtime", "podman", "--root"]).arg(root);
    command.arg("--config").arg(data_dir(NODE).join("daemon.yaml")).args(more);
    Ok(check(&mut command, SHORT)?.stdout)
}

/// The real containerd reads the file it was given and takes the setting from it.
fn dumped(root: &Path) -> Result<()> {
    let mut containerd = Command::new("containerd");
    containerd.arg("--config").arg(root.join(CONFIG)).args(["config", "dump"]);
    let dump = check(&mut containerd, SHORT)?.stdout;
    for expected in ["config_path = \"/etc/containerd/certs.d\"", "sandbox_image = \"pause:3.9\""] {
        ensure!(dump.contains(expected), "containerd does not have {expected}:\n{dump}");
    }
    Ok(())
}

/// Where the bytes of a pull are to come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Hawker,
    Direct,
}

/// Both runtimes pull; the daemon's counters say whether through it.
fn pulls(lab: &Lab, root: &Path, image: &Image, way: Way) -> Result<()> {
    let node = lab.node(NODE)?;
    for runtime in ["containerd", "podman"] {
        let (before, origin) = (delivered_from(lab, NODE)?.1, lab.origin_bytes(Cluster::A)?);
        let took = if runtime == "containerd" {
            let took =
                node.containerd.pull(&image.reference, Via::Dir(&root.join("etc/containerd/certs.d")))?;
            has_all(node, image)?;
            node.containerd.remove(&image.reference)?;
            took
        } else {
            podman(root, image)?.took
        };
        let (moved, origin) = (delivered_from(lab, NODE)?.1 - before, lab.origin_bytes(Cluster::A)? - origin);
        println!(
            "    {runtime} {way:?}: {moved} bytes from hawkerd, {origin} from the registry, {:.2} s; the image has {}",
            took.as_secs_f64(),
            image.bytes()
        );
        match way {
            Way::Hawker => ensure!(moved >= image.bytes(), "{runtime} got {moved} bytes from hawkerd"),
            Way::Direct => ensure!(moved == 0 && origin >= image.bytes(), "{runtime} did not pull directly"),
        }
    }
    Ok(())
}

/// A pull into an empty store, in the node's network, with the node's `/etc/containers`.
fn podman(root: &Path, image: &Image) -> Result<Finished> {
    let store = data_dir(NODE).join("podman");
    let script = "mount --bind \"$1\" /etc/containers && shift && exec podman \"$@\"";
    let mut command = netns::command(&netns::name(NODE), "unshare");
    command.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(root.join("etc/containers"));
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
    let pulled = check(command.args(["pull", "--quiet", &image.reference]), LONG);
    fs::remove_dir_all(&store).with_context(|| format!("remove {}", store.display()))?;
    pulled
}

fn doctor(lab: &Lab, root: &Path, more: &[&str]) -> Result<(bool, Value)> {
    let mut command = netns::command(&netns::name(NODE), &lab.binaries.tool);
    command
        .args(["doctor", "--output", "json", "--runtime", "containerd", "--runtime", "podman", "--root"])
        .arg(root);
    command.arg("--config").arg(data_dir(NODE).join("daemon.yaml")).args(more);
    let finished = command::run(&mut command, LONG)?;
    let report = serde_json::from_str(&finished.stdout)
        .with_context(|| format!("the doctor said:\n{}{}", finished.stdout, finished.stderr))?;
    Ok((finished.status.success(), report))
}

fn doctor_is_content(lab: &Lab, root: &Path, image: &Image) -> Result<()> {
    // As after a restart: the lab's containerd is older than this file.
    touch(root, SystemTime::UNIX_EPOCH)?;
    let (content, report) = doctor(lab, root, &["--image", &image.reference])?;
    println!("    doctor: {} canary {}", report["findings"], report["canary"]);
    ensure!(content && report["ok"] == true, "a good node has faults: {report}");
    ensure!(report["canary"]["digest"] == image.manifest.as_str(), "the canary saw {}", report["canary"]);
    Ok(())
}

/// Each fault in a copy of the good node.
fn broken_nodes(lab: &Lab, good: &Path) -> Result<()> {
    let hosts = format!("etc/containerd/certs.d/{REGISTRY_NAME}/hosts.toml");
    let two = ["--containerd-version", "2.2"];
    let faults: [(&str, &str, &str, &str, &[&str]); 6] = [
        (CONFIG, "\"/etc/containerd/certs.d\"", "\"\"", "config-path-unset", &[]),
        (CONFIG, "/certs.d\"", "/certs.d:/etc/docker/certs.d\"", "two-roots", &two),
        (&hosts, "127.0.0.1:4001", "127.0.0.1:5001", "mirror-missing", &[]),
        (&hosts, "[\"pull\", \"resolve\"]", "[\"resolve\"]", "pull-missing", &[]),
        (&hosts, "[host.", "[host", "hosts-invalid", &[]),
        (OWN_CONF, "4001/registry.lab_5000", "4001", "ns-missing", &[]),
    ];
    for (file, from, to, expected, more) in faults {
        let root = data_dir(NODE).join("broken");
        copy(good, &root)?;
        let path = root.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} has no {from}");
        fs::write(&path, text.replacen(from, to, 1))?;
        touch(&root, SystemTime::UNIX_EPOCH)?;
        names(lab, &root, more, expected)?;
        fs::remove_dir_all(&root)?;
    }
    touch(good, SystemTime::now())?;
    names(lab, good, &[], "not-restarted")
}

/// The doctor's faults are this one alone.
fn names(lab: &Lab, root: &Path, more: &[&str], expected: &str) -> Result<()> {
    let (content, report) = doctor(lab, root, more)?;
    let findings = report["findings"].as_array().context("a report without findings")?;
    let faults: Vec<_> = findings.iter().filter(|finding| finding["severity"] == "fault").collect();
    let [fault] = faults[..] else { bail!("{expected}: {} faults: {report}", faults.len()) };
    println!("    broken node: {} ({})", fault["check"], fault["evidence"]);
    ensure!(!content && fault["check"] == expected, "expected {expected}: {report}");
    Ok(())
}

fn touch(root: &Path, when: SystemTime) -> Result<()> {
    File::options().write(true).open(root.join(CONFIG))?.set_modified(when).context("set a file's time")
}

fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                found.insert(path.clone(), Vec::new());
                dirs.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for (path, bytes) in tree(from)? {
        let target = to.join(path.strip_prefix(from)?);
        if path.is_dir() {
            fs::create_dir_all(target)?;
        } else {
            fs::create_dir_all(target.parent().context("a file without directory")?)?;
            fs::write(target, bytes)?;
        }
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
