//! Each reason by a node that has it, the canary against a scripted mirror, and the documentation's list.

use super::canary::{Probe, Reference, Status};
use super::web::{Answer, Web};
use super::*;
use crate::files::Memory;
use std::collections::BTreeMap;

const CONFIG: &str = "/etc/containerd/config.toml";
const V2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
const GHCR: &str = "/etc/containerd/certs.d/ghcr.io/hosts.toml";
const GOOD: &str = "server = \"https://ghcr.io\"\n[host.\"http://127.0.0.1:4001\"]\ncapabilities = [\"pull\", \"resolve\"]\n";

fn process(name: &str, proxy: &[(&str, &str)]) -> Process {
    Process {
        name: name.to_owned(),
        pid: 7,
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
        arguments: vec![name.to_owned()],
        proxy: proxy.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

/// A node; `ids` looks at it.
struct Node<'a> {
    runtime: Runtime,
    files: &'a [(&'a str, &'a str)],
    version: &'a str,
    registries: &'a [&'a str],
    mirror: &'a str,
    processes: Vec<Process>,
    /// When all files were changed, seconds.
    changed: u64,
}

impl Default for Node<'_> {
    fn default() -> Self {
        Self {
            runtime: Runtime::Containerd,
            files: &[(CONFIG, V2), (GHCR, GOOD)],
            version: "1.7",
            registries: &["ghcr.io"],
            mirror: "127.0.0.1:4001",
            processes: Vec::new(),
            changed: 500,
        }
    }
}

impl Node<'_> {
    fn findings(&self) -> Vec<Finding> {
        let registries: Vec<Registry> = self.registries.iter().map(|text| text.parse().unwrap()).collect();
        let changed = |_: &Path| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(self.changed));
        let mut context = Context {
            mirror: self.mirror.parse().unwrap(),
            registries: &registries,
            containerd: (!self.version.is_empty()).then(|| self.version.parse().unwrap()),
            processes: self.processes.clone(),
            changed: &changed,
            good: Vec::new(),
            findings: Vec::new(),
        };
        examine(&Memory::new(self.files), &mut context, &[self.runtime], Path::new(CONFIG));
        context.findings
    }

    fn ids(&self) -> Vec<&'static str> {
        self.findings().iter().map(|finding| finding.check).collect()
    }
}

#[test]
fn a_good_node_has_no_findings() {
    assert_eq!(Node::default().findings(), []);
}

#[test]
fn containerds_reasons_each_alone() {
    for (id, files) in containerds_reasons() {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let findings = Node { files: &files, ..Node::default() }.findings();
        assert_eq!(findings.iter().map(|finding| finding.check).collect::<Vec<_>>(), [id], "{files:?}");
        assert!(findings[0].evidence.contains('/'), "{}", findings[0].evidence);
    }
}

/// Files with one thing wrong, and what that is called.
fn containerds_reasons() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    const HOST: &str = "[host.\"http://127.0.0.1:4001\"]\n";
    let with = |more: &str| format!("{HOST}{more}\n");
    let v2 = |more: &str| format!("version = 2\n{more}\n");
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\"";
    vec![
        ("config-path-unset", vec![(CONFIG, v2(""))]),
        ("config-path-unset", vec![]),
        ("config-path-misplaced", vec![(CONFIG, V2.replace("= 2", "= 3"))]),
        ("file-invalid", vec![(CONFIG, "version = \n".to_owned())]),
        (
            "mirrors-and-config-path",
            vec![
                (CONFIG, format!("{V2}{cri}.registry.mirrors.\"a\"]\nendpoint = [\"https://b\"]\n")),
                (GHCR, GOOD.to_owned()),
            ],
        ),
        (
            "mirror-missing",
            vec![(CONFIG, v2(&format!("{cri}.registry.mirrors.\"ghcr.io\"]\nendpoint = [\"https://b\"]")))],
        ),
        (
            "hosts-missing",
            vec![(CONFIG, v2(&format!("{cri}.registry.mirrors.\"x\"]\nendpoint = [\"https://b\"]")))],
        ),
        ("hosts-missing", vec![(CONFIG, V2.to_owned())]),
        ("hosts-invalid", vec![(CONFIG, V2.to_owned()), (GHCR, "[host\n".to_owned())]),
        ("hosts-invalid", vec![(CONFIG, V2.to_owned()), (GHCR, with("capabilities = [\"pul\"]"))]),
        (
            "wrong-root",
            vec![(CONFIG, V2.to_owned()), ("/etc/docker/certs.d/ghcr.io/hosts.toml", GOOD.to_owned())],
        ),
        (
            "default-shadowed",
            vec![
                (CONFIG, V2.to_owned()),
                ("/etc/containerd/certs.d/_default/hosts.toml", HOST.to_owned()),
                ("/etc/containerd/certs.d/ghcr.io/ca.crt", String::new()),
            ],
        ),
        ("mirror-missing", vec![(CONFIG, V2.to_owned()), (GHCR, HOST.replace("4001", "5001"))]),
        ("mirror-not-first", vec![(CONFIG, V2.to_owned()), (GHCR, format!("[host.\"https://x\"]\n{HOST}"))]),
        ("pull-missing", vec![(CONFIG, V2.to_owned()), (GHCR, with("capabilities = [\"resolve\"]"))]),
        ("resolve-missing", vec![(CONFIG, V2.to_owned()), (GHCR, with("capabilities = [\"pull\"]"))]),
        ("tls-mismatch", vec![(CONFIG, V2.to_owned()), (GHCR, with("skip_verify = true"))]),
        ("tls-mismatch", vec![(CONFIG, V2.to_owned()), (GHCR, HOST.replace("http:", "https:"))]),
        ("override-path", vec![(CONFIG, V2.to_owned()), (GHCR, with("override_path = true"))]),
        (
            "cri-disabled",
            vec![(CONFIG, format!("disabled_plugins = [\"cri\"]\n{V2}")), (GHCR, GOOD.to_owned())],
        ),
        (
            "other-snapshotter",
            vec![
                (CONFIG, format!("{V2}{cri}.containerd]\nsnapshotter = \"nydus\"\n")),
                (GHCR, GOOD.to_owned()),
            ],
        ),
        (
            "registry-not-allowed",
            vec![
                (CONFIG, V2.to_owned()),
                (GHCR, GOOD.to_owned()),
                ("/etc/containerd/certs.d/quay.io/hosts.toml", GOOD.to_owned()),
            ],
        ),
    ]
}

#[test]
fn two_roots_are_one_too_many_for_some_versions() {
    const TWO: &str = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n\
                       config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n";
    for (version, severity) in [("2.2", Some(Severity::Fault)), ("", Some(Severity::Warning)), ("2.0", None)]
    {
        let files = [(CONFIG, TWO), (GHCR, GOOD)];
        let findings = Node { version, files: &files, ..Node::default() }.findings();
        assert_eq!(findings.first().map(|finding| finding.severity), severity, "{version}");
        assert!(
            findings
                .iter()
                .all(|finding| finding.check == "two-roots" && finding.evidence.contains("toml:3"))
        );
    }
}

#[test]
fn processes_tell_of_restarts_and_proxies() {
    let running = |changed| Node { processes: vec![process("containerd", &[])], changed, ..Node::default() };
    assert_eq!(running(999).ids(), [""; 0]);
    assert_eq!(running(1001).ids(), ["not-restarted"]);
    let proxied = |mirror: &'static str, no_proxy: &'static str| {
        let proxy = [("HTTP_PROXY", "http://u:secret@proxy:3128"), ("NO_PROXY", no_proxy)];
        let files = [(CONFIG, V2), (GHCR, "[host.\"http://10.0.0.7:4001\"]\n")];
        let files = if mirror.starts_with("127") { [(CONFIG, V2), (GHCR, GOOD)] } else { files };
        Node { mirror, processes: vec![process("containerd", &proxy)], files: &files, ..Node::default() }
            .findings()
    };
    assert_eq!(proxied("127.0.0.1:4001", ""), []);
    assert_eq!(proxied("10.0.0.7:4001", "10.0.0.0/8"), []);
    let found = proxied("10.0.0.7:4001", ".corp");
    assert_eq!(found[0].check, "proxy-takes-mirror");
    assert!(!found[0].evidence.contains("secret"), "{}", found[0].evidence);
    let processes = vec![process("containerd", &[("https_proxy", "http://p:1")]), process("hawkerd", &[])];
    assert_eq!(Node { processes, ..Node::default() }.ids(), ["daemon-without-proxy"]);
}

#[test]
fn reasons_of_the_other_runtimes() {
    const CONF: &str = "/etc/containers/registries.conf";
    let entry = |mirror: &str, more: &str| {
        format!("[[registry]]\nprefix = \"ghcr.io\"\n{more}\n[[registry.mirror]]\nlocation = \"{mirror}\"\n")
    };
    let good = entry("127.0.0.1:4001/ghcr.io", "") + "insecure = true\n";
    for (id, text) in [
        (None, good.clone()),
        (Some("hosts-missing"), String::new()),
        (Some("file-invalid"), "[[registry]".to_owned()),
        (Some("mirror-missing"), entry("cache.corp", "")),
        (
            Some("mirror-not-first"),
            good.replacen("[[registry.mirror]]", "[[registry.mirror]]\nlocation='c'\n[[registry.mirror]]", 1),
        ),
        (Some("tls-mismatch"), entry("127.0.0.1:4001/ghcr.io", "")),
        (Some("ns-missing"), entry("127.0.0.1:4001", "") + "insecure = true\n"),
        (Some("blocked"), good.replace("prefix", "blocked = true\nprefix")),
        (Some("digest-only"), good.replace("prefix", "mirror-by-digest-only = true\nprefix")),
        (Some("longer-prefix"), format!("{good}[[registry]]\nprefix = \"ghcr.io/corp\"\n")),
        (Some("registry-not-allowed"), format!("{good}{}", good.replace("ghcr.io", "quay.io"))),
    ] {
        let files = [(CONF, text.as_str())];
        let node = Node { runtime: Runtime::Crio, files: &files, ..Node::default() };
        assert_eq!(node.ids(), Vec::from_iter(id), "{text}");
    }
    const JSON: &str = "/etc/docker/daemon.json";
    let mirror = "\"http://127.0.0.1:4001\"";
    let hub = ["docker.io"];
    let both = ["docker.io", "ghcr.io"];
    let others = ["ghcr.io", "quay.io"];
    for (id, text, registries) in [
        (None, format!("{{\"registry-mirrors\": [{mirror}]}}"), &hub[..]),
        (Some("mirror-missing"), "{}".to_owned(), &hub),
        (Some("file-invalid"), "{,}".to_owned(), &hub),
        (Some("mirror-not-first"), format!("{{\"registry-mirrors\": [\"https://a\", {mirror}]}}"), &hub),
        (Some("docker-hub-only"), format!("{{\"registry-mirrors\": [{mirror}]}}"), &both),
        (
            Some("hosts-missing"),
            format!(
                "{{\"registry-mirrors\": [{mirror}], \"features\": {{\"containerd-snapshotter\": true}}}}"
            ),
            &both,
        ),
        (Some("ns-missing"), format!("{{\"registry-mirrors\": [{mirror}]}}"), &others),
    ] {
        let files = [(JSON, text.as_str())];
        let ids = Node { runtime: Runtime::Docker, files: &files, registries, ..Node::default() }.ids();
        assert_eq!(ids.first().copied(), id, "{text}: {ids:?}");
    }
}

/// What init-runtime writes is what the doctor wants, for every runtime.
#[test]
fn after_init_runtime_nothing_is_found() {
    for runtime in Runtime::ALL {
        let wanted = crate::Wanted {
            mirror: "127.0.0.1:4001".parse().unwrap(),
            registries: ["docker.io", "r.lab:5000=http://10.0.0.5:5000"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            containerd: None,
        };
        let base = [
            (CONFIG, "version = 2\n"),
            ("/etc/docker/daemon.json", "{\"features\":{\"containerd-snapshotter\":true}}"),
        ];
        let mut files = Memory::new(&base);
        let plan = match runtime {
            Runtime::Containerd => crate::containerd::plan(&files, &wanted, Path::new(CONFIG)),
            Runtime::Docker => crate::docker::plan(&files, &wanted),
            Runtime::Crio | Runtime::Podman => registries_conf::plan(&files, &wanted, &[runtime]),
        };
        files.0.extend(plan.unwrap().files.into_iter().map(|desired| (desired.path, desired.text)));
        let files: Vec<_> =
            files.0.iter().map(|(path, text)| (path.to_str().unwrap(), text.as_str())).collect();
        let registries = ["docker.io", "r.lab:5000=http://10.0.0.5:5000"];
        let node = Node { runtime, files: &files, registries: &registries, version: "", ..Node::default() };
        assert_eq!(node.findings(), [], "{runtime}");
    }
}

/// Answers by URL; the last of several for one URL stays.
#[derive(Default)]
struct Scripted(std::cell::RefCell<BTreeMap<String, Vec<Answer>>>);

impl Scripted {
    fn on(self, url: &str, status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = Answer { status, headers, body: body.as_bytes().to_vec() };
        self.0.borrow_mut().entry(url.to_owned()).or_default().push(answer);
        self
    }
}

impl Web for Scripted {
    fn get(&self, url: &str, _headers: &[(&str, &str)]) -> Result<Answer, String> {
        let mut answers = self.0.borrow_mut();
        let list = answers.get_mut(url).ok_or_else(|| format!("no route to {url}"))?;
        Ok(if list.len() > 1 { list.remove(0) } else { list[0].clone() })
    }
}

const STATUS: &str = "http://127.0.0.1:4003/status";

fn digest(text: &str) -> String {
    format!("sha256:{}", crate::state::digest(text))
}

/// A mirror with one image whose only blob is `blob`; it says `manifest_digest` of the manifest.
fn registry(blob: &str, served: &str, wrong_manifest: bool) -> Scripted {
    let base = "http://127.0.0.1:4001/v2/a/b";
    let manifest = format!(
        "{{\"config\": {{\"digest\": \"{}\", \"size\": {}}}, \"layers\": []}}",
        digest(blob),
        blob.len()
    );
    let index = format!("{{\"manifests\": [{{\"digest\": \"{}\"}}]}}", digest(&manifest));
    let said = if wrong_manifest { digest("other") } else { digest(&index) };
    Scripted::default()
        .on(
            &format!("{base}/manifests/v1?ns=ghcr.io"),
            401,
            &[("www-authenticate", "Bearer realm=\"https://t/x\",scope=\"s\"")],
            "",
        )
        .on(&format!("{base}/manifests/v1?ns=ghcr.io"), 200, &[("docker-content-digest", &said)], &index)
        .on("https://t/x?scope=s", 200, &[], "{\"token\": \"anonymous\"}")
        .on(&format!("{base}/manifests/{}?ns=ghcr.io", digest(&manifest)), 200, &[], &manifest)
        .on(&format!("{base}/blobs/{}?ns=ghcr.io", digest(blob)), 200, &[], served)
}

fn pull(web: &Scripted) -> Result<Canary, Finding> {
    let before = Status::ask(web, "127.0.0.1:4003".parse().unwrap());
    let (mirror, status) = ("127.0.0.1:4001".parse().unwrap(), "127.0.0.1:4003".parse().unwrap());
    Probe { web, mirror, status }.pull("ghcr.io/a/b:v1", before.as_ref())
}

#[test]
fn the_canary_compares_digests_and_counters() {
    let counted = |web: Scripted, before: u64, after: u64| {
        let text = |bytes| format!("{{\"delivered\": {{\"local\": 0, \"origin\": {bytes}}}}}");
        web.on(STATUS, 200, &[], &text(before)).on(STATUS, 200, &[], &text(after))
    };
    let canary = pull(&counted(registry("blob", "blob", false), 10, 14)).unwrap();
    assert_eq!((canary.bytes, canary.sources), (4, vec![("local".to_owned(), 0), ("origin".to_owned(), 4)]));
    let failed = |web| pull(&web).unwrap_err().check;
    assert_eq!(failed(counted(registry("blob", "blob", false), 10, 10)), "canary-uncounted");
    assert_eq!(failed(counted(registry("blob", "flob", false), 10, 14)), "canary-digest");
    assert_eq!(failed(counted(registry("blob", "blob", true), 10, 14)), "canary-digest");
    assert_eq!(failed(Scripted::default()), "canary-failed");
    // Without a status there are no sources, and no proof of the daemon, but of the bytes.
    assert_eq!(pull(&registry("blob", "blob", false)).unwrap().sources, []);
}

#[test]
fn references_as_runtimes_read_them() {
    for (image, registry, repository, wanted) in [
        ("debian", "docker.io", "library/debian", "latest"),
        ("a/b:1", "docker.io", "a/b", "1"),
        ("r.lab:5000/a/b", "r.lab:5000", "a/b", "latest"),
        ("ghcr.io/a:1@sha256:ab", "ghcr.io", "a", "sha256:ab"),
    ] {
        let parts = Reference::parse(image);
        assert_eq!(
            (parts.registry.as_str(), parts.repository.as_str(), parts.wanted.as_str()),
            (registry, repository, wanted)
        );
    }
}

#[test]
fn the_mirrors_own_reasons() {
    let found = |web: Scripted| {
        let none = |_: &Path| None;
        let mut context = Context {
            mirror: "127.0.0.1:4001".parse().unwrap(),
            registries: &[],
            containerd: None,
            processes: Vec::new(),
            changed: &none,
            good: Vec::new(),
            findings: Vec::new(),
        };
        let listening = mirror(&web, &mut context);
        let status = Status::ask(&web, "127.0.0.1:4003".parse().unwrap());
        daemon(&mut context, status.as_ref());
        assert_eq!(listening, context.findings.iter().all(|finding| !finding.check.starts_with("mirror")));
        context.findings.iter().map(|finding| finding.check).collect::<Vec<_>>()
    };
    let health = "http://127.0.0.1:4001/healthz";
    let good = || Scripted::default().on(health, 200, &[], "ok\n");
    assert_eq!(found(good().on(STATUS, 200, &[], "{}")), [""; 0]);
    assert_eq!(found(good()), ["status-silent"]);
    assert_eq!(found(good().on(STATUS, 200, &[], "{\"store\": {\"error\": \"full\"}}")), ["store-error"]);
    let manager =
        |error: &str| good().on(STATUS, 200, &[], &format!("{{\"manager\": {{\"error\": \"{error}\"}}}}"));
    let asked = "the manager refuses this program: this manager asks for a join token: manager.joinTokenFile";
    assert_eq!(found(manager(asked)), ["join-refused"]);
    assert_eq!(found(manager("transport error")), [""; 0]);
    assert_eq!(
        found(Scripted::default().on(health, 404, &[], "nginx").on(STATUS, 200, &[], "{}")),
        ["mirror-stranger"]
    );
    assert_eq!(found(Scripted::default()), ["mirror-silent", "status-silent"]);
}

#[test]
fn faults_decide_the_exit_code_and_all_of_it_is_in_the_json() {
    let mut report = Report { good: vec!["x".to_owned()], ..Report::default() };
    report.findings.push(Finding::new(&c::LONGER_PREFIX, "f:1"));
    assert_eq!((report.exit_code(), report.to_json()["ok"].as_bool()), (0, Some(true)));
    report.findings.push(Finding::new(&c::HOSTS_MISSING, "g:2"));
    let json = report.to_json();
    assert_eq!((report.exit_code(), json["ok"].as_bool()), (1, Some(false)));
    assert_eq!(json["findings"][1]["check"], "hosts-missing");
    let text = report.to_string();
    assert!(text.find("FAULT") < text.find("warning") && text.contains("g:2"), "{text}");
}

/// docs/troubleshooting.md has what the doctor says, section by section.
#[test]
fn the_documentation_lists_the_same_reasons() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/troubleshooting.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections: Vec<(&str, &str)> =
        text.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let ids: Vec<_> = sections.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, CHECKS.iter().map(|check| check.id).collect::<Vec<_>>());
    for (check, (id, body)) in CHECKS.iter().zip(sections) {
        let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
        let severity = format!("{:?}.", check.severity);
        for said in [check.title, check.fix, &severity] {
            assert!(body.contains(said), "docs/troubleshooting.md, {id}: lacks `{said}`");
        }
    }
}
