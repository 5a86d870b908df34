//! The daemon's configuration: the documented file, and every refusal by its key.

#![expect(clippy::unwrap_used, reason = "test code may panic")]

use hawker_daemon::config::{
    AccessMode, Config, ConfigError, EngineChoice, Fallback, LogFormat, Outage, PeerAuth, PeerTls,
    References, RegistryPolicy, ShaperMode, Verify, canonical_host,
};
use std::path::PathBuf;
use std::process::Command;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon.yaml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path), environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn registries(text: &str) -> Vec<(String, String)> {
    let config = load(&format!("mirror: {{ registries: {text} }}"), &[]).unwrap();
    config.mirror.registries.into_iter().map(|entry| (entry.host, entry.server.to_string())).collect()
}

#[test]
fn the_documented_file_is_the_defaults() {
    let documented = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/daemon.yaml");
    let from_file = Config::load(Some(&documented), []).unwrap();
    let defaults = Config::load(None, []).unwrap();
    assert_eq!(format!("{from_file:?}"), format!("{defaults:?}"));
    assert!(!defaults.host.hostname.is_empty());
    assert_eq!(defaults.mirror.addr.to_string(), "127.0.0.1:4001");
    assert_eq!(defaults.storage.capacity.0, 80 << 30);
    assert_eq!(defaults.peer.auth, PeerAuth::Off, "there is no manager that could give a key");
    let managed = load("manager: { addrs: ['http://m:65003'] }", &[]).unwrap();
    assert_eq!(managed.peer.auth, PeerAuth::Cluster);
    assert!(defaults.shaper.yield_to_others && defaults.manager.addrs.is_empty());
}

#[test]
fn every_key_is_understood() {
    let config = load(
        r#"
host: { hostname: node-1, advertiseIP: 10.1.0.7, idc: cluster-2, location: "asia| cn |hangzhou" }
manager: { addrs: ["http://manager:65003", "http://10.0.0.2:65003/"], joinTokenFile: /etc/hawker/join }
cluster: { id: 3, fallback: default }
seedPeer: { enable: true, clusterID: 4 }
mirror: { addr: "127.0.0.1:0", registries: ["https://ghcr.io"] }
peer: { addr: "[::]:0", tls: off, auth: off }
storage: { dir: /data/hawker, capacity: 1GiB }
engine: io_uring
shaper: { mode: off, uploadLimit: 100Mbps, perPeerLimit: 1MB/s, downloadLimit: 0, originLimit: 12.5MB/s, yield: false, peers: [{ network: 10.1.2.3/16, limit: 60Mbps, weight: 4 }, { network: "fd00::7" }] }
metrics: { addr: "127.0.0.1:0" }
api: { socket: "" }
telemetry: { otlpEndpoint: "http://collector:4318", otlpProtocol: http/protobuf, logFormat: json }
verify: strict
"#,
        &[],
    )
    .unwrap();
    assert_eq!(config.host.advertise_ip, Some([10, 1, 0, 7].into()));
    assert_eq!(config.host.location, "asia|cn|hangzhou");
    assert_eq!(config.manager.addrs, ["http://manager:65003", "http://10.0.0.2:65003"]);
    assert_eq!(config.manager.join_token_file, Some(PathBuf::from("/etc/hawker/join")));
    assert_eq!((config.cluster.id, config.cluster.fallback), (3, Fallback::Default));
    assert!(config.seed_peer.enable && config.seed_peer.cluster_id == 4);
    assert_eq!((config.peer.tls, config.engine), (PeerTls::Off, EngineChoice::IoUring));
    assert_eq!((config.shaper.mode, config.shaper.upload_limit.0), (ShaperMode::Off, 12_500_000));
    let rules: Vec<_> = config.shaper.peers.iter().map(|rule| rule.network.to_string()).collect();
    assert_eq!((rules.join(" "), config.shaper.peers[0].weight), ("10.1.0.0/16 fd00::7/128".to_owned(), 4));
    assert_eq!((config.verify, config.telemetry.log_format), (Verify::Strict, LogFormat::Json));
    assert_eq!(config.api.socket, None);
}

#[test]
fn variables_win() {
    let environment = [
        ("HAWKER_HOST_ADVERTISE_IP", "10.0.0.9"),
        ("HAWKER_SEED_PEER_CLUSTER_ID", "7"),
        ("HAWKER_MIRROR_REGISTRIES", "[https://quay.io, {host: x.test, server: 'http://10.0.0.1:5000'}]"),
        ("HAWKER_SHAPER_YIELD", "false"),
    ];
    let config = load("host: { advertiseIP: 10.0.0.1 }", &environment).unwrap();
    assert_eq!(config.host.advertise_ip.unwrap().to_string(), "10.0.0.9");
    assert_eq!(config.seed_peer.cluster_id, 7);
    assert_eq!(config.mirror.registries.len(), 2);
    assert!(!config.shaper.yield_to_others);
}

#[test]
fn docker_hub_is_asked_where_its_registry_is() {
    let hub = ("docker.io".to_owned(), "https://registry-1.docker.io/".to_owned());
    for entry in [
        "https://docker.io",
        "https://index.docker.io/",
        "https://registry-1.docker.io",
        "{host: docker.io, server: 'https://docker.io'}",
    ] {
        assert_eq!(
            registries(&format!("[{entry:?}]").replace("\"{", "{").replace("}\"", "}")),
            std::slice::from_ref(&hub),
            "{entry}"
        );
    }
    let own = registries("[{host: docker.io, server: 'http://10.0.0.5:5000'}]");
    assert_eq!(own, [("docker.io".to_owned(), "http://10.0.0.5:5000/".to_owned())]);
    assert_eq!(canonical_host("INDEX.docker.io"), "docker.io");
    assert_eq!(registries("['https://GHCR.io', 'http://[::1]:5000']")[1].0, "[::1]:5000");
}

#[test]
fn refusals_name_file_key_and_problem() {
    let long = format!("api: {{ socket: /{} }}", "x".repeat(120));
    for (text, key, problem) in [
        ("host: { advertiseIP: 0.0.0.0 }", "host.advertiseIP", "0.0.0.0"),
        ("host: { advertiseIP: 224.0.0.1 }", "host.advertiseIP", "224.0.0.1"),
        ("host: { advertiseIP: \"::ffff:0.0.0.0\" }", "host.advertiseIP", "other nodes"),
        ("host: { advertiseIP: node-1 }", "host.advertiseIP", "not an IP"),
        ("host: { hostname: \"a b\" }", "host.hostname", "a b"),
        ("host: { idc: \"a|b\" }", "host.idc", "several"),
        ("host: { location: \"asia||x\" }", "host.location", "empty element"),
        ("host: { location: \"a|b|c|d|e|f|g|h|i\" }", "host.location", "9 elements"),
        ("manager: { addrs: [\"manager:65003\"] }", "manager.addrs[0]", "no scheme"),
        ("manager: { joinTokenFile: join }", "manager.joinTokenFile", "no absolute path"),
        ("manager: { addrs: [\"http://m:1\", \"http://m:1/\"] }", "manager.addrs[1]", "twice"),
        ("cluster: { fallback: manager }", "cluster.fallback", "origin, default"),
        ("mirror: { addr: localhost }", "mirror.addr", "localhost"),
        ("mirror: { registries: [ghcr.io] }", "mirror.registries[0]", "https://ghcr.io"),
        ("mirror: { registries: [\"ftp://ghcr.io\"] }", "mirror.registries[0]", "scheme"),
        ("mirror: { registries: [\"https://u:pw@ghcr.io\"] }", "mirror.registries[0]", "credentials"),
        ("mirror: { registries: [\"https://ghcr.io/x\"] }", "mirror.registries[0]", "path"),
        ("mirror: { registries: [\"https://ghcr.io?x\"] }", "mirror.registries[0]", "query"),
        ("mirror: { registries: [\"https://a.io\", \"http://A.io\"] }", "mirror.registries[1]", "twice"),
        (
            "mirror: { registries: [{host: \"a/b\", server: \"http://x\"}] }",
            "mirror.registries[0].host",
            "a/b",
        ),
        ("mirror: { registries: [{host: a.io, server: x}] }", "mirror.registries[0].server", "no scheme"),
        (
            "mirror: { registries: [{host: a.io, access: all}] }",
            "mirror.registries[0].access",
            "authorize, public-only, trust-node",
        ),
        ("mirror: { registries: [{host: a.io, references: x}] }", "mirror.registries[0].references", "head"),
        ("mirror: { registries: [{host: a.io, outage: x}] }", "mirror.registries[0].outage", "last-known"),
        (
            "mirror: { registries: [{host: a.io, redirectNetworks: [10.0.0.0/33]}] }",
            "mirror.registries[0].redirectNetworks[0]",
            "10.0.0.0/33",
        ),
        ("peer: { tls: on }", "peer.tls", "auto, off"),
        ("peer: { auth: none }", "peer.auth", "auto, cluster, off"),
        ("storage: { dir: data }", "storage.dir", "absolute"),
        ("storage: { ttl: soon }", "storage.ttl", "7d"),
        ("storage: { ttl: 5s }", "storage.ttl", "too short"),
        ("engine: epoll", "engine", "auto, io_uring, portable"),
        ("shaper: { mode: ebpf }", "shaper.mode", "`ebpf` is unknown: auto, require, off"),
        ("shaper: { perPeerLimit: 1bps }", "shaper.perPeerLimit", "too little"),
        ("shaper: { peers: [{ network: here }] }", "shaper.peers[0].network", "10.1.0.0/16"),
        ("shaper: { peers: [{ network: 10.0.0.1, weight: 0 }] }", "shaper.peers[0].weight", "1 to 1000"),
        ("shaper: { peers: [{ network: 10.0.0.1 }, { network: 10.0.0.1/32 }] }", "shaper.peers[1]", "twice"),
        ("api: { socket: run/x.sock }", "api.socket", "absolute"),
        (&long, "api.socket", "longer"),
        ("telemetry: { logFormat: xml }", "telemetry.logFormat", "text, json"),
        ("telemetry: { otlpEndpoint: \"collector:4317\" }", "telemetry.otlpEndpoint", "collector"),
        ("telemetry: { otlpProtocol: http/json }", "telemetry.otlpProtocol", "http/protobuf"),
        ("telemetry: { sampleRatio: 2 }", "telemetry.sampleRatio", "between 0 and 1"),
        ("verify: never", "verify", "streaming, strict"),
    ] {
        let error = load(text, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Invalid { .. }), "{text}: {error}");
        let shown = error.to_string();
        for part in ["daemon.yaml", key, problem] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(!shown.contains("pw@"), "{shown}");
    }
}

#[test]
fn unknown_keys_and_wrong_types_are_named_with_their_line() {
    for (text, parts) in [
        ("mirror:\n  registry: x\n", ["registry", "line 2"]),
        ("mirror:\n  registries:\n    - { host: a, sever: b }\n", ["sever", "line 3"]),
        ("mirror:\n  registries: [7]\n", ["https://ghcr.io", "line 2"]),
        ("shaper:\n  uploadLimit: fast\n", ["fast", "100Mbps"]),
        ("seedPeer:\n  clusterId: 1\n", ["clusterId", "clusterID"]),
    ] {
        let shown = load(text, &[]).unwrap_err().to_string();
        assert!(parts.iter().all(|part| shown.contains(part)), "{text}: {shown}");
    }
}

#[test]
fn the_program_checks_and_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon.yaml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_hawkerd"));
        program.env_clear().args(["--check-config", "--config"]).arg(&path).output().unwrap()
    };
    let good = check("storage: { capacity: 1GiB }\n");
    assert_eq!((good.status.code(), good.stdout.as_slice()), (Some(0), &b"configuration is valid\n"[..]));
    for (text, parts) in [
        ("mirror:\n  adr: 127.0.0.1:4001\n", ["daemon.yaml", "adr", "line 2"]),
        ("engine: epoll\n", ["daemon.yaml", "engine", "io_uring"]),
    ] {
        let bad = check(text);
        let shown = String::from_utf8(bad.stderr).unwrap();
        assert_eq!(bad.status.code(), Some(2), "{shown}");
        assert!(parts.iter().all(|part| shown.contains(part)), "{shown}");
    }
}

#[test]
fn who_may_have_what_of_a_registry() {
    let text = "mirror: { registries: [\"https://ghcr.io\", { host: quay.io, access: public-only }, \
        { host: \"reg.corp:5000\", server: \"http://10.0.0.5:5000\", access: authorize, relayChallenge: true, \
        references: head, outage: last-known, redirectNetworks: [10.1.0.0/16, \"fd00::1\"] }] }";
    let registries = load(text, &[]).unwrap().mirror.registries;
    assert_eq!(registries[0].policy, RegistryPolicy::default());
    assert_eq!(registries[0].policy.access, AccessMode::Authorize);
    assert!(!registries[0].policy.relay_challenge);
    assert_eq!(
        (registries[1].server.as_str(), registries[1].policy.access),
        ("https://quay.io/", AccessMode::PublicOnly)
    );
    let corp = &registries[2].policy;
    assert_eq!((corp.access, corp.relay_challenge), (AccessMode::Authorize, true));
    assert_eq!((corp.references, corp.outage), (References::Head, Outage::LastKnown));
    assert_eq!(corp.redirect_networks.len(), 2);
}

#[test]
fn accounts_of_jobs_are_files_and_for_what_is_kept() {
    let with = |more: &str| format!("mirror: {{ registries: [{{ host: quay.io, {more} }}] }}");
    let good = load(&with("jobAccount: /etc/hawker/auth.json"), &[]).unwrap().mirror.registries;
    assert_eq!(good[0].policy.job_account.as_deref(), Some(std::path::Path::new("/etc/hawker/auth.json")));
    for (more, says) in [
        ("jobAccount: auth.json", "`auth.json` is no absolute path"),
        ("jobAccount: /a, access: public-only", "public-only"),
    ] {
        let error = load(&with(more), &[]).unwrap_err().to_string();
        assert!(error.contains("mirror.registries[0].jobAccount") && error.contains(says), "{error}");
    }
}
