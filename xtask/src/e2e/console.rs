//! The console in a real browser against the real programs: `control-plane/console/e2e/scenario.mjs` drives Chromium beside the
//! manager and asks here for what happens outside of the browser: images pushed and pulled, nodes started, clusters changed
//! by somebody else.
//!
//! Invariant: the browser, its driver and all their children have ended when [`run`] returns.

use super::image;
use crate::lab::Lab;
use crate::lab::containerd::Via;
use crate::lab::control::PASSWORD;
use crate::lab::images::Image;
use crate::lab::network::Cluster;
use crate::{console, interrupt, netns, setup, workspace};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub(super) const NAME: &str =
    "console: in a browser, from signing in to a preheated image, by keyboard, and every page looked at";
/// The whole scenario; a step has its own limit in the scenario.
const LIMIT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the scenario begins a line with that asks for something.
const ASKS: &str = "@lab ";
const URL: &str = "http://127.0.0.1:8080";
const BROWSER: &str = "chromium";

/// Why it cannot be shown here.
pub(super) fn can_run() -> Result<(), String> {
    console::node()?;
    match setup::need(&[(BROWSER, BROWSER)]) {
        Ok(setup::Ability::Lab) => Ok(()),
        Ok(setup::Ability::NoLab(why)) => Err(why),
        Err(error) => Err(format!("{error:#}")),
    }
}

pub(super) fn run(lab: &mut Lab) -> Result<()> {
    console::packages()?;
    let mut driver = Driver::start()?;
    let mut deeds = Deeds { lab, images: BTreeMap::new() };
    let deadline = Instant::now() + LIMIT;
    while let Some(line) = driver.next_line(deadline)? {
        match line.strip_prefix(ASKS) {
            None => println!("    {line}"),
            Some(asked) => driver.answer(&deeds.answer(asked)?)?,
        }
    }
    let status = driver.child.wait().context("wait for the scenario")?;
    ensure!(status.success(), "the scenario ended with {status}");
    Ok(())
}

/// The scenario's process.
struct Driver {
    child: Child,
    lines: Receiver<String>,
}

impl Driver {
    fn start() -> Result<Self> {
        let artifacts = workspace::target()?.join("e2e-artifacts/console");
        let _ = fs::remove_dir_all(&artifacts);
        fs::create_dir_all(&artifacts).with_context(|| format!("make {}", artifacts.display()))?;
        let mut node: Command = netns::command(&netns::name("control"), "node");
        node.current_dir(console::folder()?).arg("e2e/scenario.mjs").process_group(0);
        node.env("CONSOLE_URL", URL).env("CONSOLE_PASSWORD", PASSWORD).env("CONSOLE_ARTIFACTS", &artifacts);
        let mut child =
            node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start the scenario")?;
        let output = BufReader::new(child.stdout.take().context("the scenario's output")?);
        let (sender, lines) = channel();
        // Ends with the process: its output does.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// `None`: it has closed its output.
    fn next_line(&self, deadline: Instant) -> Result<Option<String>> {
        loop {
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            }
            ensure!(Instant::now() < deadline, "the scenario took longer than {} s", LIMIT.as_secs());
        }
    }

    fn answer(&mut self, answer: &Value) -> Result<()> {
        let input = self.child.stdin.as_mut().context("the scenario's input")?;
        writeln!(input, "{answer}").context("answer the scenario")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// What the scenario can ask for.
struct Deeds<'l> {
    lab: &'l mut Lab,
    images: BTreeMap<String, Image>,
}

impl Deeds<'_> {
    fn answer(&mut self, asked: &str) -> Result<Value> {
        let asked: Value = serde_json::from_str(asked).context("read what the scenario asks")?;
        let text = |key: &str| asked[key].as_str().with_context(|| format!("{key} of {asked}"));
        match text("deed")? {
            "image" => self.image(text("name")?, asked["mib"].as_u64().context("mib")?),
            "pull" => self.pull(text("node")?, text("image")?),
            "join" => self.join(),
            "move" => self.move_to(text("node")?, text("idc")?),
            "patch" => {
                let answer = self.lab.control.patch(text("path")?, &asked["body"])?;
                ensure!(answer.status == 200, "PATCH as somebody else: {} {}", answer.status, answer.text());
                Ok(json!({}))
            }
            other => bail!("the scenario asks for `{other}`"),
        }
    }

    fn image(&mut self, name: &str, mib: u64) -> Result<Value> {
        let made = image(self.lab, name, &[usize::try_from(mib)?])?;
        let answer =
            json!({ "reference": made.reference, "bytes": made.bytes(), "layer": made.layers[0].digest });
        self.images.insert(name.to_owned(), made);
        Ok(answer)
    }

    fn pull(&self, node: &str, image: &str) -> Result<Value> {
        let image = self.images.get(image).with_context(|| format!("no image {image}"))?;
        let took = self.lab.node(node)?.containerd.pull(&image.reference, Via::Hawker)?;
        Ok(json!({ "seconds": took.as_secs_f64() }))
    }

    /// A node of the second cluster: its IDC is the cluster's name.
    fn join(&mut self) -> Result<Value> {
        let node = self.lab.join(Cluster::B)?;
        Ok(json!({ "hostname": node.name, "ip": node.ip.to_string() }))
    }

    /// A node that says it is in this IDC; its cluster has it by its address.
    fn move_to(&mut self, node: &str, idc: &str) -> Result<Value> {
        let node = self.lab.node_mut(node)?;
        let now = node.cluster.name();
        node.daemon.with_idc(now, idc)?;
        Ok(json!({}))
    }
}
