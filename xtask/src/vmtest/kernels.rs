//! Stock Debian kernels: the packages, fetched by apt from the mirror that this machine uses, and unpacked.
//!
//! Not installed: the packages are unpacked below the target directory, and apt's state for other releases than this
//! machine's is kept there, too.
//!
//! Invariant: what is fetched was signed by Debian's keys, as apt checks for any package.

use super::dir;
use crate::command::{LONG, SHORT, check};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel of a Debian release.
pub(super) struct Debian {
    /// Upstream's version, by which it is asked for.
    pub(super) version: &'static str,
    pub(super) release: &'static str,
    suite: &'static str,
}

pub(super) const KERNELS: [Debian; 2] = [
    Debian { version: "6.1", release: "Debian 12", suite: "bookworm" },
    Debian { version: "6.12", release: "Debian 13", suite: "trixie" },
];

/// The newest kernel for virtual machines of a release: no drivers for hardware, all of the network.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that can be started.
pub(super) struct Kernel {
    /// Debian's name of it, as `uname -r` says.
    pub(super) name: String,
    pub(super) image: PathBuf,
    /// Its modules, as far as packed in one folder.
    pub(super) modules: PathBuf,
}

impl Debian {
    /// From an earlier run, else by apt.
    pub(super) fn kernel(&self) -> Result<Kernel> {
        let unpacked = dir()?.join("kernels").join(self.version);
        if let Ok(kernel) = Kernel::in_folder(&unpacked) {
            return Ok(kernel);
        }
        let fresh = unpacked.with_extension("new");
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(&fresh).with_context(|| format!("make {}", fresh.display()))?;
        let package = self.fetch(&fresh).with_context(|| {
            format!(
                "no kernel of {} ({}) to be had from this machine's Debian mirror; with the package {META_PACKAGE} \
                 depends on there unpacked (dpkg-deb -x) into {}, none is fetched",
                self.release,
                self.suite,
                unpacked.display()
            )
        })?;
        check(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&fresh), LONG)?;
        fs::remove_file(&package).context("remove the unpacked package")?;
        let _ = fs::remove_dir_all(&unpacked);
        fs::rename(&fresh, &unpacked).context("put the kernel in its place")?;
        Kernel::in_folder(&unpacked)
    }

    fn fetch(&self, into: &Path) -> Result<PathBuf> {
        let apt = Apt::of(self.suite)?;
        check(apt.command("apt-get").arg("update"), LONG)?;
        let depends = check(apt.command("apt-cache").args(["depends", META_PACKAGE]), SHORT)?.stdout;
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let package = package.with_context(|| format!("{META_PACKAGE} depends on nothing:\n{depends}"))?;
        ensure!(
            package.starts_with(&format!("linux-image-{}.", self.version)),
            "{} has {package}, not {}",
            self.suite,
            self.version
        );
        println!("fetching {package}");
        check(apt.command("apt-get").args(["download", package]).current_dir(into), LONG)?;
        let entries = fs::read_dir(into)?.flatten().map(|entry| entry.path());
        let mut packages = entries.filter(|path| path.extension().is_some_and(|kind| kind == "deb"));
        packages.next().context("apt-get download left no package")
    }
}

/// apt with sources and state of its own.
struct Apt {
    home: PathBuf,
}

impl Apt {
    fn of(suite: &str) -> Result<Self> {
        let home = dir()?.join("apt").join(suite);
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder)).with_context(|| format!("make {}", home.display()))?;
        }
        fs::write(home.join("sources.list"), sources(&mirrors()?, suite)?).context("write apt's sources")?;
        Ok(Self { home })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let home = self.home.display();
        for setting in [
            format!("Dir::Etc::sourcelist={home}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={home}/lists"),
            format!("Dir::Cache={home}/cache"),
            "APT::Architecture=amd64".to_owned(),
            // Its own user cannot write below the target directory.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &setting]);
        }
        command
    }
}

/// Where this machine's apt gets what: address and suite, one a line.
fn mirrors() -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
    Ok(check(&mut apt, SHORT).context("ask apt for this machine's mirror")?.stdout)
}

/// apt's sources for `suite` on the same mirrors.
fn sources(mirrors: &str, suite: &str) -> Result<String> {
    let own = mirrors.lines().filter_map(|line| line.split_once(' '));
    let debian = |(uri, _): &(&str, &str)| uri.trim_end_matches('/').ends_with("/debian");
    let security = |(uri, _): &(&str, &str)| uri.trim_end_matches('/').ends_with("/debian-security");
    let (main, _) = own.clone().find(debian).context("apt has no source that ends in /debian")?;
    let mut text = format!("deb [signed-by={KEYRING}] {main} {suite} main\n");
    if let Some((uri, _)) = own.clone().find(security) {
        text.push_str(&format!("deb [signed-by={KEYRING}] {uri} {suite}-security main\n"));
    }
    Ok(text)
}

impl Kernel {
    fn in_folder(folder: &Path) -> Result<Self> {
        let image =
            fs::read_dir(folder.join("boot")).with_context(|| format!("list {}", folder.display()))?;
        let image = image.flatten().map(|entry| entry.path()).find(|path| name_of(path).is_some());
        let image = image.context("no vmlinuz in the package")?;
        let name = name_of(&image).context("a kernel without a name")?;
        // Before Debian 13 packages had /lib.
        let places = ["usr/lib/modules", "lib/modules"].map(|place| folder.join(place).join(&name));
        let modules = places.into_iter().find(|place| place.is_dir()).context("no modules in the package")?;
        Ok(Self { name, image, modules })
    }
}

fn name_of(image: &Path) -> Option<String> {
    Some(image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_suite_comes_from_this_machines_mirrors() {
        let mirrors = "http://mirror.example/debian/ bookworm\nhttp://mirror.example/debian/ bookworm-updates\n\
                       http://other.example/debian-security/ bookworm-security\nhttps://elsewhere.example/apt cloud\n";
        let text = sources(mirrors, "trixie").unwrap();
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("] ")).map(|line| line.1).collect();
        assert_eq!(
            lines,
            [
                "http://mirror.example/debian/ trixie main",
                "http://other.example/debian-security/ trixie-security main"
            ]
        );
        assert!(sources("https://elsewhere.example/apt cloud\n", "trixie").is_err());
    }
}
