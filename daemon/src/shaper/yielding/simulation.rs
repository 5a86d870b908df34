//! The controller on a link: fluid flows in steps of 5 ms, a queue, and the controller every 50 ms with counters that are
//! one step old. What must hold is what the product promises; the figures of the real thing are in `bench shaper`.
//!
//! Invariant: randomness comes from a seed that a failure prints.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds become numbers of steps"
)]

use super::{EVERY, Measured, Wish, Yield};
use std::time::Duration;

/// Mbit/s are as good as bytes per second: nothing depends on the unit.
const CAPACITY: f64 = 200.0;
const TICK: f64 = 0.005;
const TICKS_PER_STEP: usize = 10;
/// Time a full queue takes to drain.
const QUEUE: f64 = 0.05;

fn wish() -> Wish {
    Wish { target: 0.95, floor: 0.0, capacity: CAPACITY, speed: None }
}

/// The others' traffic.
enum Other {
    /// So much at this time, whatever happens.
    Constant(fn(f64) -> f64),
    /// A TCP flow from `start` to `end`: doubles each round trip, then adds `growth` per second; loss takes 30 %.
    Tcp { start: f64, end: f64, round_trip: f64, growth: f64, rate: f64, slow_start: bool, deaf: f64 },
}

impl Other {
    fn tcp(start: f64, end: f64, round_trip: f64, growth: f64) -> Self {
        Self::Tcp { start, end, round_trip, growth, rate: 0.0, slow_start: true, deaf: 0.0 }
    }

    /// What it offers at `now`, after a tick in which packets were lost or not.
    fn offers(&mut self, now: f64, lost: bool) -> f64 {
        match self {
            Self::Constant(rate) => rate(now),
            Self::Tcp { start, end, round_trip, growth, rate, slow_start, deaf } => {
                if now < *start || now >= *end {
                    *rate = 0.0;
                    return 0.0;
                }
                if lost && now >= *deaf {
                    // Once in a round trip, and in the time the queue adds to it.
                    (*rate, *slow_start, *deaf) = (*rate * 0.7, false, now + *round_trip + QUEUE);
                } else if *slow_start {
                    *rate = rate.max(1.0) * (TICK / *round_trip).min(1.0).exp2();
                } else {
                    *rate += *growth * TICK;
                }
                // A window's worth waits in the queue at most.
                *rate = rate.min(2.0 * CAPACITY);
                *rate
            }
        }
    }
}

struct Node {
    controller: Yield,
    wish: Wish,
    limit: f64,
    wants: fn(f64) -> f64,
    sent: f64,
}

impl Node {
    fn new(wish: Wish) -> Self {
        Self { controller: Yield::default(), wish, limit: f64::MAX, wants: |_| f64::MAX, sent: 0.0 }
    }
}

struct Link {
    capacity: fn(f64) -> f64,
    nodes: Vec<Node>,
    other: Other,
    /// Relative noise of each measurement.
    noise: f64,
    seed: u64,
}

/// Rates in the mean over each step: of each node, and of the others.
struct Run {
    nodes: Vec<Vec<f64>>,
    other: Vec<f64>,
}

impl Link {
    fn new(nodes: Vec<Node>, other: Other) -> Self {
        Self { capacity: |_| CAPACITY, nodes, other, noise: 0.0, seed: 1 }
    }

    fn random(&mut self) -> f64 {
        // xorshift64*
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn run(mut self, seconds: f64) -> Run {
        let mut run = Run { nodes: vec![Vec::new(); self.nodes.len()], other: Vec::new() };
        // What waits, by flow: the nodes', and the others' last.
        let mut queue = vec![0.0; self.nodes.len() + 1];
        let (mut lost, mut previous): (bool, Option<(Vec<f64>, f64, bool)>) = (false, None);
        let steps = (seconds / EVERY.as_secs_f64()) as usize;
        for step in 0..steps {
            let (mut other_sent, mut total_sent, mut full) = (0.0, 0.0, false);
            for tick in 0..TICKS_PER_STEP {
                let now = step as f64 * EVERY.as_secs_f64() + tick as f64 * TICK;
                let capacity = (self.capacity)(now);
                for (node, waits) in self.nodes.iter().zip(&mut queue) {
                    *waits += node.limit.min((node.wants)(now)).min(4.0 * CAPACITY) * TICK;
                }
                queue[self.nodes.len()] += self.other.offers(now, lost) * TICK;
                // Well mixed: what leaves is made like what waits.
                let waits: f64 = queue.iter().sum();
                let leaves = if waits > 0.0 { (capacity * TICK / waits).min(1.0) } else { 0.0 };
                let sent: Vec<f64> = queue.iter().map(|waits| waits * leaves).collect();
                let keeps = (1.0 - leaves).min(QUEUE * capacity / waits.max(f64::MIN_POSITIVE));
                queue.iter_mut().for_each(|waits| *waits *= keeps);
                lost = keeps < 1.0 - leaves;
                full |= waits * keeps > 0.2 * QUEUE * capacity;
                for (node, sent) in self.nodes.iter_mut().zip(&sent) {
                    node.sent += sent;
                }
                other_sent += sent[self.nodes.len()];
                total_sent += sent.iter().sum::<f64>();
            }
            let seconds = EVERY.as_secs_f64();
            let owns: Vec<f64> =
                self.nodes.iter_mut().map(|node| std::mem::take(&mut node.sent) / seconds).collect();
            run.other.push(other_sent / seconds);
            for (list, own) in run.nodes.iter_mut().zip(&owns) {
                list.push(*own);
            }
            // Decided by the figures of the step before.
            if let Some((owns, total, full)) = previous.replace((owns, total_sent / seconds, full)) {
                for (index, own) in owns.into_iter().enumerate() {
                    let noise = 1.0 + self.noise * (self.random() * 2.0 - 1.0);
                    let measured = Measured { own, total: total * noise, full };
                    let node = &mut self.nodes[index];
                    node.limit = node.controller.step(&node.wish, &measured, EVERY).unwrap_or(f64::MAX);
                }
            }
        }
        run
    }
}

/// The mean from `from` to `to`, seconds.
fn mean(rates: &[f64], from: f64, to: f64) -> f64 {
    let index = |second: f64| (second / EVERY.as_secs_f64()) as usize;
    let window = &rates[index(from)..index(to).min(rates.len())];
    window.iter().sum::<f64>() / window.len() as f64
}

fn between(what: &str, value: f64, low: f64, high: f64) {
    assert!((low..=high).contains(&value), "{what}: {value:.1}, not {low:.1} to {high:.1}");
}

#[test]
fn alone_it_has_the_target() {
    let run = Link::new(vec![Node::new(wish())], Other::Constant(|_| 0.0)).run(10.0);
    between("P2P", mean(&run.nodes[0], 1.0, 10.0), 0.94 * CAPACITY, 0.96 * CAPACITY);
}

#[test]
fn a_constant_flow_is_made_room_for_at_once_and_what_it_leaves_is_used() {
    let step = |now: f64| if (5.0..10.0).contains(&now) { 120.0 } else { 0.0 };
    let run = Link::new(vec![Node::new(wish())], Other::Constant(step)).run(15.0);
    between("the flow", mean(&run.other, 5.0, 6.0), 115.0, 120.0);
    between("the flow later", mean(&run.other, 6.0, 10.0), 119.0, 120.1);
    between("P2P beside it", mean(&run.nodes[0], 6.0, 10.0), 65.0, 71.0);
    between("P2P after it", mean(&run.nodes[0], 11.0, 15.0), 188.0, 191.0);
}

#[test]
fn a_tcp_flow_gets_what_it_gets_alone_and_p2p_comes_back() {
    for (round_trip, growth) in [(0.001, 400.0), (0.02, 60.0), (0.1, 10.0)] {
        let alone = Link::new(Vec::new(), Other::tcp(5.0, 25.0, round_trip, growth)).run(30.0);
        let run = Link::new(vec![Node::new(wish())], Other::tcp(5.0, 25.0, round_trip, growth)).run(30.0);
        let (alone, beside) = (mean(&alone.other, 5.0, 25.0), mean(&run.other, 5.0, 25.0));
        println!("round trip {round_trip}: {beside:.1} beside P2P, {alone:.1} alone");
        between("the flow of what it gets alone", beside / alone, 0.9, 1.01);
        // What the flow leaves is used; its own losses leave something.
        between("P2P", mean(&run.nodes[0], 10.0, 25.0), 0.049 * CAPACITY, 0.3 * CAPACITY);
        let least = run.nodes[0].iter().skip(20).fold(f64::MAX, |least, rate| least.min(*rate));
        between("the floor", least, 0.04 * CAPACITY, CAPACITY);
        between("P2P after 2 s", mean(&run.nodes[0], 26.9, 27.0), 0.9 * CAPACITY, CAPACITY);
    }
}

#[test]
fn a_ramp_is_followed() {
    let ramp = |now: f64| (now * 10.0).min(150.0);
    let run = Link::new(vec![Node::new(wish())], Other::Constant(ramp)).run(25.0);
    for second in 2..24 {
        let (from, to) = (f64::from(second), f64::from(second + 1));
        let wanted = mean(&(0..500).map(|step| ramp(step as f64 * 0.05)).collect::<Vec<_>>(), from, to);
        between("the ramp", mean(&run.other, from, to), wanted * 0.97, wanted * 1.01);
        let total = mean(&run.other, from, to) + mean(&run.nodes[0], from, to);
        between("both", total, 0.92 * CAPACITY, 1.0 * CAPACITY);
    }
}

#[test]
fn bursts_and_noise_do_not_make_it_swing() {
    let bursts = |now: f64| if now % 1.0 < 0.3 { 80.0 } else { 20.0 };
    let mut link = Link::new(vec![Node::new(wish())], Other::Constant(bursts));
    (link.noise, link.seed) = (0.02, 7);
    println!("seed {}", link.seed);
    let run = link.run(30.0);
    between("the bursts", mean(&run.other, 5.0, 30.0), 36.0, 38.1);
    between("P2P", mean(&run.nodes[0], 5.0, 30.0), 0.6 * CAPACITY, 0.77 * CAPACITY);
    // Noise alone.
    let mut link = Link::new(vec![Node::new(wish())], Other::Constant(|_| 100.0));
    (link.noise, link.seed) = (0.02, 11);
    println!("seed {}", link.seed);
    let run = link.run(20.0);
    let (low, high) = run.nodes[0][100..]
        .iter()
        .fold((f64::MAX, 0.0f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
    between("lowest", low, 70.0, 91.0);
    between("highest", high, 80.0, 100.0);
}

#[test]
fn several_nodes_on_one_link_share_it_and_do_not_swing() {
    for count in [2, 4] {
        let mut nodes: Vec<Node> = (0..count).map(|_| Node::new(wish())).collect();
        // The last comes when the others have it all.
        nodes[count - 1].wants = |now| if now < 10.0 { 0.0 } else { f64::MAX };
        let run = Link::new(nodes, Other::Constant(|_| 0.0)).run(60.0);
        let sum: f64 = run.nodes.iter().map(|rates| mean(rates, 40.0, 60.0)).sum();
        between("all", sum, 0.85 * CAPACITY, CAPACITY);
        for rates in &run.nodes {
            let share = mean(rates, 40.0, 60.0) / (sum / count as f64);
            println!("{count} nodes: one has {share:.2} of its part");
            between("a node, of its part", share, 0.5, 1.5);
            let (low, high) = rates[800..]
                .iter()
                .fold((f64::MAX, 0.0f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
            between("swing of a node", high - low, 0.0, 0.25 * CAPACITY);
        }
    }
}

#[test]
fn several_nodes_give_way_together() {
    let nodes = vec![Node::new(wish()), Node::new(wish())];
    let run = Link::new(nodes, Other::tcp(10.0, 30.0, 0.01, 100.0)).run(35.0);
    between("the flow", mean(&run.other, 11.0, 30.0), 0.8 * CAPACITY, 0.91 * CAPACITY);
}

#[test]
fn a_capacity_that_nobody_tells_is_found_and_followed() {
    let unknown = Wish { capacity: 0.0, ..wish() };
    let mut link = Link::new(vec![Node::new(unknown)], Other::tcp(10.0, 20.0, 0.02, 60.0));
    // Halved at 30 s, whole again at 45 s.
    link.capacity = |now| if (30.0..45.0).contains(&now) { CAPACITY / 2.0 } else { CAPACITY };
    let run = link.run(70.0);
    between("P2P alone", mean(&run.nodes[0], 2.0, 10.0), 0.92 * CAPACITY, CAPACITY);
    between("the flow", mean(&run.other, 11.0, 20.0), 0.8 * CAPACITY, 0.96 * CAPACITY);
    between("P2P after it", mean(&run.nodes[0], 22.0, 30.0), 0.9 * CAPACITY, CAPACITY);
    between("P2P on half", mean(&run.nodes[0], 33.0, 45.0), 0.45 * CAPACITY, 0.51 * CAPACITY);
    between("P2P on the whole again", mean(&run.nodes[0], 55.0, 70.0), 0.9 * CAPACITY, CAPACITY);
}

#[test]
fn a_card_faster_than_the_way_behind_it_is_found_out() {
    let card = Wish { capacity: 0.0, speed: Some(10.0 * CAPACITY), ..wish() };
    let run = Link::new(vec![Node::new(card)], Other::tcp(10.0, 30.0, 0.02, 60.0)).run(40.0);
    between("the flow", mean(&run.other, 11.0, 30.0), 0.8 * CAPACITY, 0.96 * CAPACITY);
    between("P2P after it", mean(&run.nodes[0], 32.0, 40.0), 0.9 * CAPACITY, CAPACITY);
}

#[test]
fn without_a_known_capacity_and_a_full_link_there_is_no_limit() {
    let unknown = Wish { capacity: 0.0, ..wish() };
    let mut controller = Yield::default();
    for _ in 0..100 {
        let measured = Measured { own: 50.0, total: 90.0, full: false };
        assert_eq!(controller.step(&unknown, &measured, EVERY), None);
    }
}

proptest::proptest! {
    #[test]
    fn whatever_is_measured_the_limit_is_a_rate_from_the_floor_to_the_target(
        steps in proptest::collection::vec((0.0f64..1e12, 0.0f64..1e12, proptest::bool::ANY, 0u64..5000), 1..60),
        capacity in proptest::prop_oneof![proptest::strategy::Just(0.0), 1.0..1e11],
        floor in 0.0f64..1e6,
    ) {
        let wish = Wish { target: 0.9, floor, capacity, speed: None };
        let mut controller = Yield::default();
        for (own, total, full, millis) in steps {
            let measured = Measured { own, total, full };
            if let Some(limit) = controller.step(&wish, &measured, Duration::from_millis(millis)) {
                let capacity = controller.capacity(&wish).unwrap_or(0.0);
                proptest::prop_assert!(limit.is_finite() && limit > 0.0 && limit >= floor);
                proptest::prop_assert!(limit <= floor.max(0.93 * capacity) * 1.000_001, "{limit} of {capacity}");
            }
        }
    }
}
