//! The registry's content behind a door: docker-registry again, with passwords or with tokens, and the server that
//! gives those tokens.
//!
//! Invariant: both doors lead to what the lab's registry holds; what is under `lab/secret` is for alice alone, the rest
//! for everybody who has a token.

use super::processes::Process;
use super::{data_dir, network};
use crate::command::{SHORT, check};
use crate::{http, interrupt, netns};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of the lab alone: who may pull what is private, and who may not.
pub(crate) const ALICE: (&str, &str) = ("alice", "alices-lab-password");
pub(crate) const BOB: (&str, &str) = ("bob", "bobs-lab-password");
/// bcrypt of their passwords, at its lowest cost: this must be quick, not safe. For the registry with passwords bob
/// is nobody.
const HTPASSWD: &str = "alice:$2y$05$hawkerlabsaltxyzabcde.pWs50GvQ/M4z6gBgN9PDofWAkgSSmGW\n";
const START_LIMIT: Duration = Duration::from_secs(15);
const TOKEN_PORT: u16 = 5009;
/// Life of a token: the least there is.
const TOKEN_SECONDS: u64 = 60;
const ISSUER: &str = "lab";
const SERVICE: &str = "lab-registry";
/// Time for one request to the token server.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Passwords,
    Tokens,
}

impl Door {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Passwords => "passwords",
            Self::Tokens => "tokens",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Passwords => 5002,
            Self::Tokens => 5003,
        }
    }

    /// `http://host:port` as nodes reach it.
    pub(crate) fn url(self) -> String {
        format!("http://{}:{}", network::ORIGIN, self.port())
    }
}

/// A door that stands open for some; closed when dropped.
pub(crate) struct Guarded {
    _registry: Process,
    _tokens: Option<TokenServer>,
}

impl Guarded {
    pub(crate) fn start(door: Door) -> Result<Self> {
        let dir = data_dir(door.name());
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let tokens = if door == Door::Tokens { Some(TokenServer::start(&dir)?) } else { None };
        fs::write(dir.join("htpasswd"), HTPASSWD).context("write the passwords")?;
        let auth = match door {
            Door::Passwords => {
                format!("{{htpasswd: {{realm: lab, path: {}}}}}", dir.join("htpasswd").display())
            }
            Door::Tokens => format!(
                "{{token: {{realm: \"http://{}:{TOKEN_PORT}/token\", service: {SERVICE}, issuer: {ISSUER}, \
                 rootcertbundle: {}}}}}",
                network::ORIGIN,
                dir.join("cert.pem").display()
            ),
        };
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"0.0.0.0:{}\"}}\nauth: {auth}\n",
            data_dir("origin").join("storage").display(),
            door.port()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut command = netns::command(&netns::name("origin"), "docker-registry");
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        let mut registry = Process::start("docker-registry", &mut command, &dir.join("registry.log"))?;
        netns::within(&netns::name("origin"), || {
            interrupt::poll("the guarded registry answers", START_LIMIT, || {
                registry.check()?;
                let answer = http::get(&format!("{}/v2/", door.url()), &[])?;
                ensure!(answer.status == 401, "it lets everybody in: {}", answer.status);
                Ok(())
            })
        })?;
        Ok(Self { _registry: registry, _tokens: tokens })
    }
}

/// The header that shows who somebody is.
pub(crate) fn basic((user, password): (&str, &str)) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// Gives tokens that say what their owner may pull, signed by a key of its own.
struct TokenServer {
    /// Where it listens: a connection to it ends the thread.
    ended: Arc<std::sync::atomic::AtomicBool>,
}

struct Signer {
    dir: PathBuf,
    certificate: String,
}

impl TokenServer {
    fn start(dir: &Path) -> Result<Self> {
        let (key, cert) = (dir.join("key.pem"), dir.join("cert.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=lab"]);
        check(openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert), SHORT)?;
        let pem = fs::read_to_string(&cert).context("read the certificate")?;
        let certificate: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let signer = Signer { dir: dir.to_owned(), certificate };
        let listener = netns::within(&netns::name("origin"), || {
            TcpListener::bind((network::ORIGIN, TOKEN_PORT)).context("listen for those who want tokens")
        })?;
        listener.set_nonblocking(true).context("make the token server's socket non-blocking")?;
        let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let until = Arc::clone(&ended);
        std::thread::spawn(move || {
            while !until.load(std::sync::atomic::Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Err(error) = signer.answer(&stream) {
                            eprintln!("token server: {error:#}");
                        }
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Self { ended })
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.ended.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Signer {
    fn answer(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().context("no request")??;
        let mut authorization = String::new();
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                authorization = value.to_owned();
            }
        }
        let user = [ALICE, BOB].into_iter().find(|user| basic(*user) == authorization);
        let (status, body) = match (user, authorization.as_str()) {
            // The older way is enough; clients that try the newer one first know this answer.
            _ if !first.starts_with("GET ") => ("405 Method Not Allowed", "{}".to_owned()),
            (None, given) if !given.is_empty() => ("401 Unauthorized", "{}".to_owned()),
            (user, _) => ("200 OK", self.token(user, &scope(&first))?),
        };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let mut stream = stream;
        Ok(stream.write_all(format!("{head}{body}").as_bytes())?)
    }

    fn token(&self, user: Option<(&str, &str)>, scope: &str) -> Result<String> {
        let repository = scope.strip_prefix("repository:").and_then(|rest| rest.rsplit_once(':'));
        let repository = repository.map_or("", |(name, _)| name);
        let allowed = !repository.starts_with("lab/secret") || user.is_some_and(|user| user == ALICE);
        let access = if allowed && !repository.is_empty() {
            json!([{ "type": "repository", "name": repository, "actions": ["pull"] }])
        } else {
            json!([])
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": SERVICE, "sub": user.map_or("", |user| user.0), "access": access,
            "nbf": now - 5, "iat": now, "exp": now + TOKEN_SECONDS, "jti": format!("{now}"),
        });
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [self.certificate] });
        let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let (text, signature) = (self.dir.join("token"), self.dir.join("signature"));
        fs::write(&text, &signed).context("write what is to be signed")?;
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(self.dir.join("key.pem"));
        check(openssl.arg("-out").arg(&signature).arg(&text), SHORT)?;
        let signature = BASE64_URL_SAFE_NO_PAD.encode(fs::read(&signature).context("read a signature")?);
        Ok(json!({ "token": format!("{signed}.{signature}"), "expires_in": TOKEN_SECONDS }).to_string())
    }
}

/// The scope that a request line asks for.
fn scope(line: &str) -> String {
    let query = line.split(' ').nth(1).and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    let scope = query.split('&').find_map(|pair| pair.strip_prefix("scope=")).unwrap_or("");
    scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_clients() {
        let line = "GET /token?service=x&scope=repository%3Alab%2Fsecret%3Apull HTTP/1.1";
        assert_eq!(scope(line), "repository:lab/secret:pull");
        assert_eq!(scope("GET /token?scope=repository:a/b:pull&service=x HTTP/1.1"), "repository:a/b:pull");
        assert_eq!(scope("GET /token HTTP/1.1"), "");
    }
}
