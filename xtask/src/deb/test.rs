//! The packages installed into a root of their own by dpkg, their units examined by systemd's own tools.
//!
//! Invariant: nothing of this machine is changed; the root is a directory that goes away.

use super::build;
use crate::command::{self, LONG, SHORT, check};
use crate::setup::Ability;
use crate::test::Tally;
use crate::{binaries, workspace};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

const NAME: &str = "deb: packages install, their units are valid and hardened";
/// systemd's exposure level: 10 is everything; "OK" ends at 4.9.
const MAX_EXPOSURE: [(&str, f64); 2] = [("hawkerd.service", 3.0), ("hawker-control.service", 1.5)];

pub(crate) fn cases(ability: &Ability, only: Option<&str>, tally: &mut Tally) {
    if !only.is_none_or(|only| NAME.contains(only)) {
        return;
    }
    let missing = ["dpkg-deb", "systemd-analyze"].iter().find(|program| !command::exists(program));
    match (ability, missing) {
        (Ability::NoLab(why), _) => tally.skip(NAME, why),
        (_, Some(program)) => tally.skip(NAME, &format!("no {program} here")),
        _ => tally.run(NAME, packages),
    }
}

fn packages() -> Result<()> {
    binaries::build()?;
    let dir = workspace::target()?.join("deb");
    let first = build(&dir)?.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>()?;
    let files = build(&dir)?;
    let root = tempfile::tempdir().context("make a root")?;
    for (file, before) in files.iter().zip(first) {
        ensure!(fs::read(file)? == before, "{} has other bytes the second time", file.display());
        println!(
            "    {} {:.2} MiB",
            file.file_name().unwrap_or_default().display(),
            before.len() as f64 / f64::from(1 << 20)
        );
        check(Command::new("sh").args(["-n"]).arg(scripts(file, root.path())?.join("postinst")), SHORT)?;
    }
    unpacked(&files, root.path())?;
    for (unit, most) in MAX_EXPOSURE {
        let level = exposure(root.path(), unit)?;
        println!("    {unit}: exposure {level:.1} of 10, at most {most:.1}");
        ensure!(level <= most, "{unit} is more exposed than it was");
    }
    Ok(())
}

fn scripts(file: &Path, root: &Path) -> Result<std::path::PathBuf> {
    let dir = root.join("control").join(file.file_stem().unwrap_or_default());
    fs::create_dir_all(root.join("control")).context("make a directory")?;
    check(Command::new("dpkg-deb").arg("--control").arg(file).arg(&dir), SHORT)?;
    Ok(dir)
}

/// dpkg unpacks them into an empty system; the programs there accept the configuration that came with them, which has its
/// name only when the package is configured.
fn unpacked(files: &[std::path::PathBuf], root: &Path) -> Result<()> {
    for dir in ["var/lib/dpkg/updates", "var/lib/dpkg/info", "var/lib/dpkg/triggers"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for file in ["var/lib/dpkg/status", "var/lib/dpkg/available"] {
        fs::write(root.join(file), "")?;
    }
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", root.display())).args(["--force-depends", "--unpack"]).args(files);
    check(&mut dpkg, LONG)?;
    let listed =
        check(Command::new("dpkg").arg(format!("--root={}", root.display())).arg("-l"), SHORT)?.stdout;
    for (package, program, config) in
        [("hawker", "hawkerd", "daemon.yaml"), ("hawker-control", "hawker-control", "control.yaml")]
    {
        ensure!(listed.lines().any(|line| line.starts_with("iU") && line.contains(package)), "{listed}");
        let mut ask = Command::new(root.join("usr/bin").join(program));
        if package == "hawker-control" {
            ask.arg("standalone");
        }
        ask.arg("--config").arg(root.join(format!("etc/hawker/{config}.dpkg-new"))).arg("--check-config");
        check(&mut ask, SHORT)?;
        let mut sysusers = Command::new("systemd-sysusers");
        sysusers.arg("--dry-run").arg(root.join(format!("usr/lib/sysusers.d/{package}.conf")));
        check(&mut sysusers, SHORT)?;
    }
    // systemd-analyze looks for the programs below this machine's root, where they are not installed.
    for (unit, _) in MAX_EXPOSURE {
        let path = root.join("lib/systemd/system").join(unit);
        let text = fs::read_to_string(&path)?
            .replace("ExecStart=/usr/bin/", &format!("ExecStart={}/usr/bin/", root.display()));
        let copy = root.join(unit);
        fs::write(&copy, text)?;
        let verified = command::run(Command::new("systemd-analyze").arg("verify").arg(&copy), SHORT)?;
        let said = format!("{}{}", verified.stdout, verified.stderr);
        ensure!(verified.status.success() && !said.contains(unit), "{unit}: {said}");
    }
    Ok(())
}

fn exposure(root: &Path, unit: &str) -> Result<f64> {
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--offline=true", "--no-pager"])
        .arg(root.join("lib/systemd/system").join(unit));
    let said = command::run(&mut analyze, SHORT)?.stdout;
    let line =
        said.lines().find(|line| line.contains("Overall exposure level")).with_context(|| said.clone())?;
    let level = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next());
    level.and_then(|level| level.parse().ok()).with_context(|| format!("no level in {line}"))
}
