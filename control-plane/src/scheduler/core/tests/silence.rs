//! Hosts that stand still while others wait for them.

use super::*;

const STEP: Duration = Duration::from_millis(100);

/// Two hosts fetch 40 pieces together; both gave a sign of life.
fn two_at_work() -> Stage {
    let mut stage = Stage::new(&[("a", false), ("b", false)]);
    stage.pass(STEP);
    for session in 1..=2 {
        stage.say(session, want(1, Some(40 * PIECE)));
        stage.say(session, Message::Beat);
    }
    stage
}

fn pass_with_signs(stage: &mut Stage, time: Duration, alive: &[SessionId]) {
    for _ in 0..time.as_millis() / STEP.as_millis() {
        for session in alive {
            stage.say(*session, Message::Beat);
        }
        stage.pass(STEP);
    }
}

fn is_silenced(stage: &Stage, session: SessionId) -> bool {
    stage.to(session).any(|order| matches!(order, Order::Silent))
}

#[test]
fn what_a_silent_host_fetches_and_alone_holds_goes_to_others() {
    let mut stage = two_at_work();
    let first = stage.leases(1)[0].1.clone();
    stage.say(1, progress(1, 40 * PIECE, first.start..first.start + 2, true));
    pass_with_signs(&mut stage, Duration::from_millis(2800), &[2]);
    assert!(!is_silenced(&stage, 1), "it has three seconds");
    pass_with_signs(&mut stage, Duration::from_millis(600), &[2]);
    assert!(is_silenced(&stage, 1) && !is_silenced(&stage, 2));
    // The other one finishes what it had, and gets everything else, the first missing piece included.
    let mut fetched: BTreeSet<u32> = BTreeSet::new();
    for _ in 0..10 {
        for (id, pieces) in stage.leases(2) {
            if fetched.is_superset(&pieces.clone().collect()) {
                continue;
            }
            fetched.extend(pieces.clone());
            stage.say(2, progress(1, 40 * PIECE, pieces, true));
            let outcome = LeaseOutcome::Done;
            stage.say(2, Message::LeaseEnded { task: task_id(1), id, outcome });
        }
        pass_with_signs(&mut stage, STEP, &[2]);
    }
    assert_eq!(fetched, (0..40).collect());
    // It wakes, and is one of them again.
    stage.event(Event::Connected { session: 3, host: host("a", false) });
    stage.say(3, want(1, Some(40 * PIECE)));
    assert_eq!(stage.parents(3), ["b"]);
}

#[test]
fn who_promised_no_signs_or_has_no_work_may_be_silent() {
    let mut stage = Stage::new(&[("old", false), ("done", false), ("b", false)]);
    stage.pass(STEP);
    stage.say(1, want(1, Some(40 * PIECE)));
    stage.say(2, want(1, Some(40 * PIECE)));
    stage.say(2, Message::Beat);
    stage.say(2, Message::Abandoned { task: task_id(1) });
    pass_with_signs(&mut stage, Duration::from_secs(8), &[]);
    assert!(!is_silenced(&stage, 1) && !is_silenced(&stage, 2));
}

#[test]
fn a_scheduler_that_stood_still_itself_blames_nobody() {
    let mut stage = two_at_work();
    stage.pass(Duration::from_secs(60));
    stage.pass(STEP);
    pass_with_signs(&mut stage, Duration::from_secs(2), &[]);
    assert!(!is_silenced(&stage, 1) && !is_silenced(&stage, 2));
}
