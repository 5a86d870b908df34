//! Orders of the manager and what is said of them, in plain types. The wire format is [`crate::control`]'s.

use crate::origin::OriginObject;
use hawker_api::image::Platforms;
use hawker_api::task::TaskId;

#[derive(Debug)]
pub struct JobOrder {
    /// Names the work, for whoever ordered it.
    pub job: String,
    pub task: JobTask,
}

#[derive(Debug)]
pub enum JobTask {
    Resolve(Wanted),
    Hold(Held),
    Stop,
}

/// What somebody named, and for which platforms.
#[derive(Debug)]
pub struct Wanted {
    pub what: Named,
    pub platforms: Platforms,
}

#[derive(Debug)]
pub enum Named {
    Image(String),
    Url(String),
}

/// What is to be on this node.
#[derive(Debug)]
pub struct Held {
    pub task: TaskId,
    pub object: OriginObject,
    pub platforms: Platforms,
    /// What people call the image.
    pub name: String,
}

#[derive(Debug)]
pub struct JobReport {
    pub job: String,
    pub said: Said,
}

#[derive(Debug)]
pub enum Said {
    Resolved(Result<Found, String>),
    Hold(HoldState),
}

/// What an image or URL is.
#[derive(Debug)]
pub struct Found {
    pub task: TaskId,
    pub object: OriginObject,
    /// Everything there is to get, with its bytes.
    pub tasks: Vec<(TaskId, u64)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldState {
    pub phase: HoldPhase,
    pub bytes_done: u64,
    /// 0: not known yet.
    pub bytes_total: u64,
    pub error: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HoldPhase {
    #[default]
    Running,
    Succeeded,
    Failed,
    Stopped,
}

impl HoldState {
    pub(crate) fn failed(error: String) -> Self {
        Self { phase: HoldPhase::Failed, error, ..Self::default() }
    }
}
