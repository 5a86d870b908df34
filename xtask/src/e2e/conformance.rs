//! The conformance suite of the OCI distribution specification, its part for pulling in read-only mode, against the
//! mirror in front of docker-registry.
//!
//! Invariant: a suite that ran no test is a failure, not a success.

use super::image;
use crate::command::{self, LONG};
use crate::go;
use crate::lab::daemon::MIRROR;
use crate::lab::{Lab, data_dir};
use crate::netns;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;

pub(super) const NAME: &str = "conformance: the OCI distribution suite, pulling, read-only, by the mirror";
const MODULE: &str = "github.com/opencontainers/distribution-spec/conformance";
/// Of August 2026: the suite has no releases.
const VERSION: &str = "v0.0.0-20260831232431-97274622c111";

/// The suite's program, built from the Go module proxy; an error says why there is none here.
pub(super) fn program() -> Result<PathBuf, String> {
    go::install(MODULE, VERSION)
}

pub(super) fn run(lab: &Lab, program: &PathBuf) -> Result<()> {
    let image = image(lab, "conformance", &[5, 1])?;
    let results = data_dir("conformance");
    fs::create_dir_all(&results).context("make the results' directory")?;
    let blobs: Vec<&str> = image
        .layers
        .iter()
        .map(|layer| layer.digest.as_str())
        .chain([image.config.digest.as_str()])
        .collect();
    let mut suite = netns::command(&netns::name("a1"), program);
    suite.current_dir(&results).env("OCI_RESULTS_DIR", &results).env("OCI_VERSION", "1.1");
    suite.env("OCI_REGISTRY", MIRROR.trim_start_matches("http://")).env("OCI_TLS", "disabled");
    suite.env("OCI_REPO1", "lab/conformance").env("OCI_RO_DATA_TAGS", "latest");
    suite.env("OCI_RO_DATA_MANIFESTS", &image.manifest).env("OCI_RO_DATA_BLOBS", blobs.join(" "));
    for off in ["PUSH", "BLOBS_DELETE", "MANIFESTS_DELETE", "TAGS_DELETE"] {
        suite.env(format!("OCI_API_{off}"), "false");
    }
    // Stricter than the specification: runtimes go by this header. The same for manifests is not to be had here: in
    // read-only mode the suite does not know their bytes, and then looks for the header in no answer at all.
    suite.env("OCI_API_BLOBS_DIGEST_HEADER", "true");
    // docker-registry has no such API: there is nothing to pass on.
    suite.env("OCI_API_REFERRER", "false");
    let ran = command::run(&mut suite, LONG)?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    // Its own report is the judge: this version can crash when it writes that down a second time, as YAML.
    let report = said.find("OCI Conformance Result").map(|at| &said[at..]).context(said.clone())?;
    let count = |name: &str| {
        let line = report.lines().find(|line| line.trim_start().starts_with(&format!("{name}...")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
    };
    let (passed, failed, errors) = (count("Pass"), count("FAIL"), count("Error"));
    println!("    {}", report.lines().next().unwrap_or_default());
    println!(
        "    {passed:?} passed, {failed:?} failed, {errors:?} errors, {:?} not for this mode",
        count("Disabled")
    );
    let all = report.starts_with("OCI Conformance Result: Pass") && (failed, errors) == (Some(0), Some(0));
    ensure!(all && passed.is_some_and(|passed| passed > 0), "{said}");
    Ok(())
}
