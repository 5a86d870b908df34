//! The disk under the manager's SQLite file is full, and has room again.

use crate::command::{SHORT, check};
use crate::interrupt;
use crate::lab::{Lab, data_dir};
use crate::setup;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const DISK: &str = "size=3m";
/// Many times what the little room takes that is left.
const MAX_EDITS: u32 = 3000;
/// Left to the database when the disk has been filled, bytes.
const LEFT: usize = 64 << 10;
/// A daemon looks for a manager that went away at least every ten seconds.
const MOVE_LIMIT: Duration = Duration::from_secs(20);
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn under_sqlite(lab: &mut Lab) -> Result<()> {
    setup::need(&[("sqlite3", "sqlite3")])?;
    let disk = data_dir("control").join("disk");
    std::fs::create_dir_all(&disk).with_context(|| format!("make {}", disk.display()))?;
    check(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&disk), SHORT)?;
    let file = disk.join("manager.db");
    lab.control.with_database(&format!("sqlite://{}", file.display()))?;
    let token = lab.control.token(0)?;
    let connected = || -> Result<()> {
        let manager = &lab.node("a1")?.daemon.status()?["manager"];
        ensure!(manager["connected"] == true, "the daemon has no manager: {manager}");
        Ok(())
    };
    interrupt::poll("the daemon is at the manager", MOVE_LIMIT, connected)?;

    let filler = disk.join("filler");
    fill(&filler)?;
    let mut made = BTreeSet::from(["cluster-1".to_owned()]);
    let refusal = until_full(lab, &token, &mut made)?;
    println!("    after {} edits: {refusal}", made.len() - 1);
    ensure!(refusal["detail"].as_str().is_some_and(|detail| detail.contains("disk is full")), "{refusal}");
    // Reading needs no room, and who signed in stays so.
    ensure!(names(lab, &token)? == made, "other clusters than were made: {:?}", names(lab, &token)?);
    let refused = lab.control.sign_in(0)?;
    ensure!(refused.status == 507, "a sign-in on a full disk: {} {}", refused.status, refused.text());
    connected()?;
    sound(&file)?;

    std::fs::remove_file(&filler).context("make room")?;
    interrupt::poll("it goes on when there is room", RECOVERY_LIMIT, || {
        let answer = cluster(lab, &token, "afterwards")?;
        ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    made.insert("afterwards".to_owned());
    ensure!(names(lab, &token)? == made, "other clusters than were made: {:?}", names(lab, &token)?);
    lab.control.manager.crash()?;
    sound(&file)?;
    lab.control.restart_manager()?;
    ensure!(names(lab, &token)? == made, "other clusters after a restart: {:?}", names(lab, &token)?);
    println!("    {} clusters before and after, integrity_check: ok", made.len());
    lab.control.manager.stop()
}

/// Takes the room of the disk but a little.
fn fill(filler: &Path) -> Result<()> {
    let mut file = std::fs::File::create(filler).with_context(|| format!("make {}", filler.display()))?;
    let block = vec![0; LEFT];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error).context("fill the disk"),
        }
    }
    let length = file.metadata().context("look at the filler")?.len();
    file.set_len(length.saturating_sub(LEFT as u64)).context("leave a little room")
}

/// Makes clusters until one is refused: the refusal.
fn until_full(lab: &Lab, token: &str, made: &mut BTreeSet<String>) -> Result<Value> {
    for number in 0..MAX_EDITS {
        let name = format!("filling-{number}");
        let answer = cluster(lab, token, &name)?;
        match answer.status {
            201 => made.insert(name),
            507 => return answer.json(),
            status => bail!("cluster {number}: {status} {}", answer.text()),
        };
    }
    bail!("{MAX_EDITS} clusters fit on a full disk")
}

fn cluster(lab: &Lab, token: &str, name: &str) -> Result<crate::http::Answer> {
    lab.control.post_with(0, token, "/api/v1/clusters", &json!({ "name": name, "bio": "x".repeat(500) }))
}

fn names(lab: &Lab, token: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for page in 1.. {
        let answer = lab.control.get_with(0, token, &format!("/api/v1/clusters?per_page=100&page={page}"))?;
        ensure!(answer.status == 200, "list clusters: {} {}", answer.status, answer.text());
        let list = answer.json()?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if items.is_empty() {
            break;
        }
        names.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
    }
    Ok(names)
}

/// SQLite itself finds nothing wrong with the file.
fn sound(file: &Path) -> Result<()> {
    let said = check(Command::new("sqlite3").arg(file).arg("PRAGMA integrity_check"), SHORT)?.stdout;
    ensure!(said.trim() == "ok", "integrity_check: {said}");
    Ok(())
}
