//! What hosts measured has its say in who becomes whose parent, and no more than that.

use super::super::super::messages::Report;
use super::*;

const MBIT: u64 = 125_000;

fn report(others_mbit: u64, capacity_mbit: u64) -> Message {
    Message::Report(Some(Report {
        elapsed: Duration::from_secs(1),
        others_sent: Some(others_mbit * MBIT),
        capacity: capacity_mbit * MBIT,
        upload_limit: 0,
    }))
}

/// Hosts of which the first `holders` hold every task from 1 to `tasks`.
fn stage(holders: u64, children: u64, tasks: u8, use_reports: bool) -> Stage {
    let names: Vec<String> = (1..=holders + children).map(|number| format!("host-{number:03}")).collect();
    let hosts: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), false)).collect();
    let mut stage = Stage::new(&hosts);
    stage.core.limits.use_reports = use_reports;
    for holder in 1..=holders {
        let held = (1..=tasks).map(|tag| (task_id(tag), 3 * PIECE)).collect();
        stage.say(holder, Message::Inventory(held));
    }
    stage
}

/// Parents of a child, and which of them are in reserve.
fn told(stage: &Stage, session: SessionId) -> (Vec<String>, Vec<bool>) {
    let parents = |order: &Order| match order {
        Order::Assignment(assignment) => assignment.parents.clone(),
        _ => None,
    };
    let last = stage.to(session).filter_map(parents).last().unwrap_or_default();
    last.into_iter().map(|parent| (parent.host.id.to_string(), parent.reserve)).unzip()
}

#[test]
fn a_busy_holder_comes_last_and_in_reserve() {
    let mut stage = stage(2, 8, 8, true);
    stage.say(1, report(190, 200));
    stage.say(2, report(5, 200));
    for child in 0..8u8 {
        stage.say(3 + u64::from(child), want(child + 1, None));
        let told = told(&stage, 3 + u64::from(child));
        assert_eq!(told, (vec!["host-002".to_owned(), "host-001".to_owned()], vec![false, true]));
    }
}

#[test]
fn who_alone_has_it_serves_however_busy() {
    let mut stage = stage(1, 2, 1, true);
    stage.say(1, report(200, 200));
    for child in [2, 3] {
        stage.say(child, want(1, None));
    }
    let ((first, reserve), (second, other)) = (told(&stage, 2), told(&stage, 3));
    assert_eq!(first, ["host-001"]);
    assert_eq!(
        second,
        ["host-002", "host-001"],
        "the second hangs on the first: one upload less for the busy one"
    );
    assert!(!reserve[0] && other.iter().all(|reserve| !reserve), "nobody else has everything");
}

#[test]
fn without_reports_or_with_stale_ones_load_alone_decides() {
    for (use_reports, pause) in [(false, 0), (true, 15)] {
        let mut stage = stage(2, 40, 40, use_reports);
        stage.say(1, report(200, 200));
        stage.say(2, report(0, 200));
        stage.now += Duration::from_secs(pause);
        let mut first = 0;
        for child in 0..40u8 {
            stage.say(3 + u64::from(child), want(child + 1, None));
            let (parents, reserve) = told(&stage, 3 + u64::from(child));
            first += usize::from(parents[0] == "host-001");
            assert_eq!(reserve, [false, false]);
        }
        assert!((8..=32).contains(&first), "{first} of 40 put the busy one first");
    }
}

#[test]
fn children_are_spread_by_headroom_and_the_unknown_are_average() {
    // Hosts 1 to 4 have twice the headroom of hosts 5 to 8; 9 to 12 said nothing.
    let mut stage = stage(12, 48, 48, true);
    for holder in 1..=8 {
        stage.say(holder, report(if holder <= 4 { 0 } else { 500 }, 1000));
    }
    let mut uploads = [0usize; 3];
    for child in 0..48u8 {
        stage.say(13 + u64::from(child), want(child + 1, None));
    }
    for (id, host) in &stage.core.hosts {
        let number: usize = id[5..].parse().unwrap();
        if number <= 12 {
            uploads[(number - 1) / 4] += host.uploads;
        }
    }
    let [double, single, unknown] = uploads.map(|uploads| uploads as f64);
    assert_eq!(uploads.iter().sum::<usize>(), 192, "four parents each");
    assert!((1.8..2.2).contains(&(double / single)), "{uploads:?}");
    assert!((0.9..1.1).contains(&(unknown / ((double + single) / 2.0))), "{uploads:?}");
}

#[test]
fn no_report_moves_a_child() {
    let mut stage = stage(2, 4, 4, true);
    for child in 0..4u8 {
        stage.say(3 + u64::from(child), want(child + 1, None));
    }
    let assigned = |stage: &Stage| {
        let with_parents =
            |told: &&Command| matches!(&told.order, Order::Assignment(told) if told.parents.is_some());
        stage.told.iter().filter(with_parents).count()
    };
    let before = assigned(&stage);
    for second in 0..60 {
        stage.say(1, report(if second % 7 < 4 { 200 } else { 0 }, 200));
        stage.say(2, Message::Report(None));
        stage.pass(Duration::from_secs(1));
    }
    assert_eq!(assigned(&stage), before);
}
