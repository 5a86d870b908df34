//! What holds of either database. Who adds a query adds what it must do here, or beside the query, and names it in
//! [`on_both`].

use super::testing::on_both;
use super::*;
use crate::manager::account::AccountEdit;
use crate::manager::cluster::{ClusterEdit, ClusterSpec};
use crate::manager::host::SchedulerHost;
use crate::manager::rights::{Permission, Reach, Role};
use std::collections::BTreeSet;

on_both! {
    exactly_one_cluster_is_the_default,
    an_id_is_never_given_twice,
    a_first_start_is_whole_or_not_at_all,
    of_two_first_starts_one_counts,
    an_edit_of_an_older_revision_is_noticed,
    of_edits_at_the_same_time_one_counts,
    texts_are_ordered_and_compared_by_their_bytes,
    a_token_is_good_until_it_expires,
    tokens_are_bounded_and_the_next_to_expire_makes_room,
    what_is_one_kind_of_session_is_not_the_other,
    the_last_admin_stays_whoever_asks,
    whoever_is_disabled_is_signed_out_for_good,
    access_tokens_are_good_for_their_scopes_until_they_expire,
    whom_a_provider_vouches_for_is_one_account,
    whom_a_provider_vouches_for_no_more_has_nothing_left,
    the_audit_log_is_read_newest_first_and_bounded,
    schedulers_are_replaced_as_a_whole,
    the_peers_secret_is_made_once,
}

fn spec(name: &str, is_default: bool) -> ClusterSpec {
    let edit =
        ClusterEdit { name: Some(name.to_owned()), is_default: Some(is_default), ..ClusterEdit::default() };
    ClusterSpec::create(edit).unwrap()
}

fn scheduler(addr: &str) -> SchedulerHost {
    SchedulerHost {
        hostname: "box".to_owned(),
        addr: addr.to_owned(),
        scheduler_cluster_id: 2,
        version: "1".to_owned(),
    }
}

async fn defaults(store: &Store) -> Vec<String> {
    let clusters = store.clusters().await.unwrap();
    clusters.into_iter().filter(|cluster| cluster.spec.is_default).map(|cluster| cluster.spec.name).collect()
}

async fn exactly_one_cluster_is_the_default(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    assert_eq!(defaults(store).await, ["cluster-1"]);
    let second = store.insert_cluster(&spec("b", true), 2).await.unwrap();
    assert_eq!(defaults(store).await, ["b"]);
    assert!(store.update_cluster(1, 1, &spec("cluster-1", true), 3).await.unwrap());
    assert_eq!(defaults(store).await, ["cluster-1"]);
    // An edit that fails half-way leaves the default where it was.
    assert!(!store.update_cluster(99, 1, &spec("c", true), 4).await.unwrap());
    let taken = store.update_cluster(second, 1, &spec("cluster-1", true), 4).await.unwrap_err();
    assert!(matches!(taken, StoreError::NameTaken { name } if name == "cluster-1"));
    assert_eq!(defaults(store).await, ["cluster-1"]);
    assert!(!store.delete_cluster(1).await.unwrap());
    assert!(store.delete_cluster(second).await.unwrap());
}

async fn an_id_is_never_given_twice(store: &Store) {
    let first = store.insert_cluster(&spec("a", false), 1).await.unwrap();
    assert!(store.delete_cluster(first).await.unwrap());
    let second = store.insert_cluster(&spec("a", false), 1).await.unwrap();
    assert!(second > first);
    assert!(!store.delete_cluster(u64::MAX).await.unwrap());
}

async fn a_first_start_is_whole_or_not_at_all(store: &Store) {
    store.insert_cluster(&spec("cluster-1", false), 1).await.unwrap();
    assert!(store.first_start("root", "hash", 1).await.is_err(), "the name is taken");
    assert!(store.is_new().await.unwrap());
}

async fn of_two_first_starts_one_counts(store: &Store) {
    let (one, two) = tokio::join!(store.first_start("root", "a", 1), store.first_start("root", "b", 1));
    assert_ne!(one.unwrap(), two.unwrap());
    assert_eq!(store.clusters().await.unwrap().len(), 1);
}

async fn an_edit_of_an_older_revision_is_noticed(store: &Store) {
    let id = store.insert_cluster(&spec("a", false), 1).await.unwrap();
    assert_eq!(store.clusters().await.unwrap()[0].revision, 1);
    assert!(store.update_cluster(id, 1, &spec("b", false), 2).await.unwrap());
    let late = store.update_cluster(id, 1, &spec("c", false), 3).await.unwrap_err();
    assert!(matches!(late, StoreError::Stale { id: named } if named == id), "{late}");
    let cluster = store.clusters().await.unwrap().remove(0);
    assert_eq!((cluster.spec.name.as_str(), cluster.revision), ("b", 2));
}

async fn of_edits_at_the_same_time_one_counts(store: &Store) {
    let id = store.insert_cluster(&spec("a", false), 1).await.unwrap();
    let specs: Vec<_> = (0..8).map(|number| spec(&format!("c{number}"), number % 2 == 0)).collect();
    let edits = specs.iter().map(|spec| store.update_cluster(id, 1, spec, 2));
    let done = futures::future::join_all(edits).await;
    assert_eq!(done.iter().filter(|done| matches!(done, Ok(true))).count(), 1, "{done:?}");
    assert!(done.iter().all(|done| matches!(done, Ok(true) | Err(StoreError::Stale { .. }))), "{done:?}");
}

async fn texts_are_ordered_and_compared_by_their_bytes(store: &Store) {
    let host = |addr: &str| scheduler(addr);
    store.replace_schedulers(&[host("b:1"), host("a:1"), host("B:1"), host("é:1")]).await.unwrap();
    let order: Vec<_> = store.schedulers().await.unwrap().into_iter().map(|host| host.addr).collect();
    assert_eq!(order, ["B:1", "a:1", "b:1", "é:1"]);
    store.insert_cluster(&spec("Name", false), 1).await.unwrap();
    store.insert_cluster(&spec("name", false), 1).await.unwrap();
}

async fn a_token_is_good_until_it_expires(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    let root = store.user("root").await.unwrap().unwrap().account.id;
    store.add_session(root, "one", "bearer", 100, 200).await.unwrap();
    assert_eq!(store.session("one", "bearer", 199).await.unwrap().unwrap().name, "root");
    assert_eq!(store.session("one", "bearer", 200).await.unwrap(), None);
    assert_eq!(store.session("two", "bearer", 100).await.unwrap(), None);
    assert!(store.user("nobody").await.unwrap().is_none());
}

async fn tokens_are_bounded_and_the_next_to_expire_makes_room(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    let root = store.user("root").await.unwrap().unwrap().account.id;
    for number in 0..=1000 {
        store.add_session(root, &format!("token-{number}"), "bearer", 1, 100 + number).await.unwrap();
    }
    assert_eq!(store.session("token-0", "bearer", 2).await.unwrap(), None);
    assert!(store.session("token-1", "bearer", 2).await.unwrap().is_some());
    assert!(store.session("token-1000", "bearer", 2).await.unwrap().is_some());
}

async fn schedulers_are_replaced_as_a_whole(store: &Store) {
    let host = scheduler;
    store.replace_schedulers(&[host("a:1"), host("b:1")]).await.unwrap();
    store.replace_schedulers(&[host("b:1"), host("c:1")]).await.unwrap();
    assert_eq!(store.schedulers().await.unwrap(), [host("b:1"), host("c:1")]);
}

async fn the_peers_secret_is_made_once(store: &Store) {
    let secret = store.peer_secret().await.unwrap();
    assert_ne!(secret, [0; 32]);
    assert_eq!(store.peer_secret().await.unwrap(), secret);
    sqlx::query("UPDATE secrets SET value = 'short'").execute(&store.pool).await.unwrap();
    assert!(store.peer_secret().await.unwrap_err().to_string().contains("32 bytes"));
}

fn account(name: &str, role: Role) -> NewAccount {
    let (password_hash, subject) = ("hash".to_owned(), None);
    NewAccount { name: name.to_owned(), role, reach: Reach::All, password_hash, subject }
}

async fn what_is_one_kind_of_session_is_not_the_other(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    store.add_session(1, "one", "cookie", 100, 200).await.unwrap();
    assert!(store.session("one", "cookie", 150).await.unwrap().is_some());
    assert_eq!(store.session("one", "bearer", 150).await.unwrap(), None);
    store.remove_session("one").await.unwrap();
    assert_eq!(store.session("one", "cookie", 150).await.unwrap(), None);
}

async fn the_last_admin_stays_whoever_asks(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    let demote = AccountEdit { role: Some(Role::Viewer), ..AccountEdit::default() };
    let disable = AccountEdit { disabled: Some(true), ..AccountEdit::default() };
    for edit in [&demote, &disable] {
        assert!(matches!(store.edit_account(1, edit).await.unwrap(), Edited::LastAdmin));
    }
    assert!(matches!(store.delete_account(1).await.unwrap(), Edited::LastAdmin));
    // One who cannot sign in without a provider does not count.
    let vouched = NewAccount { subject: Some("corp\nann".to_owned()), ..account("corp:ann", Role::Admin) };
    store.add_account(&vouched, 1).await.unwrap();
    assert!(matches!(store.edit_account(1, &demote).await.unwrap(), Edited::LastAdmin));
    let second = store.add_account(&account("second", Role::Admin), 1).await.unwrap().unwrap();
    // Two admins who are removed at the same time: one stays.
    let (one, two) = tokio::join!(store.delete_account(1), store.delete_account(second));
    let last = [one.unwrap(), two.unwrap()].iter().filter(|done| matches!(done, Edited::LastAdmin)).count();
    assert_eq!(last, 1);
    let taken = store.add_account(&account("corp:ann", Role::Viewer), 1).await.unwrap_err();
    assert!(matches!(taken, StoreError::UserNameTaken { name } if name == "corp:ann"));
    assert!(matches!(store.edit_account(99, &demote).await.unwrap(), Edited::Unknown));
}

async fn whoever_is_disabled_is_signed_out_for_good(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    let ann = store.add_account(&account("ann", Role::Operator), 1).await.unwrap().unwrap();
    store.add_session(ann, "session", "bearer", 1, 100).await.unwrap();
    let scopes = BTreeSet::from([Permission::ClustersRead]);
    store.add_access_token(ann, "ci", "token", &scopes, (1, 100)).await.unwrap();
    let set = |disabled| AccountEdit { disabled: Some(disabled), ..AccountEdit::default() };
    store.edit_account(ann, &set(true)).await.unwrap();
    assert_eq!(store.session("session", "bearer", 2).await.unwrap(), None);
    assert_eq!(store.access_token("token", 2).await.unwrap(), None);
    store.edit_account(ann, &set(false)).await.unwrap();
    assert_eq!(store.session("session", "bearer", 2).await.unwrap(), None, "the session came back");
    assert!(store.access_token("token", 2).await.unwrap().is_some());
    store.delete_account(ann).await.unwrap();
    assert_eq!(store.access_token("token", 2).await.unwrap(), None);
    assert!(store.access_tokens(None).await.unwrap().is_empty());
}

async fn access_tokens_are_good_for_their_scopes_until_they_expire(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    let scopes = BTreeSet::from([Permission::ClustersRead, Permission::JobsWrite]);
    let id = store.add_access_token(1, "ci", "hash", &scopes, (1000, 2000)).await.unwrap().unwrap();
    let (owner, found, good_for) = store.access_token("hash", 1999).await.unwrap().unwrap();
    assert_eq!((owner.name.as_str(), found, good_for), ("root", id, scopes));
    assert_eq!(store.access_token("hash", 2000).await.unwrap(), None);
    assert_eq!(store.access_tokens(Some(1)).await.unwrap()[0].last_used_at, 1999);
    assert!(store.access_tokens(Some(2)).await.unwrap().is_empty());
    store.add_access_token(1, "none", "empty", &BTreeSet::new(), (1000, 2000)).await.unwrap();
    assert!(store.access_token("empty", 1500).await.unwrap().unwrap().2.is_empty());
    store.remove_access_token(id).await.unwrap();
    assert_eq!(store.access_token("hash", 1500).await.unwrap(), None);
    for number in 1..MAX_ACCESS_TOKENS_PER_USER {
        let kept = store.add_access_token(1, "x", &number.to_string(), &BTreeSet::new(), (1, 2)).await;
        assert!(kept.unwrap().is_some());
    }
    let full = store.add_access_token(1, "x", "more", &BTreeSet::new(), (1, 2)).await.unwrap();
    assert_eq!(full, None);
}

async fn whom_a_provider_vouches_for_is_one_account(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    let new = NewAccount {
        subject: Some("corp\n7".to_owned()),
        password_hash: String::new(),
        ..account("corp:ann", Role::Viewer)
    };
    let first = store.vouched_account(&new, 1).await.unwrap().unwrap();
    let promoted = NewAccount { role: Role::Operator, reach: Reach::from_ids([1]), ..new.clone() };
    let second = store.vouched_account(&promoted, 2).await.unwrap().unwrap();
    assert_eq!((second.id, second.role, second.reach.ids()), (first.id, Role::Operator, vec![1]));
    assert!(store.user("corp:ann").await.unwrap().unwrap().password_hash.is_none());
    // Another person whom the provider calls the same.
    let other = NewAccount { subject: Some("corp\n8".to_owned()), ..new };
    let taken = store.vouched_account(&other, 3).await.unwrap_err();
    assert!(matches!(taken, StoreError::UserNameTaken { .. }));
}

async fn whom_a_provider_vouches_for_no_more_has_nothing_left(store: &Store) {
    store.first_start("root", "hash", 1).await.unwrap();
    let subject = "corp\n7".to_owned();
    let new = NewAccount {
        subject: Some(subject.clone()),
        password_hash: String::new(),
        ..account("corp:ann", Role::Admin)
    };
    let ann = store.vouched_account(&new, 1).await.unwrap().unwrap().id;
    let scopes = BTreeSet::from([Permission::ClustersRead]);
    for (user, of) in [(ann, "hers"), (1, "root's")] {
        store.add_session(user, of, "cookie", 1, 100).await.unwrap();
        store.add_access_token(user, "ci", of, &scopes, (1, 100)).await.unwrap();
    }
    assert_eq!(store.unvouched("corp\n8").await.unwrap(), None);
    let left = store.unvouched(&subject).await.unwrap().unwrap();
    assert_eq!((left.id, left.role, left.disabled), (ann, Role::Viewer, false));
    assert_eq!(store.session("hers", "cookie", 2).await.unwrap(), None);
    assert_eq!(store.access_token("hers", 2).await.unwrap(), None);
    assert!(store.session("root's", "cookie", 2).await.unwrap().is_some());
    assert!(store.access_token("root's", 2).await.unwrap().is_some());
    // Back in a group, she is the same account, and has a new session to open.
    let again = store.vouched_account(&new, 3).await.unwrap().unwrap();
    assert_eq!((again.id, again.role), (ann, Role::Admin));
    assert_eq!(store.access_token("hers", 4).await.unwrap(), None);
}

async fn the_audit_log_is_read_newest_first_and_bounded(store: &Store) {
    const DAY: i64 = 24 * 3600;
    let entry = |at, user: &str, action: &str| AuditEntry {
        at,
        user_name: user.to_owned(),
        action: action.to_owned(),
        detail: "{}".to_owned(),
        ..AuditEntry::default()
    };
    store.add_audit(&entry(1000, "ann", "clusters.create")).await.unwrap();
    let id = store.add_audit(&entry(2000, "bob", "clusters.delete")).await.unwrap();
    store.end_audit(id, "cluster 7 b", "{\"a\":1}", 204).await.unwrap();
    let all = AuditQuery { until: i64::MAX, ..AuditQuery::default() };
    let (items, total) = store.audit(&all, 0, 1).await.unwrap();
    assert_eq!((items.len(), total, items[0].object.as_str(), items[0].outcome), (1, 2, "cluster 7 b", 204));
    for (asked, wanted) in [
        (AuditQuery { user: "ann".to_owned(), ..all.clone() }, 1),
        (AuditQuery { action: "clusters.delete".to_owned(), ..all.clone() }, 1),
        (AuditQuery { since: 1000, until: 2000, ..all.clone() }, 1),
        (AuditQuery { since: 2001, ..all.clone() }, 0),
        (AuditQuery { user: "' OR 1=1 --".to_owned(), ..all.clone() }, 0),
    ] {
        assert_eq!(store.audit(&asked, 0, 9).await.unwrap().1, wanted, "{asked:?}");
    }
    store.add_audit(&entry(1500 + 90 * DAY, "ann", "later")).await.unwrap();
    assert_eq!(store.audit(&all, 0, 9).await.unwrap().1, 2, "what is older than 90 days is forgotten");
}
