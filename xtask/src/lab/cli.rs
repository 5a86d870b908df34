//! `cargo xtask lab up|down|exec|status`: the lab by hand.

use super::{Lab, Plan, down};
use crate::setup::{self, Ability};
use crate::{binaries, command, console, netns};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Build it and leave it running.
    Up(Up),
    /// Remove everything of it, also after a crash.
    Down,
    /// Run a command in a node's network.
    Exec {
        /// `a1`, `b-seed`, `origin`, `control`, `router`, …
        node: String,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// What stands.
    Status,
}

#[derive(Args)]
pub(crate) struct Up {
    /// Peers of each cluster.
    #[arg(long, value_delimiter = ',', default_value = "2,2")]
    peers: Vec<usize>,
    /// No seed peers.
    #[arg(long)]
    no_seed: bool,
    /// Rate of the link to the registry, in tc's words.
    #[arg(long, default_value = "100mbit")]
    origin_rate: String,
}

pub(crate) fn run(action: Action) -> Result<ExitCode> {
    match action {
        Action::Up(up) => {
            if up.peers.is_empty() || up.peers.len() > 2 {
                bail!("--peers: one or two clusters");
            }
            if let Ability::NoLab(why) = setup::run()? {
                bail!("no lab: {why}");
            }
            let (peers, seeds, origin_rate) = (up.peers, !up.no_seed, up.origin_rate);
            let plan = Plan { peers, seeds, origin_rate, ..Plan::default() };
            console::build_if_possible()?;
            let lab = Lab::up(&binaries::build()?, &plan)?;
            for node in &lab.nodes {
                println!("{:<8} {:<10} {}", node.name, node.cluster.name(), node.ip);
            }
            println!("{}", super::control::Control::how_to_sign_in());
            lab.keep();
        }
        Action::Down => down()?,
        Action::Exec { node, command } => {
            let mut inside = netns::command(&netns::name(&node), &command[0]);
            let succeeded = command::show(inside.args(&command[1..]))?;
            return Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Action::Status => {
            for namespace in netns::standing()? {
                println!("{namespace}: {} processes", netns::pids(&namespace)?.len());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
