//! Spans of the scheduler: from a Want that carries a trace to the first answer to it, and the way on to whoever else is told to work
//! for it.
//!
//! Beside the core, which knows nothing of it.
//!
//! Invariant: a Want without a trace costs a comparison; with a million of them there are never more than [`MAX_TASKS`] remembered.

use super::messages::{Assignment, Order, SessionId};
use hawker_api::task::TaskId;
use hawker_api::trace::{TARGET, go_on, note, traceparent};
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::{Span, info_span};

/// Tasks whose trace is remembered; beyond it, new ones have none.
const MAX_TASKS: usize = 1024;
/// How long: pulls that take longer have answers by then.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Traced(Mutex<HashMap<TaskId, OfTask>>);

struct OfTask {
    since: Instant,
    /// For whoever works for it.
    traceparent: String,
    /// Wants without an answer so far.
    waiting: HashMap<SessionId, Span>,
}

impl Traced {
    /// A message on its way into the core.
    pub(super) fn incoming(&self, session: SessionId, host: &str, message: &v1::DaemonMessage) {
        let Some(Kind::Want(want)) = &message.kind else { return };
        if want.traceparent.is_empty() {
            return;
        }
        let span = info_span!(
            target: TARGET, "schedule", otel.kind = "server", hawker.task = want.task, hawker.host = host
        );
        go_on(&span, &want.traceparent);
        if let (Some(traceparent), Ok(task)) = (traceparent(&span), want.task.parse::<TaskId>()) {
            self.remember(task, session, traceparent, span, Instant::now());
        }
    }

    fn remember(&self, task: TaskId, session: SessionId, traceparent: String, span: Span, now: Instant) {
        let mut tasks = self.0.lock();
        if tasks.len() >= MAX_TASKS && !tasks.contains_key(&task) {
            tasks.retain(|_, of_task| now.duration_since(of_task.since) < REMEMBERED_FOR);
            if tasks.len() >= MAX_TASKS {
                return;
            }
        }
        let of_task =
            tasks.entry(task).or_insert_with(|| OfTask { since: now, traceparent, waiting: HashMap::new() });
        of_task.since = now;
        of_task.waiting.insert(session, span);
    }

    /// An order on its way out: the trace it belongs to, for a lease. An answer ends the span of who waited for it.
    pub(super) fn outgoing(&self, session: SessionId, order: &Order) -> Option<String> {
        let task = match order {
            Order::Lease { task, .. } => *task,
            Order::Assignment(Assignment { task: Some(task), parents, refused, .. })
                if parents.is_some() || !refused.is_empty() =>
            {
                *task
            }
            _ => return None,
        };
        let mut tasks = self.0.lock();
        let of_task = tasks.get_mut(&task)?;
        if let Some(span) = of_task.waiting.remove(&session) {
            answered(&span, order);
        }
        let traceparent = of_task.traceparent.clone();
        matches!(order, Order::Lease { .. }).then_some(traceparent)
    }

    /// Nobody waits any more on this stream.
    pub(super) fn gone(&self, session: SessionId) {
        let mut tasks = self.0.lock();
        tasks.retain(|_, of_task| {
            of_task.waiting.remove(&session);
            !of_task.waiting.is_empty() || of_task.since.elapsed() < REMEMBERED_FOR
        });
    }
}

fn answered(span: &Span, order: &Order) {
    match order {
        Order::Lease { pieces, .. } => {
            note(
                span,
                "hawker.decision",
                format!("fetch pieces {}..{} from the origin", pieces.start, pieces.end),
            );
        }
        Order::Assignment(assignment) if !assignment.refused.is_empty() => {
            note(span, "hawker.decision", format!("refused: {}", assignment.refused));
        }
        Order::Assignment(assignment) => {
            let parents = assignment.parents.iter().flatten();
            let parents: Vec<_> =
                parents.map(|parent| format!("{} ({})", parent.host.id, parent.reason)).collect();
            note(span, "hawker.decision", format!("fetch from {} parents", parents.len()));
            note(span, "hawker.parents", parents.join("; "));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::messages::{Origin, OriginKind};
    use hawker_api::task::Algorithm;

    fn task(number: u16) -> TaskId {
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&number.to_be_bytes());
        TaskId::from_digest(Algorithm::Sha256, &digest).unwrap()
    }

    fn lease(task: TaskId) -> Order {
        let origin = Origin {
            registry: "r".to_owned(),
            repository: "a".to_owned(),
            kind: OriginKind::Blob,
            version: String::new(),
        };
        Order::Lease { id: 1, task, origin, pieces: 0..4, size: None }
    }

    #[test]
    fn a_lease_to_another_node_goes_on_with_the_trace_of_who_wants_it() {
        let traced = Traced::default();
        traced.remember(task(1), 7, "parent".to_owned(), Span::none(), Instant::now());
        assert_eq!(traced.outgoing(9, &lease(task(1))).as_deref(), Some("parent"));
        assert_eq!(traced.outgoing(9, &lease(task(2))), None);
        let nothing = Order::Assignment(Assignment { task: Some(task(1)), ..Assignment::default() });
        assert_eq!(traced.outgoing(7, &nothing), None);
        assert_eq!(traced.0.lock()[&task(1)].waiting.len(), 1, "an answer without parents is none");
        assert!(traced.outgoing(7, &lease(task(1))).is_some());
        assert!(traced.0.lock()[&task(1)].waiting.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends() {
        let (traced, long_ago) = (Traced::default(), Instant::now());
        let later = long_ago + REMEMBERED_FOR * 2;
        let many = u16::try_from(MAX_TASKS).unwrap();
        for number in 0..=many {
            traced.remember(task(number), 1, String::new(), Span::none(), long_ago);
        }
        assert_eq!(traced.0.lock().len(), MAX_TASKS);
        traced.remember(task(many), 1, String::new(), Span::none(), later);
        assert_eq!(traced.0.lock().len(), 1);
        traced.gone(1);
        assert!(traced.0.lock().values().all(|of_task| of_task.waiting.is_empty()));
    }
}
