//! `hawkerd init-runtime`: the node's container runtimes are told of the mirror, or made to forget it.
//!
//! Not what their files hold (that is `hawker-runtimes`): the command's words, and the configuration's part in
//! them. Invariant: what the command line does not say, the daemon's configuration does.

use crate::config::MirrorConfig;
use clap::{Args, ValueEnum};
use hawker_runtimes::{InitError, InitOptions, Outcome, Registry, Runtime, Version, init};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Write the mirror into the container runtimes' configuration, or take it out again.
#[derive(Debug, Args)]
pub struct InitRuntime {
    /// The runtime to set up; `auto`: every one that is found. May be given several times.
    #[arg(long, value_enum, default_values = ["auto"])]
    runtime: Vec<Which>,
    /// Where the node's root directory is mounted.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Address of the mirror; without it, `mirror.addr`.
    #[arg(long, value_name = "IP:PORT")]
    mirror: Option<SocketAddr>,
    /// A registry to mirror, `ghcr.io` or `name=http://10.0.0.5:5000`; without it, `mirror.registries`.
    #[arg(long, value_name = "REGISTRY")]
    registry: Vec<Registry>,
    /// containerd's version, where it cannot be asked: `1.7`, `containerd://2.1.4`.
    #[arg(long, value_name = "VERSION")]
    containerd_version: Option<Version>,
    /// containerd's configuration file, below the root.
    #[arg(long, value_name = "FILE", default_value = hawker_runtimes::containerd::CONFIG)]
    containerd_config: PathBuf,
    /// Leave containerd's config.toml alone, and write only hosts files.
    #[arg(long)]
    keep_config_path: bool,
    /// Show what would be written, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Take out what an earlier run wrote; files come back as they were.
    #[arg(long)]
    revert: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Auto,
    Containerd,
    Crio,
    Podman,
    Docker,
}

impl InitRuntime {
    /// Does it.
    ///
    /// # Errors
    /// [`InitError`] names the file that is in the way.
    pub fn run(&self, config: &MirrorConfig) -> Result<Outcome, InitError> {
        init(&self.options(config))
    }

    fn options(&self, config: &MirrorConfig) -> InitOptions {
        let registries = if self.registry.is_empty() { configured(config) } else { self.registry.clone() };
        InitOptions {
            root: self.root.clone(),
            runtimes: self.runtimes(),
            mirror: self.mirror.unwrap_or(config.addr),
            registries,
            containerd_config: self.containerd_config.clone(),
            containerd_version: self.containerd_version,
            keep_config_path: self.keep_config_path,
            dry_run: self.dry_run,
            revert: self.revert,
        }
    }

    /// Empty: those found.
    fn runtimes(&self) -> Vec<Runtime> {
        let known = |which: &Which| match which {
            Which::Auto => None,
            Which::Containerd => Some(Runtime::Containerd),
            Which::Crio => Some(Runtime::Crio),
            Which::Podman => Some(Runtime::Podman),
            Which::Docker => Some(Runtime::Docker),
        };
        let mut runtimes: Vec<_> = self.runtime.iter().filter_map(known).collect();
        if self.runtime.contains(&Which::Auto) {
            runtimes.clear();
        }
        runtimes.sort_unstable();
        runtimes.dedup();
        runtimes
    }
}

/// The allow-list in the runtimes' words. It was checked, so that nothing is lost here.
fn configured(config: &MirrorConfig) -> Vec<Registry> {
    let entries = config.registries.iter();
    entries.filter_map(|registry| Registry::new(&registry.host, registry.server.as_str()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        init: InitRuntime,
    }

    fn config() -> MirrorConfig {
        let text = "mirror: { addr: \"0.0.0.0:4005\", registries: [\"https://ghcr.io\", \"https://docker.io\", \
                    {host: \"r.lab:5000\", server: \"http://10.0.0.5:5000\"}] }\n";
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        crate::config::Config::load(Some(file.path()), []).unwrap().mirror
    }

    #[test]
    fn the_configuration_says_what_the_command_line_does_not() {
        let options = Command::parse_from(["init-runtime"]).init.options(&config());
        assert_eq!((options.mirror.port(), options.runtimes.len()), (4005, 0));
        let servers: Vec<_> =
            options.registries.iter().map(|r| format!("{} {}", r.host(), r.server())).collect();
        let expected = [
            "ghcr.io https://ghcr.io",
            "docker.io https://registry-1.docker.io",
            "r.lab:5000 http://10.0.0.5:5000",
        ];
        assert_eq!(servers, expected);
    }

    #[test]
    fn the_command_line_has_the_last_word() {
        let words = "init-runtime --runtime podman --runtime crio --mirror 127.0.0.1:9 --registry quay.io --root /host --revert";
        let options = Command::parse_from(words.split(' ')).init.options(&config());
        assert_eq!(options.runtimes, [Runtime::Crio, Runtime::Podman]);
        assert_eq!((options.mirror.port(), options.registries.len(), options.revert), (9, 1, true));
        let auto = Command::parse_from(["init-runtime", "--runtime", "auto", "--runtime", "docker"]).init;
        assert!(auto.options(&config()).runtimes.is_empty());
    }
}
