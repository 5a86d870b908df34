//! The user's tool: a client of the node's daemon, and for operators of the manager.
//!
//! Not a downloader of its own: every byte comes through the daemon, which shares it with the cluster.
//!
//! Invariant: a file has its name only when it is complete, and matches its digest where one is known.

mod commands;
mod daemon;
mod get;
mod manager;
mod source;
mod table;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Files and images, peer to peer.
#[derive(Parser)]
#[command(name = "hawker", version)]
pub struct Arguments {
    /// Local API of the daemon (api.socket).
    #[arg(long, global = true, env = "HAWKER_API_SOCKET", default_value = "/run/hawker/hawkerd.sock")]
    socket: PathBuf,
    /// Mirror of the daemon (mirror.addr).
    #[arg(long, global = true, env = "HAWKER_MIRROR_ADDR", default_value = "127.0.0.1:4001")]
    mirror: String,
    #[command(flatten)]
    manager: manager::ManagerArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch files: http(s), s3, gs, az, oci (artifacts) and hf (models) URLs.
    Get(get::GetArguments),
    /// List what this node stores.
    Ls(commands::stored::LsArguments),
    /// Show one stored blob.
    Stat(commands::stored::StatArguments),
    /// Remove blobs from this node's store.
    Rm(commands::stored::RmArguments),
    /// Keep blobs from being evicted.
    Pin(commands::stored::TasksArguments),
    /// Let pinned blobs go again.
    Unpin(commands::stored::TasksArguments),
    /// Show what the daemon is and does.
    Status(commands::status::StatusArguments),
    /// Watch what the daemon moves: rates, limits, peers, downloads.
    Top(commands::top::TopArguments),
    /// Say why this node's container runtimes do not use the mirror, and prove that they can.
    Doctor(commands::doctor::DoctorArguments),
    /// Sign in at a manager, and remember it.
    Login(commands::login::LoginArguments),
    /// Sign out, and forget the token.
    Logout,
    /// Clusters and which nodes belong to them.
    Cluster {
        #[command(subcommand)]
        command: commands::cluster::ClusterCommand,
    },
    /// The nodes that are live.
    Peers(commands::hosts::PeersArguments),
    /// What the clusters hold and fetch.
    Tasks(commands::tasks::TasksArguments),
    /// Which cluster a node belongs to.
    Placement {
        #[command(subcommand)]
        command: commands::placement::PlacementCommand,
    },
    /// What was asked of the clusters.
    Jobs {
        #[command(subcommand)]
        command: commands::jobs::JobsCommand,
    },
    /// Put an image or a file on nodes before anybody pulls it.
    Preheat(commands::preheat::PreheatArguments),
    /// Who may sign in.
    Users {
        #[command(subcommand)]
        command: commands::people::UsersCommand,
    },
    /// Personal access tokens.
    Tokens {
        #[command(subcommand)]
        command: commands::people::TokensCommand,
    },
    /// Print completions for a shell.
    Completions(commands::completions::CompletionsArguments),
}

/// Runs one command.
///
/// # Errors
/// What failed, for people.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let daemon = daemon::Daemon::new(arguments.socket, arguments.mirror.clone());
    match arguments.command {
        Command::Get(get) => get::run(&daemon, &get),
        Command::Ls(ls) => commands::stored::ls(&daemon, &ls),
        Command::Stat(stat) => commands::stored::stat(&daemon, &stat),
        Command::Rm(rm) => commands::stored::rm(&daemon, &rm),
        Command::Pin(tasks) => commands::stored::pin(&daemon, &tasks, true),
        Command::Unpin(tasks) => commands::stored::pin(&daemon, &tasks, false),
        Command::Status(status) => commands::status::run(&daemon, &status),
        Command::Top(top) => commands::top::run(&daemon, &top),
        Command::Doctor(doctor) => commands::doctor::run(&arguments.mirror, &doctor),
        Command::Login(login) => commands::login::login(&arguments.manager, &login),
        Command::Logout => commands::login::logout(&arguments.manager),
        Command::Cluster { command } => commands::cluster::run(&arguments.manager, &command),
        Command::Peers(peers) => commands::hosts::run(&arguments.manager, &peers),
        Command::Tasks(tasks) => commands::tasks::run(&arguments.manager, &tasks),
        Command::Placement { command } => commands::placement::run(&arguments.manager, &command),
        Command::Jobs { command } => commands::jobs::run(&arguments.manager, &command),
        Command::Preheat(preheat) => commands::preheat::run(&arguments.manager, &preheat),
        Command::Users { command } => commands::people::users(&arguments.manager, &command),
        Command::Tokens { command } => commands::people::tokens(&arguments.manager, &command),
        Command::Completions(completions) => commands::completions::run(&completions),
    }
}
