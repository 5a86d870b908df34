//! An image as the OCI specification lays it out on disk, and as Docker's older archive.
//!
//! Invariant: every blob's name is the digest of what is written.

use super::root::Tree;
use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How the image is run, and what it says of itself.
pub(super) struct Configuration {
    pub(super) created: String,
    pub(super) user: String,
    pub(super) entrypoint: String,
    pub(super) arguments: Vec<String>,
    pub(super) ports: Vec<u16>,
    pub(super) labels: Vec<(String, String)>,
}

struct Layer {
    tar: Vec<u8>,
    gzip: Vec<u8>,
}

/// An image being put together.
pub(super) struct Image {
    configuration: Configuration,
    layers: Vec<Layer>,
}

/// `sha256:…` of the bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Go's names of architectures, which images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Image {
    pub(super) fn new(configuration: Configuration) -> Self {
        Self { configuration, layers: Vec::new() }
    }

    pub(super) fn add_layer(&mut self, tree: &Tree) -> Result<()> {
        let tar = tree.tar()?;
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(&tar).context("compress a layer")?;
        self.layers.push(Layer { tar, gzip: gzip.finish().context("compress a layer")? });
        Ok(())
    }

    /// What a pull transfers.
    pub(super) fn compressed_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.gzip.len() as u64).sum()
    }

    fn config(&self) -> Vec<u8> {
        let own = &self.configuration;
        let ports: Map<_, _> = own.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        let labels: Map<_, _> = own.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": own.created,
            "config": {
                "User": own.user,
                "Entrypoint": [own.entrypoint],
                "Cmd": own.arguments,
                "Env": ["PATH=/usr/bin"],
                "ExposedPorts": ports,
                "Labels": labels,
                "WorkingDir": "/",
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": self.layers.iter().map(|layer| digest(&layer.tar)).collect::<Vec<_>>(),
            },
            "history": self.layers.iter().map(|_| json!({
                "created": own.created, "created_by": "cargo xtask image",
            })).collect::<Vec<_>>(),
        });
        config.to_string().into_bytes()
    }

    /// Writes an OCI layout, and returns the manifest's digest.
    pub(super) fn write_layout(&self, dir: &Path, tag: &str) -> Result<String> {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("make {}", blobs.display()))?;
        let blob = |kind: &str, bytes: &[u8]| -> Result<Value> {
            fs::write(blobs.join(hex(bytes)), bytes).context("write a blob")?;
            Ok(json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() }))
        };
        let config = blob("application/vnd.oci.image.config.v1+json", &self.config())?;
        let layers = self
            .layers
            .iter()
            .map(|layer| blob("application/vnd.oci.image.layer.v1.tar+gzip", &layer.gzip))
            .collect::<Result<Vec<_>>>()?;
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let mut described = blob(MANIFEST, manifest.to_string().as_bytes())?;
        let name = described["digest"].as_str().unwrap_or_default().to_owned();
        described["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        described["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [described],
        });
        fs::write(dir.join("index.json"), index.to_string()).context("write the index")?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).context("write oci-layout")?;
        Ok(name)
    }

    /// Writes what `docker load` takes.
    pub(super) fn write_archive(&self, path: &Path, name: &str) -> Result<()> {
        let config = self.config();
        let config_name = format!("{}.json", hex(&config));
        let layer_names: Vec<_> =
            self.layers.iter().map(|layer| format!("{}.tar", hex(&layer.tar))).collect();
        let manifest =
            json!([{ "Config": config_name, "RepoTags": [name], "Layers": layer_names }]).to_string();
        let file = fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes)
        };
        add("manifest.json", manifest.as_bytes()).context("add the manifest")?;
        add(&config_name, &config).context("add the configuration")?;
        for (name, layer) in layer_names.iter().zip(&self.layers) {
            add(name, &layer.tar).context("add a layer")?;
        }
        tar.into_inner()
            .and_then(|mut file| file.flush())
            .with_context(|| format!("write {}", path.display()))
    }
}
