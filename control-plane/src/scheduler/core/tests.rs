//! The scheduler's rules one by one, and a virtual cluster that lives by them.

mod headroom;
mod images;
mod silence;
mod swarm;

use super::super::messages::{LeaseOutcome, Origin, OriginKind};
use super::super::messages::{PieceList, Run};
use super::*;
use hawker_api::pieces::{MAX_PIECES, PieceDigest, PieceSet};
use hawker_api::task::Algorithm;
use std::ops::Range;
use std::time::Duration;

const PIECE: u64 = 4 << 20;

fn task_id(tag: u8) -> TaskId {
    TaskId::from_digest(Algorithm::Sha256, &[tag; 32]).unwrap()
}

fn host(name: &str, seed: bool) -> HostInfo {
    let (idc, location) = (String::new(), String::new());
    HostInfo { id: name.into(), ip: "10.0.0.1".into(), piece_port: 4000, idc, location, seed }
}

fn want(tag: u8, size: Option<u64>) -> Message {
    let origin = Origin {
        registry: "r".into(),
        repository: "a/b".into(),
        kind: OriginKind::Blob,
        version: String::new(),
    };
    let (held, fetching) = (PieceSet::new(), Vec::new());
    Message::Want(Want { task: task_id(tag), origin, size, held, fetching, can_fetch: true })
}

fn digest(piece: u32) -> PieceDigest {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&piece.to_le_bytes());
    digest
}

fn progress(tag: u8, size: u64, pieces: Range<u32>, attested: bool) -> Message {
    let digests = pieces.clone().map(digest).collect();
    let run = Run { first: pieces.start, digests, attester: "".into() };
    let attested = if attested { vec![run] } else { Vec::new() };
    let (live_leases, extended) = (Vec::new(), Vec::new());
    let pieces = pieces.collect();
    Message::Progress(vec![Progress {
        task: task_id(tag),
        size: Some(size),
        pieces,
        attested,
        live_leases,
        extended,
    }])
}

/// A core, and what each session was told.
struct Stage {
    core: Core,
    now: Instant,
    told: Vec<Command>,
}

impl Stage {
    fn new(hosts: &[(&str, bool)]) -> Self {
        let mut stage = Self { core: Core::new(Limits::default(), 7), now: Instant::now(), told: Vec::new() };
        for (session, (name, seed)) in (1..).zip(hosts) {
            stage.event(Event::Connected { session, host: host(name, *seed) });
        }
        stage
    }

    fn event(&mut self, event: Event) {
        let out = self.core.handle(self.now, event);
        self.told.extend(out);
    }

    fn say(&mut self, session: SessionId, message: Message) {
        self.event(Event::Message { session, message });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let out = self.core.tick(self.now);
        self.told.extend(out);
    }

    fn to(&self, session: SessionId) -> impl Iterator<Item = &Order> {
        self.told.iter().filter(move |command| command.session == session).map(|command| &command.order)
    }

    fn leases(&self, session: SessionId) -> Vec<(u64, Range<u32>)> {
        let lease = |order: &Order| match order {
            Order::Lease { id, pieces, .. } => Some((*id, pieces.clone())),
            _ => None,
        };
        self.to(session).filter_map(lease).collect()
    }

    fn parents(&self, session: SessionId) -> Vec<String> {
        let parents = |order: &Order| match order {
            Order::Assignment(assignment) => assignment.parents.clone(),
            _ => None,
        };
        let last = self.to(session).filter_map(parents).last().unwrap_or_default();
        last.iter().map(|parent| parent.host.id.to_string()).collect()
    }

    fn refused(&self, session: SessionId) -> String {
        let refused = |order: &Order| match order {
            Order::Assignment(assignment) => Some(assignment.refused.clone()),
            _ => None,
        };
        self.to(session).filter_map(refused).last().unwrap_or_default()
    }

    fn digests(&self, session: SessionId) -> usize {
        let count = |order: &Order| match order {
            Order::Assignment(assignment) => assignment.digests.iter().map(|run| run.digests.len()).sum(),
            _ => 0,
        };
        self.to(session).map(count).sum()
    }
}

#[test]
fn the_seed_fetches_and_the_others_hang_on_it() {
    let mut stage = Stage::new(&[("seed", true), ("a", false), ("b", false)]);
    stage.say(2, want(1, None));
    stage.say(3, want(1, None));
    assert_eq!(stage.leases(1).len(), 1, "one lease, for the seed, of everything");
    assert_eq!(stage.leases(1)[0].1, 0..MAX_PIECES);
    assert!(stage.leases(2).is_empty() && stage.leases(3).is_empty());
    assert!(stage.parents(2).contains(&"seed".to_owned()) && stage.parents(3).contains(&"seed".to_owned()));
    stage.say(1, progress(1, 10 * PIECE, 0..3, true));
    stage.pass(Duration::from_millis(20));
    assert_eq!((stage.digests(2), stage.digests(3)), (3, 3));
}

#[test]
fn without_a_seed_those_who_want_it_share_the_work() {
    let mut stage = Stage::new(&[("a", false), ("b", false), ("c", false)]);
    for session in 1..=3 {
        stage.say(session, want(1, Some(40 * PIECE)));
    }
    let mut all: Vec<Range<u32>> =
        (1..=3).flat_map(|session| stage.leases(session)).map(|lease| lease.1).collect();
    all.sort_by_key(|range| range.start);
    assert_eq!(all, [0..16, 16..32, 32..40]);
    let busy = (1..=3).filter(|session| !stage.leases(*session).is_empty()).count();
    assert_eq!(busy, 3);
}

#[test]
fn a_dead_fetchers_pieces_go_to_somebody_else() {
    let mut stage = Stage::new(&[("a", false), ("b", false)]);
    stage.say(1, want(1, Some(10 * PIECE)));
    stage.say(2, want(1, Some(10 * PIECE)));
    let (worker, other) = if stage.leases(1).is_empty() { (2, 1) } else { (1, 2) };
    stage.say(worker, progress(1, 10 * PIECE, 0..4, true));
    stage.event(Event::Disconnected { session: worker });
    assert_eq!(stage.leases(other).last().unwrap().1, 0..10, "what only the dead one had is fetched again");
}

#[test]
fn a_silent_lease_is_revoked_and_a_failed_one_moves_on() {
    let mut stage = Stage::new(&[("a", false), ("b", false)]);
    stage.say(1, want(1, Some(2 * PIECE)));
    stage.say(2, want(1, Some(2 * PIECE)));
    let (worker, other) = if stage.leases(1).is_empty() { (2, 1) } else { (1, 2) };
    stage.pass(Duration::from_secs(11));
    assert!(stage.to(worker).any(|order| matches!(order, Order::LeaseRevoked { .. })));
    assert_eq!(stage.leases(other).len(), 1);
    let (id, _) = stage.leases(other)[0];
    let outcome = LeaseOutcome::Failed("the origin answered 404".into());
    stage.say(other, Message::LeaseEnded { task: task_id(1), id, outcome });
    for session in [1, 2] {
        assert!(stage.refused(session).contains("nobody in the cluster"), "{:?}", stage.refused(session));
    }
    assert!(stage.refused(other).contains("404"));
    stage.pass(Duration::from_secs(31));
    assert_eq!(stage.leases(1).len() + stage.leases(2).len(), 3, "the ban ends");
    assert_eq!(stage.refused(other), "");
}

#[test]
fn the_next_lease_comes_before_the_last_one_ends() {
    let mut stage = Stage::new(&[("a", false)]);
    stage.say(1, want(1, Some(100 * PIECE)));
    assert_eq!(stage.leases(1).len(), 1);
    stage.say(1, progress(1, 100 * PIECE, 0..11, true));
    assert_eq!(stage.leases(1).len(), 1);
    stage.say(1, progress(1, 100 * PIECE, 11..12, true));
    assert_eq!(stage.leases(1)[1].1, 16..32);
}

#[test]
fn after_a_restart_a_holder_is_asked_for_the_piece_list() {
    let mut stage = Stage::new(&[("holder", false), ("child", false)]);
    stage.say(1, Message::Inventory(vec![(task_id(1), 3 * PIECE)]));
    stage.say(2, want(1, None));
    assert!(stage.to(1).any(|order| matches!(order, Order::AskPieceList { .. })));
    assert_eq!(stage.parents(2), ["holder"]);
    assert!(stage.leases(1).is_empty() && stage.leases(2).is_empty());
    let run = Run { first: 0, digests: (0..3).map(digest).collect(), attester: "holder".into() };
    stage.say(
        1,
        Message::PieceList(PieceList { task: task_id(1), size: 3 * PIECE, runs: vec![run], proven: true }),
    );
    stage.pass(Duration::from_millis(20));
    assert_eq!(stage.digests(2), 3);
}

#[test]
fn nobody_is_sent_to_a_peer_it_complained_about_and_two_complaints_are_enough_for_all() {
    let mut stage = Stage::new(&[("liar", false), ("good", false), ("a", false), ("b", false), ("c", false)]);
    for session in [1, 2] {
        stage.say(session, Message::Inventory(vec![(task_id(1), PIECE)]));
    }
    for session in [3, 4] {
        stage.say(session, want(1, None));
        stage.say(session, Message::BadPeer { task: task_id(1), host: "liar".into() });
        assert!(!stage.parents(session).contains(&"liar".to_owned()));
        assert!(stage.parents(session).contains(&"good".to_owned()));
    }
    stage.say(5, want(1, None));
    assert!(!stage.parents(5).contains(&"liar".to_owned()));
}

#[test]
fn who_complains_of_the_only_one_that_has_it_is_told_at_once_to_help_itself() {
    let mut stage = Stage::new(&[("liar", false), ("a", false)]);
    stage.say(1, Message::Inventory(vec![(task_id(1), PIECE)]));
    stage.say(2, want(1, None));
    assert_eq!((stage.parents(2), stage.refused(2)), (vec!["liar".to_owned()], String::new()));
    stage.say(2, Message::BadPeer { task: task_id(1), host: "liar".into() });
    assert!(stage.refused(2).contains("nobody in the cluster"), "{:?}", stage.refused(2));
}

#[test]
fn news_of_the_list_and_another_want_do_not_take_a_refusal_back() {
    let mut stage = Stage::new(&[("liar", false), ("a", false)]);
    stage.say(1, Message::Inventory(vec![(task_id(1), PIECE)]));
    stage.say(2, want(1, None));
    stage.say(2, Message::BadPeer { task: task_id(1), host: "liar".into() });
    let run = Run { first: 0, digests: vec![digest(0)], attester: "liar".into() };
    let list = PieceList { task: task_id(1), size: PIECE, runs: vec![run], proven: true };
    stage.say(1, Message::PieceList(list));
    stage.pass(Duration::from_millis(20));
    assert_eq!(stage.digests(2), 1, "it was told the list");
    assert!(stage.refused(2).contains("nobody in the cluster"), "{:?}", stage.refused(2));
    stage.say(2, want(1, Some(PIECE)));
    assert!(stage.refused(2).contains("nobody in the cluster"), "{:?}", stage.refused(2));
}

#[test]
fn a_disproven_list_is_forgotten_and_its_author_gets_no_lease() {
    let mut stage = Stage::new(&[("a", false), ("b", false), ("c", false)]);
    for session in 1..=3 {
        stage.say(session, want(1, Some(2 * PIECE)));
    }
    let liar = (1..=3).find(|session| !stage.leases(*session).is_empty()).unwrap();
    let name = ["a", "b", "c"][usize::try_from(liar).unwrap() - 1];
    stage.say(liar, progress(1, 2 * PIECE, 0..2, true));
    stage.pass(Duration::from_millis(20));
    let honest = 1 + liar % 3;
    stage.say(honest, Message::Mismatch { task: task_id(1), attesters: vec![name.into()] });
    let third = 1 + honest % 3;
    assert!(stage.to(third).any(|order| matches!(order, Order::ListReset { .. })));
    assert!(!stage.to(honest).any(|order| matches!(order, Order::ListReset { .. })));
    assert_eq!(stage.leases(liar).len(), 1, "the liar fetches nothing more for others");
    assert_eq!(stage.leases(honest).len() + stage.leases(third).len(), 1);
}

#[test]
fn a_daemon_that_reconnects_goes_on_with_its_lease() {
    let mut stage = Stage::new(&[("a", false), ("b", false)]);
    let Message::Want(mut again) = want(1, Some(4 * PIECE)) else { panic!() };
    again.fetching.push(0..4);
    stage.say(1, Message::Want(again));
    stage.say(2, want(1, Some(4 * PIECE)));
    assert!(
        stage.leases(1).is_empty() && stage.leases(2).is_empty(),
        "its lease is adopted, not given twice"
    );
    stage.say(1, progress(1, 4 * PIECE, 0..4, true));
    assert_eq!(stage.core.stats().leases, 0);
}

#[test]
fn a_holder_that_turns_up_makes_leases_needless() {
    let mut stage = Stage::new(&[("a", false), ("holder", false)]);
    stage.say(1, want(1, None));
    assert_eq!(stage.leases(1).len(), 1);
    stage.say(2, Message::Inventory(vec![(task_id(1), 3 * PIECE)]));
    assert!(stage.to(1).any(|order| matches!(order, Order::LeaseRevoked { .. })));
    assert_eq!(stage.parents(1), ["holder"]);
    assert_eq!(stage.core.stats().leases, 0);
}

#[test]
fn a_newer_stream_replaces_the_older_one() {
    let mut stage = Stage::new(&[("a", false)]);
    stage.event(Event::Connected { session: 9, host: host("a", false) });
    assert!(stage.to(1).any(|order| matches!(order, Order::Replaced)));
    stage.event(Event::Disconnected { session: 1 });
    assert_eq!(stage.core.stats().hosts, 1);
}
