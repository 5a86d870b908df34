//! The program: its arguments, its first start and its end.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn program(part: &str, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawker-control"));
    command.arg(part).arg("--config").arg(config).env_remove("RUST_LOG");
    command
}

fn write_config(dir: &Path, extra: &str) -> std::path::PathBuf {
    let text = format!(
        "manager:\n  rest: 127.0.0.1:0\n  grpc: 127.0.0.1:0\n  database: \"sqlite://{}/db/manager.db\"\n\
         scheduler: {{ grpc: \"127.0.0.1:0\", advertiseAddr: \"127.0.0.1:8002\" }}\n\
         metrics: {{ addr: \"127.0.0.1:0\" }}\ntelemetry: {{ logFormat: json }}\n{extra}",
        dir.display()
    );
    let file = dir.join("control.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts a manager, waits until it serves, ends it with SIGTERM: what it printed to standard output.
fn one_life(config: &Path) -> String {
    let mut child = program("manager", config).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"started\"") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it served");
    }
    assert!(line.contains("\"rest\":\"127.0.0.1:"), "{line}");
    terminate(&child);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    out
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

#[test]
fn the_generated_password_is_printed_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "");
    let first = one_life(&config);
    let password = first.trim().strip_prefix("root password (shown once): ").unwrap();
    assert_eq!(password.len(), 24, "{password}");
    assert_eq!(one_life(&config), "");
}

#[test]
fn an_empty_password_file_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let config = write_config(dir.path(), "");
    std::fs::write(&secret, " \n").unwrap();
    for wanted in ["is empty", "read root password file"] {
        let output =
            program("manager", &config).env("HAWKER_MANAGER_ROOT_PASSWORD_FILE", &secret).output().unwrap();
        assert!(!output.status.success());
        let error = stderr(&output);
        assert!(error.contains(wanted) && error.contains("secret"), "{error}");
        let _ = std::fs::remove_file(&secret);
    }
    assert!(one_life(&config).starts_with("root password"), "the failed starts made no user");
}

#[test]
fn configurations_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let good = write_config(dir.path(), "");
    for part in ["standalone", "manager", "scheduler"] {
        let output = program(part, &good).arg("--check-config").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("control.yaml is valid"));
    }
    let missing =
        program("manager", Path::new("/nonexistent/x.yaml")).arg("--check-config").output().unwrap();
    assert!(!missing.status.success() && stderr(&missing).contains("/nonexistent/x.yaml"));
    let bad = write_config(dir.path(), "metric: {}\n");
    let output = program("manager", &bad).output().unwrap();
    let error = stderr(&output);
    assert!(!output.status.success() && error.contains("metric") && error.contains("line 8"), "{error}");
}

#[test]
fn an_address_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let held = std::net::TcpListener::bind(taken).unwrap();
    let config = write_config(dir.path(), "");
    let output = program("manager", &config).env("HAWKER_MANAGER_GRPC", taken.to_string()).output().unwrap();
    let error = stderr(&output);
    assert!(!output.status.success() && error.contains(&format!("listen for gRPC on {taken}")), "{error}");
    assert!(!dir.path().join("db").exists(), "the database was not touched");
    drop(held);
}

#[test]
fn standalones_scheduler_shows_its_managers_join_token() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tokens) = (write_config(dir.path(), ""), dir.path().join("join"));
    std::fs::write(&tokens, "0123456789abcdef\n").unwrap();
    let mut command = program("standalone", &config);
    command.env("HAWKER_MANAGER_JOIN_TOKEN_FILE", &tokens).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut log, mut read) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    while !read.contains("\"registered\"") {
        assert_ne!(log.read_line(&mut read).unwrap(), 0, "it ended:\n{read}");
        assert!(!read.contains("not registered"), "{read}");
    }
    terminate(&child);
    log.read_to_string(&mut read).unwrap();
    assert!(child.wait().unwrap().success(), "{read}");
    assert!(!read.contains("0123456789abcdef") && !read.contains("may join"), "{read}");
}
