//! The commands in the documentation, run: each block that begins with ```` ```console run ````, in order, a shell for each page.
//!
//! A line `$ command` is run (a `\` at its end: with the next line); what follows up to the next one is what it prints, where `…` in a line stands for
//! any text and `…` alone on a line for any lines. Blocks without `run` need what is not here, a Kubernetes cluster for
//! example, and the page says so.
//!
//! Invariant: a command that fails, or prints something else than the page says, fails the page.

mod compare;

use crate::kube::tools;
use crate::lab::processes::Process;
use crate::setup::Ability;
use crate::test::Tally;
use crate::{binaries, command, http, interrupt, kube, netns, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FENCE: &str = "```console run";
/// Between commands in the shell's output.
const MARK: &str = "\u{1}hawker-docs\u{1}";
const LIMIT: Duration = Duration::from_secs(120);
/// helm says this of the chart's dashboards and rules, which are links to the files beside it.
const SYMLINK_NOTE: &str = "found symbolic link in path";
const NAMESPACE: &str = "docs";
/// Of the stand-in alone.
const PASSWORD: &str = "only-for-the-docs";

/// One command of a page, and what it prints.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    printed: Vec<String>,
}

pub(crate) fn run(ability: &Ability, only: Option<&str>, tally: &mut Tally) -> Result<()> {
    for path in pages()? {
        let name = format!("docs: commands of {}", path.file_name().unwrap_or_default().display());
        let steps = steps(&fs::read_to_string(&path)?);
        if steps.is_empty() || !only.is_none_or(|only| name.contains(only)) {
            continue;
        }
        if let Ability::NoLab(why) = ability {
            tally.skip(&name, why);
            continue;
        }
        match tools::ready(ability)? {
            Err(why) => tally.skip(&name, &why),
            Ok(tools) => tally.run(&name, || {
                binaries::build()?;
                let stand = Stand::start(&tools)?;
                println!("    {} commands", steps.len());
                stand.run(&path, &steps)
            }),
        }
    }
    Ok(())
}

fn pages() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(workspace::root()?.join("docs")).context("list docs")?;
    let mut pages: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    Ok(pages)
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut continues) = (false, false);
    for (number, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside && line.trim() == FENCE;
            continue;
        }
        if !inside {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: number + 1, command: command.to_owned(), printed: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            if continues {
                step.command.push_str(&format!("\n{line}"));
            } else {
                step.printed.push(line.to_owned());
            }
        }
        continues = steps.last().is_some_and(|step| step.printed.is_empty() && step.command.ends_with('\\'));
    }
    steps
}

/// What the pages speak of, as far as it can be here: the chart's manager of cluster A, and a directory to work in.
struct Stand {
    dir: tempfile::TempDir,
    path: String,
    _manager: Process,
}

impl Stand {
    fn start(tools: &tools::Tools) -> Result<Self> {
        let dir = tempfile::tempdir().context("make a directory")?;
        let root = workspace::root()?;
        std::os::unix::fs::symlink(root.join("deploy"), dir.path().join("deploy"))?;
        std::os::unix::fs::symlink(root.join("bench"), dir.path().join("bench"))?;
        fs::write(dir.path().join("root-password"), PASSWORD)?;
        let config = dir.path().join("manager.yaml");
        fs::write(&config, kube::manager_of_a(tools, dir.path())?)?;
        let namespace = netns::name(NAMESPACE);
        if netns::standing()?.contains(&namespace) {
            netns::delete(&namespace)?;
        }
        netns::create(&namespace)?;
        let mut manager = netns::command(&namespace, workspace::program("hawker-control")?);
        manager.arg("manager").arg("--config").arg(&config);
        let manager = Process::start("the pages' manager", &mut manager, &dir.path().join("manager.log"))?;
        let ready = netns::within(&namespace, || {
            interrupt::poll("the manager answers", Duration::from_secs(20), || {
                http::get("http://127.0.0.1:8080/healthz", &[]).map(drop)
            })
        });
        ready.with_context(|| manager.log_tail())?;
        let path = format!(
            "{}:{}:{}",
            tools.dir().display(),
            workspace::target()?.join("release").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        Ok(Self { dir, path, _manager: manager })
    }

    fn run(&self, page: &Path, steps: &[Step]) -> Result<()> {
        let mut script = String::new();
        for step in steps {
            script.push_str(&format!("{{ {}\n}} 2>&1\nprintf '\\n{MARK}%s\\n' $?\n", step.command));
        }
        let mut shell = netns::command(&netns::name(NAMESPACE), "bash");
        shell.arg("-c").arg(script).current_dir(self.dir.path());
        shell
            .env("PATH", &self.path)
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", "/nonexistent")
            .env("COLUMNS", "140");
        let said = command::run(&mut shell, LIMIT)?.stdout;
        let mut rest = said.as_str();
        for step in steps {
            let at = || format!("{}:{}: {}", page.display(), step.line, step.command);
            let Some((printed, after)) = rest.split_once(MARK) else {
                bail!("{}: did not end:\n{rest}", at())
            };
            let (code, after) = after.split_once('\n').unwrap_or((after, ""));
            rest = after;
            ensure!(code == "0", "{}: exit {code}\n{printed}", at());
            let printed = printed.strip_suffix('\n').unwrap_or(printed);
            let printed: Vec<&str> = printed.lines().filter(|line| !line.contains(SYMLINK_NOTE)).collect();
            let printed = printed.join("\n");
            let difference = compare::difference(&step.printed, &printed);
            ensure!(
                difference.is_none(),
                "{}\n{}\nit printed:\n{printed}",
                at(),
                difference.unwrap_or_default()
            );
        }
        Ok(())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let namespace = netns::name(NAMESPACE);
        for pid in interrupt::shielded(|| netns::pids(&namespace)).unwrap_or_default() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = interrupt::shielded(|| netns::delete(&namespace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_what_is_marked() {
        let page = "a\n```console\n$ no\n```\n```console run\n$ yes \\\n    more\nout\n…\n$ two\n```\n$ no\n";
        let step = |line, command: &str, printed: &[&str]| Step {
            line,
            command: command.to_owned(),
            printed: printed.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(steps(page), [step(6, "yes \\\n    more", &["out", "…"]), step(10, "two", &[])]);
    }
}
