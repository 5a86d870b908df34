//! containerd 2 as its own default sets it up: `config_path` with two directories, which its pulls take for the name of one.
//!
//! The real one shows both: that it uses no mirror as it is, and that it pulls through Hawker after `hawkerd init-runtime`.

use super::clients::private;
use super::image;
use super::private::delivered_from;
use super::runtimes::put;
use crate::command::{SHORT, check};
use crate::lab::containerd::{Via, hosts_dir};
use crate::lab::cri::Cri;
use crate::lab::images::Image;
use crate::lab::network::ORIGIN;
use crate::lab::{Lab, REGISTRY_NAME, data_dir};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NODE: &str = "a2";
/// What containerd 2.2 and later have where nothing is set.
const TWO_ROOTS: &str = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  \
                         config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n";

pub(super) fn set_up(lab: &mut Lab, programs: &[PathBuf]) -> Result<()> {
    let [crictl, containerd] = programs else { bail!("{programs:?} instead of crictl and containerd") };
    let version = check(Command::new(containerd).arg("--version"), SHORT)?.stdout;
    let image = image(lab, "containerd-two", &[5, 1])?;
    let root = data_dir(NODE).join("root");
    // A registry without TLS, as only its hosts file says.
    put_hosts(&root, Via::Origin)?;
    put(&root, "etc/containerd/config.toml", TWO_ROOTS)?;
    put(&root, "etc/hosts", &format!("{ORIGIN} {}\n", REGISTRY_NAME.trim_end_matches(":5000")))?;
    match pull(lab, &Cri::start_two(NODE, crictl, containerd, &root)?, &image)? {
        Ok(bytes) => {
            bail!("two directories are not taken for one: {bytes} bytes by hawkerd, the case shows nothing")
        }
        Err(said) => {
            let last = said.lines().last().unwrap_or_default();
            println!("    as it is: {last}");
            // Neither the mirror nor the registry that its hosts file names.
            ensure!(
                last.contains(&format!("https://{REGISTRY_NAME}")),
                "it failed at something else: {said}"
            );
        }
    }

    let mut init = Command::new(&lab.binaries.hawkerd);
    let number = version.split_whitespace().nth(2).context("containerd says no version")?;
    init.args(["init-runtime", "--runtime", "containerd", "--containerd-version", number, "--root"])
        .arg(&root);
    let said = check(init.arg("--config").arg(data_dir(NODE).join("daemon.yaml")), SHORT)?.stdout;
    said.lines().for_each(|line| println!("    {line}"));
    match pull(lab, &Cri::start_two(NODE, crictl, containerd, &root)?, &image)? {
        Ok(bytes) => {
            println!("    {}: {bytes} bytes by hawkerd, the image has {}", version.trim(), image.bytes());
            ensure!(bytes >= image.bytes(), "not through Hawker");
        }
        Err(said) => bail!("after init-runtime: {said}"),
    }
    // What the mirror refuses shall not be had elsewhere.
    put_hosts(&root, Via::Mirror)?;
    private(lab, || Cri::start_two(NODE, crictl, containerd, &root))
}

/// The registry's hosts file, as the lab's other containerd has it for this way.
fn put_hosts(root: &Path, via: Via<'_>) -> Result<()> {
    let from = hosts_dir(NODE, via).join(REGISTRY_NAME).join("hosts.toml");
    let text = fs::read_to_string(&from).with_context(|| format!("read {}", from.display()))?;
    put(root, &format!("etc/containerd/certs.d/{REGISTRY_NAME}/hosts.toml"), &text)
}

/// Bytes that hawkerd delivered for a pull, or what the runtime said.
fn pull(lab: &Lab, cri: &Cri, image: &Image) -> Result<Result<u64, String>> {
    let before = delivered_from(lab, NODE)?.1;
    let pulled = cri.pull(&image.reference, None)?;
    let bytes = delivered_from(lab, NODE)?.1 - before;
    Ok(if pulled.status.success() { Ok(bytes) } else { Err(pulled.stderr.trim().to_owned()) })
}
