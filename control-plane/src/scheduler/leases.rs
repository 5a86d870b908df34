//! Origin leases: who fetches which pieces from the origin, so that the cluster gets each byte once.
//!
//! Invariant: leases of a task never overlap, and no piece is leased that somebody holds.

use super::core::{Core, Host};
use super::messages::{Command, HostId, LeaseOutcome, Order};
use super::task::{Lease, Task};
use hawker_api::pieces::MAX_PIECES;
use hawker_api::task::TaskId;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

impl Core {
    /// Hands out what can be handed out for `id`.
    pub(super) fn grant(&mut self, id: &TaskId, now: Instant) {
        let Some(mut task) = self.tasks.remove(id) else { return };
        if !task.wants.is_empty() {
            match task.geometry {
                None => self.grant_first(id, &mut task, now),
                Some(_) => self.grant_rest(id, &mut task, now),
            }
        }
        self.tasks.insert(*id, task);
    }

    /// The size is not known: one host asks for everything, and finds out.
    fn grant_first(&mut self, id: &TaskId, task: &mut Task, now: Instant) {
        if task.leases.is_empty()
            && task.complete.is_empty()
            && let Some(host) = self.choose_fetcher(id, task, now)
        {
            self.lease(id, task, &host, 0..MAX_PIECES, now);
        }
    }

    fn grant_rest(&mut self, id: &TaskId, task: &mut Task, now: Instant) {
        if !task.complete.is_empty() {
            return;
        }
        loop {
            let Some(first) = task.needed().next() else { return };
            let Some(host) = self.fetcher_with_room(id, task, now) else { return };
            let end = task.count().min(first + self.limits.lease_pieces);
            let end = (first..end).take_while(|p| !task.is_held(*p) && !task.is_leased(*p)).last();
            self.lease(id, task, &host, first..end.unwrap_or(first) + 1, now);
        }
    }

    fn lease(&mut self, id: &TaskId, task: &mut Task, host: &HostId, pieces: Range<u32>, now: Instant) {
        let (Some(origin), Some(state)) = (task.origin.clone(), self.hosts.get_mut(host)) else { return };
        self.next_lease += 1;
        let lease =
            Lease { host: host.clone(), pieces: pieces.clone(), last_sign: now, got: 0, adopted: false };
        task.leases.insert(self.next_lease, lease);
        state.tasks.insert(*id);
        if !task.roots.contains(host) {
            task.roots.push(host.clone());
            self.roots_changed.push(*id);
        }
        let (session, size) = (state.session, task.size());
        let order = Order::Lease { id: self.next_lease, task: *id, origin, pieces, size };
        self.command(session, order);
    }

    /// A fetcher whose work is nearly done, or a new one while there may be more.
    fn fetcher_with_room(&self, id: &TaskId, task: &Task, now: Instant) -> Option<HostId> {
        let mut left: BTreeMap<&HostId, (usize, usize)> = BTreeMap::new();
        for lease in task.leases.values() {
            let entry = left.entry(&lease.host).or_default();
            entry.0 += 1;
            entry.1 += lease.pieces.clone().filter(|piece| !task.is_held(*piece)).count();
        }
        let has_room = |host: &&HostId| {
            let (leases, pieces) = left.get(host).copied().unwrap_or_default();
            leases < self.limits.leases_per_host && pieces <= self.limits.lease_ahead
        };
        let may = |host: &&HostId| self.may_fetch(task, host, now);
        let fetchers = task.roots.iter().filter(may);
        let active = fetchers.clone().count();
        if let Some(host) = fetchers.clone().find(has_room) {
            return Some(host.clone());
        }
        let seed = fetchers.clone().any(|host| self.hosts.get(host).is_some_and(|state| state.info.seed));
        // With a seed at work it is alone; without, small blobs are not cut into crumbs.
        let most = if seed { 1 } else { self.limits.fetchers };
        if active < most { self.choose_fetcher(id, task, now) } else { None }
    }

    /// A new fetcher: a seed if there is one, else somebody who wants the task. The choice is the same
    /// whoever asks first (rendezvous hashing), and spreads tasks over hosts.
    fn choose_fetcher(&self, id: &TaskId, task: &Task, now: Instant) -> Option<HostId> {
        let free = |host: &&HostId| !task.roots.contains(*host) || task.leases.is_empty();
        let may = |host: &&HostId| self.may_fetch(task, host, now);
        let best = |hosts: &mut dyn Iterator<Item = &HostId>| {
            hosts.max_by_key(|host| (rendezvous(id, host), (*host).clone())).cloned()
        };
        let seed = best(&mut self.seeds.iter().filter(may).filter(free));
        seed.or_else(|| {
            let wanting = task.wants.iter().filter(|(_, waiting)| waiting.can_fetch).map(|(host, _)| host);
            best(&mut wanting.filter(may).filter(free))
        })
    }

    fn may_fetch(&self, task: &Task, host: &HostId, now: Instant) -> bool {
        let banned = task.bans.get(host).is_some_and(|(until, _)| *until > now);
        let wants = self.hosts.get(host).is_some_and(|state| {
            state.info.seed || task.wants.get(host).is_some_and(|waiting| waiting.can_fetch)
        });
        !banned
            && wants
            && !task.complete.contains(host)
            && self.hosts.get(host).is_some_and(|s| !s.is_liar(now))
    }

    pub(super) fn lease_ended(
        &mut self,
        host: &HostId,
        id: &TaskId,
        lease: u64,
        outcome: LeaseOutcome,
        now: Instant,
    ) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(ended) = task.leases.get(&lease).filter(|known| known.host == *host) else { return };
        let unmet = ended.pieces.clone().any(|piece| !task.is_held(piece)) || task.geometry.is_none();
        let why = match outcome {
            LeaseOutcome::Failed(why) => Some(why),
            // Done without doing anything: it would be handed the same pieces for ever.
            LeaseOutcome::Done if ended.got == 0 && unmet => {
                Some("the lease ended without a piece".to_owned())
            }
            LeaseOutcome::Done => None,
        };
        task.leases.remove(&lease);
        if let Some(why) = why {
            task.bans.insert(host.clone(), (now + self.limits.lease_ban, why));
            self.check_roots(id);
        }
        self.settle(id, now);
    }

    /// Notes signs of life of the leases of `host`.
    pub(super) fn lease_signs(task: &mut Task, host: &HostId, alive: &[u64], pieces: &[u32], now: Instant) {
        for (id, lease) in task.leases.iter_mut().filter(|(_, lease)| lease.host == *host) {
            let got = pieces.iter().filter(|piece| lease.pieces.contains(piece)).count();
            lease.got += got;
            if got > 0 || alive.contains(id) {
                lease.last_sign = now;
            }
        }
        let copies = &task.copies;
        let held = |piece: u32| copies.get(piece as usize).is_some_and(|copies| *copies > 0);
        task.leases.retain(|_, lease| !lease.adopted || lease.pieces.clone().any(|piece| !held(piece)));
    }

    /// The origin sends more than was asked for: so much the better.
    pub(super) fn extend(task: &mut Task, host: &HostId, id: u64, pieces: &Range<u32>) {
        let mut wider = pieces.start..pieces.end.min(task.count());
        let others = task.leases.iter().filter(|(other, _)| **other != id);
        let taken: Vec<Range<u32>> = others.map(|(_, lease)| lease.pieces.clone()).collect();
        let Some(lease) = task.leases.get_mut(&id).filter(|lease| lease.host == *host) else { return };
        // Grows up to its neighbours, never over them.
        for other in taken {
            if other.end <= lease.pieces.start {
                wider.start = wider.start.max(other.end);
            } else if other.start >= lease.pieces.end {
                wider.end = wider.end.min(other.start);
            }
        }
        lease.pieces = wider.start.min(lease.pieces.start)..wider.end.max(lease.pieces.end);
    }

    /// Takes leases from hosts that show no sign of life.
    pub(super) fn revoke_stalled(&mut self, id: &TaskId, now: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let stall = self.limits.lease_stall;
        let stalled: Vec<(u64, HostId)> = task
            .leases
            .iter()
            .filter(|(_, lease)| now.duration_since(lease.last_sign) > stall)
            .map(|(id, lease)| (*id, lease.host.clone()))
            .collect();
        for (lease, host) in stalled {
            task.leases.remove(&lease);
            let why = "the lease showed no sign of life".to_owned();
            task.bans.insert(host.clone(), (now + self.limits.lease_ban, why));
            if let Some(session) = self.hosts.get(&host).map(|state| state.session) {
                let order = Order::LeaseRevoked { id: lease, reason: "no sign of life" };
                self.out.push(Command { session, order });
            }
            self.revoked.push(*id);
        }
    }

    /// Somebody holds the whole: nobody needs the origin any more.
    pub(super) fn revoke_needless(&mut self, id: &TaskId) {
        let Some(task) = self.tasks.get_mut(id).filter(|task| !task.complete.is_empty()) else { return };
        for (lease, held) in std::mem::take(&mut task.leases) {
            if let Some(session) = self.hosts.get(&held.host).map(|state| state.session) {
                let order = Order::LeaseRevoked { id: lease, reason: "a peer holds the whole" };
                self.out.push(Command { session, order });
            }
        }
    }

    /// Adopts what a daemon is still fetching since before its stream was renewed, as far as it is still free.
    pub(super) fn adopt(&mut self, host: &HostId, id: &TaskId, fetching: Vec<Range<u32>>, now: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.geometry.is_none() {
            return;
        }
        for range in fetching {
            let pieces = range.start..range.end.min(task.count());
            let free = pieces.clone().all(|piece| !task.is_leased(piece));
            let missing = pieces.clone().any(|piece| !task.is_held(piece));
            if free && missing && !pieces.is_empty() {
                self.next_lease += 1;
                let lease = Lease { host: host.clone(), pieces, last_sign: now, got: 0, adopted: true };
                task.leases.insert(self.next_lease, lease);
                if !task.roots.contains(host) {
                    task.roots.push(host.clone());
                    self.roots_changed.push(*id);
                }
            }
        }
    }
}

impl Host {
    pub(super) fn is_liar(&self, now: Instant) -> bool {
        self.liar_until.is_some_and(|until| until > now)
    }
}

/// Highest-random-weight choice (Thaler & Ravishankar 1998): stable when hosts come and go.
fn rendezvous(task: &TaskId, host: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in task.digest().iter().chain(host.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // FNV-1a's high bits mix badly for short inputs; a finaliser (Stafford's mix13) spreads them.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
