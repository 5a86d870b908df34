//! The piece list of a task: taken in, told, asked for, disproven.
//!
//! Invariant: whoever wants a task is told every entry of its list, once it has one.

use super::core::Core;
use super::messages::{Assignment, Command, HostId, Order, PieceList, Run};
use super::parents::told;
use super::task::Task;
use hawker_api::pieces::PieceSet;
use hawker_api::task::TaskId;
use std::collections::BTreeSet;
use std::time::Instant;

impl Core {
    pub(super) fn piece_list(&mut self, host: &HostId, list: &PieceList, now: Instant) {
        let Some(task) = self.tasks.get_mut(&list.task) else { return };
        task.learn_size(list.size);
        if task.size() != Some(list.size) {
            return;
        }
        for run in &list.runs {
            for (piece, digest) in (run.first..).zip(&run.digests) {
                // Who relays an entry vouches for it: nobody can be blamed through somebody else's list.
                task.attest(piece, *digest, host);
            }
        }
        task.proven |= list.proven && task.complete.contains(host) && task.knows_all_digests();
        self.settle(&list.task, now);
    }

    /// All pieces matched the list and the whole did not: the list is wrong.
    pub(super) fn mismatch(&mut self, reporter: &HostId, id: &TaskId, attesters: &[HostId], now: Instant) {
        let until = now + self.limits.shun;
        for liar in attesters {
            tracing::warn!(host = %liar, task = %id, "attested pieces that the origin contradicts");
            if let Some(state) = self.hosts.get_mut(liar) {
                (state.liar_until, state.shunned_until) = (Some(until), Some(until));
            }
        }
        let Some(task) = self.tasks.get_mut(id) else { return };
        let mut told: BTreeSet<HostId> = task.wants.keys().chain(task.partial.keys()).cloned().collect();
        told.remove(reporter);
        task.reset_list();
        task.complete.retain(|host| !attesters.contains(host));
        let leases = std::mem::take(&mut task.leases);
        for waiting in task.wants.values_mut() {
            (waiting.anchor, waiting.children) = (None, 0);
        }
        for (lease, held) in leases {
            if let Some(session) = self.hosts.get(&held.host).map(|state| state.session) {
                self.command(
                    session,
                    Order::LeaseRevoked { id: lease, reason: "the piece list was disproven" },
                );
            }
        }
        for host in told {
            if let Some(session) = self.hosts.get(&host).map(|state| state.session) {
                let reason = "a peer matched every piece and not the whole";
                self.command(session, Order::ListReset { task: *id, reason });
            }
        }
        self.settle(id, now);
    }

    /// Tells those who wait what is new of the size and the piece list.
    pub(super) fn tell_news(&mut self, id: &TaskId, now: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.news.is_empty() && !task.size_is_news {
            return;
        }
        let mut news = std::mem::take(&mut task.news);
        task.size_is_news = false;
        news.sort_unstable();
        let runs = task.runs(news.into_iter());
        for host in task.wants.keys() {
            if let Some(session) = self.hosts.get(host).map(|state| state.session) {
                let order =
                    Order::Assignment(Assignment { digests: runs.clone(), ..told(host, task, id, now) });
                self.out.push(Command { session, order });
            }
        }
    }

    /// Asks a holder for the piece list where it is missing (after a restart of this scheduler).
    pub(super) fn ask_list(&mut self, id: &TaskId, now: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let unknown: Vec<u32> = (0..task.count()).filter(|piece| !task.knows_digest(*piece)).collect();
        let asked = task.asked.as_ref().filter(|(_, at)| now.duration_since(*at) < self.limits.list_answer);
        if unknown.is_empty() || asked.is_some() {
            return;
        }
        // Only who holds a piece without an entry has something to tell.
        let can_tell = |held: &PieceSet| unknown.iter().any(|piece| held.contains(*piece));
        let partly = task.partial.iter().filter(|(_, held)| can_tell(held)).map(|(host, _)| host);
        let mut holders: Vec<&HostId> = task.complete.iter().chain(partly).collect();
        holders.sort_unstable();
        let last = task.asked.as_ref().map(|(host, _)| host);
        // In turns, so that one that never answers does not block the task.
        let next = holders.iter().find(|host| last.is_none_or(|last| **host > last)).or(holders.first());
        let Some(next) = next.map(|host| (*host).clone()) else { return };
        task.asked = Some((next.clone(), now));
        if let Some(session) = self.hosts.get(&next).map(|host| host.session) {
            self.command(session, Order::AskPieceList { task: *id });
        }
    }
}

/// Takes what `host` attests of pieces that no other host was told to fetch.
pub(super) fn attest(task: &mut Task, host: &HostId, run: &Run) {
    for (piece, digest) in (run.first..).zip(&run.digests) {
        let anothers = task.leases.values().any(|lease| lease.host != *host && lease.pieces.contains(&piece));
        if !anothers {
            task.attest(piece, *digest, host);
        }
    }
}
