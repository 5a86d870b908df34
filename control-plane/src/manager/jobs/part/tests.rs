//! A whole job in one cluster, driven by hand and at random: what nodes say and when, and which orders come out.

use super::*;
use crate::manager::jobs::spec::RawPreheat;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn spec(scope: &str) -> Preheat {
    let raw = RawPreheat { image: Some("r.lab/a:1".into()), scope: scope.into(), ..RawPreheat::default() };
    Preheat::check(&raw).unwrap()
}

fn live(seeds: usize, peers: usize) -> Vec<Live> {
    let node = |index: usize| Live {
        host_id: format!("id-{index}"),
        hostname: format!("node-{index}"),
        seed: index < seeds,
    };
    (0..seeds + peers).map(node).collect()
}

fn target() -> Target {
    Target {
        task: format!("sha256:{}", "5".repeat(64)),
        registry: "r.lab".into(),
        repository: "a".into(),
        kind: 1,
        version: String::new(),
    }
}

fn said(host: &str, said: Said) -> FromNode {
    FromNode { host_id: host.into(), job: "x".into(), said }
}

fn progress(host: &str, phase: Phase, bytes_done: u64, error: &str) -> FromNode {
    said(host, Said::Hold(Progress { phase, bytes_done, bytes_total: 10, error: error.into() }))
}

/// A part whose target is known.
fn holding(scope: &str, now: Instant) -> Part {
    let known = Known { target: Some(target()), nodes: BTreeMap::new() };
    Part::new(spec(scope), "cluster 1 `a`".into(), known, now)
}

#[test]
fn a_seed_finds_out_and_the_nodes_in_scope_hold_it() {
    let now = Instant::now();
    let mut part = Part::new(spec("all"), "cluster 1 `a`".into(), Known::default(), now);
    let nodes = live(1, 2);
    let asked = part.step(&nodes, now);
    assert!(matches!(asked.as_slice(), [(host, Order::Resolve { .. })] if host == "id-0"), "{asked:?}");
    assert!(part.step(&nodes, now).is_empty(), "asked once");
    // Somebody who was not asked has no say.
    part.heard(said("id-1", Said::Resolved(Err("x".into()))), now);
    let tasks = vec![TaskSize { task: target().task, bytes: 10 }];
    part.heard(said("id-0", Said::Resolved(Ok(Resolved { target: target(), tasks }))), now);
    let told: BTreeSet<String> = part.step(&nodes, now).into_iter().map(|(host, _)| host).collect();
    assert_eq!(told.len(), 3);
    part.heard(progress("id-1", Phase::Running, 4, ""), now);
    assert_eq!(part.take_changed().len(), 3);
    for host in ["id-0", "id-1", "id-2"] {
        assert_eq!(part.outcome(), None);
        part.heard(progress(host, Phase::Succeeded, 10, ""), now);
    }
    assert_eq!(part.outcome().unwrap().state, State::Succeeded);
    // Late words change nothing.
    part.heard(progress("id-1", Phase::Failed, 0, "late"), now);
    assert!(part.take_changed().iter().all(|(_, node)| node.state == State::Succeeded));
}

#[test]
fn scopes_choose_nodes_seeds_first() {
    let now = Instant::now();
    for (scope, count) in [("seeds", 2), ("all", 10), ("3", 3), ("50%", 5), ("40", 10)] {
        let mut part = holding(scope, now);
        let told: Vec<String> = part.step(&live(2, 8), now).into_iter().map(|(host, _)| host).collect();
        assert_eq!(told.len(), count, "{scope}");
        assert!(
            ["id-0", "id-1"].iter().all(|seed| told.iter().any(|host| host == seed)),
            "{scope}: {told:?}"
        );
    }
}

#[test]
fn what_the_asked_node_says_no_to_is_the_jobs_error() {
    let now = Instant::now();
    let mut part = Part::new(spec("all"), "cluster 1 `a`".into(), Known::default(), now);
    part.step(&live(0, 1), now);
    part.heard(said("id-0", Said::Resolved(Err("there is no image x".into()))), now);
    let outcome = part.outcome().unwrap();
    assert_eq!((outcome.state, outcome.error.as_str()), (State::Failed, "node-0: there is no image x"));
}

#[test]
fn silence_is_met_with_repetition_then_with_others_then_with_an_error() {
    let start = Instant::now();
    let mut part = Part::new(spec("all"), "cluster 1 `a`".into(), Known::default(), start);
    let (nodes, mut asked) = (live(0, 5), Vec::new());
    let mut second = 0;
    while part.outcome().is_none() && second < 300 {
        asked.extend(part.step(&nodes, start + SECOND * second).into_iter().map(|(host, _)| host));
        second += 1;
    }
    let different: BTreeSet<_> = asked.iter().collect();
    assert!(different.len() == MAX_RESOLVERS && asked.len() > MAX_RESOLVERS, "{asked:?}");
    assert!(part.outcome().unwrap().error.contains("no answer from node-"), "{:?}", part.outcome());

    let mut part = holding("all", start);
    let mut told = 0;
    for second in 0..70 {
        told +=
            part.step(&nodes[..2], start + SECOND * second).iter().filter(|(host, _)| host == "id-1").count();
        part.heard(progress("id-0", Phase::Running, second.into(), ""), start + SECOND * second);
    }
    assert!(told > 3, "told {told} times");
    part.heard(progress("id-0", Phase::Succeeded, 10, ""), start + SECOND * 70);
    let outcome = part.outcome().unwrap();
    assert!(outcome.error.starts_with("1 of 2 nodes failed; node-1: no word"), "{outcome:?}");
}

#[test]
fn nobody_in_scope_is_an_error_after_a_while() {
    let now = Instant::now();
    let mut part = holding("seeds", now);
    assert!(part.step(&live(0, 3), now).is_empty() && part.outcome().is_none());
    part.step(&live(0, 3), now + NOBODY_LIMIT + SECOND);
    let error = &part.outcome().unwrap().error;
    assert_eq!(error, "no node in scope `seeds`: cluster 1 `a` has no live seed peer");
}

#[test]
fn a_cancelled_part_stops_those_at_work_and_no_others() {
    let now = Instant::now();
    let mut part = holding("all", now);
    part.step(&live(0, 3), now);
    part.heard(progress("id-2", Phase::Succeeded, 10, ""), now);
    let stopped = part.cancel();
    assert!(stopped.iter().all(|(host, order)| host != "id-2" && matches!(order, Order::Stop)));
    assert_eq!(stopped.len(), 2);
    assert_eq!(part.outcome().unwrap().state, State::Cancelled);
    let states: Vec<State> = part.take_changed().into_iter().map(|(_, node)| node.state).collect();
    assert_eq!(states, [State::Cancelled, State::Cancelled, State::Succeeded]);
}

#[test]
fn who_takes_over_tells_again_whoever_has_not_ended() {
    let now = Instant::now();
    let node =
        |state| Node { hostname: "n".into(), state, bytes_done: 3, bytes_total: 9, error: String::new() };
    let nodes = [("a", State::Running), ("b", State::Succeeded), ("c", State::Pending), ("d", State::Failed)];
    let nodes = nodes.into_iter().map(|(id, state)| (id.to_owned(), node(state))).collect();
    let known = Known { target: Some(target()), nodes };
    let mut part = Part::new(spec("all"), "cluster 1 `a`".into(), known, now);
    let told: Vec<String> = part.step(&live(0, 9), now).into_iter().map(|(host, _)| host).collect();
    assert_eq!(told, ["a", "c"], "no new nodes, none that ended");
}

proptest! {
    /// Whatever nodes say in whatever order: never more than the bound at work, and it ends when all have.
    #[test]
    fn bounded_and_ends(count in 1usize..450, fails in proptest::collection::vec(any::<bool>(), 450)) {
        let now = Instant::now();
        let (mut part, nodes) = (holding("all", now), live(1, count - 1));
        let mut told = BTreeSet::new();
        for _ in 0..10 {
            let orders = part.step(&nodes, now);
            prop_assert!(orders.len() <= MAX_AT_ONCE);
            for (host, _) in orders {
                prop_assert!(told.insert(host.clone()), "told twice");
                let index: usize = host[3..].parse().unwrap();
                let phase = if fails[index] { Phase::Failed } else { Phase::Succeeded };
                part.heard(progress(&host, phase, 1, "x"), now);
            }
        }
        let failed = fails[..count].iter().any(|fails| *fails);
        let expected = if failed { State::Failed } else { State::Succeeded };
        prop_assert_eq!(part.outcome().map(|outcome| outcome.state), Some(expected));
        prop_assert_eq!(told.len(), count);
    }
}
