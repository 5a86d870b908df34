//! A virtual cluster around the real core: hosts that join, leave, fetch, lie low and come back in
//! any order, moving pieces exactly as their parents and leases allow.

use super::super::super::messages::Report;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// Rounds after which everybody must be done.
const MAX_ROUNDS: usize = 400;
/// Random lives of a cluster in one run; `PROPTEST_CASES` is the knob for a campaign.
const CASES: u32 = 96;

#[derive(Debug, Default)]
struct Daemon {
    session: SessionId,
    alive: bool,
    seed: bool,
    /// Started its download (wanted it, or was leased a part).
    active: bool,
    wants: bool,
    held: PieceSet,
    done: bool,
    parents: Vec<String>,
    known: PieceSet,
    leases: VecDeque<(u64, Range<u32>)>,
    size: Option<u64>,
    refused: bool,
}

struct Cluster {
    core: Core,
    now: Instant,
    daemons: BTreeMap<String, Daemon>,
    pieces: u32,
    next_session: SessionId,
    /// Pieces the origin sent.
    origin: u32,
}

impl Cluster {
    fn new(pieces: u32, seeds: usize, peers: usize, seed: u64) -> Self {
        let core = Core::new(Limits::default(), seed);
        let (now, daemons) = (Instant::now(), BTreeMap::new());
        let mut cluster = Self { core, now, daemons, pieces, next_session: 1, origin: 0 };
        for (kind, count) in [("seed", seeds), ("peer", peers)] {
            for number in 0..count {
                let daemon = Daemon { seed: kind == "seed", ..Daemon::default() };
                cluster.daemons.insert(format!("{kind}-{number:02}"), daemon);
            }
        }
        for name in cluster.names() {
            cluster.connect(&name);
        }
        cluster
    }

    fn names(&self) -> Vec<String> {
        self.daemons.keys().cloned().collect()
    }

    fn size(&self) -> u64 {
        u64::from(self.pieces) * PIECE
    }

    fn daemon(&mut self, name: &str) -> &mut Daemon {
        self.daemons.get_mut(name).unwrap()
    }

    fn connect(&mut self, name: &str) {
        let session = self.next_session;
        self.next_session += 1;
        let daemon = self.daemon(name);
        (daemon.session, daemon.alive) = (session, true);
        let info = host(name, daemon.seed);
        self.event(Event::Connected { session, host: info });
        let daemon = &self.daemons[name];
        if daemon.done {
            self.say(name, Message::Inventory(vec![(task_id(1), self.size())]));
        } else if daemon.active {
            self.tell_want(name);
        }
    }

    fn tell_want(&mut self, name: &str) {
        let daemon = &self.daemons[name];
        let Message::Want(mut message) = want(1, daemon.size) else { unreachable!() };
        message.held = daemon.held.clone();
        message.fetching = daemon.leases.iter().map(|(_, pieces)| pieces.clone()).collect();
        let run = |piece| Run { first: piece, digests: vec![digest(piece)], attester: name.into() };
        let list: Vec<Run> = daemon.held.iter().map(run).collect();
        self.say(name, Message::Want(message));
        if !list.is_empty() {
            self.say(
                name,
                Message::PieceList(PieceList {
                    task: task_id(1),
                    size: self.size(),
                    runs: list,
                    proven: false,
                }),
            );
        }
    }

    fn die(&mut self, name: &str, forget: bool) {
        let daemon = self.daemon(name);
        let session = daemon.session;
        (daemon.alive, daemon.parents) = (false, Vec::new());
        daemon.leases.clear();
        if forget {
            let (seed, wants) = (daemon.seed, daemon.wants);
            *daemon = Daemon { seed, session, wants, active: wants, ..Daemon::default() };
        }
        self.event(Event::Disconnected { session });
    }

    fn restart_scheduler(&mut self, seed: u64) {
        self.core = Core::new(Limits::default(), seed);
        for name in self.names() {
            if self.daemons[&name].alive {
                self.daemon(&name).refused = false;
                self.connect(&name);
            }
        }
    }

    fn say(&mut self, name: &str, message: Message) {
        let session = self.daemons[name].session;
        self.event(Event::Message { session, message });
    }

    fn event(&mut self, event: Event) {
        let out = self.core.handle(self.now, event);
        self.obey(out);
    }

    fn obey(&mut self, commands: Vec<Command>) {
        for Command { session, order } in commands {
            let found = self.daemons.iter().find(|(_, daemon)| daemon.alive && daemon.session == session);
            if let Some(name) = found.map(|(name, _)| name.clone()) {
                self.obey_one(&name, order);
            }
        }
    }

    fn obey_one(&mut self, name: &str, order: Order) {
        match order {
            Order::Assignment(assignment) => self.assigned(name, assignment),
            Order::Lease { id, pieces, .. } => {
                let daemon = self.daemon(name);
                daemon.leases.push_back((id, pieces));
                if !daemon.active && !daemon.done {
                    daemon.active = true;
                    self.tell_want(name);
                }
            }
            Order::LeaseRevoked { id, .. } => self.daemon(name).leases.retain(|lease| lease.0 != id),
            Order::AskPieceList { .. } => {
                let daemon = &self.daemons[name];
                let pieces = if daemon.done { PieceSet::full(self.pieces) } else { daemon.held.clone() };
                let (proven, size) = (daemon.done, self.size());
                let run = |piece| Run { first: piece, digests: vec![digest(piece)], attester: name.into() };
                let runs = pieces.iter().map(run).collect();
                self.say(name, Message::PieceList(PieceList { task: task_id(1), size, runs, proven }));
            }
            Order::ListReset { .. } | Order::Replaced | Order::Silent => {}
        }
    }

    fn assigned(&mut self, name: &str, assignment: Assignment) {
        let daemon = self.daemon(name);
        daemon.size = daemon.size.or(assignment.size);
        daemon.refused = !assignment.refused.is_empty();
        for run in &assignment.digests {
            for (piece, value) in (run.first..).zip(&run.digests) {
                assert_eq!(*value, digest(piece), "a digest got lost or mixed up");
                daemon.known.insert(piece);
            }
        }
        if let Some(parents) = assignment.parents {
            daemon.parents = parents.iter().map(|parent| parent.host.id.to_string()).collect();
            assert!(!daemon.parents.iter().any(|parent| parent == name), "a host is its own parent");
            let distinct: BTreeSet<&String> = daemon.parents.iter().collect();
            assert_eq!(distinct.len(), daemon.parents.len(), "a parent twice: {:?}", daemon.parents);
        }
    }

    /// Everybody works on one piece of a lease and one piece from each parent.
    fn round(&mut self) {
        self.now += Duration::from_millis(20);
        let out = self.core.tick(self.now);
        self.obey(out);
        for name in self.names() {
            let daemon = &self.daemons[&name];
            if daemon.alive && daemon.active && !daemon.done {
                self.work_on_lease(&name);
                self.work_with_parents(&name);
                self.finish(&name);
            }
        }
        self.check();
    }

    fn work_on_lease(&mut self, name: &str) {
        let (size, count) = (self.size(), self.pieces);
        let daemon = self.daemon(name);
        let Some((id, mut pieces)) = daemon.leases.front().cloned() else { return };
        let missing = pieces.find(|piece| *piece < count && !daemon.held.contains(*piece));
        if let Some(piece) = missing {
            daemon.held.insert(piece);
            daemon.size = Some(size);
            self.origin += 1;
            self.say(name, progress(1, size, piece..piece + 1, true));
        } else {
            daemon.leases.pop_front();
            self.say(name, Message::LeaseEnded { task: task_id(1), id, outcome: LeaseOutcome::Done });
        }
    }

    fn work_with_parents(&mut self, name: &str) {
        for parent in self.daemons[name].parents.clone() {
            let (me, other) = (&self.daemons[name], &self.daemons[&parent]);
            if !other.alive || me.size.is_none() {
                continue;
            }
            let has = |piece: &u32| other.done || other.held.contains(*piece);
            let open = |piece: &u32| me.known.contains(*piece) && !me.held.contains(*piece);
            if let Some(piece) = (0..self.pieces).find(|piece| has(piece) && open(piece)) {
                self.daemon(name).held.insert(piece);
                self.say(name, progress(1, self.size(), piece..piece + 1, false));
            }
        }
    }

    fn finish(&mut self, name: &str) {
        let (size, count) = (self.size(), self.pieces);
        let daemon = self.daemon(name);
        if daemon.held.len() == count {
            daemon.done = true;
            daemon.leases.clear();
            self.say(name, Message::Finished { task: task_id(1), size });
        }
    }

    /// Properties that hold at every moment.
    fn check(&self) {
        let Some(task) = self.core.tasks.get(&task_id(1)) else { return };
        let mut leased = BTreeSet::new();
        for piece in task.leases.values().flat_map(|lease| lease.pieces.clone()) {
            assert!(leased.insert(piece), "piece {piece} is leased twice");
        }
        for (host, waiting) in &task.wants {
            let most = self.core.limits.parents.max(task.roots.len());
            assert!(waiting.parents.len() <= most, "{host} has {} parents", waiting.parents.len());
            let reached = self.reach(host);
            for piece in 0..task.count() {
                let somewhere = task.is_held(piece) || leased.contains(&piece);
                assert!(
                    !somewhere || reached.contains(&piece),
                    "{host} cannot reach piece {piece}: {task:#?}"
                );
            }
        }
    }

    /// Pieces that can come to `host` over any number of steps.
    fn reach(&self, host: &HostId) -> BTreeSet<u32> {
        let task = &self.core.tasks[&task_id(1)];
        let (mut seen, mut queue) = (BTreeSet::new(), VecDeque::from([host.clone()]));
        let mut reached = BTreeSet::new();
        while let Some(at) = queue.pop_front() {
            if !seen.insert(at.clone()) {
                continue;
            }
            if task.complete.contains(&at) {
                return (0..MAX_PIECES).collect();
            }
            reached.extend(task.partial.get(&at).into_iter().flat_map(PieceSet::iter));
            reached
                .extend(task.leases.values().filter(|lease| lease.host == at).flat_map(|l| l.pieces.clone()));
            queue.extend(task.wants.get(&at).into_iter().flat_map(|waiting| waiting.parents.clone()));
        }
        reached
    }

    /// Property 7: what a host measured moves nobody.
    fn report(&mut self, name: &str, report: Report) {
        let daemon = &self.daemons[name];
        if daemon.alive {
            let (session, message) = (daemon.session, Message::Report(Some(report)));
            let out = self.core.handle(self.now, Event::Message { session, message });
            assert!(out.is_empty(), "a report made the scheduler say {out:?}");
        }
    }

    fn is_done(&self) -> bool {
        self.daemons.values().filter(|daemon| daemon.alive && daemon.wants).all(|daemon| daemon.done)
    }

    fn run(&mut self) {
        for _ in 0..MAX_ROUNDS {
            if self.is_done() {
                return;
            }
            self.round();
        }
        let stuck: Vec<_> = self.daemons.iter().filter(|(_, daemon)| daemon.wants && !daemon.done).collect();
        panic!("not done after {MAX_ROUNDS} rounds: {stuck:#?}\n{:#?}", self.core.tasks);
    }

    fn start(&mut self, name: &str) {
        let daemon = self.daemon(name);
        if daemon.alive && !daemon.wants {
            daemon.wants = true;
            if !daemon.active && !daemon.done {
                daemon.active = true;
                self.tell_want(name);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Fate {
    Start(usize),
    Die {
        peer: usize,
        forget: bool,
    },
    Return(usize),
    RestartScheduler(u64),
    Rounds(u8),
    /// A host says what it measured, sense or nonsense.
    Report {
        peer: usize,
        others: Option<u64>,
        capacity: u64,
        upload_limit: u64,
        seconds: u8,
    },
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => (0usize..12).prop_map(Fate::Start),
        2 => (0usize..12, any::<bool>()).prop_map(|(peer, forget)| Fate::Die { peer, forget }),
        2 => (0usize..12).prop_map(Fate::Return),
        1 => any::<u64>().prop_map(Fate::RestartScheduler),
        5 => (1u8..8).prop_map(Fate::Rounds),
        8 => report(),
    ]
}

/// Half of them from busy hosts; some of them senseless.
fn report() -> impl Strategy<Value = Fate> {
    let capacity = prop_oneof![4 => Just(25_000_000u64), 1 => any::<u64>()];
    let others = prop_oneof![4 => (0u64..25_000_000).prop_map(Some), 1 => any::<Option<u64>>()];
    let limit = prop_oneof![4 => Just(0u64), 1 => any::<u64>()];
    (0usize..12, others, capacity, limit, any::<u8>()).prop_map(
        |(peer, others, capacity, upload_limit, seconds)| {
            let others = others.map(|others| others.saturating_mul(seconds.into()));
            Fate::Report { peer, others, capacity, upload_limit, seconds }
        },
    )
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

proptest! {
    // Shrinking is bounded: a failure is to be seen while somebody still looks.
    #![proptest_config(ProptestConfig { max_shrink_time: 20_000, cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_whoever_stays_gets_everything(
        pieces in 1u32..60,
        seeds in 0usize..3,
        seed: u64,
        fates in proptest::collection::vec(fate(), 1..40),
    ) {
        let mut cluster = Cluster::new(pieces, seeds, 10, seed);
        let names = cluster.names();
        let name = |peer: usize| names[peer % names.len()].clone();
        for fate in fates {
            match fate {
                Fate::Start(peer) => cluster.start(&name(peer)),
                Fate::Die { peer, forget } if cluster.daemons[&name(peer)].alive => {
                    cluster.die(&name(peer), forget);
                }
                Fate::Return(peer) if !cluster.daemons[&name(peer)].alive => cluster.connect(&name(peer)),
                Fate::RestartScheduler(seed) => cluster.restart_scheduler(seed),
                Fate::Report { peer, others, capacity, upload_limit, seconds } => {
                    let elapsed = Duration::from_secs(seconds.into());
                    cluster.report(&name(peer), Report { elapsed, others_sent: others, capacity, upload_limit });
                }
                Fate::Rounds(rounds) => (0..rounds).for_each(|_| cluster.round()),
                Fate::Die { .. } | Fate::Return(_) => {}
            }
            cluster.check();
        }
        cluster.run();
    }

    #[test]
    fn the_origin_sends_everything_once(
        pieces in 1u32..100,
        seeds in 0usize..3,
        peers in 1usize..24,
        seed: u64,
    ) {
        let mut cluster = Cluster::new(pieces, seeds, peers, seed);
        for name in cluster.names().into_iter().filter(|name| name.starts_with("peer")) {
            cluster.start(&name);
        }
        cluster.run();
        prop_assert_eq!(cluster.origin, pieces);
    }
}
