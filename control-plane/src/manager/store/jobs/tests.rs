//! What holds of jobs on either database.

use super::super::testing::on_both;
use super::*;
use crate::manager::jobs::orders::{Target, TaskSize};

on_both! {
    of_managers_that_want_a_part_one_gets_it,
    a_job_ends_with_its_last_part_and_stays_ended,
    who_lost_the_lease_writes_nothing,
    a_cancelled_job_ends_where_nobody_works_on_it,
    jobs_that_ended_are_forgotten_in_time_and_unfinished_ones_bounded,
}

fn preheat() -> Preheat {
    let raw = RawPreheat { image: Some("a".into()), scope: "all".into(), ..RawPreheat::default() };
    Preheat::check(&raw).unwrap()
}

async fn add(store: &Store, uid: &str, clusters: &[u64]) -> u64 {
    match store.add_job((uid, &preheat(), "root"), clusters, 100).await.unwrap() {
        Added::Job(id) => id,
        Added::TooMany => panic!("too many"),
    }
}

fn node(state: State) -> Node {
    Node { hostname: "n".into(), state, bytes_done: 1, bytes_total: 2, error: String::new() }
}

async fn of_managers_that_want_a_part_one_gets_it(store: &Store) {
    let id = add(store, "u", &[1, 2]).await;
    let free = store.free_parts(101, 10).await.unwrap();
    assert_eq!(
        free.iter().map(|free| (free.job_id, free.cluster_id)).collect::<Vec<_>>(),
        [(id, 1), (id, 2)]
    );
    let names: Vec<String> = (0..8).map(|manager| format!("manager-{manager}")).collect();
    let takes = names.iter().map(|name| store.take_part(free[0], name, (101, 116)));
    let taken = futures::future::join_all(takes).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
    assert_eq!(store.free_parts(102, 10).await.unwrap().len(), 1);
    assert_eq!(store.job(id).await.unwrap().unwrap().state, State::Running);
    // Its lease ends, and somebody else takes it.
    assert_eq!(store.free_parts(117, 10).await.unwrap()[0].since, 116);
    assert!(store.take_part(free[0], "late", (117, 132)).await.unwrap());
}

async fn a_job_ends_with_its_last_part_and_stays_ended(store: &Store) {
    let id = add(store, "u", &[1, 2]).await;
    let parts = store.free_parts(101, 10).await.unwrap();
    for part in &parts {
        assert!(store.take_part(*part, "me", (101, 116)).await.unwrap());
    }
    store.end_part(parts[0], "me", (State::Failed, "no space"), 102).await.unwrap();
    let mut ended = Vec::new();
    for (uid, cluster) in [("u", 1), ("u", 2), ("u", 3), ("forgotten", 2)] {
        ended.push(store.part_has_ended(uid, cluster).await.unwrap());
    }
    assert_eq!(ended, [true, false, true, true]);
    assert_eq!(store.job(id).await.unwrap().unwrap().state, State::Running);
    store.end_part(parts[1], "me", (State::Succeeded, ""), 103).await.unwrap();
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.error.as_str(), job.ended_at), (State::Failed, "no space", Some(103)));
    store.end_part(parts[0], "me", (State::Succeeded, ""), 104).await.unwrap();
    assert_eq!(store.job(id).await.unwrap().unwrap().state, State::Failed);
    assert!(!store.take_part(parts[0], "me", (200, 216)).await.unwrap());
    assert_eq!(store.cancel_job(id, 200).await.unwrap(), Cancelled::Ended(State::Failed));
}

async fn who_lost_the_lease_writes_nothing(store: &Store) {
    let id = add(store, "u", &[1]).await;
    let part = store.free_parts(101, 10).await.unwrap()[0];
    assert!(store.take_part(part, "first", (101, 116)).await.unwrap());
    let target = Target {
        task: "t".into(),
        registry: "r".into(),
        repository: "a".into(),
        kind: 1,
        version: String::new(),
    };
    let tasks = [TaskSize { task: "t".into(), bytes: 7 }];
    let nodes = [("a".to_owned(), node(State::Running))];
    assert!(store.write_part(part, "first", Some((&target, &tasks)), &nodes).await.unwrap());
    assert!(store.take_part(part, "second", (117, 132)).await.unwrap());
    let ended = [("a".to_owned(), node(State::Failed))];
    assert!(!store.write_part(part, "first", None, &ended).await.unwrap());
    let lease = store.renew_part(part, "first", 200).await.unwrap();
    assert_eq!(lease, Lease { held: false, cancel: false });
    let detailed = store.detailed_job(id).await.unwrap().unwrap();
    assert_eq!(detailed.nodes[0].node.state, State::Running);
    assert_eq!(store.part_target(part).await.unwrap(), Some(target));
    assert_eq!(detailed.tasks, tasks);
    let counts = NodeCounts { total: 1, ..NodeCounts::default() };
    assert_eq!(detailed.counts, counts);
    let (jobs, _) = store.jobs(&JobFilter::default(), 0, 9).await.unwrap();
    assert_eq!((jobs[0].0.id, jobs[0].1), (id, counts));
}

async fn a_cancelled_job_ends_where_nobody_works_on_it(store: &Store) {
    let id = add(store, "u", &[1, 2]).await;
    assert_eq!(store.job_clusters(id).await.unwrap(), [1, 2]);
    for (clusters, seen) in [(vec![1, 2, 3], 1), (vec![1], 0), (vec![], 0)] {
        let filter = JobFilter { state: None, clusters: Some(clusters) };
        assert_eq!(store.jobs(&filter, 0, 9).await.unwrap().1, seen);
    }
    let parts = store.free_parts(101, 10).await.unwrap();
    assert!(store.take_part(parts[0], "me", (101, 116)).await.unwrap());
    assert_eq!(store.cancel_job(id, 102).await.unwrap(), Cancelled::Noted);
    assert_eq!(store.job(id).await.unwrap().unwrap().state, State::Running);
    assert!(store.renew_part(parts[0], "me", 120).await.unwrap().cancel);
    store.end_part(parts[0], "me", (State::Cancelled, ""), 103).await.unwrap();
    assert_eq!(store.job(id).await.unwrap().unwrap().state, State::Cancelled);
    assert_eq!(store.cancel_job(99, 102).await.unwrap(), Cancelled::Unknown);
}

async fn jobs_that_ended_are_forgotten_in_time_and_unfinished_ones_bounded(store: &Store) {
    for number in 0..MAX_UNFINISHED {
        add(store, &format!("u{number}"), &[]).await;
    }
    let added = store.add_job(("one more", &preheat(), "root"), &[1], 100).await.unwrap();
    assert_eq!(added, Added::TooMany);
    let filter = JobFilter { state: Some(State::Pending), clusters: None };
    let (page, total) = store.jobs(&filter, 0, 3).await.unwrap();
    assert_eq!((page.len(), total), (3, 200));
    assert!(page[0].0.id > page[1].0.id, "the newest first");
}
