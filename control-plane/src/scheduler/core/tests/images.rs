//! Who of a cluster's nodes has an image, and who is behind.

use super::super::super::messages::Image;
use super::*;

fn wanted(name: &str, tags: &[u8]) -> Message {
    let parts = tags.iter().map(|tag| (task_id(*tag), 10 * PIECE)).collect();
    Message::Image(Image { name: name.into(), manifest: task_id(200), parts })
}

#[test]
fn nodes_get_an_image_one_after_the_other() {
    let mut stage = Stage::new(&[("a", false), ("b", false), ("c", false)]);
    for session in [1, 2] {
        stage.say(session, wanted("r/a:1", &[1, 2]));
    }
    stage.say(1, Message::Inventory(vec![(task_id(1), 10 * PIECE), (task_id(2), 10 * PIECE)]));
    stage.say(2, want(1, Some(10 * PIECE)));
    stage.now += Duration::from_secs(2);
    stage.say(2, progress(1, 10 * PIECE, 0..5, false));
    let (news, nodes) = stage.core.rollouts(stage.now);
    let [rollout] = news.as_slice() else { panic!("{news:?}") };
    assert_eq!((rollout.name.as_str(), rollout.bytes, nodes), ("r/a:1", 20 * PIECE, 3));
    assert_eq!((rollout.nodes_done, rollout.nodes_wanted), (1, 2));
    let [straggler] = rollout.stragglers.as_slice() else { panic!("{rollout:?}") };
    assert_eq!((&*straggler.host, straggler.bytes_done), ("b", 5 * PIECE));
    assert!(straggler.reason.starts_with("downloading from one peer, 10.5 MB/s"), "{}", straggler.reason);
    // 5 pieces in 2 s; 15 are left.
    assert_eq!(rollout.eta.unwrap().as_secs(), 6);
    // Nothing new, nothing told; then it stands still, and goes.
    assert!(stage.core.rollouts(stage.now).0.is_empty());
    stage.now += Duration::from_secs(7);
    let reason = |stage: &mut Stage| stage.core.rollouts(stage.now).0[0].stragglers[0].reason.clone();
    assert_eq!(reason(&mut stage), "no piece for 7 s from one peer");
    stage.event(Event::Disconnected { session: 2 });
    assert!(reason(&mut stage).starts_with("not connected"));
    // It comes back with everything; a node that has it stays counted, whatever it drops later.
    stage.event(Event::Connected { session: 4, host: host("b", false) });
    stage.say(4, Message::Inventory(vec![(task_id(1), 10 * PIECE), (task_id(2), 10 * PIECE)]));
    let (news, _) = stage.core.rollouts(stage.now);
    assert_eq!((news[0].nodes_done, news[0].stragglers.len(), news[0].eta), (2, 0, None));
    stage.say(4, Message::Dropped(vec![task_id(1)]));
    assert!(stage.core.rollouts(stage.now).0.is_empty());
    stage.core.rollouts_anew();
    assert_eq!(stage.core.rollouts(stage.now).0[0].nodes_done, 2);
}

#[test]
fn who_asks_for_nothing_is_said_to_and_images_are_bounded() {
    let mut stage = Stage::new(&[("a", false)]);
    stage.say(1, wanted("r/a:1", &[1]));
    let (news, _) = stage.core.rollouts(stage.now);
    assert_eq!(news[0].stragglers[0].reason, "does not ask for what it lacks");
    for number in 0..300u32 {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        let manifest = TaskId::from_digest(Algorithm::Sha256, &digest).unwrap();
        stage.now += Duration::from_millis(1);
        stage.say(1, Message::Image(Image { name: "x".into(), manifest, parts: vec![(task_id(1), 5)] }));
    }
    stage.core.rollouts_anew();
    assert_eq!(stage.core.rollouts(stage.now).0.len(), 256);
}
