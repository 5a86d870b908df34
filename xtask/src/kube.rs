//! The Helm chart and the kustomize base: rendered, validated, and what comes out given to the programs it is for.
//!
//! Not an installation: there is no Kubernetes here. What a kubelet would do with the daemon's pod is shown by
//! [`pod`] and the end-to-end case that runs it.

mod chart;
mod join;
mod kustomize;
pub(crate) mod pod;
pub(crate) mod tools;

use crate::setup::Ability;
use crate::test::Tally;
use crate::workspace;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tools::Tools;

type Case = (&'static str, fn(&Tools) -> Result<()>);

const CASES: [Case; 7] = [
    (
        "chart: lints, renders and is valid Kubernetes, with the seed document's values as they are",
        chart::is_valid,
    ),
    ("chart: the configurations it writes are taken by the programs", chart::configures),
    ("chart: how its daemons follow each other, and the account of their jobs", chart::upgrades),
    ("chart: join tokens are shown by all, asked for where that is wanted, and brought along", join::tokens),
    ("chart: the notes name what was translated and what was ignored", chart::notices),
    ("chart: values that are wrong are named", chart::refuses),
    ("kustomize: the base is what the chart gives", kustomize::is_in_step),
];

/// Runs the cases, or skips them where Go is absent.
pub(crate) fn run(ability: &Ability, only: Option<&str>, tally: &mut Tally) {
    let cases: Vec<_> =
        CASES.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))).collect();
    if cases.is_empty() {
        return;
    }
    match tools::ready(ability) {
        Err(error) => {
            tally.run("chart: helm is built", || Err(error));
        }
        Ok(Err(why)) => cases.iter().for_each(|(name, _)| tally.skip(name, &why)),
        Ok(Ok(tools)) => cases.iter().for_each(|(name, case)| tally.run(name, || case(&tools))),
    }
}

/// `cargo xtask kustomize`: writes the base from the chart.
pub(crate) fn write_base() -> Result<ExitCode> {
    match tools::ready(&crate::setup::run()?)? {
        Err(why) => anyhow::bail!("no helm: {why}"),
        Ok(tools) => kustomize::write(&tools).map(|()| ExitCode::SUCCESS),
    }
}

/// The configuration of the manager of the seed document's cluster A, with its files in `dir`.
pub(crate) fn manager_of_a(tools: &Tools, dir: &Path) -> Result<String> {
    let text = chart::manager_of_a(tools)?;
    Ok(text
        .replace("/var/lib/hawker/", &format!("{}/", dir.display()))
        .replace("/etc/hawker-root/password", &dir.join("root-password").display().to_string()))
}

/// The chart's directory.
fn chart_dir() -> Result<PathBuf> {
    Ok(workspace::root()?.join("deploy/charts/hawker"))
}

/// A file of the seed document, as its author wrote it.
fn seed(name: &str) -> Result<PathBuf> {
    let path = workspace::root()?.join("deploy/kind").join(name);
    anyhow::ensure!(path.is_file(), "{} is not there", path.display());
    Ok(path)
}

/// The objects of rendered manifests.
pub(crate) fn objects(text: &str) -> Result<Vec<serde_json::Value>> {
    use serde::Deserialize;
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| serde_json::Value::deserialize(document).context("read a manifest"))
        .filter(|object| !matches!(object, Ok(serde_json::Value::Null)))
        .collect()
}

/// The object of this kind and name.
pub(crate) fn object<'o>(
    objects: &'o [serde_json::Value],
    kind: &str,
    name: &str,
) -> Result<&'o serde_json::Value> {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name} was rendered"))
}
