//! Hosts that stand still: a process that is stopped, or a machine that is gone, keeps its connection for a while, and what
//! it fetches or alone holds would be waited for.
//!
//! A daemon at work says so each second. One that has done so and falls silent counts as gone: its leases and pieces go
//! to others, from the first that is missing. When it wakes it finds its stream ended, and tells anew what it has.
//!
//! Invariant: nobody is judged by a time in which this scheduler did not listen, or without having promised signs of life.

use super::core::Core;
use super::messages::{HostId, Order};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How often it is looked; longer than that without looking, and it was the scheduler that stood still.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const ASLEEP_AFTER: Duration = Duration::from_secs(1);

/// When a host was last heard.
#[derive(Debug)]
pub(super) struct Signs {
    last: Instant,
    /// It gives them, while it has work.
    promised: bool,
}

impl Signs {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, promised: false }
    }

    pub(super) fn heard(&mut self, beat: bool, now: Instant) {
        self.last = now;
        self.promised |= beat;
    }
}

impl Core {
    /// Ends the sessions of hosts with work that give no sign of life.
    pub(super) fn end_silent(&mut self, now: Instant) {
        let since = self.looked.map(|looked| now.duration_since(looked));
        if since.is_some_and(|since| since < LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        if since.is_none_or(|since| since > ASLEEP_AFTER) {
            for host in self.hosts.values_mut() {
                host.signs.last = now;
            }
            return;
        }
        let limit = self.limits.silence;
        let mut silent: BTreeSet<HostId> = BTreeSet::new();
        for task in self.awaited.iter().filter_map(|id| self.tasks.get(id)) {
            let at_work = task.wants.keys().chain(task.leases.values().map(|lease| &lease.host));
            let is_silent = |host: &&HostId| {
                let signs = self.hosts.get(*host).map(|host| &host.signs);
                signs.is_some_and(|signs| signs.promised && now.duration_since(signs.last) > limit)
            };
            silent.extend(at_work.filter(is_silent).cloned());
        }
        for host in silent {
            let Some(session) = self.hosts.get(&host).map(|state| state.session) else { continue };
            tracing::warn!(%host, "no sign of life while it had work: it counts as gone");
            self.sessions.remove(&session);
            self.gone(&host, now);
            self.command(session, Order::Silent);
        }
    }
}
