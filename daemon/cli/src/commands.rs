//! The commands that show or change what the daemon or the manager has.

pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod hosts;
pub(crate) mod jobs;
pub(crate) mod login;
pub(crate) mod people;
pub(crate) mod placement;
pub(crate) mod preheat;
pub(crate) mod status;
pub(crate) mod stored;
pub(crate) mod tasks;
pub(crate) mod top;

use clap::{Args, ValueEnum};

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// `-o`, for commands with nothing else to choose.
#[derive(Args, Clone, Copy)]
pub(crate) struct OutputArguments {
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}
