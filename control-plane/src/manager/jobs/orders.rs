//! What nodes are told and what they say, in our own words. The wire format is `grpc`'s.

use hawker_api::image::Platforms;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone)]
pub(crate) enum Order {
    Resolve { what: super::spec::What, platforms: Platforms },
    Hold { target: Target, platforms: Platforms, name: String },
    Stop,
}

/// What nodes are to hold, as one of them found it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) task: String,
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// Of `OriginKind`.
    pub(crate) kind: i32,
    pub(crate) version: String,
}

#[derive(Debug, Clone)]
pub(crate) struct FromNode {
    pub(crate) host_id: String,
    pub(crate) job: String,
    pub(crate) said: Said,
}

#[derive(Debug, Clone)]
pub(crate) enum Said {
    Resolved(Result<Resolved, String>),
    Hold(Progress),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) target: Target,
    pub(crate) tasks: Vec<TaskSize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskSize {
    pub(crate) task: String,
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) bytes_done: u64,
    /// 0: not known yet.
    pub(crate) bytes_total: u64,
    pub(crate) error: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Running,
    Succeeded,
    Failed,
    Stopped,
}
