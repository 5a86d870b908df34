//! What an image must be: the same bytes twice, small, readable by others' tools, run by its programs alone.

use super::{Built, MAX_COMPRESSED_BYTES, SBOM_PATH, USER, build, version};
use crate::command::{LONG, SHORT, check};
use crate::setup::Ability;
use crate::test::Tally;
use crate::{binaries, workspace};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

pub(crate) fn cases(ability: &Ability, only: Option<&str>, tally: &mut Tally) {
    const NAME: &str = "image: the same bytes twice, at most 30 MiB, and it runs with nothing else";
    if !only.is_none_or(|only| NAME.contains(only)) {
        return;
    }
    match ability {
        Ability::NoLab(why) => tally.skip(NAME, why),
        Ability::Lab => tally.run(NAME, images),
    }
}

fn images() -> Result<()> {
    binaries::build()?;
    let dir = workspace::target()?.join("image");
    let first: Vec<_> = build(&dir)?.iter().map(fingerprint).collect::<Result<_>>()?;
    let built = build(&dir)?;
    for (image, before) in built.iter().zip(first) {
        let mib = image.compressed_bytes as f64 / f64::from(1 << 20);
        println!("    {}: {mib:.2} MiB compressed, {}", image.name, image.manifest);
        ensure!(fingerprint(image)? == before, "{} has other bytes the second time", image.name);
        ensure!(image.compressed_bytes <= MAX_COMPRESSED_BYTES, "{} has {mib:.2} MiB", image.name);
        read_by_others(image)?;
        runs_alone(image)?;
    }
    Ok(())
}

/// The manifest's digest, and the archive's.
fn fingerprint(image: &Built) -> Result<(String, String)> {
    Ok((image.manifest.clone(), super::oci::digest(&fs::read(&image.archive)?)))
}

fn read_by_others(image: &Built) -> Result<()> {
    let skopeo = |reference: String| -> Result<Value> {
        let mut skopeo = Command::new("skopeo");
        let config = check(skopeo.args(["inspect", "--config", &reference]), SHORT)?;
        serde_json::from_str(&config.stdout).context("read skopeo's answer")
    };
    let config = skopeo(format!("oci:{}:{}", image.layout.display(), version()))?;
    let archived = skopeo(format!("docker-archive:{}", image.archive.display()))?;
    ensure!(config == archived, "layout and archive differ: {config} and {archived}");
    let (user, labels) = (&config["config"]["User"], &config["config"]["Labels"]);
    println!("      user {user}, labels {}", labels.as_object().map_or(0, serde_json::Map::len));
    let expected = if image.name == "hawker-control" { format!("{USER}:{USER}") } else { "0:0".to_owned() };
    ensure!(*user == expected.as_str(), "{} runs as {user}", image.name);
    ensure!(labels["io.hawker.sbom"] == format!("/{SBOM_PATH}").as_str(), "no SBOM in {labels}");
    Ok(())
}

/// Unpacked, with nothing of this machine: the programs start, and the SBOM is what the label says.
fn runs_alone(image: &Built) -> Result<()> {
    let bundle = tempfile::tempdir().context("make a directory")?;
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", &format!("{}:{}", image.layout.display(), version())]);
    check(umoci.arg(bundle.path().join("b")), LONG)?;
    let root = bundle.path().join("b/rootfs");
    let programs: &[&str] =
        if image.name == "hawkerd" { &["hawkerd", "hawker"] } else { &["hawker-control"] };
    for program in programs {
        let mut chroot = Command::new("chroot");
        chroot.arg("--userspec=65532:65532").arg(&root).arg(format!("/usr/bin/{program}")).arg("--version");
        let said = check(&mut chroot, SHORT)?.stdout;
        println!("      {}", said.trim());
        ensure!(said.contains(version()), "{program} says {said}");
    }
    let sbom = fs::read(root.join(SBOM_PATH)).context("read the SBOM")?;
    let document: Value = serde_json::from_slice(&sbom)?;
    let components = document["components"].as_array().context("an SBOM without components")?;
    let has = |start: &str| {
        components.iter().any(|one| one["purl"].as_str().is_some_and(|purl| purl.starts_with(start)))
    };
    println!("      {} components, {}", components.len(), super::oci::digest(&sbom));
    ensure!(has("pkg:cargo/tokio@") && has("pkg:cargo/serde@"), "an SBOM without the crates");
    ensure!(!has("pkg:cargo/proptest@"), "an SBOM with crates of tests");
    ensure!(fs::metadata(root.join("usr/bin").join(programs[0]))?.len() < 64 << 20, "not stripped");
    ensure!(!Path::new(&root.join("bin/sh")).exists(), "there is a shell");
    Ok(())
}
