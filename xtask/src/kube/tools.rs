//! Programs that read charts and manifests: helm and kustomize from the Go module proxy, a validator with Kubernetes' own
//! schemas from PyPI. Built once, kept below the target directory.
//!
//! Invariant: versions are those in `xtask/kube/go.mod` and [`VALIDATOR`]; where Go is absent that is a reason to skip, where a
//! build fails it is an error.

use crate::command::{LONG, SHORT, check, exists};
use crate::setup::{self, Ability};
use crate::workspace;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Kubernetes' JSON schemas, and a program that compares manifests with them.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// The oldest and the newest Kubernetes that manifests are compared with.
const KUBERNETES: [&str; 2] = ["1.25", "1.37"];
/// Compiling helm takes minutes on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
const PACKAGES: [&str; 3] =
    ["hawker/xtask/kube", "helm.sh/helm/v3/cmd/helm", "sigs.k8s.io/kustomize/kustomize/v5"];
/// Built by hand helm takes itself for one of Kubernetes 1.20.
const HELM_VERSIONS: [&str; 2] = ["helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"];

pub(crate) struct Tools {
    dir: PathBuf,
}

/// Builds what is missing; the inner error is why there can be none here.
pub(crate) fn ready(ability: &Ability) -> Result<Result<Tools, String>> {
    if !exists("go") {
        return Ok(Err("helm is built with Go, which is not here".to_owned()));
    }
    if matches!(ability, Ability::Lab) {
        setup::need(&[("python3", "python3"), ("pip3", "python3-pip")])?;
    }
    let tools = Tools { dir: workspace::target()?.join("kube") };
    fs::create_dir_all(&tools.dir).with_context(|| format!("make {}", tools.dir.display()))?;
    let source = workspace::root()?.join("xtask/kube");
    let stamp = stamp(&source)?;
    let stamped = tools.dir.join("built-from");
    if fs::read_to_string(&stamped).is_ok_and(|found| found == stamp) {
        return Ok(Ok(tools));
    }
    println!("building helm (once)");
    tools.build_programs(&source)?;
    tools.install_validator()?;
    fs::write(&stamped, stamp).context("write what the tools are built from")?;
    Ok(Ok(tools))
}

/// Of everything the tools depend on.
fn stamp(source: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for name in ["go.mod", "go.sum", "main.go", "check.go", "notes.go"] {
        hash.update(fs::read(source.join(name)).with_context(|| format!("read xtask/kube/{name}"))?);
    }
    let hash = hash.finalize();
    Ok(format!("{} {VALIDATOR}\n", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

impl Tools {
    fn build_programs(&self, source: &Path) -> Result<()> {
        let mut linker = "-s -w".to_owned();
        for package in HELM_VERSIONS {
            linker.push_str(&format!(" -X {package}.k8sVersionMajor=1 -X {package}.k8sVersionMinor=34"));
        }
        let mut go = Command::new("go");
        go.current_dir(source)
            .args(["build", "-trimpath", "-ldflags", &linker, "-o"])
            .arg(&self.dir)
            .args(PACKAGES);
        check(&mut go, BUILD_LIMIT).map(drop).context("build helm")
    }

    fn install_validator(&self) -> Result<()> {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]);
        check(pip.arg(self.dir.join("python")).arg(VALIDATOR), LONG)
            .map(drop)
            .context("install the validator")
    }

    pub(crate) fn helm(&self) -> Command {
        let mut helm = Command::new(self.dir.join("helm"));
        // No cluster of whoever runs this.
        helm.env("KUBECONFIG", "/nonexistent").env("HELM_NO_PLUGINS", "1");
        helm
    }

    /// Where the programs are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A chart's manifests with these arguments more.
    pub(crate) fn template(&self, release: &str, namespace: &str, more: &[&str]) -> Result<String> {
        let mut helm = self.helm();
        helm.args(["template", release]).arg(super::chart_dir()?).args(["--namespace", namespace]).args(more);
        Ok(check(&mut helm, SHORT)?.stdout)
    }

    pub(crate) fn notes(&self, release: &str, namespace: &str, values: &[&Path]) -> Result<String> {
        let mut kube = Command::new(self.dir.join("kube"));
        kube.args(["notes", release, namespace]).arg(super::chart_dir()?).args(values);
        Ok(check(&mut kube, SHORT)?.stdout)
    }

    pub(crate) fn kustomize(&self, dir: &Path) -> Result<String> {
        Ok(check(Command::new(self.dir.join("kustomize")).arg("build").arg(dir), SHORT)?.stdout)
    }

    /// Strictly by the API's own types, and by the schemas of the oldest and the newest Kubernetes. Says how many objects.
    pub(crate) fn validate(&self, manifests: &str) -> Result<usize> {
        let file = self.dir.join("manifests.yaml");
        fs::write(&file, manifests).context("write manifests")?;
        let decoded = check(Command::new(self.dir.join("kube")).arg("check").arg(&file), SHORT)?.stdout;
        let count = decoded.trim().rsplit(' ').nth(1).and_then(|count| count.parse().ok());
        let own = file.with_extension("core.yaml");
        fs::write(&own, core_only(manifests)?).context("write manifests")?;
        for version in KUBERNETES {
            let mut validator = Command::new("python3");
            validator.env("PYTHONPATH", self.dir.join("python")).args([
                "-m",
                "kubernetes_validate",
                "--strict",
            ]);
            check(validator.args(["--quiet", "--no-warn", "-k", version]).arg(&own), LONG)
                .with_context(|| format!("against Kubernetes {version}"))?;
        }
        count.with_context(|| format!("kube check said {decoded}"))
    }
}

/// Without the kinds of the Prometheus operator, which Kubernetes' schemas do not have.
fn core_only(manifests: &str) -> Result<String> {
    let mut text = String::new();
    for object in super::objects(manifests)? {
        if !object["apiVersion"].as_str().unwrap_or_default().starts_with("monitoring.coreos.com/") {
            text.push_str("---\n");
            text.push_str(&serde_yaml_ng::to_string(&object)?);
        }
    }
    Ok(text)
}
