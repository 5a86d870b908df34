//! The swarm over real sockets, files and an HTTP origin; the scheduler's part is played by hand.

mod fixture;
mod reserve;
mod still;

use super::*;
use crate::mirror::blobs::{BlobReader, ReadError};
use crate::status::{RemoveError, Stored};
use crate::swarm::orders::{Assignment, LeaseOutcome, Parent};
use fixture::{MIB, Node, Origin, SEED, content, object, pieces_of, task_of};
use std::time::Duration;

async fn open(node: &Node, task: TaskId) -> Result<Box<dyn Blob>, OpenError> {
    let request = BlobRequest { task, object: object(), credentials: Credentials::none() };
    let opening = Blobs::open(&node.swarm, request);
    tokio::time::timeout(Duration::from_secs(20), opening).await.expect("opening hangs")
}

async fn drain(mut reader: Box<dyn BlobReader>) -> (Vec<u8>, Result<(), ReadError>) {
    let mut all = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(20), reader.next()).await.expect("reader hangs");
        match next {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

async fn pull(node: &Node, task: TaskId) -> Vec<u8> {
    let blob = open(node, task).await.unwrap();
    let (bytes, end) = drain(blob.read(0..blob.size())).await;
    end.unwrap();
    bytes
}

fn assignment(task: TaskId, bytes: &[u8], attester: &str, parents: Vec<Parent>) -> Order {
    Order::Assignment(Assignment {
        task,
        size: Some(bytes.len() as u64),
        parents: Some(parents),
        digests: vec![Attested { first: 0, digests: pieces_of(bytes), attester: attester.into() }],
        refused: None,
    })
}

#[tokio::test]
async fn alone_a_node_fetches_from_the_origin_and_keeps_it() {
    let bytes = content(1, 9 * MIB + 5);
    let origin = Origin::start(&bytes).await;
    let node = Node::start("a", &origin, 0).await;
    let task = task_of(&bytes);
    assert!(pull(&node, task).await == bytes);
    assert!(pull(&node, task).await == bytes);
    assert_eq!(origin.sent(), bytes.len() as u64);
    node.settled().await;
    assert_eq!(node.store.held(), [(task, bytes.len() as u64)]);
    // The last piece is read after the download has ended; the second pull is the store's.
    assert_eq!(node.swarm.tasks()[0].delivered.origin, bytes.len() as u64);
}

#[tokio::test]
async fn pieces_come_from_parents_and_the_origin_is_left_alone() {
    let bytes = content(2, 21 * MIB);
    let origin = Origin::start(&bytes).await;
    let (parent, child) = (Node::start("parent", &origin, 0).await, Node::start("child", &origin, 0).await);
    let task = task_of(&bytes);
    parent.put(&bytes);
    child.told.connect();
    let pulling = pull(&child, task);
    let steering = async {
        child.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        child.swarm.order(assignment(task, &bytes, "parent", vec![parent.as_parent()]));
    };
    let (pulled, ()) = tokio::join!(pulling, steering);
    assert!(pulled == bytes);
    assert_eq!(origin.sent(), 0);
    child.told.wait(|notice| matches!(notice, Notice::Finished { .. })).await;
    assert_eq!(child.swarm.tasks()[0].fetched.peer_same_zone, bytes.len() as u64);
}

#[tokio::test]
async fn a_lease_is_worked_off_and_shared_while_it_arrives() {
    let bytes = content(3, 17 * MIB);
    let origin = Origin::start(&bytes).await;
    let (seed, child) = (Node::start(SEED, &origin, 0).await, Node::start("child", &origin, 0).await);
    let task = task_of(&bytes);
    seed.told.connect();
    child.told.connect();
    let pulling = pull(&child, task);
    let steering = async {
        child.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        // The size is known to nobody yet; the child waits on the seed's feed.
        let pieces = 0..hawker_api::pieces::MAX_PIECES;
        seed.swarm.order(Order::Lease(Lease {
            id: 7,
            task,
            object: object(),
            pieces,
            size: None,
            traceparent: None,
        }));
        seed.told.wait(|notice| matches!(notice, Notice::Size { .. })).await;
        child.swarm.order(assignment(task, &bytes, "seed", vec![seed.as_parent()]));
    };
    let (pulled, ()) = tokio::join!(pulling, steering);
    assert!(pulled == bytes);
    assert_eq!(origin.sent(), bytes.len() as u64);
    let ended =
        |notice: &Notice| matches!(notice, Notice::LeaseEnded { id: 7, outcome: LeaseOutcome::Done, .. });
    seed.told.wait(ended).await;
    seed.told.wait(|notice| matches!(notice, Notice::Finished { .. })).await;
    assert_eq!(seed.told.count(|notice| matches!(notice, Notice::Piece { attested: Some(_), .. })), 5);
}

/// Of several nodes that are told to leave it, the first gives its lease back, and the scheduler hands it to the next.
#[tokio::test]
async fn a_lease_that_comes_after_the_last_one_left_begins_nothing_anew() {
    let bytes = content(15, 17 * MIB);
    let origin = Origin::start(&bytes).await;
    let node = Node::start("a", &origin, 0).await;
    let task = task_of(&bytes);
    node.told.connect();
    let request = BlobRequest { task, object: object(), credentials: Credentials::none() };
    let holding = node.swarm.hold(request, |_, _| ());
    tokio::select! {
        _ = holding => panic!("nobody gave it anything"),
        () = node.told.wait(|notice| matches!(notice, Notice::Want(_))) => {}
    }
    // It is being cleared away at this moment.
    assert!(node.swarm.download(&task).is_some());
    let (pieces, size) = (0..5, Some(bytes.len() as u64));
    node.swarm.order(Order::Lease(Lease { id: 3, task, object: object(), pieces, size, traceparent: None }));
    let declined = |notice: &Notice| {
        matches!(notice, Notice::LeaseEnded { id: 3, outcome: LeaseOutcome::Declined { .. }, .. })
    };
    node.told.wait(declined).await;
    node.settled().await;
    assert_eq!(origin.sent(), 0);
}

#[tokio::test]
async fn a_peer_that_serves_a_flipped_byte_is_named_and_replaced() {
    let bytes = content(4, 12 * MIB);
    let origin = Origin::start(&bytes).await;
    let (liar, honest) = (Node::start("liar", &origin, 0).await, Node::start("honest", &origin, 0).await);
    let child = Node::start("child", &origin, 0).await;
    let task = task_of(&bytes);
    for node in [&liar, &honest] {
        node.put(&bytes);
    }
    liar.flip(&task, 5 * MIB as u64);
    child.told.connect();
    let pulling = pull(&child, task);
    let steering = async {
        child.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        child.swarm.order(assignment(task, &bytes, "seed", vec![liar.as_parent()]));
        let bad = |notice: &Notice| matches!(notice, Notice::BadPeer { host_id, .. } if host_id == "liar");
        child.told.wait(bad).await;
        child.swarm.order(assignment(task, &bytes, "seed", vec![liar.as_parent(), honest.as_parent()]));
    };
    let (pulled, ()) = tokio::join!(pulling, steering);
    assert!(pulled == bytes);
    assert_eq!(origin.sent(), 0);
    let bad = child.swarm.bad_peers();
    assert_eq!((bad.len(), bad[0].host_id.as_str()), (1, "liar"));
    assert!(bad[0].detail.contains("does not match"), "{}", bad[0].detail);
}

#[tokio::test]
async fn who_lied_of_one_blob_is_asked_for_no_other_that_is_under_way() {
    let (bytes, other) = (content(12, MIB), content(13, 2 * MIB));
    let origin = Origin::start(&other).await;
    let (liar, child) = (Node::start("liar", &origin, 0).await, Node::start("child", &origin, 0).await);
    let (lied_of, under_way) = (task_of(&bytes), task_of(&other));
    liar.put(&bytes);
    liar.flip(&lied_of, 17);
    child.told.connect();
    let wanted = |task| move |notice: &Notice| matches!(notice, Notice::Want(want) if want.task == task);
    let bad = |of| move |notice: &Notice| matches!(notice, Notice::BadPeer { task, .. } if *task == of);
    let first = async {
        child.told.wait(wanted(under_way)).await;
        // It does not have it, and nobody knows that yet.
        child.swarm.order(assignment(under_way, &other, "seed", vec![liar.as_parent()]));
        let _ = open(&child, lied_of).await;
    };
    let steering = async {
        child.told.wait(wanted(lied_of)).await;
        child.swarm.order(assignment(lied_of, &bytes, "seed", vec![liar.as_parent()]));
        child.told.wait(bad(lied_of)).await;
        child.told.wait(bad(under_way)).await;
        for task in [lied_of, under_way] {
            let refused = Some("nobody has it".to_owned());
            let (size, parents, digests) = (None, Some(Vec::new()), Vec::new());
            child.swarm.order(Order::Assignment(Assignment { task, size, parents, digests, refused }));
        }
    };
    let (pulled, (), ()) = tokio::join!(pull(&child, under_way), first, steering);
    assert!(pulled == other);
    assert_eq!(child.told.count(bad(under_way)), 1, "said once");
}

#[tokio::test]
async fn a_restart_fetches_only_what_is_missing() {
    let bytes = content(5, 20 * MIB);
    let origin = Origin::start(&bytes).await;
    let node = Node::start("a", &origin, 0).await;
    node.put_pieces(&bytes, &[0, 2]);
    assert!(pull(&node, task_of(&bytes)).await == bytes);
    assert_eq!(origin.sent(), 12 * MIB as u64);
}

#[tokio::test]
async fn a_damaged_piece_of_an_earlier_life_is_fetched_again() {
    let bytes = content(6, 12 * MIB);
    let origin = Origin::start(&bytes).await;
    let node = Node::start("a", &origin, 0).await;
    node.put_pieces(&bytes, &[0, 1]);
    let node = node.restart(&origin).await;
    node.flip(&task_of(&bytes), 17);
    assert!(pull(&node, task_of(&bytes)).await == bytes);
    assert_eq!(origin.sent(), 8 * MIB as u64);
}

#[tokio::test]
async fn a_wrong_piece_list_is_found_out_and_its_author_named() {
    let (bytes, wrong) = (content(7, 12 * MIB), content(8, 12 * MIB));
    let origin = Origin::start(&bytes).await;
    let (liar, child) = (Node::start("liar", &origin, 0).await, Node::start("child", &origin, 0).await);
    let task = task_of(&bytes);
    liar.put_as(task, &wrong);
    child.told.connect();
    let opening = open(&child, task);
    let steering = async {
        child.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        child.swarm.order(assignment(task, &wrong, "liar", vec![liar.as_parent()]));
    };
    let (blob, ()) = tokio::join!(opening, steering);
    let blob = blob.unwrap();
    let (got, end) = drain(blob.read(0..blob.size())).await;
    assert!(matches!(end, Err(ReadError::Mismatch)), "{end:?}");
    assert!(got.len() <= 8 * MIB, "the last piece was not held back: {}", got.len());
    assert!(pull(&child, task).await == bytes, "the second attempt goes by the origin");
    let named =
        |notice: &Notice| matches!(notice, Notice::Mismatch { attesters, .. } if attesters == &["liar"]);
    child.told.wait(named).await;
}

#[tokio::test]
async fn without_a_scheduler_the_known_parents_still_serve() {
    let bytes = content(9, 12 * MIB);
    let origin = Origin::start(&bytes).await;
    let (parent, child) = (Node::start("parent", &origin, 0).await, Node::start("child", &origin, 0).await);
    let task = task_of(&bytes);
    parent.put(&bytes);
    child.told.connect();
    let pulling = pull(&child, task);
    let steering = async {
        child.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        child.swarm.order(Order::Assignment(Assignment {
            task,
            size: None,
            parents: Some(vec![parent.as_parent()]),
            digests: Vec::new(),
            refused: None,
        }));
        child.told.disconnect();
        child.swarm.order(Order::Disconnected);
    };
    let (pulled, ()) = tokio::join!(pulling, steering);
    assert!(pulled == bytes);
    assert_eq!(origin.sent(), 0);
}

#[tokio::test]
async fn what_is_being_downloaded_is_not_removed_and_what_was_just_read_is() {
    let bytes = content(14, 9 * MIB);
    let origin = Origin::start(&bytes).await;
    let node = Node::start("a", &origin, 0).await;
    let task = task_of(&bytes);
    let remove = || {
        let swarm = node.swarm.clone();
        async move { tokio::task::spawn_blocking(move || swarm.remove(&task, false)).await.unwrap() }
    };
    node.told.connect();
    let steering = async {
        node.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        node.swarm.order(assignment(task, &bytes, "seed", Vec::new()));
        node.told.wait(|notice| matches!(notice, Notice::Size { .. })).await;
        assert!(matches!(remove().await, Err(RemoveError::Downloading)));
        let (refused, parents) = (Some("nobody has it".to_owned()), None);
        let refusal = Assignment { task, size: None, parents, digests: Vec::new(), refused };
        node.swarm.order(Order::Assignment(refusal));
    };
    let (pulled, ()) = tokio::join!(pull(&node, task), steering);
    assert!(pulled == bytes);
    remove().await.unwrap();
    assert_eq!(node.store.held(), []);
    node.told.wait(|notice| matches!(notice, Notice::Dropped(_))).await;
}

#[tokio::test]
async fn the_origins_refusal_is_passed_on() {
    let origin = Origin::start(b"something else").await;
    let node = Node::start("a", &origin, 0).await;
    let Err(error) = open(&node, task_of(b"not there")).await else { panic!() };
    assert!(matches!(&error, OpenError::Origin(origin) if origin.status() == Some(404)), "{error}");
}

#[tokio::test]
async fn no_space_is_told_at_once() {
    let bytes = content(10, 12 * MIB);
    let origin = Origin::start(&bytes).await;
    let node = Node::start("a", &origin, 8 * MIB as u64).await;
    let Err(error) = open(&node, task_of(&bytes)).await else { panic!() };
    assert!(matches!(error, OpenError::NoSpace(_)), "{error}");
    assert!(node.store.report().error.is_some_and(|text| text.contains("capacity")));
}

#[tokio::test]
async fn an_empty_blob_and_a_range_are_read_right() {
    let empty = Origin::start(b"").await;
    let node = Node::start("a", &empty, 0).await;
    assert!(pull(&node, task_of(b"")).await.is_empty());
    let bytes = content(11, 9 * MIB);
    let origin = Origin::start(&bytes).await;
    let node = Node::start("b", &origin, 0).await;
    let blob = open(&node, task_of(&bytes)).await.unwrap();
    let range = 4 * MIB - 3..4 * MIB + 3;
    let (got, end) = drain(blob.read(range.start as u64..range.end as u64)).await;
    end.unwrap();
    assert!(got == bytes[range]);
}
