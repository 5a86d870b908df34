//! Bad input, at the doors of the real programs.

use crate::lab::{Lab, REGISTRY_NAME, data_dir};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::process::Command;

pub(super) fn is_named(lab: &Lab) -> Result<()> {
    configuration(lab)?;
    scopes(lab)?;
    requests(lab)
}

/// `--check-config` names file and key.
fn configuration(lab: &Lab) -> Result<()> {
    let cases = [
        (&lab.binaries.hawkerd, "", "mirror:\n  adr: 127.0.0.1:1\n", "adr"),
        (&lab.binaries.hawkerd, "", "storage: { capacity: much }\n", "much"),
        (&lab.binaries.hawkerd, "", "host: { advertiseIP: 10.0.0.999 }\n", "10.0.0.999"),
        (&lab.binaries.control, "manager", "manager:\n  databse: x\n", "databse"),
    ];
    for (program, role, text, expected) in cases {
        let path = data_dir("bad-config.yaml");
        fs::write(&path, text).context("write a bad configuration")?;
        let mut command = Command::new(program);
        if !role.is_empty() {
            command.arg(role);
        }
        let checked = crate::command::run(
            command.arg("--check-config").arg("--config").arg(&path),
            crate::command::SHORT,
        )?;
        let said = format!("{}{}", checked.stdout, checked.stderr);
        ensure!(!checked.status.success(), "accepted: {text}");
        ensure!(said.contains(expected) && said.contains("bad-config.yaml"), "{text}: {said}");
        println!("    {}", said.trim());
    }
    Ok(())
}

/// A scope that cannot be is refused when it is saved, by field and value.
fn scopes(lab: &Lab) -> Result<()> {
    for cidr in ["10.0.0.0/33", "300.1.0.0/16", "banana"] {
        let body = json!({ "name": "impossible", "scopes": { "cidrs": [cidr] } });
        let answer = lab.control.post("/api/v1/clusters", &body)?;
        ensure!((400..500).contains(&answer.status), "{cidr}: {} {}", answer.status, answer.text());
        ensure!(answer.text().contains(cidr), "{cidr}: {}", answer.text());
        println!("    {} {}", answer.status, answer.text().trim());
    }
    let clusters = lab.control.get("/api/v1/clusters")?.to_string();
    ensure!(!clusters.contains("impossible"), "saved all the same: {clusters}");
    Ok(())
}

fn requests(lab: &Lab) -> Result<()> {
    let zeros = "0".repeat(64);
    let cases = [
        ("/v2/lab/x/blobs/sha256:12".to_owned(), 400, "DIGEST_INVALID"),
        (format!("/v2/lab/x/blobs/md5:{zeros}"), 400, "DIGEST_INVALID"),
        (format!("/v2/lab/x/blobs/sha256:{zeros}?ns=elsewhere.example"), 403, "elsewhere.example"),
        (format!("/v2/lab/%2e%2e%2f/blobs/sha256:{zeros}"), 400, "NAME_INVALID"),
        (format!("/v2/lab/x/blobs/sha256:{zeros}?ns={REGISTRY_NAME}"), 404, "BLOB_UNKNOWN"),
    ];
    let node = lab.peers().next().context("no peers")?;
    for (path, status, text) in cases {
        let answer = node.daemon.mirror(&path, &[])?;
        ensure!(
            answer.status == status && answer.text().contains(text),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        println!("    {} {}", answer.status, answer.text().trim());
    }
    Ok(())
}
