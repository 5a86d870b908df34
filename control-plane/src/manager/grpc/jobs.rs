//! Orders to nodes and what they say, between the wire format and our own words.
//!
//! Invariant: what comes in is bounded and well formed before anything is done with it.

use crate::manager::host::MAX_HOST_TEXT_BYTES;
use crate::manager::jobs::orders::{FromNode, Order, Phase, Progress, Resolved, Said, Target, TaskSize};
use crate::manager::jobs::spec::What;
use crate::manager::jobs::switch::ToNode;
use hawker_api::task::TaskId;
use hawker_api::v1;
use tonic::Status;

/// Longest error kept, characters.
const MAX_ERROR_CHARS: usize = 512;
/// Most tasks kept of an image.
const MAX_TASKS: usize = 1024;

pub(super) fn order(order: ToNode) -> v1::JobOrder {
    use v1::job_order::What as Wire;
    let ToNode { host_id, job, order } = order;
    let what = match order {
        Order::Resolve { what, platforms } => {
            let (image, url) = match what {
                What::Image(image) => (image, String::new()),
                What::Url(url) => (String::new(), url),
            };
            Wire::Resolve(v1::Resolve { image, url, platforms: platforms.texts() })
        }
        Order::Hold { target, platforms, name } => {
            let Target { task, registry, repository, kind, version } = target;
            let origin = Some(v1::Origin { registry, repository, kind, version });
            Wire::Hold(v1::Hold { task, origin, platforms: platforms.texts(), name })
        }
        Order::Stop => Wire::Stop(v1::Stop {}),
    };
    v1::JobOrder { job, host_id, what: Some(what) }
}

pub(super) fn report(report: v1::JobReport) -> Result<FromNode, Status> {
    use v1::job_report::What as Wire;
    let v1::JobReport { job, host_id, what } = report;
    if host_id.is_empty() || host_id.len().max(job.len()) > MAX_HOST_TEXT_BYTES {
        return Err(Status::invalid_argument("jobs.reports: no host, or a long name"));
    }
    let said = match what.ok_or_else(|| Status::invalid_argument("jobs.reports: a report says nothing"))? {
        Wire::Resolved(resolved) => Said::Resolved(self::resolved(resolved)?),
        Wire::Hold(state) => Said::Hold(progress(state)),
    };
    Ok(FromNode { host_id, job, said })
}

fn resolved(resolved: v1::Resolved) -> Result<Result<Resolved, String>, Status> {
    let v1::Resolved { error, task, origin, tasks } = resolved;
    if !error.is_empty() {
        return Ok(Err(shortened(&error)));
    }
    let origin = origin.ok_or_else(|| Status::invalid_argument("jobs.reports.resolved.origin: missing"))?;
    let known = |text: &str| {
        let task: Result<TaskId, _> = text.parse();
        task.map_err(|error| Status::invalid_argument(format!("jobs.reports.resolved.task: {error}")))
    };
    let v1::Origin { registry, repository, kind, version } = origin;
    let target = Target { task: known(&task)?.to_string(), registry, repository, kind, version };
    let size =
        |entry: v1::TaskSize| Ok(TaskSize { task: known(&entry.task)?.to_string(), bytes: entry.bytes });
    let tasks = tasks.into_iter().take(MAX_TASKS).map(size).collect::<Result<_, Status>>()?;
    Ok(Ok(Resolved { target, tasks }))
}

fn progress(state: v1::HoldState) -> Progress {
    let phase = match state.phase() {
        v1::HoldPhase::Running => Phase::Running,
        v1::HoldPhase::Succeeded => Phase::Succeeded,
        v1::HoldPhase::Failed => Phase::Failed,
        v1::HoldPhase::Stopped => Phase::Stopped,
    };
    let v1::HoldState { bytes_done, bytes_total, error, .. } = state;
    Progress { phase, bytes_done, bytes_total, error: shortened(&error) }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_ERROR_CHARS).collect()
}
