//! The node's own account at a registry: where its name and password go, and where they do not.

use super::script::{Script, answer};
use super::{SHORT, credentials, object, task};
use hawker_daemon::config::{ClusterRegistries, MirrorConfig, Registry};
use hawker_daemon::metrics::Metrics;
use hawker_daemon::origin::{Credentials, ObjectKind, OriginClient, OriginError};
use std::path::Path;

const BASIC: &str = "authorization: basic ytpi\r\n";

/// A registry that wants a token from a realm of its own, or a password.
async fn registry(challenge: &'static str) -> Script {
    let address = std::sync::Arc::new(std::sync::OnceLock::new());
    let known = std::sync::Arc::clone(&address);
    let script = Script::start(move |head| {
        let address: std::net::SocketAddr = *known.get().unwrap();
        if head.starts_with("get /token") {
            let token = if head.contains(BASIC) {
                &b"{\"token\":\"alices\"}"[..]
            } else {
                b"{\"token\":\"nobodys\"}"
            };
            return answer("200 OK", "", token);
        }
        let allowed =
            head.contains("authorization: bearer alices") || (challenge == "Basic" && head.contains(BASIC));
        match challenge {
            _ if allowed => answer("200 OK", "", b"private"),
            "Basic" => answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n", b""),
            _ => {
                let realm =
                    format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"s\"\r\n");
                answer("401 Unauthorized", &realm, b"")
            }
        }
    })
    .await;
    address.set(script.addr).unwrap();
    script
}

fn client(script: &Script, file: &Path) -> OriginClient {
    let mut registry = Registry::new("reg.test", format!("http://{}", script.addr).parse().unwrap());
    registry.policy.job_account = Some(file.to_owned());
    let config = MirrorConfig {
        addr: ([127, 0, 0, 1], 0).into(),
        registries: vec![registry],
        cluster_registries: ClusterRegistries::Narrow,
    };
    OriginClient::with_limits(&config, Metrics::new(), SHORT).unwrap()
}

async fn get(client: &OriginClient, credentials: &Credentials) -> Result<Vec<u8>, OriginError> {
    let mut body = client.open(&object(ObjectKind::Blob), &task(), credentials, None).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn account(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let file = dir.path().join("config.json");
    std::fs::write(&file, r#"{"auths":{"reg.test":{"auth":"YTpi"}}}"#).unwrap();
    file
}

#[tokio::test]
async fn jobs_get_what_the_account_may_have_and_callers_do_not() {
    let dir = tempfile::tempdir().unwrap();
    for challenge in ["Bearer", "Basic"] {
        let script = registry(challenge).await;
        let client = client(&script, &account(&dir));
        assert_eq!(get(&client, &Credentials::account()).await.unwrap(), b"private", "{challenge}");
        let asked = script.heads().len();
        assert_eq!(get(&client, &Credentials::account()).await.unwrap(), b"private");
        assert_eq!(script.heads().len(), asked + 1, "{challenge}: what was given is kept for a while");
        for caller in [Credentials::none(), credentials()] {
            let before = script.heads().len();
            let refused = get(&client, &caller).await.unwrap_err();
            assert_eq!(refused.status(), Some(401), "{challenge} {refused}");
            let sent = &script.heads()[before..];
            assert!(!sent.iter().any(|head| head.contains(BASIC) || head.contains("alices")), "{sent:?}");
        }
    }
}

#[tokio::test]
async fn a_password_goes_only_where_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let script = registry("Bearer").await;
    get(&client(&script, &account(&dir)), &Credentials::account()).await.unwrap();
    for head in script.heads() {
        assert_eq!(head.contains(BASIC), head.starts_with("get /token?"), "{head}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let script = registry("Basic").await;
    let error =
        get(&client(&script, Path::new("/nowhere/auth.json")), &Credentials::account()).await.unwrap_err();
    assert!(error.to_string().contains("read account file /nowhere/auth.json"), "{error}");
}
