//! Parents: who a host fetches pieces from, and the guarantee that everything can be reached.
//!
//! Every host that wants a task has an anchor among its parents: a complete holder, a root (see
//! `Task::roots`), or another waiting host whose chain of anchors ends at one. Roots know each other.
//! Invariant: following parents, every waiting host reaches every piece that anybody holds or fetches,
//! unless it complained about the only one who has it.

use super::core::{Core, Host};
use super::headroom;
use super::limits::Limits;
use super::messages::{Assignment, HostId, Order, Parent};
use super::task::{Task, Waiting};
use hawker_api::task::TaskId;
use rand::Rng;
use rand::seq::IteratorRandom;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Candidates looked at for one choice: enough for a good one, few enough for big clusters.
const SAMPLE: usize = 16;
const REFUSED: &str = "nobody in the cluster can serve or fetch it";

type Hosts = HashMap<HostId, Host>;

impl Core {
    /// Gives every host that needs it (all that have no anchor, and the roots) its parents.
    pub(super) fn assign_all(&mut self, id: &TaskId, now: Instant) {
        let Some(task) = self.tasks.get(id) else { return };
        let orphans = task.wants.iter().filter(|(_, waiting)| waiting.anchor.is_none()).map(|(host, _)| host);
        let mut hosts: BTreeSet<HostId> = orphans.cloned().collect();
        if self.roots_changed.contains(id) {
            hosts.extend(task.roots.iter().cloned());
            self.roots_changed.retain(|changed| changed != id);
        }
        for host in hosts {
            self.assign(&host, id, now);
        }
    }

    /// Chooses the parents of `host` anew, and tells it where they changed.
    pub(super) fn assign(&mut self, host: &HostId, id: &TaskId, now: Instant) {
        let Some(mut task) = self.tasks.remove(id) else { return };
        if task.wants.contains_key(host) {
            let chosen = self.choose(host, &task, now);
            self.hang(host, &mut task, chosen, id, now);
        }
        self.tasks.insert(*id, task);
    }

    fn choose(&mut self, host: &HostId, task: &Task, now: Instant) -> (Option<HostId>, Vec<HostId>) {
        let Self { hosts, limits, rng, .. } = self;
        let usable = |other: &&HostId| *other != host && may_serve(hosts, other, host, now);
        if task.roots.contains(host) {
            // A root is its own anchor; it knows all the others, and a root that has just become complete once.
            let complete = task.complete.iter().filter(|other| !task.roots.contains(*other));
            let others = task.roots.iter().chain(complete).filter(usable);
            let parents = others.take(limits.parents.max(task.roots.len())).cloned().collect();
            return (Some(host.clone()), parents);
        }
        let waiting = task.wants.keys().filter(|other| !task.roots.contains(*other));
        let candidates = task.complete.iter().filter(usable).choose_multiple(rng, SAMPLE).into_iter();
        let candidates = candidates.chain(task.roots.iter().filter(usable));
        let candidates = candidates.chain(waiting.filter(usable).choose_multiple(rng, SAMPLE));
        let candidates: Vec<&HostId> = candidates.collect();
        let uplinks = Uplinks::of(hosts, &candidates, now);
        let rank = |other| (score(hosts, limits, host, other, task, (&uplinks, rng.random())), other);
        let mut ranked: Vec<(Score, &HostId)> = candidates.into_iter().map(rank).collect();
        ranked.sort_unstable();
        let anchors = ranked.iter().map(|(_, other)| *other);
        let Some(anchor) = anchors.clone().find(|other| can_anchor(task, host, other)) else {
            return (None, Vec::new());
        };
        let mut parents = vec![anchor.clone()];
        for other in anchors {
            if parents.len() < limits.parents && !parents.contains(other) {
                parents.push(other.clone());
            }
        }
        (Some(anchor.clone()), parents)
    }

    fn hang(
        &mut self,
        host: &HostId,
        task: &mut Task,
        (anchor, parents): (Option<HostId>, Vec<HostId>),
        id: &TaskId,
        now: Instant,
    ) {
        let Some(waiting) = task.wants.get_mut(host) else { return };
        let old_anchor = std::mem::replace(&mut waiting.anchor, anchor.clone());
        if let Some(state) = old_anchor.and_then(|old| task.wants.get_mut(&old)) {
            state.children = state.children.saturating_sub(1);
        }
        if let Some(state) = anchor.and_then(|anchor| task.wants.get_mut(&anchor)) {
            state.children += 1;
        }
        let Some(waiting) = task.wants.get_mut(host).filter(|waiting| waiting.parents != parents) else {
            return;
        };
        let old = std::mem::replace(&mut waiting.parents, parents.clone());
        for parent in &old {
            if let Some(state) = self.hosts.get_mut(parent) {
                state.uploads = state.uploads.saturating_sub(1);
            }
        }
        for parent in &parents {
            if let Some(state) = self.hosts.get_mut(parent) {
                state.uploads += 1;
            }
        }
        let busy = |parent: &HostId| self.hosts.get(parent).is_some_and(|state| state.uplink.is_busy(now));
        let spare = parents.iter().any(|parent| task.complete.contains(parent) && !busy(parent));
        let describe = |parent| self.describe(host, parent, task, spare && busy(parent));
        let parents = parents.iter().filter_map(describe).collect();
        let order = Assignment { parents: Some(parents), ..told(host, task, id, now) };
        if let Some(session) = self.hosts.get(host).map(|state| state.session) {
            self.command(session, Order::Assignment(order));
        }
    }

    /// Tells those whom nobody can help that it is so, and those again who can be helped after all.
    pub(super) fn refuse(&mut self, id: &TaskId, now: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let unfetched = match task.geometry {
            None => task.complete.is_empty(),
            Some(_) => task.needed().next().is_some(),
        };
        let stuck = task.leases.is_empty() && unfetched;
        let hopeless = |waiting: &Waiting| stuck || (waiting.anchor.is_none() && task.leases.is_empty());
        let changed = task.wants.iter().filter(|(_, waiting)| waiting.refused != hopeless(waiting));
        let changed: Vec<HostId> = changed.map(|(host, _)| host.clone()).collect();
        for host in changed {
            let Some(task) = self.tasks.get_mut(id) else { return };
            let Some(waiting) = task.wants.get_mut(&host) else { continue };
            waiting.refused = !waiting.refused;
            let order = Order::Assignment(told(&host, task, id, now));
            if let Some(session) = self.hosts.get(&host).map(|state| state.session) {
                self.command(session, order);
            }
        }
    }

    fn describe(&self, host: &HostId, parent: &HostId, task: &Task, reserve: bool) -> Option<Parent> {
        let (at, of) = (self.hosts.get(host)?, self.hosts.get(parent)?);
        let what = if task.complete.contains(parent) { "complete" } else { "fetching" };
        let place = match distance(&at.info.idc, &at.info.location, &of.info.idc, &of.info.location) {
            0 => "same location",
            1 => "same data centre",
            _ => "elsewhere in the cluster",
        };
        let kind = if of.info.seed { "seed, " } else { "" };
        let spared = if reserve { ", in reserve: its uplink is busy with other traffic" } else { "" };
        let reason = format!("{kind}{what}, {place}, {} children{spared}", of.uploads);
        Some(Parent { host: of.info.clone(), reason, reserve })
    }
}

/// What every assignment says: the size, and whether the host has to help itself. One that left that out would take it back.
pub(super) fn told(host: &HostId, task: &Task, id: &TaskId, now: Instant) -> Assignment {
    let is_refused = task.wants.get(host).is_some_and(|waiting| waiting.refused);
    let refused = if is_refused { refusal(host, task, now) } else { String::new() };
    let (size, proven) = (task.size(), task.proven);
    Assignment { task: Some(*id), size, parents: None, digests: Vec::new(), proven, refused }
}

fn refusal(host: &HostId, task: &Task, now: Instant) -> String {
    let own = task.bans.get(host).filter(|(until, _)| *until > now);
    match own.or_else(|| task.bans.values().find(|(until, _)| *until > now)) {
        Some((_, why)) => format!("{REFUSED}: {why}"),
        None => REFUSED.to_owned(),
    }
}

/// Whether `other` may be a parent of `host`.
fn may_serve(hosts: &Hosts, other: &HostId, host: &HostId, now: Instant) -> bool {
    let avoids = hosts.get(host).and_then(|state| state.avoids.get(other));
    let shunned = hosts.get(other).is_none_or(|state| state.shunned_until.is_some_and(|until| until > now));
    !shunned && avoids.is_none_or(|until| *until <= now)
}

/// What the candidates' uplinks can give.
struct Uplinks {
    now: Instant,
    /// Of those whose headroom is known, on average: what the others count with.
    neutral: u64,
}

impl Uplinks {
    fn of(hosts: &Hosts, candidates: &[&HostId], now: Instant) -> Self {
        let known = candidates.iter().filter_map(|host| hosts.get(*host)?.uplink.headroom(now));
        let (sum, count) =
            known.fold((0u128, 0u128), |(sum, count), headroom| (sum + u128::from(headroom), count + 1));
        let neutral = sum.checked_div(count).and_then(|mean| u64::try_from(mean).ok()).unwrap_or(1);
        Self { now, neutral }
    }

    fn load(&self, host: &Host) -> u64 {
        headroom::load(host.uploads, host.uplink.headroom(self.now).unwrap_or(self.neutral))
    }
}

fn score(
    hosts: &Hosts,
    limits: &Limits,
    host: &HostId,
    other: &HostId,
    task: &Task,
    (uplinks, random): (&Uplinks, u32),
) -> Score {
    let (Some(of), Some(at)) = (hosts.get(other), hosts.get(host)) else { return Score::default() };
    let children = task.wants.get(other).map_or(0, |waiting| waiting.children);
    Score {
        full: children >= limits.children || of.uploads >= limits.children * limits.parents,
        busy: of.uplink.is_busy(uplinks.now),
        incomplete: !task.complete.contains(other),
        far: distance(&at.info.idc, &at.info.location, &of.info.idc, &of.info.location),
        load: uplinks.load(of),
        random,
    }
}

/// Lower is better, field by field.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    full: bool,
    busy: bool,
    incomplete: bool,
    far: u8,
    load: u64,
    random: u32,
}

/// Whether `other` leads to everything without leading through `host`.
fn can_anchor(task: &Task, host: &HostId, other: &HostId) -> bool {
    let mut at = other;
    // A chain longer than the number of hosts would be a circle.
    for _ in 0..=task.wants.len() {
        if at == host {
            return false;
        }
        if task.complete.contains(at) || task.roots.contains(at) {
            return true;
        }
        match task.wants.get(at).and_then(|waiting| waiting.anchor.as_ref()) {
            Some(next) => at = next,
            None => return false,
        }
    }
    false
}

/// 0: same location and data centre, 1: same data centre, 2: neither.
fn distance(idc: &str, location: &str, other_idc: &str, other_location: &str) -> u8 {
    match (idc.eq_ignore_ascii_case(other_idc), location.eq_ignore_ascii_case(other_location)) {
        (true, true) => 0,
        (true, false) => 1,
        _ => 2,
    }
}
