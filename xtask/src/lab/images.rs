//! Images for the lab: made here, from random and compressible data, several layers.
//!
//! Invariant: the same seed gives the same bytes; no two images share a layer unless made so.

use super::registry::Registry;
use super::{DATA, data_dir};
use crate::command::{LONG, check};
use anyhow::{Context, Result};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: usize = 1 << 20;
/// Bytes written at once.
const STEP: usize = MIB;

/// What a layer's one file is filled with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fill {
    Random,
    /// Numbered lines: compresses to a fraction.
    Text,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerPlan {
    pub(crate) bytes: usize,
    pub(crate) fill: Fill,
}

/// The demo's image: one layer above 64 MiB, one that compresses, one of a few bytes.
pub(crate) const DEMO: [LayerPlan; 4] = [
    LayerPlan { bytes: 72 * MIB, fill: Fill::Random },
    LayerPlan { bytes: 20 * MIB, fill: Fill::Text },
    LayerPlan { bytes: 6 * MIB, fill: Fill::Random },
    LayerPlan { bytes: 12, fill: Fill::Text },
];
/// The benchmark's image: one layer of 64 MiB.
pub(crate) const ONE_LAYER: [LayerPlan; 1] = [LayerPlan { bytes: 64 * MIB, fill: Fill::Random }];

/// An image in the registry.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) reference: String,
    pub(crate) manifest: String,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    pub(crate) manifest_bytes: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
}

impl Image {
    /// Everything a pull transfers.
    pub(crate) fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum::<u64>() + self.config.bytes + self.manifest_bytes
    }

    pub(crate) fn digests(&self) -> impl Iterator<Item = &str> {
        let layers = self.layers.iter().map(|layer| layer.digest.as_str());
        layers.chain([self.config.digest.as_str(), self.manifest.as_str()])
    }
}

/// Makes an image and pushes it.
pub(crate) fn make(registry: &Registry, name: &str, layers: &[LayerPlan], seed: u64) -> Result<Image> {
    let layout = data_dir("images").join(name);
    fs::create_dir_all(layout.parent().unwrap_or(Path::new(DATA))).context("make the images' directory")?;
    let tagged = format!("{}:{name}", layout.display());
    umoci(&["init", "--layout", &layout.display().to_string()])?;
    umoci(&["new", "--image", &tagged])?;
    for (number, plan) in (0..).zip(layers) {
        let tar = layer(&layout, name, number, *plan, seed.wrapping_mul(1000) + number)?;
        umoci(&["raw", "add-layer", "--image", &tagged, &tar.display().to_string()])?;
        fs::remove_file(&tar).context("remove a layer's tar")?;
    }
    registry.push(&layout, name, name)?;
    let image = describe(&layout, name)?;
    fs::remove_dir_all(&layout).context("remove an image's layout")?;
    Ok(image)
}

fn umoci(words: &[&str]) -> Result<()> {
    check(Command::new("umoci").args(words), LONG).map(drop)
}

fn layer(layout: &Path, name: &str, number: u64, plan: LayerPlan, seed: u64) -> Result<PathBuf> {
    let dir = layout.with_extension(format!("layer-{number}"));
    fs::create_dir_all(&dir).context("make a layer's directory")?;
    let file_name = format!("{name}-{number}");
    fill(&dir.join(&file_name), plan, seed)?;
    let tar = layout.with_extension(format!("{number}.tar"));
    let mut command = Command::new("tar");
    // The same bytes each time: no names, no times of this machine.
    command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"]);
    check(command.arg(&tar).arg("-C").arg(&dir).arg(&file_name), LONG)?;
    fs::remove_dir_all(&dir).context("remove a layer's directory")?;
    Ok(tar)
}

fn fill(path: &Path, plan: LayerPlan, seed: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut random = StdRng::seed_from_u64(seed);
    let (mut left, mut line) = (plan.bytes, 0u64);
    while left > 0 {
        let mut step = vec![0; left.min(STEP)];
        match plan.fill {
            Fill::Random => random.fill(step.as_mut_slice()),
            Fill::Text => {
                for chunk in step.chunks_mut(32) {
                    let text = format!("line {line:>20} of {seed:>4}\n");
                    chunk.copy_from_slice(&text.as_bytes()[..chunk.len()]);
                    line += 1;
                }
            }
        }
        file.write_all(&step).context("write a layer's file")?;
        left -= step.len();
    }
    Ok(())
}

fn describe(layout: &Path, name: &str) -> Result<Image> {
    let read = |path: PathBuf| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(&path).with_context(|| format!("read {}", path.display()))?)?)
    };
    let index = read(layout.join("index.json"))?;
    let digest = index["manifests"][0]["digest"].as_str().context("the layout names no manifest")?;
    let path = layout.join("blobs").join(digest.replacen(':', "/", 1));
    let manifest = read(path.clone())?;
    let blob = |value: &Value| -> Result<Blob> {
        let digest = value["digest"].as_str().context("a descriptor without digest")?.to_owned();
        Ok(Blob { digest, bytes: value["size"].as_u64().context("a descriptor without size")? })
    };
    let layers = manifest["layers"].as_array().context("a manifest without layers")?;
    Ok(Image {
        reference: Registry::reference(name),
        manifest: digest.to_owned(),
        config: blob(&manifest["config"])?,
        layers: layers.iter().map(blob).collect::<Result<_>>()?,
        manifest_bytes: path.metadata().context("look at the manifest")?.len(),
    })
}
