//! Orders of the manager and what is said of them, between the wire format and our own words.
//!
//! Invariant: what goes out is bounded: a scheduler takes no more.

use super::{WireError, bad, object, origin, task};
use crate::jobs::orders::{
    Found, Held, HoldPhase, HoldState, JobOrder, JobReport, JobTask, Named, Said, Wanted,
};
use crate::swarm::orders::Image;
use hawker_api::image::Platforms;
use hawker_api::task::TaskId;
use hawker_api::v1;

/// Longest name of a job, bytes.
const MAX_JOB_BYTES: usize = 128;
/// Most tasks told of one image; the others are fetched all the same.
const MAX_TASKS: usize = 256;
/// Longest error told, characters.
const MAX_ERROR_CHARS: usize = 512;

pub(super) fn order(order: v1::JobOrder) -> Result<JobOrder, WireError> {
    use v1::job_order::What;
    if order.job.is_empty() || order.job.len() > MAX_JOB_BYTES {
        return Err(bad("job.job", "no name, or a long one"));
    }
    let platforms =
        |texts: &[String]| Platforms::read(texts).map_err(|error| bad("job.platforms", error.to_string()));
    let done = match order.what.ok_or_else(|| bad("job.what", "not known here"))? {
        What::Resolve(v1::Resolve { image, url, platforms: texts }) => {
            let what = if url.is_empty() { Named::Image(image) } else { Named::Url(url) };
            JobTask::Resolve(Wanted { what, platforms: platforms(&texts)? })
        }
        What::Hold(hold) => JobTask::Hold(Held {
            task: task(&hold.task)?,
            object: object(hold.origin.ok_or_else(|| bad("job.hold.origin", "missing"))?),
            platforms: platforms(&hold.platforms)?,
            name: hold.name,
        }),
        What::Stop(v1::Stop {}) => JobTask::Stop,
    };
    Ok(JobOrder { job: order.job, task: done })
}

pub(super) fn report(report: JobReport) -> v1::JobReport {
    use v1::job_report::What;
    let what = match report.said {
        Said::Resolved(found) => What::Resolved(resolved(found)),
        Said::Hold(state) => What::Hold(hold(state)),
    };
    v1::JobReport { job: report.job, host_id: String::new(), what: Some(what) }
}

pub(super) fn image(image: Image) -> v1::Image {
    let Image { name, manifest, parts } = image;
    v1::Image { name, manifest: manifest.to_string(), parts: sizes(&parts) }
}

fn resolved(found: Result<Found, String>) -> v1::Resolved {
    match found {
        Ok(Found { task, object, tasks }) => v1::Resolved {
            error: String::new(),
            task: task.to_string(),
            origin: Some(origin(object)),
            tasks: sizes(&tasks),
        },
        Err(error) => v1::Resolved { error: shortened(&error), ..v1::Resolved::default() },
    }
}

fn hold(state: HoldState) -> v1::HoldState {
    let phase = match state.phase {
        HoldPhase::Running => v1::HoldPhase::Running,
        HoldPhase::Succeeded => v1::HoldPhase::Succeeded,
        HoldPhase::Failed => v1::HoldPhase::Failed,
        HoldPhase::Stopped => v1::HoldPhase::Stopped,
    };
    let HoldState { bytes_done, bytes_total, error, .. } = state;
    let error = if error.is_empty() { error } else { shortened(&error) };
    v1::HoldState { phase: phase.into(), bytes_done, bytes_total, error }
}

fn sizes(tasks: &[(TaskId, u64)]) -> Vec<v1::TaskSize> {
    let size = |(task, bytes): &(TaskId, u64)| v1::TaskSize { task: task.to_string(), bytes: *bytes };
    tasks.iter().take(MAX_TASKS).map(size).collect()
}

fn shortened(error: &str) -> String {
    // An error that is empty would say that there is none.
    let text: String = error.chars().take(MAX_ERROR_CHARS).collect();
    if text.is_empty() { "failed".to_owned() } else { text }
}
