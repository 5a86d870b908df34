//! Join tokens in the chart: who shows one, who asks for one, and how a cluster brings it along.

use super::chart::{A, B, configuration, release, taken};
use super::tools::Tools;
use super::{object, objects, seed};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const FILE: &str = "/etc/hawker-join/token";
/// The pods that have the token; the first one only in a release with a manager.
const PODS: [(&str, &str); 4] = [
    ("StatefulSet", "manager"),
    ("StatefulSet", "scheduler"),
    ("StatefulSet", "seed-peer"),
    ("DaemonSet", "dfdaemon"),
];

/// Who shows a join token, who asks for one, and that the seed document's cluster B joins cluster A without any.
pub(super) fn tokens(tools: &Tools) -> Result<()> {
    let a = objects(&release(tools, A)?)?;
    let secret = object(&a, "Secret", "dragonfly-join-token")?;
    let token = STANDARD.decode(secret["data"]["token"].as_str().context("no token")?)?;
    ensure!(token.len() == 48, "a token of {} bytes", token.len());
    println!("    cluster A: {} shows a random token, its manager asks for none", secret["metadata"]["name"]);
    ensure!(
        shown(&a, "scheduler")? == FILE && shown(&a, "dfdaemon")? == FILE && shown(&a, "seed-peer")? == FILE
    );
    ensure!(asked(&a)?.is_null(), "cluster B could not join: {}", asked(&a)?);
    for (kind, component) in PODS {
        ensure!(mounts(&a, kind, component)? == Some("dragonfly-join-token".to_owned()), "{component}");
    }
    let b = release(tools, B)?;
    ensure!(!b.contains("join"), "cluster B has no token, and yet one is shown:\n{b}");

    // What the manager writes for a cluster that joins where it asks for tokens.
    let (seed_a, seed_b) = (seed(A)?.display().to_string(), seed(B)?.display().to_string());
    let asks = tools.template(
        "dragonfly",
        "cluster-a",
        &["--values", &seed_a, "--set", "joinToken.require=true"],
    )?;
    ensure!(asked(&objects(&asks)?)? == FILE, "the manager does not ask");
    let brings = ["--values", &seed_b, "--set", "joinToken.existingSecret=hawker-join-token"];
    let brings = objects(&tools.template("dragonfly", "cluster-b", &brings)?)?;
    for (kind, component) in &PODS[1..] {
        ensure!(mounts(&brings, kind, component)? == Some("hawker-join-token".to_owned()), "{component}");
        ensure!(shown(&brings, component)? == FILE, "{component} shows none");
        taken(&brings, component)?;
    }
    ensure!(
        !brings.iter().any(|object| object["kind"] == "Secret"),
        "a Secret beside the one that was brought"
    );
    let given = ["--values", &seed_b, "--set", "joinToken.value=0123456789abcdef"];
    let given = objects(&tools.template("dragonfly", "cluster-b", &given)?)?;
    let secret = object(&given, "Secret", "dragonfly-join-token")?;
    ensure!(secret["data"]["token"] == STANDARD.encode("0123456789abcdef"), "{secret}");
    let off = tools.template(
        "dragonfly",
        "cluster-a",
        &["--values", &seed_a, "--set", "joinToken.enable=false"],
    )?;
    ensure!(!off.contains("join"), "joinToken.enable=false leaves something");
    Ok(())
}

/// The file whose token a component shows its manager.
fn shown(objects: &[Value], component: &str) -> Result<Value> {
    let (file, section) =
        if component == "scheduler" { ("control.yaml", "scheduler") } else { ("daemon.yaml", "manager") };
    let read: Value = serde_yaml_ng::from_str(&configuration(objects, component, file)?)?;
    Ok(read[section]["joinTokenFile"].clone())
}

/// The file whose tokens the manager asks for.
fn asked(objects: &[Value]) -> Result<Value> {
    let read: Value = serde_yaml_ng::from_str(&configuration(objects, "manager", "control.yaml")?)?;
    Ok(read["manager"]["joinTokenFile"].clone())
}

/// The Secret that a component's program finds at the place of the file.
fn mounts(objects: &[Value], kind: &str, component: &str) -> Result<Option<String>> {
    let pod = &object(objects, kind, &format!("dragonfly-{component}"))?["spec"]["template"]["spec"];
    let list = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mount = list(&pod["containers"][0]["volumeMounts"])
        .into_iter()
        .find(|at| at["mountPath"] == "/etc/hawker-join");
    let Some(mount) = mount else { return Ok(None) };
    let volume = list(&pod["volumes"]).into_iter().find(|volume| volume["name"] == mount["name"]);
    let secret = &volume.context("a mount without volume")?["secret"];
    ensure!(
        secret["items"] == json!([{ "key": "token", "path": "token" }]) && secret["defaultMode"] == 0o440,
        "{secret}"
    );
    Ok(secret["secretName"].as_str().map(str::to_owned))
}
