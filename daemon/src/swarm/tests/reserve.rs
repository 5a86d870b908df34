//! A parent in reserve is spared while the others give, and helps when they do not.

use super::*;

async fn pulled_with(parents: impl Fn(&Node, &Node) -> Vec<Parent>, free_gives: bool) -> (u64, u64) {
    let bytes = content(31, 33 * MIB);
    let origin = Origin::start(&bytes).await;
    let (free, busy) = (Node::start("free", &origin, 0).await, Node::start("busy", &origin, 0).await);
    let child = Node::start("child", &origin, 0).await;
    let task = task_of(&bytes);
    if free_gives {
        free.put(&bytes);
    }
    busy.put(&bytes);
    child.told.connect();
    let pulling = pull(&child, task);
    let steering = async {
        child.told.wait(|notice| matches!(notice, Notice::Want(_))).await;
        child.swarm.order(assignment(task, &bytes, "free", parents(&free, &busy)));
    };
    let (pulled, ()) = tokio::join!(pulling, steering);
    assert!(pulled == bytes);
    assert_eq!(origin.sent(), 0);
    child.told.wait(|notice| matches!(notice, Notice::Finished { .. })).await;
    // In another zone, so that its bytes are told apart.
    let fetched = child.swarm.tasks()[0].fetched;
    (fetched.peer_same_zone, fetched.peer_cross_zone)
}

fn with_reserve(free: &Node, busy: &Node) -> Vec<Parent> {
    vec![free.as_parent(), Parent { reserve: true, idc: "elsewhere".to_owned(), ..busy.as_parent() }]
}

#[tokio::test]
async fn it_is_spared_while_another_parent_gives() {
    let (free, busy) = pulled_with(with_reserve, true).await;
    assert_eq!((free, busy), (33 * MIB as u64, 0));
}

#[tokio::test]
async fn it_helps_where_the_others_give_nothing() {
    let (free, busy) = pulled_with(with_reserve, false).await;
    assert_eq!((free, busy), (0, 33 * MIB as u64));
}
