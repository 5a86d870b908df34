//! The kustomize base: the chart's default manifests, written into the repository.
//!
//! Invariant: what stands there is what the chart gives today.

use super::tools::Tools;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;

const HEAD: &str = "# Written by `cargo xtask kustomize` from deploy/charts/hawker; changes belong there.\n";
/// Labels that speak of helm.
const OF_HELM: [&str; 2] = ["app.kubernetes.io/managed-by:", "helm.sh/chart:"];

/// What is made by hand, once.
const SECRETS: [(&str, &str); 2] =
    [("manager.rootPassword", "hawker-manager-root"), ("joinToken", "hawker-join-token")];

fn dir() -> Result<PathBuf> {
    Ok(workspace::root()?.join("deploy/kustomize/base"))
}

pub(super) fn write(tools: &Tools) -> Result<()> {
    let path = dir()?.join("hawker.yaml");
    fs::write(&path, rendered(tools)?).with_context(|| format!("write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn rendered(tools: &Tools) -> Result<String> {
    // A base can hold nothing random: the kustomization says where password and token come from.
    let set = SECRETS.map(|(value, secret)| format!("{value}.existingSecret={secret}"));
    let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    let text = tools.template("hawker", "hawker-system", &set)?;
    let lines = text.lines().filter(|line| !OF_HELM.iter().any(|label| line.trim_start().starts_with(label)));
    Ok(format!("{HEAD}{}", lines.map(|line| format!("{line}\n")).collect::<String>()))
}

pub(super) fn is_in_step(tools: &Tools) -> Result<()> {
    let found = fs::read_to_string(dir()?.join("hawker.yaml")).context("read the base")?;
    ensure!(
        found == rendered(tools)?,
        "deploy/kustomize/base is not what the chart gives: cargo xtask kustomize"
    );
    let built = tools.kustomize(&dir()?)?;
    let count = tools.validate(&built)?;
    println!("    kustomize build: {count} objects, valid");
    let named = SECRETS.iter().all(|(_, secret)| built.contains(&format!("secretName: {secret}")));
    ensure!(
        named && !built.contains("kind: Secret") && built.contains("namespace: hawker-system"),
        "the base built is not as expected:\n{built}"
    );
    Ok(())
}
