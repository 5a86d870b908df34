//! Every list in pages, read while somebody else writes to it: the page and the number of all entries are of one moment.

use super::testing::on_both;
use super::*;
use crate::manager::bandwidth::{Key, ListKey, ListKind, ListQuery, ListRows, Query, Rows, STEP_S};
use crate::manager::jobs::spec::{Preheat, RawPreheat};
use crate::manager::rights::{Reach, Role};
use crate::manager::rollouts::Rollout;
use crate::manager::tasks::{KnownTask, TaskQuery};
use crate::usage::{Moved, Usage};
use std::cell::Cell;

on_both! {
    steps_of_bandwidth_agree_with_their_number,
    lists_of_bandwidth_agree_with_their_number,
    tasks_and_rollouts_agree_with_their_number,
    people_and_what_they_did_agree_with_their_number,
    jobs_agree_with_their_number,
}

/// Fewer than a page holds, and than there may be unfinished jobs.
const WRITES: u64 = 100;
const PAGE: usize = 1000;

/// Adds entries one by one, and reads meanwhile how many are shown and how many are said to be there.
async fn agree(write: impl AsyncFn(u64), read: impl AsyncFn() -> (usize, usize)) {
    let written = Cell::new(false);
    let writing = async {
        for number in 0..WRITES {
            write(number).await;
        }
        written.set(true);
    };
    let reading = async {
        let mut reads = 0;
        while !written.get() {
            let (shown, total) = read().await;
            assert_eq!(shown, total, "of read {reads}");
            reads += 1;
        }
        reads
    };
    let ((), reads) = tokio::join!(writing, reading);
    assert!(reads > 1, "nothing was read meanwhile");
}

fn number(place: u64) -> i64 {
    i64::try_from(place).unwrap()
}

async fn steps_of_bandwidth_agree_with_their_number(store: &Store) {
    let usage = Usage { upload: Moved { sent: 1, received: 0 }, ..Usage::default() };
    for (host, by_host) in [("", false), ("a", true)] {
        let write = async |place| {
            let key = Key { step: STEP_S, at: STEP_S * number(place), cluster_id: 1, host: host.to_owned() };
            store.add_bandwidth(&Rows::from([(key, usage)])).await.unwrap();
        };
        let all = Query { since: 0, step: STEP_S, cluster_id: None, by_host, skip: 0, limit: 1000 };
        agree(write, async || {
            let (steps, total) = store.bandwidth(&all).await.unwrap();
            (steps.len(), total)
        })
        .await;
    }
}

async fn lists_of_bandwidth_agree_with_their_number(store: &Store) {
    let write = async |place: u64| {
        let (name, other) = (place.to_string(), String::new());
        let key = ListKey { at: 300, cluster_id: 1, kind: ListKind::Host, name, other };
        store.add_to_lists(&ListRows::from([(key, (1, 0))])).await.unwrap();
    };
    let all = ListQuery { since: 0, kind: ListKind::Host, cluster_id: None, skip: 0, limit: 1000 };
    agree(write, async || {
        let (entries, total) = store.list(&all).await.unwrap();
        (entries.len(), total)
    })
    .await;
}

async fn tasks_and_rollouts_agree_with_their_number(store: &Store) {
    let write = async |place: u64| {
        let task = KnownTask {
            cluster_id: 1,
            task: place.to_string(),
            bytes: 1,
            pieces: 1,
            holders: 1,
            downloading: 0,
            moved_bytes: 1,
            origin_bytes: 0,
            last_seen: 1,
            hosts: Vec::new(),
        };
        store.put_tasks(&[task]).await.unwrap();
    };
    let all = TaskQuery { cluster_id: None, task: None, skip: 0, limit: 1000 };
    agree(write, async || {
        let (tasks, total) = store.tasks(&all).await.unwrap();
        (tasks.len(), total)
    })
    .await;

    let write = async |place: u64| {
        let rollout = Rollout {
            cluster_id: 1,
            manifest: place.to_string(),
            name: "r/a:1".into(),
            bytes: 1,
            nodes_done: 0,
            nodes_wanted: 1,
            nodes_total: 1,
            started_at: 1,
            eta_at: None,
            stragglers: Vec::new(),
            updated_at: 1,
        };
        store.write_rollouts(&[rollout]).await.unwrap();
    };
    agree(write, async || {
        let (rollouts, total) = store.rollouts(None, 0, PAGE).await.unwrap();
        (rollouts.len(), total)
    })
    .await;
}

async fn people_and_what_they_did_agree_with_their_number(store: &Store) {
    let write = async |place: u64| {
        let new = NewAccount {
            name: format!("user-{place}"),
            role: Role::Viewer,
            reach: Reach::All,
            password_hash: "hash".to_owned(),
            subject: None,
        };
        store.add_account(&new, 1).await.unwrap();
    };
    agree(write, async || {
        let (accounts, total) = store.accounts(0, PAGE).await.unwrap();
        (accounts.len(), total)
    })
    .await;

    let write = async |place: u64| {
        let entry = AuditEntry { at: number(place), detail: "{}".to_owned(), ..AuditEntry::default() };
        store.add_audit(&entry).await.unwrap();
    };
    let all = AuditQuery { until: i64::MAX, ..AuditQuery::default() };
    agree(write, async || {
        let (entries, total) = store.audit(&all, 0, PAGE).await.unwrap();
        (entries.len(), total)
    })
    .await;
}

async fn jobs_agree_with_their_number(store: &Store) {
    let raw = RawPreheat { image: Some("a".into()), scope: "all".into(), ..RawPreheat::default() };
    let preheat = Preheat::check(&raw).unwrap();
    let write = async |place: u64| {
        store.add_job((&place.to_string(), &preheat, "root"), &[1], 100).await.unwrap();
    };
    agree(write, async || {
        let (jobs, total) = store.jobs(&JobFilter::default(), 0, PAGE).await.unwrap();
        (jobs.len(), total)
    })
    .await;
}
