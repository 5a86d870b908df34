//! What is in an image, as a CycloneDX document: the crates its programs are made of, and the packages of its libraries.
//!
//! Invariant: no time, serial number or path of the machine, so that the same content is the same document.

use super::{Recipe, version};
use crate::command::{self, LONG, SHORT, check};
use crate::workspace;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) fn document(recipe: &Recipe, libraries: &[PathBuf]) -> Result<Vec<u8>> {
    let mut components = Vec::new();
    for (name, version) in crates(recipe)? {
        components.push(component(&name, &version, &format!("pkg:cargo/{name}@{version}")));
    }
    for (name, version) in libraries.iter().filter_map(|path| package(path)).collect::<BTreeMap<_, _>>() {
        components.push(component(&name, &version, &format!("pkg:deb/debian/{name}@{version}")));
    }
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "container", "name": recipe.name, "version": version() } },
        "components": components,
    });
    Ok(serde_json::to_vec_pretty(&document)?)
}

fn component(name: &str, version: &str, purl: &str) -> Value {
    json!({ "type": "library", "name": name, "version": version, "purl": purl })
}

/// Everything that is linked into the image's programs: normal dependencies, for this platform.
fn crates(recipe: &Recipe) -> Result<BTreeSet<(String, String)>> {
    let mut cargo = workspace::cargo()?;
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform"]);
    cargo.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let metadata: Value =
        serde_json::from_str(&check(&mut cargo, LONG)?.stdout).context("read cargo's metadata")?;
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: HashMap<_, _> = array(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), (text(&package["name"]), text(&package["version"]))))
        .collect();
    let nodes: HashMap<_, _> =
        array(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let is_root = |name: &str| recipe.programs.iter().any(|(_, package)| *package == name);
    let mut open: Vec<_> =
        packages.iter().filter(|(_, (name, _))| is_root(name)).map(|(id, _)| id.clone()).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in array(&nodes[&id]["deps"]) {
            // A kind of null is a normal one; `dev` and `build` are not linked in.
            if array(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                open.push(text(&dependency["pkg"]));
            }
        }
    }
    Ok(seen.iter().filter_map(|id| packages.get(id).cloned()).collect())
}

/// The Debian package that a library came with, where this is Debian.
fn package(library: &Path) -> Option<(String, String)> {
    let ask = |words: &[&str]| {
        let asked = command::run(Command::new(words[0]).args(&words[1..]), SHORT).ok()?;
        asked.status.success().then_some(asked.stdout)
    };
    let real = library.canonicalize().ok()?;
    // Packages know a library below /usr/lib by either name.
    let names = [
        real.display().to_string(),
        format!("{}", Path::new("/").join(real.strip_prefix("/usr").ok()?).display()),
    ];
    let owner = names.iter().find_map(|name| ask(&["dpkg", "-S", name]))?;
    let name = owner.split(": ").next()?.to_owned();
    let version = ask(&["dpkg-query", "-W", "-f", "${Version}", &name])?;
    Some((name.split(':').next()?.to_owned(), version))
}
