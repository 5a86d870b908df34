//! Private images: who may pull, pulls through Hawker; who may not, gets nothing of what the cluster holds.

use super::image;
use crate::command::{self, SHORT};
use crate::http;
use crate::lab::containerd::Via;
use crate::lab::daemon::MIRROR;
use crate::lab::guarded::{ALICE, BOB, Door, Guarded, basic};
use crate::lab::images::Image;
use crate::lab::{Lab, REGISTRY_NAME, data_dir};
use crate::netns;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;

/// `docker-registry` with passwords.
pub(super) fn by_password(lab: &mut Lab) -> Result<()> {
    let secret = image(lab, "secret", &[6, 1])?;
    let _door = open(lab, Door::Passwords, "")?;
    pulls(lab, &secret)?;
    refused(lab, &secret)?;
    skopeo()?;
    podman()?;
    nothing_written_down(lab)?;
    not_relayed(lab, &secret)
}

/// `docker-registry` that wants tokens, from a server that gives them.
pub(super) fn by_token(lab: &mut Lab) -> Result<()> {
    let (secret, public) = (image(lab, "secret", &[6, 1])?, image(lab, "public", &[3])?);
    let _door = open(lab, Door::Tokens, "")?;
    pulls(lab, &secret)?;
    refused(lab, &secret)?;
    skopeo()?;
    for node in lab.peers() {
        let pulled = node.containerd.try_pull(&public.reference, Via::Mirror, None)?;
        ensure!(pulled.status.success(), "a public image without credentials: {}", pulled.stderr);
    }
    println!("    public image pulled by nobody, with the daemon's own token for nobody");
    nothing_written_down(lab)
}

/// Both nodes before `door`; `more` is added to their entry of the registry.
pub(super) fn open(lab: &mut Lab, door: Door, more: &str) -> Result<Guarded> {
    let guarded = Guarded::start(door)?;
    let registries =
        format!("[{{ host: \"{REGISTRY_NAME}\", server: \"{}\", relayChallenge: true{more} }}]", door.url());
    for name in ["a1", "a2"] {
        lab.node_mut(name)?.daemon.with_registries(&registries)?;
    }
    Ok(guarded)
}

fn pulls(lab: &Lab, secret: &Image) -> Result<()> {
    for node in lab.peers() {
        let pulled = node.containerd.try_pull(&secret.reference, Via::Mirror, Some(ALICE))?;
        ensure!(pulled.status.success(), "alice on {}: {}{}", node.name, pulled.stdout, pulled.stderr);
        super::has_all(node, secret)?;
        println!("    alice on {}: {:.2} s by ctr, mirror only", node.name, pulled.took.as_secs_f64());
    }
    let shared = lab.node("a2")?.daemon.status()?["delivered"].clone();
    println!("    delivered on a2: {shared}");
    let from_origin = shared["origin"].as_u64().unwrap_or(u64::MAX);
    ensure!(from_origin < secret.bytes() / 10, "a2 fetched {from_origin} bytes from the origin again");
    Ok(())
}

/// Bytes a node's daemon gave to its clients: from the origin, and all.
pub(super) fn delivered_from(lab: &Lab, node: &str) -> Result<(u64, u64)> {
    let status = lab.node(node)?.daemon.status()?;
    let sources = status["delivered"].as_object().context("a status without delivered")?;
    let all = sources.values().filter_map(serde_json::Value::as_u64).sum();
    Ok((sources.get("origin").and_then(serde_json::Value::as_u64).unwrap_or(0), all))
}

/// Nobody and bob, by tag and by digest, from the mirrors and from the ports for peers.
pub(super) fn refused(lab: &Lab, secret: &Image) -> Result<()> {
    let repository = format!("/v2/lab/secret/{{}}?ns={REGISTRY_NAME}");
    let layer = &secret.layers[0].digest;
    let mut asked = 0;
    for node in lab.peers() {
        for what in [
            "manifests/latest".to_owned(),
            format!("manifests/{}", secret.manifest),
            format!("blobs/{layer}"),
        ] {
            let path = repository.replace("{}", &what);
            for who in [None, Some(basic(BOB)), Some("Bearer of.no.token".to_owned())] {
                let headers: Vec<_> = who.iter().map(|who| ("authorization", who.as_str())).collect();
                let answer = node.daemon.mirror(&path, &headers)?;
                ensure!(matches!(answer.status, 401 | 403), "{path}: {} for {who:?}", answer.status);
                asked += 1;
            }
        }
    }
    let (target, stranger) = (lab.node("a1")?, lab.node("a2")?);
    for path in
        [format!("/blobs/{layer}"), format!("/blobs/{layer}/have"), format!("/blobs/{}", secret.manifest)]
    {
        let url = format!("http://{}:4000{path}", target.ip);
        let answer = netns::within(&netns::name(&stranger.name), || http::get(&url, &[]))?;
        ensure!(answer.status == 403, "{url}: {}", answer.status);
        asked += 1;
    }
    println!(
        "    {asked} of {asked} requests without the right refused with 401 or 403: by tag and digest, mirrors and peers"
    );
    let by_digest = format!("{REGISTRY_NAME}/lab/secret@{}", secret.manifest);
    for reference in [&secret.reference, &by_digest] {
        for user in [None, Some(BOB)] {
            let pulled = stranger.containerd.try_pull(reference, Via::Mirror, user)?;
            ensure!(!pulled.status.success(), "{user:?} pulled {reference}: {}", pulled.stdout);
        }
    }
    println!("    ctr as bob and as nobody: refused, by tag and by digest");
    Ok(())
}

/// skopeo takes the mirror for the registry.
fn skopeo() -> Result<()> {
    let address = MIRROR.trim_start_matches("http://");
    let inspect = |(user, password): (&str, &str)| {
        let mut skopeo = netns::command(&netns::name("a1"), "skopeo");
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        skopeo.args(["--src-creds", &format!("{user}:{password}")]);
        skopeo.arg(format!("docker://{address}/lab/secret:latest"));
        skopeo.arg(format!("dir:{}", data_dir("skopeo").join(user).display()));
        fs::create_dir_all(data_dir("skopeo").join(user)).context("make skopeo's directory")?;
        command::run(&mut skopeo, SHORT)
    };
    let (alice, bob) = (inspect(ALICE)?, inspect(BOB)?);
    ensure!(alice.status.success(), "alice by skopeo: {}", alice.stderr);
    ensure!(!bob.status.success(), "bob by skopeo pulled");
    println!("    skopeo: alice {:.2} s, bob refused", alice.took.as_secs_f64());
    Ok(())
}

/// podman knows the mirror from `registries.conf`, and has credentials for it alone: not for the registry itself.
fn podman() -> Result<()> {
    let dir = data_dir("podman");
    fs::create_dir_all(&dir).context("make podman's directory")?;
    let address = MIRROR.trim_start_matches("http://");
    let conf = dir.join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"{REGISTRY_NAME}\"\nlocation = \"{}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{address}\"\ninsecure = true\n",
        Door::Passwords.url().trim_start_matches("http://")
    );
    fs::write(&conf, text).context("write registries.conf")?;
    fs::write(dir.join("policy.json"), "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}")
        .context("write podman's policy")?;
    let pull = |user: (&str, &str)| {
        let auth = dir.join(format!("{}.json", user.0));
        let entry = basic(user).trim_start_matches("Basic ").to_owned();
        fs::write(&auth, format!("{{\"auths\":{{\"{address}\":{{\"auth\":\"{entry}\"}}}}}}"))
            .context("write podman's credentials")?;
        let mut podman = netns::command(&netns::name("a2"), "podman");
        podman.env("CONTAINERS_REGISTRIES_CONF", &conf);
        podman.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "pull", "--quiet"]);
        podman.arg("--signature-policy").arg(dir.join("policy.json")).arg("--authfile").arg(auth);
        command::run(podman.arg(format!("{REGISTRY_NAME}/lab/secret:latest")), SHORT)
    };
    let bob = pull(BOB)?;
    ensure!(!bob.status.success(), "bob by podman pulled: {}", bob.stdout);
    let alice = pull(ALICE)?;
    ensure!(alice.status.success(), "alice by podman: {}", alice.stderr);
    println!("    podman: bob refused, alice {:.2} s", alice.took.as_secs_f64());
    Ok(())
}

/// Neither a password nor what encodes it is in any log or file of a daemon.
pub(super) fn nothing_written_down(lab: &Lab) -> Result<()> {
    for node in lab.peers() {
        let log = node.daemon.log();
        for secret in [ALICE.1, BOB.1, basic(ALICE).trim_start_matches("Basic "), "Bearer "] {
            ensure!(!log.contains(secret), "the log of {} has credentials", node.name);
            let mut grep = Command::new("grep");
            grep.args(["-rlF", "-e", secret]).arg(&node.daemon.store);
            let found = command::run(&mut grep, SHORT)?;
            ensure!(found.stdout.is_empty(), "credentials in {}", found.stdout);
        }
    }
    Ok(())
}

/// Without the opt-in nobody is asked for credentials here: the pull goes to the registry itself.
fn not_relayed(lab: &mut Lab, secret: &Image) -> Result<()> {
    let door = Door::Passwords;
    let registries = format!("[{{ host: \"{REGISTRY_NAME}\", server: \"{}\" }}]", door.url());
    lab.node_mut("a1")?.daemon.with_registries(&registries)?;
    let node = lab.node("a1")?;
    let pulled = node.containerd.try_pull(&secret.reference, Via::Mirror, Some(ALICE))?;
    ensure!(
        !pulled.status.success(),
        "credentials were sent to a mirror that did not ask: {}",
        pulled.stdout
    );
    let path = format!("/v2/lab/secret/manifests/latest?ns={REGISTRY_NAME}");
    ensure!(node.daemon.mirror(&path, &[])?.status == 401, "not 401");
    println!("    without relayChallenge: 401, and no credentials asked for");
    Ok(())
}
