//! The scheduler as a function: events and the time in, commands out. No sockets, no clock.
//!
//! State is soft: all of it comes from the daemons and comes again after a restart.
//!
//! Invariant: after every event the properties in `README.md` hold.

use super::busy::Busy;
use super::headroom::Uplink;
use super::images::Images;
use super::limits::Limits;
use super::lists;
use super::messages::{
    Assignment, Command, Event, HostId, HostInfo, Message, Order, Progress, SessionId, Want,
};
use super::parents::told;
use super::silence::Signs;
use super::task::{Task, Waiting};
use hawker_api::task::TaskId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

pub(crate) struct Core {
    pub(super) limits: Limits,
    pub(super) hosts: HashMap<HostId, Host>,
    pub(super) tasks: HashMap<TaskId, Task>,
    pub(super) seeds: BTreeSet<HostId>,
    pub(super) sessions: HashMap<SessionId, HostId>,
    /// Tasks somebody waits for: the ones that time can change.
    pub(super) awaited: BTreeSet<TaskId>,
    /// When time was last looked at.
    pub(super) looked: Option<Instant>,
    pub(super) images: Images,
    pub(super) roots_changed: Vec<TaskId>,
    pub(super) revoked: Vec<TaskId>,
    pub(super) next_lease: u64,
    pub(super) rng: StdRng,
    pub(super) out: Vec<Command>,
    pub(super) busy: Busy,
}

/// A connected daemon.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) info: HostInfo,
    pub(super) session: SessionId,
    /// Tasks it holds, wants or fetches.
    pub(super) tasks: BTreeSet<TaskId>,
    /// Downloads it is a parent of.
    pub(super) uploads: usize,
    pub(super) uplink: Uplink,
    pub(super) signs: Signs,
    /// Parents it complained about.
    pub(super) avoids: BTreeMap<HostId, Instant>,
    complaints: BTreeMap<HostId, Instant>,
    pub(super) shunned_until: Option<Instant>,
    pub(super) liar_until: Option<Instant>,
}

/// What there is, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub hosts: usize,
    pub tasks: usize,
    pub leases: usize,
}

impl Core {
    /// `seed` decides every random choice, and where lease ids begin: those of an earlier life must
    /// not come again.
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            hosts: HashMap::new(),
            tasks: HashMap::new(),
            seeds: BTreeSet::new(),
            sessions: HashMap::new(),
            awaited: BTreeSet::new(),
            looked: None,
            images: Images::default(),
            roots_changed: Vec::new(),
            revoked: Vec::new(),
            next_lease: seed >> 1,
            rng: StdRng::seed_from_u64(seed),
            out: Vec::new(),
            busy: Busy::default(),
        }
    }

    pub(crate) fn handle(&mut self, now: Instant, event: Event) -> Vec<Command> {
        match event {
            Event::Connected { session, host } => self.connected(session, host, now),
            Event::Disconnected { session } => {
                if let Some(host) = self.sessions.remove(&session) {
                    self.gone(&host, now);
                }
            }
            Event::Message { session, message } => {
                if let Some(host) = self.sessions.get(&session).cloned() {
                    self.message(&host, message, now);
                }
            }
        }
        std::mem::take(&mut self.out)
    }

    /// What time alone changes: stalled leases, ended bans, unanswered questions; and the news that
    /// was gathered since the last call. To be called every few tens of milliseconds.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Command> {
        self.end_silent(now);
        let awaited: Vec<TaskId> = self.awaited.iter().copied().collect();
        for id in awaited {
            self.revoke_stalled(&id, now);
            self.tell_news(&id, now);
            self.ask_list(&id, now);
            let ended = self.tasks.get_mut(&id).is_some_and(|task| {
                let before = task.bans.len();
                task.bans.retain(|_, (until, _)| *until > now);
                before > task.bans.len()
            });
            if ended || self.revoked.contains(&id) {
                self.revoked.retain(|revoked| *revoked != id);
                self.check_roots(&id);
                self.settle(&id, now);
            }
        }
        std::mem::take(&mut self.out)
    }

    pub(crate) fn stats(&self) -> Stats {
        let leases =
            self.awaited.iter().filter_map(|id| self.tasks.get(id)).map(|task| task.leases.len()).sum();
        Stats { hosts: self.hosts.len(), tasks: self.tasks.len(), leases }
    }

    /// The stream of a connected daemon.
    pub(crate) fn session_of(&self, host: &str) -> Option<SessionId> {
        self.hosts.get(host).map(|host| host.session)
    }

    pub(super) fn command(&mut self, session: SessionId, order: Order) {
        self.out.push(Command { session, order });
    }

    fn connected(&mut self, session: SessionId, info: HostInfo, now: Instant) {
        if let Some(old) = self.hosts.get(&info.id).map(|host| host.session) {
            self.sessions.remove(&old);
            self.gone(&info.id.clone(), now);
            self.command(old, Order::Replaced);
        }
        if self.hosts.len() >= self.limits.hosts {
            return self.command(session, Order::Replaced);
        }
        self.sessions.insert(session, info.id.clone());
        if info.seed {
            self.seeds.insert(info.id.clone());
        }
        let host = Host {
            session,
            tasks: BTreeSet::new(),
            uploads: 0,
            uplink: Uplink::default(),
            signs: Signs::new(now),
            avoids: BTreeMap::new(),
            complaints: BTreeMap::new(),
            shunned_until: None,
            liar_until: None,
            info,
        };
        self.hosts.insert(host.info.id.clone(), host);
    }

    pub(super) fn gone(&mut self, id: &HostId, now: Instant) {
        let Some(host) = self.hosts.remove(id) else { return };
        self.seeds.remove(id);
        for task in host.tasks {
            self.leave(id, &task, true, now);
        }
    }

    fn message(&mut self, host: &HostId, message: Message, now: Instant) {
        if let Some(state) = self.hosts.get_mut(host) {
            state.signs.heard(matches!(message, Message::Beat), now);
        }
        match message {
            Message::Inventory(held) => {
                for (id, size) in held {
                    self.hold(host, &id, size, now);
                }
            }
            Message::Want(want) => self.want(host, want, now),
            Message::Progress(tasks) => {
                for progress in tasks {
                    self.progress(host, &progress, now);
                }
            }
            Message::Finished { task, size } => {
                // First the one, so that its children keep it as their parent.
                self.hold(host, &task, size, now);
                self.leave(host, &task, false, now);
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.proven = task.knows_all_digests();
                }
            }
            Message::Abandoned { task } => self.leave(host, &task, false, now),
            Message::LeaseEnded { task, id, outcome } => self.lease_ended(host, &task, id, outcome, now),
            Message::PieceList(list) => self.piece_list(host, &list, now),
            Message::BadPeer { task, host: bad } => self.bad_peer(host, &task, &bad, now),
            Message::Mismatch { task, attesters } => self.mismatch(host, &task, &attesters, now),
            Message::Dropped(tasks) => {
                for task in tasks {
                    self.leave(host, &task, true, now);
                }
            }
            Message::Beat => {}
            Message::Image(image) => self.image(host, image, now),
            // Heard, and nothing more: it has a say in the next choice.
            Message::Report(report) => {
                if let Some(state) = self.hosts.get_mut(host).filter(|_| self.limits.use_reports) {
                    state.uplink.report(report.as_ref(), now);
                }
            }
        }
    }

    fn task(&mut self, id: &TaskId) -> Option<&mut Task> {
        if self.tasks.len() >= self.limits.tasks && !self.tasks.contains_key(id) {
            return None;
        }
        Some(self.tasks.entry(*id).or_default())
    }

    fn hold(&mut self, host: &HostId, id: &TaskId, size: u64, now: Instant) {
        self.busy.add(id, 0, 0);
        let Some(task) = self.task(id) else { return };
        task.learn_size(size);
        if task.size() == Some(size) {
            task.complete.insert(host.clone());
            // It can tell every entry of the piece list: no need to wait for another's answer.
            task.asked = None;
        }
        let awaited = !task.wants.is_empty();
        if let Some(state) = self.hosts.get_mut(host) {
            state.tasks.insert(*id);
        }
        if awaited {
            self.revoke_needless(id);
            // Roots are told of every complete holder they may need.
            self.roots_changed.push(*id);
            self.settle(id, now);
        }
    }

    fn want(&mut self, host: &HostId, want: Want, now: Instant) {
        let id = want.task;
        let Some(task) = self.task(&id) else { return };
        task.origin.get_or_insert(want.origin);
        if let Some(size) = want.size {
            task.learn_size(size);
        }
        task.complete.remove(host);
        task.drop_pieces(host);
        if want.size == task.size() {
            for piece in want.held.iter() {
                task.add_piece(host, piece);
            }
        }
        let waiting = task.wants.entry(host.clone()).or_insert_with(Waiting::default);
        waiting.can_fetch = want.can_fetch;
        let told = Assignment { digests: task.all_runs(), ..told(host, task, &id, now) };
        if let Some(state) = self.hosts.get_mut(host) {
            state.tasks.insert(id);
            let session = state.session;
            if told.size.is_some() || !told.digests.is_empty() || !told.refused.is_empty() {
                self.command(session, Order::Assignment(told));
            }
        }
        self.awaited.insert(id);
        self.adopt(host, &id, want.fetching, now);
        self.check_roots(&id);
        self.settle(&id, now);
        self.ask_list(&id, now);
    }

    fn progress(&mut self, host: &HostId, progress: &Progress, now: Instant) {
        let Some(task) = self.tasks.get_mut(&progress.task) else { return };
        if let Some(size) = progress.size {
            task.learn_size(size);
        }
        if progress.size.is_some() && progress.size != task.size() {
            return; // Another blob under the same name: nothing it says of pieces means anything here.
        }
        for (id, pieces) in &progress.extended {
            Self::extend(task, host, *id, pieces);
        }
        let origin =
            progress.attested.iter().flat_map(|run| (run.first..).zip(&run.digests).map(|(piece, _)| piece));
        let (moved, origin) = (task.bytes(progress.pieces.iter().copied()), task.bytes(origin));
        self.busy.add(&progress.task, moved, origin.min(moved));
        if task.wants.contains_key(host) || task.roots.contains(host) {
            for piece in &progress.pieces {
                task.add_piece(host, *piece);
            }
        }
        for run in &progress.attested {
            lists::attest(task, host, run);
        }
        Self::lease_signs(task, host, &progress.live_leases, &progress.pieces, now);
        let waiting = task.wants.values().any(|waiting| waiting.anchor.is_none());
        if waiting || !task.leases.is_empty() || task.needed().next().is_some() {
            self.settle(&progress.task, now);
        }
    }

    fn bad_peer(&mut self, reporter: &HostId, id: &TaskId, bad: &HostId, now: Instant) {
        let until = now + self.limits.shun;
        if let Some(state) = self.hosts.get_mut(reporter) {
            state.avoids.insert(bad.clone(), until);
        }
        let shunned = self.hosts.get_mut(bad).is_some_and(|state| {
            state.complaints.retain(|_, until| *until > now);
            state.complaints.insert(reporter.clone(), until);
            state.complaints.len() >= 2
        });
        if shunned {
            tracing::warn!(host = %bad, "shunned: two peers complained");
            let tasks = self.hosts.get_mut(bad).map(|state| {
                state.shunned_until = Some(until);
                state.tasks.clone()
            });
            for task in tasks.into_iter().flatten() {
                self.disown(bad, &task, now);
            }
        } else {
            self.assign(reporter, id, now);
            // Where the bad one was the only one that has it, the reporter has to help itself.
            self.refuse(id, now);
        }
    }

    /// `host` no longer wants `id` (and no longer has it, with `drops`).
    fn leave(&mut self, host: &HostId, id: &TaskId, drops: bool, now: Instant) {
        self.busy.add(id, 0, 0);
        let Some(task) = self.tasks.get_mut(id) else { return };
        if drops {
            task.complete.remove(host);
        }
        task.drop_pieces(host);
        task.bans.remove(host);
        task.roots.retain(|root| root != host);
        task.leases.retain(|_, lease| lease.host != *host);
        let mut parents = Vec::new();
        if let Some(waiting) = task.wants.remove(host) {
            if let Some(anchor) = waiting.anchor.and_then(|anchor| task.wants.get_mut(&anchor)) {
                anchor.children = anchor.children.saturating_sub(1);
            }
            parents = waiting.parents;
        }
        // Who stays as a holder stays a parent; children of who goes look for another one.
        if !task.complete.contains(host) {
            for waiting in task.wants.values_mut().filter(|waiting| waiting.parents.contains(host)) {
                waiting.anchor = None;
            }
        }
        let (forgotten, unwanted) = (task.is_forgotten(), task.wants.is_empty());
        for parent in parents {
            if let Some(state) = self.hosts.get_mut(&parent) {
                state.uploads = state.uploads.saturating_sub(1);
            }
        }
        if unwanted {
            self.awaited.remove(id);
        }
        if forgotten {
            self.tasks.remove(id);
        } else {
            self.check_roots(id);
            self.settle(id, now);
        }
    }

    /// Nobody is to fetch `id` from `host` any more; it may go on for itself.
    fn disown(&mut self, host: &HostId, id: &TaskId, now: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.complete.remove(host);
        task.drop_pieces(host);
        task.roots.retain(|root| root != host);
        task.leases.retain(|_, lease| lease.host != *host);
        for waiting in task.wants.values_mut().filter(|waiting| waiting.parents.contains(host)) {
            waiting.anchor = None;
        }
        self.check_roots(id);
        self.settle(id, now);
    }

    /// Makes sure that every piece somebody holds is held by a root or a complete holder.
    pub(super) fn check_roots(&mut self, id: &TaskId) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let fetches = |task: &Task, host: &HostId| task.leases.values().any(|lease| lease.host == *host);
        let before = task.roots.clone();
        let useful: Vec<HostId> = before
            .iter()
            .filter(|root| {
                fetches(task, root) || task.partial.get(*root).is_some_and(|held| !held.is_empty())
            })
            .cloned()
            .collect();
        task.roots = useful;
        for piece in 0..task.count() {
            let copies = task.copies.get(piece as usize).copied().unwrap_or(0);
            if copies == 0 || !task.complete.is_empty() {
                continue;
            }
            let holds = |host: &HostId| task.partial.get(host).is_some_and(|held| held.contains(piece));
            if !task.roots.iter().any(holds) {
                let holders = task.partial.iter().filter(|(_, held)| held.contains(piece));
                let most = holders.max_by_key(|(host, held)| (held.len(), (*host).clone()));
                task.roots.extend(most.map(|(host, _)| host.clone()));
            }
        }
        if task.roots != before {
            // Whoever was one needs an anchor now.
            for host in before.iter().filter(|host| !task.roots.contains(host)) {
                if let Some(waiting) = task.wants.get_mut(host) {
                    waiting.anchor = None;
                }
            }
            self.roots_changed.push(*id);
        }
    }

    /// Leases first, because they make roots; then parents; then who has to help itself.
    pub(super) fn settle(&mut self, id: &TaskId, now: Instant) {
        self.grant(id, now);
        self.assign_all(id, now);
        self.refuse(id, now);
    }
}

#[cfg(test)]
mod tests;
