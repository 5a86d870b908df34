//! What must hold whatever the files hold: a second run changes nothing, `--revert` brings back every byte, and
//! what somebody else wrote stays.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hawker_runtimes::{InitOptions, Registry, Runtime, init};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const HOSTS: [&str; 4] = ["ghcr.io", "docker.io", "r.corp:5000", "quay.io=http://10.0.0.9:5000"];

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let is_dir = path.is_dir();
            found.insert(path.clone(), if is_dir { Vec::new() } else { fs::read(&path).unwrap() });
            if is_dir {
                dirs.push(path);
            }
        }
    }
    found
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn comment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "# [a-z \\[\\]\"=]{0,20}\n",
        Just("\n\n".to_owned()),
        Just("  # ümlaut\n".to_owned())
    ]
}

/// A hosts.toml as people write them.
fn hosts_toml() -> impl Strategy<Value = String> {
    let top = prop_oneof![
        Just(""),
        Just("server = \"https://x\"\n"),
        Just("ca = \"ca.crt\"\nskip_verify = false\n")
    ];
    let host = prop_oneof![
        Just("[host.\"https://m1\"]\n  capabilities = [ \"pull\" ] # c\n"),
        Just("[host.\"https://m2\".header]\nx = [\"y\", \"z\"]\n"),
        Just("[ host . 'http://m3:1' ]\nca = [\n  \"a\",\n  \"b\" ]\n"),
    ];
    let distinct = proptest::sample::subsequence(vec![0, 1, 2], 0..=3);
    (comment(), top, comment(), proptest::collection::vec(host, 3), distinct, comment(), any::<bool>())
        .prop_map(|(first, top, second, hosts, take, last, cut)| {
            let mut seen: Vec<&str> = Vec::new();
            for index in take {
                if !seen.contains(&hosts[index]) {
                    seen.push(hosts[index]);
                }
            }
            let text = format!("{first}{top}{second}{}{last}", seen.concat());
            if cut { text.trim_end().to_owned() } else { text }
        })
}

fn config_toml() -> impl Strategy<Value = String> {
    let head = prop_oneof![Just("version = 2\n"), Just("version = 3\r\n"), Just(""), Just("version=2 # v\n")];
    let body = prop_oneof![
        Just(String::new()),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".registry]\n   config_path='' # x\n".to_owned()),
        Just("[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n".to_owned()),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/a:/etc/docker/certs.d\"\n".to_owned()),
        Just("[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n  endpoint = []\n".to_owned()),
        Just("plugins.\"io.containerd.grpc.v1.cri\".sandbox_image = 'p'\n".to_owned()),
    ];
    (comment(), head, comment(), body, comment())
        .prop_map(|(a, head, b, body, c)| format!("{a}{head}{b}{body}{c}"))
}

fn registries_conf() -> impl Strategy<Value = String> {
    let entry = prop_oneof![
        Just(
            "[[registry]]\nlocation = 'ghcr.io'\n[[registry.mirror]]\nlocation = \"c/g\" # own\n".to_owned()
        ),
        Just(
            "[[registry]]\nprefix = \"r.corp:5000\"\ninsecure = true\nmirror = [{location='x/y'}]\n"
                .to_owned()
        ),
        Just("unqualified-search-registries = [\"docker.io\"]\n".to_owned()),
        Just(String::new()),
    ];
    (comment(), entry, comment()).prop_map(|(a, entry, b)| format!("{a}{entry}{b}"))
}

fn daemon_json() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("{}".to_owned()),
        Just("{\"debug\":true,\"registry-mirrors\":[]}".to_owned()),
        Just("{\n\t\"registry-mirrors\" : [ \"https://a\" ,\n \"https://b\"]\n}\n\n".to_owned()),
        Just("{ \"features\": { \"containerd-snapshotter\": false }, \"mtu\": 1e3 }".to_owned()),
    ]
}

#[derive(Debug, Clone)]
struct Run {
    registries: Vec<&'static str>,
    port: u16,
    version: Option<&'static str>,
}

fn run() -> impl Strategy<Value = Run> {
    let registries = proptest::sample::subsequence(HOSTS.to_vec(), 1..=4);
    let version = prop_oneof![Just(None), Just(Some("1.6.20")), Just(Some("2.2.0"))];
    (registries, 4001..4003u16, version).prop_map(|(registries, port, version)| Run {
        registries,
        port,
        version,
    })
}

fn options(root: &Path, run: &Run) -> InitOptions {
    InitOptions {
        root: root.to_owned(),
        runtimes: Runtime::ALL.to_vec(),
        mirror: ([127, 0, 0, 1], run.port).into(),
        registries: run.registries.iter().map(|text| text.parse::<Registry>().unwrap()).collect(),
        containerd_config: "/etc/containerd/config.toml".into(),
        containerd_version: run.version.map(|text| text.parse().unwrap()),
        keep_config_path: false,
        dry_run: false,
        revert: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any runs one after the other, each repeated: the repetition changes nothing, and the end is the beginning.
    #[test]
    fn again_is_nothing_and_back_is_exact(
        hosts in hosts_toml(), default in hosts_toml(), config in config_toml(), conf in registries_conf(),
        daemon in daemon_json(), runs in proptest::collection::vec(run(), 1..4),
    ) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "etc/containerd/config.toml", &config);
        write(root.path(), "etc/containerd/certs.d/ghcr.io/hosts.toml", &hosts);
        write(root.path(), "etc/containerd/certs.d/_default/hosts.toml", &default);
        write(root.path(), "etc/docker/certs.d/r.corp:5000/ca.crt", "PEM");
        write(root.path(), "etc/containers/registries.conf.d/10-a.conf", &conf);
        write(root.path(), "etc/docker/daemon.json", &daemon);
        let before = files(root.path());
        for run in &runs {
            let options = options(root.path(), run);
            if let Err(error) = init(&options) {
                // Refused whole, with the file named: nothing may have been written.
                prop_assert!(error.to_string().contains("/etc/"), "{error}");
                continue;
            }
            let once = files(root.path());
            let again = init(&options).unwrap();
            prop_assert_eq!(again.changes(), 0, "{}", again);
            prop_assert_eq!(&files(root.path()), &once);
        }
        init(&InitOptions { revert: true, ..options(root.path(), &runs[0]) }).unwrap();
        prop_assert_eq!(files(root.path()), before);
    }

    /// What was added to a file after us is there after `--revert`, and the mirror is not.
    #[test]
    fn what_others_add_later_stays(hosts in hosts_toml(), config in config_toml(), conf in registries_conf()) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "etc/containerd/config.toml", &config);
        write(root.path(), "etc/containerd/certs.d/ghcr.io/hosts.toml", &hosts);
        write(root.path(), "etc/containers/registries.conf", &conf);
        let run = Run { registries: HOSTS.to_vec(), port: 4001, version: Some("1.7") };
        let options = options(root.path(), &run);
        if init(&options).is_err() {
            return Ok(());
        }
        let written: Vec<PathBuf> = files(root.path())
            .into_iter()
            .filter(|(path, bytes)| !path.starts_with(root.path().join("var")) && String::from_utf8_lossy(bytes).contains("127.0.0.1:4001"))
            .map(|(path, _)| path)
            .filter(|path| path.extension().is_some_and(|extension| extension != "json"))
            .collect();
        prop_assert!(!written.is_empty());
        for path in &written {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, format!("{text}# added later\n")).unwrap();
        }
        // The marked lines may move behind what was added; once.
        init(&options).unwrap();
        prop_assert_eq!(init(&options).unwrap().changes(), 0);
        init(&InitOptions { revert: true, ..options }).unwrap();
        for path in &written {
            let text = fs::read_to_string(path).unwrap();
            prop_assert!(text.contains("# added later\n"), "{}", text);
            prop_assert!(!text.contains("127.0.0.1:4001"), "{}: {}", path.display(), text);
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_line_and_nothing_is_written() {
    for (name, text, named) in [
        (
            "etc/containerd/config.toml",
            "version = 2\n[plugins\n",
            "/etc/containerd/config.toml:2: not valid TOML",
        ),
        (
            "etc/containerd/certs.d/ghcr.io/hosts.toml",
            "server = \n",
            "/etc/containerd/certs.d/ghcr.io/hosts.toml:1:",
        ),
        (
            "etc/containers/registries.conf.d/a.conf",
            "[[registry]\n",
            "/etc/containers/registries.conf.d/a.conf:1:",
        ),
        ("etc/docker/daemon.json", "{\n  \"a\": 1,\n}\n", "/etc/docker/daemon.json:"),
    ] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), name, text);
        write(root.path(), "etc/containerd/README", "");
        let before = files(root.path());
        let run = Run { registries: vec!["docker.io", "ghcr.io"], port: 4001, version: None };
        let mut options = options(root.path(), &run);
        if name.contains("certs.d") {
            write(root.path(), "etc/containerd/config.toml", "version = 2\n");
            options.runtimes = vec![Runtime::Containerd];
        }
        let error = init(&options).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        assert!(files(root.path()).len() <= before.len() + 1, "something was written");
    }
}
