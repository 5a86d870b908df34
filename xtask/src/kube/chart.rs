//! What the chart must hold, shown on the default values, on the seed document's two files, and with everything on.

use super::tools::Tools;
use super::{object, objects, seed};
use crate::command::{self, SHORT, check};
use crate::{binaries, workspace};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) const A: &str = "charts-config-cluster-a.yaml";
pub(super) const B: &str = "charts-config-cluster-b.yaml";
/// The seed document's files are used byte for byte.
const SEED: [(&str, &str); 2] = [
    (A, "2ad2f29a5269dd31c7f500622f70cec5cf437e520225513f78608b78a86dd050"),
    (B, "b9189b4dab24967d6857e6fc5a6a29733bcb54d6971153a771852ea5b254236d"),
];
const MANAGER: &str = "dragonfly-manager.cluster-a.svc.cluster.local:65003";
/// Everything that is off by default.
const ALL: [&str; 10] = [
    "prometheusRule.enable=true",
    "grafana.dashboards.enable=true",
    "serviceMonitor.enable=true",
    "jaeger.enable=true",
    "manager.metrics.enable=true",
    "scheduler.metrics.enable=true",
    "seedPeer.metrics.enable=true",
    "dfdaemon.metrics.enable=true",
    "manager.database.existingSecret=hawker-database",
    "manager.replicas=2",
];

/// A release of the seed document: its namespace, and its manifests.
pub(super) fn release(tools: &Tools, values: &str) -> Result<String> {
    let namespace = if values == A { "cluster-a" } else { "cluster-b" };
    tools.template("dragonfly", namespace, &["--values", &seed(values)?.display().to_string()])
}

pub(super) fn is_valid(tools: &Tools) -> Result<()> {
    for (name, expected) in SEED {
        let hash = Sha256::digest(fs::read(seed(name)?)?);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(hash == expected, "{name} is not the seed document's");
    }
    let everything: Vec<&str> = ALL.iter().flat_map(|set| ["--set", *set]).collect();
    let (a, b) = (seed(A)?.display().to_string(), seed(B)?.display().to_string());
    let cases: [(&str, Vec<&str>); 4] = [
        ("default values", vec![]),
        ("the seed document's cluster A", vec!["--values", &a]),
        ("the seed document's cluster B", vec!["--values", &b]),
        ("everything on", everything),
    ];
    for (what, arguments) in cases {
        let mut lint = tools.helm();
        let linted = check(lint.args(["lint", "--strict"]).arg(super::chart_dir()?).args(&arguments), SHORT)?;
        ensure!(linted.stdout.contains("0 chart(s) failed"), "{}", linted.stdout);
        let manifests = tools.template("hawker", "default", &arguments)?;
        println!(
            "    {what}: {} objects, valid",
            tools.validate(&manifests).with_context(|| what.to_owned())?
        );
        least_privilege(&objects(&manifests)?).with_context(|| what.to_owned())?;
    }
    Ok(())
}

/// No container may do more than it must.
fn least_privilege(objects: &[Value]) -> Result<()> {
    for object in objects {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        ensure!(
            !["Role", "ClusterRole"].contains(&kind.as_str().unwrap_or_default()),
            "{kind} {name}: what for?"
        );
        let pod = &object["spec"]["template"]["spec"];
        if pod.is_null() {
            continue;
        }
        ensure!(pod["automountServiceAccountToken"] == false, "{kind} {name} has a token");
        for container in
            ["initContainers", "containers"].iter().filter_map(|list| pod[*list].as_array()).flatten()
        {
            let security = &container["securityContext"];
            let held = security["allowPrivilegeEscalation"] == false
                && security["privileged"] == false
                && security["readOnlyRootFilesystem"] == true
                && security["capabilities"]["drop"] == json!(["ALL"]);
            ensure!(held, "{kind} {name}, {}: {security}", container["name"]);
            let adds = &security["capabilities"]["add"];
            let daemon = container["name"] == "hawkerd";
            let expected = if daemon { json!(["BPF", "NET_ADMIN", "PERFMON"]) } else { Value::Null };
            ensure!(*adds == expected, "{kind} {name}, {} adds {adds}", container["name"]);
            ensure!(
                daemon || security["runAsUser"] == 0 || pod["securityContext"]["runAsNonRoot"] == true,
                "{kind} {name} may be root"
            );
        }
    }
    Ok(())
}

/// The text of a file in a ConfigMap.
pub(super) fn configuration(objects: &[Value], component: &str, file: &str) -> Result<String> {
    let map = object(objects, "ConfigMap", &format!("dragonfly-{component}"))?;
    let text = map["data"][file].as_str().with_context(|| format!("no {file} for {component}"))?;
    Ok(text.to_owned())
}

pub(super) fn manager_of_a(tools: &Tools) -> Result<String> {
    configuration(&objects(&release(tools, A)?)?, "manager", "control.yaml")
}

pub(super) fn configures(tools: &Tools) -> Result<()> {
    binaries::build()?;
    let (a, b) = (objects(&release(tools, A)?)?, objects(&release(tools, B)?)?);
    for (objects, components) in [
        (&a, &["manager", "scheduler", "seed-peer", "dfdaemon"][..]),
        (&b, &["scheduler", "seed-peer", "dfdaemon"]),
    ] {
        for component in components {
            taken(objects, component)?;
        }
    }
    let read = |component: &str, file: &str| -> Result<Value> {
        serde_yaml_ng::from_str(&configuration(&b, component, file)?).context("read a configuration")
    };
    let daemon = read("dfdaemon", "daemon.yaml")?;
    println!(
        "    cluster B's daemon: idc {}, managers {}",
        daemon["host"]["idc"], daemon["manager"]["addrs"]
    );
    ensure!(daemon["host"]["idc"] == "cluster-2", "idc {}", daemon["host"]);
    ensure!(daemon["manager"]["addrs"] == json!([format!("http://{MANAGER}")]), "{}", daemon["manager"]);
    ensure!(daemon["mirror"]["registries"] == json!(["https://ghcr.io"]), "{}", daemon["mirror"]);
    ensure!(daemon["seedPeer"]["enable"] == false, "{}", daemon["seedPeer"]);
    let seed = read("seed-peer", "daemon.yaml")?;
    println!("    cluster B's seed peer: {}", seed["seedPeer"]);
    ensure!(seed["seedPeer"] == json!({ "enable": true, "clusterID": 2 }), "{}", seed["seedPeer"]);
    let scheduler = read("scheduler", "control.yaml")?;
    println!("    cluster B's scheduler: {}", scheduler["scheduler"]);
    ensure!(scheduler["scheduler"]["clusterID"] == 2, "{}", scheduler["scheduler"]);
    ensure!(
        scheduler["scheduler"]["managerAddrs"] == json!([format!("http://{MANAGER}")]),
        "{}",
        scheduler["scheduler"]
    );
    // The Service that the document makes by hand finds the manager's pods.
    let by_hand: Value =
        serde_yaml_ng::from_str(&fs::read_to_string(super::seed("manager-rest-svc.yaml")?)?)?;
    let pods = &object(&a, "StatefulSet", "dragonfly-manager")?["spec"]["template"]["metadata"]["labels"];
    for (label, value) in by_hand["spec"]["selector"].as_object().context("a Service without selector")? {
        ensure!(
            pods[label] == *value,
            "the manager's pods have {label} {}, the Service asks for {value}",
            pods[label]
        );
    }
    let service = object(&a, "Service", "dragonfly-manager")?;
    let ports: Vec<_> =
        service["spec"]["ports"].as_array().context("no ports")?.iter().map(|port| &port["port"]).collect();
    ensure!(
        ports.contains(&&json!(65003)) && ports.contains(&&json!(8080)),
        "the manager's service has ports {ports:?}"
    );
    Ok(())
}

/// The program says that the configuration is right; and with a key that does not exist, that it is not.
pub(super) fn taken(objects: &[Value], component: &str) -> Result<()> {
    let (program, file, role) = match component {
        "manager" | "scheduler" => ("hawker-control", "control.yaml", Some(component)),
        _ => ("hawkerd", "daemon.yaml", None),
    };
    let text = configuration(objects, component, file)?;
    let dir = tempfile::tempdir().context("make a directory")?;
    let path = dir.path().join(file);
    let ask = |text: &str| -> Result<command::Finished> {
        fs::write(&path, text).context("write a configuration")?;
        let mut ask = Command::new(workspace::program(program)?);
        command::run(ask.args(role).arg("--config").arg(&path).arg("--check-config"), SHORT)
    };
    let said = ask(&text)?;
    ensure!(said.status.success(), "{component}: {}{}\n{text}", said.stdout, said.stderr);
    let wrong = ask(&format!("{text}\nnoSuchKey: 1\n"))?;
    ensure!(!wrong.status.success() && wrong.stderr.contains("noSuchKey"), "{component}: {}", wrong.stderr);
    Ok(())
}

/// How the daemons' pods follow each other, and the account that their jobs have.
pub(super) fn upgrades(tools: &Tools) -> Result<()> {
    let daemons = |more: &[&str]| -> Result<Value> {
        let manifests = tools.template("hawker", "default", more)?;
        tools.validate(&manifests)?;
        Ok(object(&objects(&manifests)?, "DaemonSet", "hawker-dfdaemon")?["spec"].clone())
    };
    let rolling = |spec: &Value| spec["updateStrategy"]["rollingUpdate"].clone();
    let beside = daemons(&[])?;
    println!("    in the node's network: {}", rolling(&beside));
    ensure!(rolling(&beside) == json!({ "maxSurge": "10%", "maxUnavailable": 0 }), "{}", rolling(&beside));
    // A port of the node's that two pods declare lets only one of them run there.
    ensure!(!beside.to_string().contains("containerPort"), "the pod declares ports");
    let apart = daemons(&["--set", "dfdaemon.hostNetwork=false"])?;
    ensure!(rolling(&apart) == json!({ "maxUnavailable": "10%" }), "{}", rolling(&apart));
    let own = daemons(&["--set", "dfdaemon.updateStrategy.type=OnDelete"])?;
    ensure!(own["updateStrategy"] == json!({ "type": "OnDelete" }), "{}", own["updateStrategy"]);

    ensure!(!beside.to_string().contains("account\""), "an account nobody asked for");
    let with = daemons(&["--set", "dfdaemon.jobAccount.existingSecret=robot"])?;
    let volumes = with["template"]["spec"]["volumes"].as_array().context("no volumes")?;
    let account = volumes.iter().find(|volume| volume["name"] == "account").context("no volume account")?;
    ensure!(
        account["secret"]["secretName"] == "robot" && account["secret"]["defaultMode"] == 0o400,
        "{account}"
    );
    let mounts = &with["template"]["spec"]["containers"][0]["volumeMounts"];
    ensure!(mounts.to_string().contains("/etc/hawker-account"), "{mounts}");
    Ok(())
}

pub(super) fn notices(tools: &Tools) -> Result<()> {
    let notes = |values: &[&Path]| tools.notes("dragonfly", "cluster-b", values);
    let (a, b) = (seed(A)?, seed(B)?);
    let said = notes(&[&b])?;
    for line in said.lines().filter(|line| line.starts_with("- ")) {
        println!("    {line}");
    }
    for expected in [
        "dfdaemon.image: dragonflyoss/dfdaemon:latest is another product's; ghcr.io/hawker-project/hawkerd:",
        "scheduler.image: dragonflyoss/scheduler:latest is another product's; ghcr.io/hawker-project/hawker-control:",
        "- redis: not needed",
        "- mysql: not needed",
        "- externalRedis: not needed",
        MANAGER,
    ] {
        ensure!(said.contains(expected), "the notes lack `{expected}`:\n{said}");
    }
    ensure!(
        said.contains("No join token is shown to the manager at")
            && said.contains("joinToken.existingSecret"),
        "the notes do not say how a token is brought:\n{said}"
    );
    let of_a = notes(&[&a])?;
    ensure!(
        of_a.contains("may join as a node")
            && of_a.contains("get secret dragonfly-join-token -o jsonpath='{.data.token}'"),
        "the notes do not say who may join:\n{of_a}"
    );
    ensure!(of_a.contains("dfdaemon.config.pprofPort: no meaning here, ignored"), "pprofPort is not named");
    ensure!(!notes(&[])?.contains("Of the values given"), "the default values give notices");
    Ok(())
}

pub(super) fn refuses(tools: &Tools) -> Result<()> {
    let cases = [
        ("dfdaemon.hostNetwrk=true", "hostNetwrk"),
        ("manager.enable=false", "no manager: set manager.enable, or externalManager.host"),
        ("manager.replicas=2", "more than one manager needs PostgreSQL"),
        ("security.capabilities={SYS_ADMIN}", "/security/capabilities/0"),
        ("containerRuntime.containerd.registries={ghcr.io}", "/containerRuntime/containerd/registries/0"),
        ("scheduler.config.manager.addr=manager", "/scheduler/config/manager/addr"),
        ("joinToken.value=short", "/joinToken/value"),
        ("joinToken.enable=false,joinToken.require=true", "joinToken.require needs joinToken.enable"),
        ("joinToken.value=0123456789abcdef,joinToken.existingSecret=x", "existingSecret or value, not both"),
        ("scheduler.config.manager.schedulerClusterID=0", "/scheduler/config/manager/schedulerClusterID"),
    ];
    for (set, expected) in cases {
        let mut helm = tools.helm();
        helm.args(["template", "x"]).arg(super::chart_dir()?).args(["--set", set]);
        let said = command::run(&mut helm, SHORT)?;
        ensure!(!said.status.success() && said.stderr.contains(expected), "{set}: {}", said.stderr);
        let line = said.stderr.lines().find(|line| line.contains(expected)).unwrap_or_default();
        println!("    {set}: {}", line.trim());
    }
    Ok(())
}
