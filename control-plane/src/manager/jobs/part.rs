//! A job in one cluster, as a function: what nodes say, who is there and the time go in; orders come out.
//!
//! First one node (a seed where there is one) finds out what is meant; then the nodes in scope are told to hold it, a bounded
//! number at a time. Orders are repeated until they are answered, because schedulers and nodes forget.
//!
//! Invariant: a node is counted once, and what it came to does not change any more.

use super::orders::{FromNode, Order, Phase, Progress, Resolved, Said, Target, TaskSize};
use super::spec::{Preheat, Scope, What};
use super::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Nodes at work at once: enough for all of a cluster's links, and no storm of reports where there are 10,000.
pub(super) const MAX_AT_ONCE: usize = 200;
/// Without a word for this long, a node is told again; after the longer time it is given up.
const REPEAT_AFTER: Duration = Duration::from_secs(8);
const SILENT_LIMIT: Duration = Duration::from_secs(60);
/// A node that is asked what something is has this long; then another one is asked, up to this many.
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);
const MAX_RESOLVERS: usize = 3;
/// How long a cluster may have no node in scope: after a restart of the manager they come back one by one.
const NOBODY_LIMIT: Duration = Duration::from_secs(15);

/// A node as the directory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) host_id: String,
    pub(crate) hostname: String,
    pub(crate) seed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) hostname: String,
    pub(crate) state: State,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_total: u64,
    pub(crate) error: String,
}

/// What is known of a part when it is begun or taken over.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) target: Option<Target>,
    pub(crate) nodes: BTreeMap<String, Node>,
}

#[derive(Debug)]
pub(crate) struct Part {
    spec: Preheat,
    /// What people call the cluster.
    cluster: String,
    nodes: BTreeMap<String, Node>,
    target: Option<Target>,
    tasks: Vec<TaskSize>,
    /// Of those at work: when they were last heard and last told.
    at_work: BTreeMap<String, (Instant, Instant)>,
    /// Who is asked what it is: since when, and when last.
    asked: Option<(Live, Instant, Instant)>,
    asked_before: BTreeSet<String>,
    started: Instant,
    outcome: Option<Outcome>,
    changed: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) state: State,
    pub(crate) error: String,
}

impl Part {
    pub(crate) fn new(spec: Preheat, cluster: String, known: Known, now: Instant) -> Self {
        let Known { target, mut nodes } = known;
        // Those at work before a restart are told again: they go on, or say how they ended.
        for node in nodes.values_mut().filter(|node| node.state == State::Running) {
            node.state = State::Pending;
        }
        Self {
            spec,
            cluster,
            nodes,
            target,
            tasks: Vec::new(),
            at_work: BTreeMap::new(),
            asked: None,
            asked_before: BTreeSet::new(),
            started: now,
            outcome: None,
            changed: BTreeSet::new(),
        }
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// What is meant, and of what it consists, once known.
    pub(crate) fn found(&self) -> Option<(&Target, &[TaskSize])> {
        Some((self.target.as_ref()?, &self.tasks))
    }

    /// Nodes that changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<(String, Node)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .filter_map(|id| self.nodes.get(&id).map(|node| (id.clone(), node.clone())))
            .collect()
    }

    /// What is to be sent now. `live` are the cluster's nodes.
    pub(crate) fn step(&mut self, live: &[Live], now: Instant) -> Vec<(String, Order)> {
        if self.outcome.is_some() {
            return Vec::new();
        }
        match self.target.clone() {
            None => self.resolve(live, now),
            Some(target) => {
                if self.nodes.is_empty() && !self.choose(live, now) {
                    return Vec::new();
                }
                let orders = self.hold(&target, now);
                self.conclude();
                orders
            }
        }
    }

    pub(crate) fn heard(&mut self, report: FromNode, now: Instant) {
        if self.outcome.is_some() {
            return;
        }
        match report.said {
            Said::Resolved(found) => self.resolved(&report.host_id, found),
            Said::Hold(progress) => self.progressed(&report.host_id, progress, now),
        }
    }

    /// Ends it; who is at work is told to leave it.
    pub(crate) fn cancel(&mut self) -> Vec<(String, Order)> {
        let at_work = std::mem::take(&mut self.at_work);
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| !node.state.has_ended()) {
            node.state = State::Cancelled;
            self.changed.insert(id.clone());
        }
        self.end(State::Cancelled, String::new());
        at_work.into_keys().map(|id| (id, Order::Stop)).collect()
    }

    /// Ends it badly.
    pub(crate) fn fail(&mut self, error: String) {
        self.end(State::Failed, error);
    }

    fn resolve(&mut self, live: &[Live], now: Instant) -> Vec<(String, Order)> {
        let order =
            || Order::Resolve { what: self.spec.what.clone(), platforms: self.spec.platforms.clone() };
        if let Some((node, since, told)) = &mut self.asked {
            if now.duration_since(*since) < RESOLVE_LIMIT {
                if now.duration_since(*told) < REPEAT_AFTER {
                    return Vec::new();
                }
                *told = now;
                return vec![(node.host_id.clone(), order())];
            }
            self.asked_before.insert(node.hostname.clone());
            self.asked = None;
        }
        let may = |node: &&Live| !self.asked_before.contains(&node.hostname);
        let best =
            live.iter().filter(may).max_by_key(|node| (node.seed, spread(&self.cluster, &node.host_id)));
        match best {
            Some(node) if self.asked_before.len() < MAX_RESOLVERS => {
                let orders = vec![(node.host_id.clone(), order())];
                self.asked = Some((node.clone(), now, now));
                orders
            }
            _ if self.asked_before.is_empty() => {
                if now.duration_since(self.started) > NOBODY_LIMIT {
                    let error = format!("{} has no live node that could ask what it is", self.cluster);
                    self.fail(error);
                }
                Vec::new()
            }
            _ => {
                let names: Vec<_> = self.asked_before.iter().map(String::as_str).collect();
                let error =
                    format!("no answer from {} within {} s", names.join(", "), RESOLVE_LIMIT.as_secs());
                self.fail(error);
                Vec::new()
            }
        }
    }

    fn resolved(&mut self, host: &str, found: Result<Resolved, String>) {
        let Some((node, ..)) = self.asked.take_if(|(node, ..)| node.host_id == host) else { return };
        match found {
            Ok(Resolved { target, tasks }) => (self.target, self.tasks) = (Some(target), tasks),
            Err(error) => self.fail(format!("{}: {error}", node.hostname)),
        }
    }

    /// The nodes in scope: seeds first, because others get it from them; the rest spread over the cluster.
    fn choose(&mut self, live: &[Live], now: Instant) -> bool {
        let mut nodes: Vec<&Live> = match self.spec.scope {
            Scope::Seeds => live.iter().filter(|node| node.seed).collect(),
            Scope::All | Scope::Count(_) | Scope::Percent(_) => live.iter().collect(),
        };
        let name = match &self.spec.what {
            What::Image(name) | What::Url(name) => name.as_str(),
        };
        nodes.sort_by_key(|node| (!node.seed, spread(name, &node.host_id)));
        nodes.truncate(self.spec.scope.of(nodes.len()));
        if nodes.is_empty() {
            if now.duration_since(self.started) > NOBODY_LIMIT {
                let what = if self.spec.scope == Scope::Seeds { "seed peer" } else { "node" };
                let error =
                    format!("no node in scope `{}`: {} has no live {what}", self.spec.scope, self.cluster);
                self.fail(error);
            }
            return false;
        }
        for node in nodes {
            let chosen = Node {
                hostname: node.hostname.clone(),
                state: State::Pending,
                bytes_done: 0,
                bytes_total: 0,
                error: String::new(),
            };
            self.changed.insert(node.host_id.clone());
            self.nodes.insert(node.host_id.clone(), chosen);
        }
        true
    }

    fn hold(&mut self, target: &Target, now: Instant) -> Vec<(String, Order)> {
        let name = match &self.spec.what {
            What::Image(name) | What::Url(name) => name.clone(),
        };
        let order = Order::Hold { target: target.clone(), platforms: self.spec.platforms.clone(), name };
        let mut orders = Vec::new();
        let mut given_up = Vec::new();
        for (id, (heard, told)) in &mut self.at_work {
            if now.duration_since(*heard) > SILENT_LIMIT {
                given_up.push(id.clone());
            } else if now.duration_since(*heard) > REPEAT_AFTER && now.duration_since(*told) > REPEAT_AFTER {
                *told = now;
                orders.push((id.clone(), order.clone()));
            }
        }
        for id in given_up {
            let error = format!("no word from it for {} s", SILENT_LIMIT.as_secs());
            self.node_ended(&id, State::Failed, error);
        }
        let room = MAX_AT_ONCE.saturating_sub(self.at_work.len());
        let waiting = self.nodes.iter_mut().filter(|(_, node)| node.state == State::Pending).take(room);
        for (id, node) in waiting {
            node.state = State::Running;
            self.changed.insert(id.clone());
            self.at_work.insert(id.clone(), (now, now));
            orders.push((id.clone(), order.clone()));
        }
        orders
    }

    fn progressed(&mut self, host: &str, progress: Progress, now: Instant) {
        let Some((heard, _)) = self.at_work.get_mut(host) else { return };
        *heard = now;
        if let Some(node) = self.nodes.get_mut(host) {
            let told = (progress.bytes_done, progress.bytes_total);
            if (node.bytes_done, node.bytes_total) != told {
                (node.bytes_done, node.bytes_total) = told;
                self.changed.insert(host.to_owned());
            }
        }
        match progress.phase {
            Phase::Running => {}
            Phase::Succeeded => self.node_ended(host, State::Succeeded, String::new()),
            Phase::Failed => self.node_ended(host, State::Failed, progress.error),
            Phase::Stopped => self.node_ended(host, State::Failed, "it stopped".to_owned()),
        }
        self.conclude();
    }

    fn node_ended(&mut self, id: &str, state: State, error: String) {
        self.at_work.remove(id);
        if let Some(node) = self.nodes.get_mut(id) {
            (node.state, node.error) = (state, error);
            self.changed.insert(id.to_owned());
        }
    }

    /// Ends when every node has.
    fn conclude(&mut self) {
        if self.nodes.is_empty() || !self.nodes.values().all(|node| node.state.has_ended()) {
            return;
        }
        let failed: Vec<&Node> = self.nodes.values().filter(|node| node.state == State::Failed).collect();
        match failed.first() {
            None => self.end(State::Succeeded, String::new()),
            Some(first) => {
                let (count, all) = (failed.len(), self.nodes.len());
                let error = format!("{count} of {all} nodes failed; {}: {}", first.hostname, first.error);
                self.end(State::Failed, error);
            }
        }
    }

    fn end(&mut self, state: State, error: String) {
        self.outcome.get_or_insert(Outcome { state, error });
    }
}

/// Orders hosts differently for every name, and always the same.
fn spread(name: &str, host: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes().chain([0]).chain(host.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests;
