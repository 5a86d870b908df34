//! `cargo xtask deb`: Debian packages of the node's and of the control plane's programs, with their units.
//!
//! By `dpkg-deb`, which every Debian has. Invariant: the same programs give the same bytes.

mod test;

use crate::command::{self, LONG, SHORT, check};
use crate::{binaries, console, image, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub(crate) use test::cases;

struct Package {
    name: &'static str,
    summary: &'static str,
    programs: &'static [&'static str],
    unit: &'static str,
    /// Where it is installed, and what the user of the service is called.
    config: &'static str,
    user: (&'static str, &'static str),
    /// What of its data can be had again; the rest is left by a purge.
    volatile: &'static str,
}

const PACKAGES: [Package; 2] = [
    Package {
        name: "hawker",
        summary: "container images and files between nodes: the node's daemon and tool",
        programs: &["hawkerd", "hawker"],
        unit: "hawkerd.service",
        config: "daemon.yaml",
        user: ("hawker", "Hawker node daemon"),
        volatile: "/var/lib/hawker/partial /var/lib/hawker/blobs",
    },
    Package {
        name: "hawker-control",
        summary: "container images and files between nodes: manager and scheduler",
        programs: &["hawker-control"],
        unit: "hawker-control.service",
        config: "control.yaml",
        user: ("hawker-control", "Hawker control plane"),
        volatile: "",
    },
];

pub(crate) fn run() -> Result<ExitCode> {
    console::build_if_possible()?;
    binaries::build()?;
    for path in build(&workspace::target()?.join("deb"))? {
        println!("{} {:.2} MiB", path.display(), path.metadata()?.len() as f64 / f64::from(1 << 20));
    }
    Ok(ExitCode::SUCCESS)
}

/// Packages of the built programs, below `dir`.
fn build(dir: &Path) -> Result<Vec<PathBuf>> {
    PACKAGES
        .iter()
        .map(|package| package.build(dir).with_context(|| format!("package {}", package.name)))
        .collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Package {
    fn build(&self, dir: &Path) -> Result<PathBuf> {
        let tree = dir.join(self.name);
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("remove {}", tree.display()))?;
        }
        let source = workspace::root()?.join("deploy");
        let put = |at: String, bytes: Vec<u8>, mode: u32| put(&tree.join(at), &bytes, mode);
        for program in self.programs {
            let target = tree.join("usr/bin").join(program);
            fs::create_dir_all(target.parent().context("a file without directory")?)?;
            let mut strip = Command::new("strip");
            check(strip.arg("--strip-all").arg("-o").arg(&target).arg(workspace::program(program)?), LONG)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
        }
        let unit = fs::read(source.join("systemd").join(self.unit))?;
        put(format!("lib/systemd/system/{}", self.unit), unit, 0o644)?;
        put(
            format!("etc/hawker/{}", self.config),
            fs::read(source.join("config").join(self.config))?,
            0o644,
        )?;
        let (user, gecos) = self.user;
        let sysusers = format!("u {user} - \"{gecos}\" /var/lib/{user}\n");
        put(format!("usr/lib/sysusers.d/{}.conf", self.name), sysusers.into_bytes(), 0o644)?;
        put(format!("usr/share/doc/{}/copyright", self.name), fs::read(source.join("../LICENSE"))?, 0o644)?;
        put("DEBIAN/control".to_owned(), self.control(&tree)?.into_bytes(), 0o644)?;
        put("DEBIAN/conffiles".to_owned(), format!("/etc/hawker/{}\n", self.config).into_bytes(), 0o644)?;
        for script in ["postinst", "prerm", "postrm"] {
            let text = fs::read_to_string(source.join("debian").join(script))?;
            let text = text
                .replace("@package@", self.name)
                .replace("@unit@", self.unit)
                .replace("@volatile@", self.volatile);
            put(format!("DEBIAN/{script}"), text.into_bytes(), 0o755)?;
        }
        let file = dir.join(format!("{}_{}_{}.deb", self.name, image::version(), architecture()));
        let mut deb = Command::new("dpkg-deb");
        // Times in the archive are this one, owners are root's.
        deb.env("SOURCE_DATE_EPOCH", "0")
            .args(["--root-owner-group", "-Zgzip", "--build"])
            .arg(&tree)
            .arg(&file);
        check(&mut deb, LONG)?;
        Ok(file)
    }

    fn control(&self, tree: &Path) -> Result<String> {
        let kib = check(Command::new("du").args(["-sk", "--apparent-size"]).arg(tree), SHORT)?.stdout;
        let kib = kib.split_whitespace().next().unwrap_or("0").to_owned();
        Ok(format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Hawker <hawker@localhost>\nInstalled-Size: {kib}\n\
             Depends: libc6 (>= {}), libgcc-s1, ca-certificates, systemd\nSection: net\nPriority: optional\n\
             Homepage: {}\nDescription: {}\n",
            self.name,
            image::version(),
            architecture(),
            glibc()?,
            env!("CARGO_PKG_REPOSITORY"),
            self.summary
        ))
    }
}

/// The C library that the programs were linked with: they run with this one and newer ones.
fn glibc() -> Result<String> {
    let said = command::run(Command::new("ldd").arg("--version"), SHORT)?.stdout;
    let version = said.lines().next().and_then(|line| line.rsplit(' ').next());
    version.map(str::to_owned).with_context(|| format!("no version in {said}"))
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file without directory")?)?;
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set mode of {}", path.display()))
}
