//! `cargo xtask image`: OCI images of the daemon and of the control plane, made without a container engine.
//!
//! A root with nothing in it but the programs, the shared libraries they name, certificates and a few files that libraries
//! look for. Invariant: the same programs give the same bytes; no time, user or path of the machine is in them.

mod oci;
mod root;
mod sbom;
mod test;

use crate::command::{self, SHORT, check};
use crate::{binaries, console, workspace};
use anyhow::{Context, Result};
use root::Tree;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub(crate) use test::cases;

/// Where images are pulled from by default; the chart says the same.
const REGISTRY: &str = "ghcr.io/hawker-project";
/// Most a compressed image may have.
const MAX_COMPRESSED_BYTES: u64 = 30 << 20;
/// The control plane's user and group: nobody's on any node.
const USER: u32 = 65532;
const SBOM_PATH: &str = "usr/share/doc/hawker/sbom.cdx.json";

/// What one image holds.
struct Recipe {
    name: &'static str,
    /// The first is started.
    programs: &'static [(&'static str, &'static str)],
    user: u32,
    ports: &'static [u16],
    arguments: &'static [&'static str],
}

const RECIPES: [Recipe; 2] = [
    Recipe {
        name: "hawkerd",
        programs: &[("hawkerd", "hawker-daemon"), ("hawker", "hawker-cli")],
        // eBPF needs capabilities, and Kubernetes gives those to root alone.
        user: 0,
        ports: &[4000],
        arguments: &["--config", "/etc/hawker/daemon.yaml"],
    },
    Recipe {
        name: "hawker-control",
        programs: &[("hawker-control", "hawker-control")],
        user: USER,
        ports: &[8000, 8002, 8080, 65003],
        arguments: &["standalone", "--config", "/etc/hawker/control.yaml"],
    },
];

/// An image on disk.
pub(crate) struct Built {
    pub(crate) name: &'static str,
    /// An OCI layout with one manifest, tagged by the version.
    pub(crate) layout: PathBuf,
    /// What `docker load` and `kind load image-archive` take.
    pub(crate) archive: PathBuf,
    pub(crate) manifest: String,
    pub(crate) compressed_bytes: u64,
}

/// Builds both, and says what they weigh.
pub(crate) fn run() -> Result<ExitCode> {
    console::build_if_possible()?;
    binaries::build()?;
    for built in build(&workspace::target()?.join("image"))? {
        let mib = built.compressed_bytes as f64 / f64::from(1 << 20);
        println!("{:<15} {:>6.2} MiB compressed  {}", built.name, mib, built.manifest);
        println!("    OCI layout     {}", built.layout.display());
        println!("    docker archive {}", built.archive.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The version in the repository, which is also the tag.
pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Builds the images of the built programs below `dir`.
pub(crate) fn build(dir: &Path) -> Result<Vec<Built>> {
    RECIPES.iter().map(|recipe| recipe.build(dir).with_context(|| format!("image {}", recipe.name))).collect()
}

impl Recipe {
    fn build(&self, dir: &Path) -> Result<Built> {
        let programs = self.stripped(&dir.join("stripped"))?;
        let libraries = root::libraries(&programs)?;
        let sbom = sbom::document(self, &libraries)?;
        let mut base = root::base(self.user)?;
        for library in &libraries {
            base.add_file(
                library,
                fs::read(library).with_context(|| format!("read {}", library.display()))?,
                0o755,
            );
        }
        let mut own = Tree::default();
        for program in &programs {
            let name = program.file_name().context("a program without name")?;
            own.add_file(&Path::new("usr/bin").join(name), fs::read(program)?, 0o755);
        }
        own.add_file(Path::new(SBOM_PATH), sbom.clone(), 0o644);
        let licence = fs::read(workspace::root()?.join("LICENSE"))?;
        own.add_file(Path::new("usr/share/doc/hawker/LICENSE"), licence, 0o644);

        let mut image = oci::Image::new(self.configuration(&sbom)?);
        image.add_layer(&base)?;
        image.add_layer(&own)?;
        let (layout, archive) = (dir.join(self.name), dir.join(format!("{}.tar", self.name)));
        let manifest = image.write_layout(&layout, version())?;
        image.write_archive(&archive, &format!("{REGISTRY}/{}:{}", self.name, version()))?;
        let compressed_bytes = image.compressed_bytes();
        Ok(Built { name: self.name, layout, archive, manifest, compressed_bytes })
    }

    /// The programs without symbols and debugging information.
    fn stripped(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let strip = |(program, _): &(&str, &str)| {
            let target = dir.join(program);
            let mut strip = Command::new("strip");
            strip.arg("--strip-all").arg("-o").arg(&target).arg(workspace::program(program)?);
            check(&mut strip, command::LONG)?;
            Ok(target)
        };
        self.programs.iter().map(strip).collect()
    }

    fn configuration(&self, sbom: &[u8]) -> Result<oci::Configuration> {
        let label = |name: &str, value: String| (name.to_owned(), value);
        let labels = vec![
            label("org.opencontainers.image.title", self.name.to_owned()),
            label("org.opencontainers.image.version", version().to_owned()),
            label("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE").to_owned()),
            label("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY").to_owned()),
            label("io.hawker.sbom", format!("/{SBOM_PATH}")),
            label("io.hawker.sbom.digest", oci::digest(sbom)),
        ];
        let entrypoint = format!("/usr/bin/{}", self.programs[0].0);
        Ok(oci::Configuration {
            created: committed_at()?,
            user: format!("{0}:{0}", self.user),
            entrypoint,
            arguments: self.arguments.iter().map(|word| (*word).to_owned()).collect(),
            ports: self.ports.to_vec(),
            labels,
        })
    }
}

/// When the source was committed, or what SOURCE_DATE_EPOCH says: an image has no other time in it.
fn committed_at() -> Result<String> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given,
        Err(_) => {
            let mut git = Command::new("git");
            git.current_dir(workspace::root()?).args(["log", "-1", "--format=%ct"]);
            // An unpacked source archive has no history.
            command::run(&mut git, SHORT).map(|log| log.stdout).unwrap_or_default()
        }
    };
    let seconds: u64 = seconds.trim().parse().unwrap_or(0);
    let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    Ok(humantime::format_rfc3339_seconds(when).to_string())
}
