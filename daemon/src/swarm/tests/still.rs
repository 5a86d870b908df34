//! Parents and origins that stand still, and whose credentials go where.

use super::fixture::{MIB, Node, Origin, content, object, task_of};
use super::{assignment, open, pull};
use crate::metrics::Source;
use crate::origin::{Credentials, ObjectKind, OriginObject};
use crate::store::Store;
use crate::swarm::Notice;
use crate::swarm::orders::{Assignment, Order, Parent};
use crate::swarm::state::State;
use hawker_api::pieces::PieceSet;
use hawker_api::units::ByteSize;
use http::{HeaderMap, HeaderValue, header};
use std::time::{Duration, Instant};

fn silent() -> (std::net::TcpListener, Parent) {
    // The kernel takes connections; nobody ever answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (idc, location) = (String::new(), String::new());
    (listener, Parent { host_id: "silent".to_owned(), addr, seed: false, idc, location, reserve: false })
}

#[tokio::test]
async fn a_parent_that_stands_still_costs_one_wait_and_the_next_blob_none() {
    let (first, second) = (content(31, 5 * MIB), content(32, 5 * MIB));
    let (listener, parent) = silent();
    let mut took = Vec::new();
    let origin = Origin::with([(task_of(&first), &first[..]), (task_of(&second), &second[..])]).await;
    let node = Node::start("a", &origin, 0).await;
    node.told.connect();
    for bytes in [&first, &second] {
        let started = Instant::now();
        let task = task_of(bytes);
        let steering = async {
            node.told.wait(|notice| matches!(notice, Notice::Want(want) if want.task == task)).await;
            node.swarm.order(assignment(task, bytes, "silent", vec![parent.clone()]));
        };
        let (pulled, ()) = tokio::join!(pull(&node, task), steering);
        assert!(pulled == *bytes);
        took.push(started.elapsed());
    }
    drop(listener);
    assert!(took[0] < Duration::from_secs(5), "{took:?}");
    assert!(took[1] < Duration::from_millis(2000), "known by now: {took:?}");
}

#[test]
fn what_a_parent_that_gives_nothing_has_claimed_is_free_to_all_but_itself() {
    let (dir, bytes, now) = (tempfile::tempdir().unwrap(), content(33, 9 * MIB), Instant::now());
    let storage = crate::config::StorageConfig { dir: dir.path().to_owned(), capacity: ByteSize(0) };
    let blob = Store::open(&storage).unwrap().create(&task_of(&bytes), bytes.len() as u64).unwrap();
    let count = blob.geometry().count();
    let mut state = State::new(object(), Credentials::none(), now);
    state.blob = Some(blob);
    let (_listener, parent) = silent();
    let Order::Assignment(assigned) = assignment(task_of(&bytes), &bytes, "silent", vec![parent]) else {
        panic!()
    };
    state.assigned(assigned, |_| Source::PeerSameZone);
    state.parents.get_mut("silent").unwrap().has = (0..count).collect();
    let claims = |state: &mut State| {
        std::iter::from_fn(|| state.claim_from("silent", now, |_| 0)).map(|(piece, ..)| piece).collect()
    };
    let first: Vec<u32> = claims(&mut state);
    let claimed = |state: &State, piece| state.is_claimed(piece, now, Duration::from_secs(4));
    assert!(first.len() == count as usize && first.iter().all(|piece| claimed(&state, *piece)));
    state.tried("silent", true);
    assert!(first.iter().all(|piece| !claimed(&state, *piece)), "another one may have them");
    assert_eq!(claims(&mut state), Vec::<u32>::new(), "its other connection gets no more");
    // What it takes up in this state is not kept from others either.
    let (piece, taken) = (first[0], state.claim(first[0], now));
    state.release(piece, &taken);
    assert_eq!(claims(&mut state), [piece]);
    assert!(!claimed(&state, piece));
    state.tried("silent", false);
    assert!(claimed(&state, piece), "it is back");
}

#[test]
fn waiting_is_in_vain_where_the_origin_stopped_and_no_parent_that_works_has_the_piece() {
    let now = Instant::now();
    let mut state = State::new(object(), Credentials::none(), now);
    assert!(!state.is_stuck(3, now));
    state.origin_stopped = Some(now);
    assert!(state.is_stuck(3, now));
    let (_listener, parent) = silent();
    let assigned = Assignment {
        task: task_of(b"x"),
        size: None,
        parents: Some(vec![parent]),
        digests: Vec::new(),
        refused: None,
    };
    state.assigned(assigned, |_| Source::PeerSameZone);
    assert!(state.is_stuck(3, now), "it does not have it");
    state.parents.get_mut("silent").unwrap().has = PieceSet::from_iter([3]);
    assert!(!state.is_stuck(3, now) && state.is_stuck(4, now));
    state.tried("silent", true);
    assert!(state.is_stuck(3, now));
    assert!(!state.is_stuck(3, now + Duration::from_secs(11)), "the origin may be back");
}

#[test]
fn credentials_stay_with_the_registry_they_came_for() {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic mine"));
    let state = State::new(object(), Credentials::from_headers(&headers), Instant::now());
    assert!(!state.credentials_for(&object()).is_none());
    let other = OriginObject { registry: "evil.test".to_owned(), ..object() };
    assert!(state.credentials_for(&other).is_none());
    // A host may be on both lists; they are two places all the same.
    let file = OriginObject { kind: ObjectKind::File, ..object() };
    assert!(state.credentials_for(&file).is_none());
}

#[tokio::test]
async fn a_blob_whose_origin_sends_other_bytes_is_left_alone_for_a_while() {
    let (bytes, wrong) = (content(33, 9 * MIB), content(34, 9 * MIB));
    let task = task_of(&bytes);
    let origin = Origin::with([(task, &wrong[..])]).await;
    let node = Node::start("a", &origin, 0).await;
    let blob = open(&node, task).await.unwrap();
    let (got, end) = super::drain(blob.read(0..blob.size())).await;
    assert!(end.is_err() && got.len() < bytes.len());
    node.settled().await;
    let before = origin.sent();
    let again = open(&node, task).await.map(|_| ()).unwrap_err();
    assert!(again.to_string().contains("do not match"), "{again}");
    assert_eq!(origin.sent(), before);
}

#[tokio::test]
async fn a_new_session_is_not_held_to_what_the_last_one_refused() {
    let bytes = content(34, MIB);
    let (origin, task) = (Origin::start(&bytes).await, task_of(&bytes));
    let node = Node::start("a", &origin, 0).await;
    let refusal = |parents| {
        let refused = Some("nobody has it".to_owned());
        Order::Assignment(Assignment { task, size: None, parents, digests: Vec::new(), refused })
    };
    node.told.connect();
    let steering = async {
        node.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        let (_listener, parent) = silent();
        node.swarm.order(refusal(Some(vec![parent])));
        let refused = || node.swarm.download(&task).unwrap().state().refused.clone();
        assert!(refused().is_some());
        node.swarm.order(Order::Connected);
        assert_eq!(refused(), None);
        node.swarm.order(refusal(Some(Vec::new())));
    };
    let (pulled, ()) = tokio::join!(pull(&node, task), steering);
    assert!(pulled == bytes);
}
