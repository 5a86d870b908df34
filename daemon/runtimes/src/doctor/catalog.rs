//! Every reason known for "the mirror is not used", each with what it is called, how bad it is and what helps.
//!
//! Invariant: `docs/troubleshooting.md` has one section for each, in this order (a test compares).

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Some pulls may pass the mirror by.
    Warning,
    /// Pulls pass the mirror by, or fail there.
    Fault,
}

/// One reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// A stable word.
    pub id: &'static str,
    pub severity: Severity,
    /// What is wrong, in a sentence.
    pub title: &'static str,
    /// What helps, in a sentence.
    pub fix: &'static str,
}

macro_rules! checks {
    ($($name:ident = $id:literal, $severity:ident: $title:literal => $fix:literal;)*) => {
        $(pub(super) const $name: Check =
            Check { id: $id, severity: Severity::$severity, title: $title, fix: $fix };)*

        /// All of them, in the order in which they are documented.
        pub const CHECKS: &[Check] = &[$($name),*];
    };
}

checks! {
    MIRROR_SILENT = "mirror-silent", Fault:
        "Nothing answers at the mirror's address."
        => "Start hawkerd, or correct `mirror.addr`; until then runtimes go to the registry.";
    MIRROR_STRANGER = "mirror-stranger", Fault:
        "Something other than hawkerd answers at the mirror's address."
        => "Find the program that holds the port, or give `mirror.addr` another one and run `hawkerd init-runtime`.";
    STATUS_SILENT = "status-silent", Warning:
        "The daemon's status does not answer, so nothing can be said about its store or its counters."
        => "Check `metrics.addr`, or name the address with `--status`.";
    STORE_ERROR = "store-error", Warning:
        "The daemon cannot store what it fetches; bytes stream through it and are not shared."
        => "Make room in, or repair, the directory `storage.dir`.";
    JOIN_REFUSED = "join-refused", Warning:
        "The manager does not let this daemon join, so it goes by its last known placement and hears of nothing new."
        => "Put the manager's join token into the file that `manager.joinTokenFile` names; the next attempt reads it, within seconds.";
    NO_RUNTIME = "no-runtime", Fault:
        "No container runtime was found."
        => "Name it with `--runtime`, or the root directory of the node with `--root`.";
    REGISTRY_NOT_ALLOWED = "registry-not-allowed", Fault:
        "The runtime asks the mirror for a registry that the daemon may not proxy; each such pull costs a refusal."
        => "Add the registry to `mirror.registries` and restart hawkerd.";
    FILE_INVALID = "file-invalid", Fault:
        "A file of the runtime cannot be read or is not valid."
        => "Correct the line; the runtime itself refuses such a file or ignores it.";
    CONFIG_PATH_UNSET = "config-path-unset", Fault:
        "containerd has no `config_path`, so it reads no hosts.toml."
        => "Run `hawkerd init-runtime` and restart containerd.";
    CONFIG_PATH_MISPLACED = "config-path-misplaced", Fault:
        "`config_path` stands under a plugin that this version of the file does not have."
        => "Move it: version 2 has `io.containerd.grpc.v1.cri`, version 3 `io.containerd.cri.v1.images`.";
    TWO_ROOTS = "two-roots", Fault:
        "`config_path` lists several directories, which containerd 2.1 and later take for the name of one: all mirrors are ignored, without a word in the log."
        => "Run `hawkerd init-runtime`, which leaves one directory, and restart containerd.";
    MIRRORS_AND_CONFIG_PATH = "mirrors-and-config-path", Fault:
        "`registry.mirrors` or TLS in `registry.configs` is set together with `config_path`; containerd refuses that."
        => "Remove `registry.mirrors` and `registry.configs.….tls`, and write them as hosts.toml.";
    CRI_DISABLED = "cri-disabled", Warning:
        "containerd's CRI plugin is disabled: Kubernetes cannot pull here, and others name the hosts directory themselves."
        => "Take `cri` out of `disabled_plugins` if this is a node of Kubernetes; else use `ctr --hosts-dir` or nerdctl.";
    WRONG_ROOT = "wrong-root", Fault:
        "A hosts.toml that names the mirror lies in a directory containerd does not look into."
        => "Run `hawkerd init-runtime`, which writes below `config_path`.";
    HOSTS_MISSING = "hosts-missing", Fault:
        "There is no hosts.toml, or entry, for a registry that is to be mirrored."
        => "Run `hawkerd init-runtime`.";
    HOSTS_INVALID = "hosts-invalid", Fault:
        "A hosts.toml is not valid; containerd logs that once and pulls without any mirror."
        => "Correct the line, or remove the file and run `hawkerd init-runtime`.";
    DEFAULT_SHADOWED = "default-shadowed", Fault:
        "`_default` names the mirror, but the registry has a directory of its own that does not."
        => "Run `hawkerd init-runtime`, which adds the mirror to the registry's own file.";
    MIRROR_MISSING = "mirror-missing", Fault:
        "The entry of a registry does not name the mirror, or names it at another address."
        => "Run `hawkerd init-runtime`; with `--mirror` if the address is not that of the configuration.";
    MIRROR_NOT_FIRST = "mirror-not-first", Warning:
        "Another host is asked before the mirror."
        => "Put the mirror first: hosts are tried in the order of the file.";
    PULL_MISSING = "pull-missing", Fault:
        "The mirror's entry lacks the capability `pull`."
        => "Write `capabilities = [\"pull\", \"resolve\"]`.";
    RESOLVE_MISSING = "resolve-missing", Note:
        "The mirror's entry lacks the capability `resolve`: tags are looked up at the registry, content comes from the mirror."
        => "Write `capabilities = [\"pull\", \"resolve\"]` unless this is meant.";
    TLS_MISMATCH = "tls-mismatch", Fault:
        "The runtime tries TLS at the mirror, which speaks plain HTTP on loopback."
        => "Write `http://` without `ca`, `client` and `skip_verify` (containerd), or `insecure = true` (CRI-O, podman).";
    OVERRIDE_PATH = "override-path", Fault:
        "`override_path = true` makes containerd leave out `/v2`, and the mirror answers 404."
        => "Remove `override_path` from the mirror's entry.";
    NS_MISSING = "ns-missing", Fault:
        "Requests do not say which registry they are for."
        => "CRI-O and podman: end the location with the registry's name, `127.0.0.1:4001/ghcr.io`; Docker: have docker.io, or one registry only, in `mirror.registries`.";
    BLOCKED = "blocked", Warning:
        "The registry is blocked in registries.conf."
        => "Remove `blocked = true` if images of that registry are wanted.";
    LONGER_PREFIX = "longer-prefix", Warning:
        "An entry of registries.conf with a longer prefix speaks for a part of the registry, and has no mirror."
        => "Add the mirror to that entry as well, with the same path behind the registry's name.";
    DIGEST_ONLY = "digest-only", Note:
        "registries.conf asks mirrors for digests only; pulls by tag go to the registry."
        => "Remove `mirror-by-digest-only` or set `pull-from-mirror = \"all\"` unless this is meant.";
    USER_REGISTRIES_CONF = "user-registries-conf", Warning:
        "A user's own registries.conf replaces the system's for rootless podman."
        => "Remove it, or add the mirror there.";
    DOCKER_HUB_ONLY = "docker-hub-only", Warning:
        "Docker without the containerd image store mirrors docker.io only."
        => "Turn on `features.containerd-snapshotter` in daemon.json (the default of new installations since Engine 29).";
    NOT_RESTARTED = "not-restarted", Fault:
        "The runtime is older than its configuration file, so it does not know what stands there."
        => "Restart the runtime; pulled images and running containers stay.";
    PROXY_TAKES_MIRROR = "proxy-takes-mirror", Fault:
        "The runtime sends requests for the mirror to an HTTP proxy."
        => "Add the mirror's address to `NO_PROXY` of the runtime, or let the mirror listen on loopback, which is never proxied.";
    DAEMON_WITHOUT_PROXY = "daemon-without-proxy", Warning:
        "The runtime reaches registries through a proxy, hawkerd does not have one."
        => "Give hawkerd the same `HTTPS_PROXY` and `NO_PROXY`.";
    OTHER_SNAPSHOTTER = "other-snapshotter", Warning:
        "A snapshotter is in use that fetches layers by itself, past the hosts directory."
        => "Configure that snapshotter's own mirror, or pull with overlayfs.";
    IMAGE_PRESENT = "image-present", Note:
        "The image is on the node already: a pull of it moves no byte."
        => "Remove the image first to see a pull go through the mirror, or look at another one.";
    CANARY_SKIPPED = "canary-skipped", Note:
        "No image was pulled for proof, since none of a mirrored registry is known here."
        => "Name one with `--image`.";
    CANARY_FAILED = "canary-failed", Fault:
        "An image could not be fetched through the mirror."
        => "The answer says why: 403 the allow-list, 401 or 404 the registry's own word, 503 the daemon's log.";
    CANARY_DIGEST = "canary-digest", Fault:
        "The mirror's bytes do not have the digest they were asked by."
        => "Keep the answer and report it; stop the daemon meanwhile, runtimes then pull from the registry.";
    CANARY_UNCOUNTED = "canary-uncounted", Fault:
        "Bytes came from the mirror's address, but the daemon did not count them: it is not this daemon that answered."
        => "Compare `mirror.addr` and `metrics.addr`: they belong to different daemons.";
}
