//! `hawker doctor`: why this node's container runtimes do not use the mirror, and a pull for proof.
//!
//! The examination is `hawker-runtimes`'; here are its words on the command line. Invariant: the command fails
//! exactly if there is a fault.

use super::Output;
use crate::table;
use anyhow::{Context, Result, bail};
use clap::Args;
use hawker_runtimes::settings::DAEMON_CONFIG;
use hawker_runtimes::{DaemonSettings, DoctorOptions, Registry, Runtime, Version, doctor};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct DoctorArguments {
    /// The daemon's configuration: where it listens, and what it may proxy.
    #[arg(long, value_name = "FILE", default_value = DAEMON_CONFIG)]
    config: PathBuf,
    /// A registry that is to be mirrored; without it, those of the configuration.
    #[arg(long, value_name = "REGISTRY")]
    registry: Vec<Registry>,
    /// Address of the daemon's status; without it, that of the configuration.
    #[arg(long, value_name = "IP:PORT")]
    status: Option<SocketAddr>,
    /// A runtime to look at (containerd, crio, podman, docker); without it, all that are found.
    #[arg(long, value_name = "RUNTIME")]
    runtime: Vec<Runtime>,
    /// Where the node's root directory is mounted.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// containerd's version, where it cannot be asked.
    #[arg(long, value_name = "VERSION")]
    containerd_version: Option<Version>,
    /// Image to fetch through the mirror for proof; without it, one that containerd has.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// `mirror`: what `--mirror` says, if it says something.
#[expect(clippy::print_stdout, reason = "what the command is for")]
pub(crate) fn run(mirror: &str, arguments: &DoctorArguments) -> Result<()> {
    let report = doctor(&options(mirror, arguments)?);
    match arguments.output {
        Output::Json => table::json(&report.to_json())?,
        Output::Table => print!("{report}"),
    }
    match report.faults() {
        0 => Ok(()),
        1 => bail!("1 fault, see docs/troubleshooting.md"),
        faults => bail!("{faults} faults, see docs/troubleshooting.md"),
    }
}

fn options(mirror: &str, arguments: &DoctorArguments) -> Result<DoctorOptions> {
    let settings = match DaemonSettings::read(&arguments.config) {
        // Named registries are enough to look for.
        Err(_) if !arguments.registry.is_empty() => DaemonSettings::default(),
        read => read.context("which registries? name the daemon's --config, or --registry")?,
    };
    let named: SocketAddr = mirror.parse().with_context(|| format!("--mirror {mirror} is no IP:port"))?;
    let said = named != DaemonSettings::default().mirror;
    Ok(DoctorOptions {
        root: arguments.root.clone(),
        runtimes: arguments.runtime.clone(),
        mirror: if said { named } else { settings.mirror },
        status: arguments.status.unwrap_or(settings.status),
        registries: if arguments.registry.is_empty() {
            settings.registries
        } else {
            arguments.registry.clone()
        },
        containerd_config: hawker_runtimes::containerd::CONFIG.into(),
        containerd_version: arguments.containerd_version,
        image: arguments.image.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::io::Write;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        doctor: DoctorArguments,
    }

    fn parsed(words: &[&str]) -> Result<DoctorOptions> {
        let words = [&["doctor"][..], words].concat();
        options("127.0.0.1:4001", &Command::parse_from(words).doctor)
    }

    #[test]
    fn the_configuration_says_what_the_command_line_does_not() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"mirror: { addr: \"127.0.0.1:5\", registries: [\"https://ghcr.io\"] }\n").unwrap();
        let config = file.path().to_str().unwrap();
        let options = parsed(&["--config", config]).unwrap();
        assert_eq!((options.mirror.port(), options.status.port(), options.registries.len()), (5, 4003, 1));
        let options =
            parsed(&["--config", config, "--registry", "quay.io", "--status", "127.0.0.1:6"]).unwrap();
        assert_eq!((options.registries[0].host(), options.status.port()), ("quay.io", 6));
    }

    #[test]
    fn without_a_configuration_registries_must_be_named() {
        let error = format!("{:#}", parsed(&["--config", "/nowhere.yaml"]).unwrap_err());
        assert!(error.contains("--registry") && error.contains("/nowhere.yaml"), "{error}");
        assert_eq!(
            parsed(&["--config", "/nowhere.yaml", "--registry", "ghcr.io"]).unwrap().mirror.port(),
            4001
        );
    }
}
