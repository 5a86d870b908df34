//! Clients that reach the mirror in ways of their own: a kubelet's (CRI), Docker's.

use super::private::{delivered_from, open};
use super::{image, origin_ratio};
use crate::lab::containerd::Via;
use crate::lab::cri::Cri;
use crate::lab::docker::Docker;
use crate::lab::guarded::{ALICE, BOB, Door, Guarded};
use crate::lab::images::Image;
use crate::lab::network::Cluster;
use crate::lab::{Lab, REGISTRY_NAME};
use anyhow::{Result, bail, ensure};
use std::path::{Path, PathBuf};

/// As pods do it: the runtime gets the pull secret with the request, and knows the mirror from its hosts directory.
pub(super) fn by_cri(lab: &mut Lab, programs: &[PathBuf]) -> Result<()> {
    let [crictl] = programs else { bail!("{programs:?} instead of crictl") };
    let public = image(lab, "cri-public", &[5, 1])?;
    without_credentials(lab, crictl, &public)?;
    private(lab, || Cri::start("a2", crictl, Via::Mirror))
}

/// Private images of both kinds of registry, first on node a1, then by the runtime that `start` starts on a2, with the mirror alone.
pub(super) fn private(lab: &mut Lab, start: impl Fn() -> Result<Cri>) -> Result<()> {
    for door in [Door::Passwords, Door::Tokens] {
        // Under a name of its own for each door: what one let in, the other must not find.
        let secret = image(lab, &format!("secret-{}", door.name()), &[6, 1])?;
        let _guarded = open(lab, door, "")?;
        lab.node("a1")?.containerd.try_pull(&secret.reference, Via::Mirror, Some(ALICE))?;
        let cri = start()?;
        refused(&cri, &secret, "the cluster")?;
        let before = delivered_from(lab, "a2")?;
        let pulled = cri.pull(&secret.reference, Some(ALICE))?;
        ensure!(pulled.status.success(), "alice by crictl: {}{}", pulled.stdout, pulled.stderr);
        let after = delivered_from(lab, "a2")?;
        let (origin, all) = (after.0 - before.0, after.1 - before.1);
        println!(
            "    {door:?}: alice by crictl {:.2} s, mirror only: {all} bytes, {origin} of them from the origin",
            pulled.took.as_secs_f64()
        );
        ensure!(all >= secret.bytes() && origin < secret.bytes() / 10, "not from the first node");
        let by_digest = cri.pull(&digest(&secret), Some(ALICE))?;
        ensure!(by_digest.status.success(), "alice by digest: {}", by_digest.stderr);
        refused(&cri, &secret, "the node")?;
    }
    Ok(())
}

fn without_credentials(lab: &Lab, crictl: &Path, public: &Image) -> Result<()> {
    let before = lab.origin_bytes(Cluster::A)?;
    for node in lab.peers() {
        let cri = Cri::start(&node.name, crictl, Via::Mirror)?;
        let pulled = cri.pull(&public.reference, None)?;
        ensure!(pulled.status.success(), "{}{}", pulled.stdout, pulled.stderr);
        println!("    {}: public image by crictl {:.2} s", node.name, pulled.took.as_secs_f64());
    }
    let ratio = origin_ratio(lab, public, before)?;
    ensure!(ratio <= 1.1, "the origin sent {ratio:.4} image sizes");
    Ok(())
}

/// Nobody and bob, by tag and by digest, although the image is there.
fn refused(cri: &Cri, secret: &Image, holder: &str) -> Result<()> {
    for reference in [&secret.reference, &digest(secret)] {
        for user in [None, Some(BOB)] {
            let pulled = cri.pull(reference, user)?;
            ensure!(!pulled.status.success(), "{user:?} pulled {reference}: {}", pulled.stdout);
            let said = pulled.stderr.to_lowercase();
            let refused = ["401", "403", "authorization", "unauthorized", "denied"];
            ensure!(refused.iter().any(|word| said.contains(word)), "{user:?} {reference}: {said}");
        }
    }
    println!("    crictl as bob and as nobody, held by {holder}: refused, by tag and by digest");
    Ok(())
}

fn digest(image: &Image) -> String {
    let name = image.reference.trim_end_matches(":latest").trim_start_matches(REGISTRY_NAME);
    format!("{REGISTRY_NAME}{name}@{}", image.manifest)
}

/// Docker takes the mirror for Docker Hub's: what is named here stands for that.
pub(super) fn by_docker(lab: &mut Lab) -> Result<()> {
    let (public, secret) = (image(lab, "hub", &[5, 1])?, image(lab, "secret", &[2])?);
    let _guarded = Guarded::start(Door::Tokens)?;
    for name in ["a1", "a2"] {
        let registries = format!("[{{ host: docker.io, server: \"{}\" }}]", Door::Tokens.url());
        lab.node_mut(name)?.daemon.with_registries(&registries)?;
    }
    let mut from_origin = 0;
    for node in lab.peers() {
        let docker = Docker::start(&node.name)?;
        let before = delivered_from(lab, &node.name)?;
        let pulled = docker.pull("lab/hub:latest")?;
        ensure!(pulled.status.success(), "{}{}", pulled.stdout, pulled.stderr);
        let after = delivered_from(lab, &node.name)?;
        let (origin, all) = (after.0 - before.0, after.1 - before.1);
        println!(
            "    {}: docker pull {:.2} s: {all} bytes by hawkerd, {origin} of them from the origin",
            node.name,
            pulled.took.as_secs_f64()
        );
        ensure!(all >= public.bytes(), "not through Hawker");
        from_origin += origin;
        let refused = docker.pull("lab/secret:latest")?;
        ensure!(!refused.status.success(), "nobody pulled {}: {}", secret.reference, refused.stdout);
    }
    println!("    docker as nobody: the private image is refused");
    ensure!(from_origin as f64 <= 1.1 * public.bytes() as f64, "{from_origin} bytes from the origin");
    Ok(())
}
