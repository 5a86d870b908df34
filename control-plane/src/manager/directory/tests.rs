//! The directory with a clock of its own: who is live, who is told what, who keeps a cluster from going.

use super::*;
use crate::manager::cluster::{ClusterEdit, ClusterSpec, ScopesEdit};
use crate::manager::host::{PeerKind, Pin};

fn cluster(id: u64, cidr: &str) -> Cluster {
    let edit = ClusterEdit {
        name: Some(format!("cluster-{id}")),
        is_default: Some(id == 1),
        scopes: ScopesEdit { cidrs: Some(vec![cidr.to_owned()]), ..ScopesEdit::default() },
        ..ClusterEdit::default()
    };
    Cluster { id, spec: ClusterSpec::create(edit).unwrap(), created_at: 0, updated_at: 0, revision: 1 }
}

fn directory() -> Arc<Directory> {
    limited(MAX_REGISTRATIONS)
}

fn limited(max_registrations: usize) -> Arc<Directory> {
    let clusters = vec![cluster(1, "10.1.0.0/16"), cluster(2, "10.2.0.0/16")];
    Arc::new(Directory::new(clusters, Liveness { max_registrations, ..Liveness::default() }))
}

fn peer(id: &str, ip: [u8; 4]) -> Peer {
    Peer {
        id: id.to_owned(),
        hostname: format!("node-{id}"),
        ip: ip.into(),
        piece_port: 4000,
        idc: String::new(),
        location: String::new(),
        kind: PeerKind::Peer,
        version: String::new(),
        engine: String::new(),
        engine_reason: String::new(),
        shaper: String::new(),
        shaper_reason: String::new(),
    }
}

fn scheduler(cluster: u64) -> SchedulerHost {
    SchedulerHost {
        hostname: format!("scheduler-{cluster}"),
        addr: format!("10.{cluster}.0.2:8002"),
        scheduler_cluster_id: cluster,
        version: String::new(),
    }
}

const IN_2: [u8; 4] = [10, 2, 0, 7];
const DEFAULT_TOO: Wish = Wish { pin: None, accept_default: true };

fn addrs(assigned: &Assigned) -> Vec<&str> {
    assigned.schedulers.iter().map(|endpoint| endpoint.addr.as_str()).collect()
}

#[test]
fn a_registration_lives_from_beat_to_beat() {
    let (directory, start) = (directory(), Instant::now());
    let (seat, changes) = directory.join(peer("a", IN_2), Wish::default(), start).unwrap();
    directory.announce(peer("b", IN_2), Wish::default(), start).unwrap();
    let almost = start + STALE_AFTER - Duration::from_millis(1);
    directory.sweep(almost);
    assert_eq!(directory.counts().peers, 2);
    assert!(seat.beat(almost));
    directory.sweep(start + STALE_AFTER);
    assert_eq!(directory.peers(PeerKind::Peer, |_, _| true, 0, 9).items[0].peer.id, "a", "b never beat");
    assert!(changes.has_changed().is_ok(), "the stream of a goes on");
    directory.sweep(almost + STALE_AFTER);
    assert_eq!(directory.counts(), Counts::default());
    assert!(changes.has_changed().is_err(), "the stream of a ends");
    assert!(!seat.beat(almost + STALE_AFTER));
}

#[test]
fn a_newer_seat_takes_over_and_the_older_cannot_harm_it() {
    let (directory, start) = (directory(), Instant::now());
    let (old, old_changes) = directory.join(peer("a", IN_2), Wish::default(), start).unwrap();
    let (new, _changes) = directory.join(peer("a", IN_2), Wish::default(), start).unwrap();
    assert!(old_changes.has_changed().is_err());
    assert!(!old.beat(start));
    drop(old);
    assert_eq!(directory.counts().peers, 1);
    assert!(new.beat(start));
    drop(new);
    assert_eq!(directory.counts().peers, 0);
}

#[test]
fn placing_anew_does_not_end_a_seat() {
    let (directory, start) = (directory(), Instant::now());
    let (seat, mut changes) = directory.join(peer("a", IN_2), Wish::default(), start).unwrap();
    assert_eq!(changes.borrow_and_update().cluster_id, 2);
    directory.announce(peer("a", [10, 1, 0, 7]), Wish::default(), start).unwrap();
    assert_eq!(changes.borrow_and_update().cluster_id, 1);
    assert!(seat.beat(start));
    drop(seat);
    assert_eq!(directory.counts().peers, 0);
}

#[test]
fn daemons_hear_of_schedulers_of_their_cluster_only() {
    let (directory, start) = (directory(), Instant::now());
    let (_seat, mut changes) = directory.join(peer("a", IN_2), Wish::default(), start).unwrap();
    assert!(addrs(&changes.borrow_and_update()).is_empty());
    let (_one, _end) = directory.join_scheduler(scheduler(1), start).unwrap();
    assert!(!changes.has_changed().unwrap());
    let (two, _end) = directory.join_scheduler(scheduler(2), start).unwrap();
    assert_eq!(addrs(&changes.borrow_and_update()), ["10.2.0.2:8002"]);
    drop(two);
    assert!(changes.has_changed().unwrap());
    assert!(addrs(&changes.borrow_and_update()).is_empty());
}

#[test]
fn only_who_accepts_the_default_cluster_falls_back_to_it() {
    let (directory, start) = (directory(), Instant::now());
    let node = peer("a", IN_2).node();
    let matched = directory.assign(&node, &DEFAULT_TOO).unwrap();
    assert_eq!((matched.cluster_id, matched.fell_back), (2, false), "the default has none either");
    let (_one, _end) = directory.join_scheduler(scheduler(1), start).unwrap();
    let strict = directory.assign(&node, &Wish::default()).unwrap();
    assert_eq!((strict.cluster_id, strict.schedulers.len(), strict.fell_back), (2, 0, false));
    let fallen = directory.assign(&node, &DEFAULT_TOO).unwrap();
    assert_eq!((fallen.cluster_id, fallen.matched_cluster_id, fallen.fell_back), (1, 2, true));
    assert_eq!(addrs(&fallen), ["10.1.0.2:8002"]);
    let (_two, _end) = directory.join_scheduler(scheduler(2), start).unwrap();
    let back = directory.assign(&node, &DEFAULT_TOO).unwrap();
    assert_eq!((back.cluster_id, back.fell_back), (2, false));
}

#[test]
fn a_pin_beats_the_scopes_and_must_be_known() {
    let directory = directory();
    let node = peer("a", IN_2).node();
    let pinned = |pin| directory.assign(&node, &Wish { pin: Some(pin), accept_default: false });
    let assigned = pinned(Pin::Cluster(1)).unwrap();
    assert_eq!((assigned.cluster_id, assigned.reason.as_str()), (1, "pinned by cluster.id 1"));
    assert_eq!(pinned(Pin::SeedPeerCluster(1)).unwrap().reason, "pinned by seedPeer.clusterID 1");
    assert!(pinned(Pin::Cluster(7)).unwrap_err().to_string().contains("unknown cluster 7"));
    assert!(pinned(Pin::SeedPeerCluster(8)).unwrap_err().to_string().contains("cluster 8"));
}

#[test]
fn an_edit_is_used_and_pushed_at_once() {
    let (directory, start) = (directory(), Instant::now());
    let (_seat, mut changes) = directory.join(peer("a", IN_2), Wish::default(), start).unwrap();
    let unmoved = directory.join(peer("b", [10, 1, 0, 1]), Wish::default(), start).unwrap();
    let (_other, mut unmoved) = unmoved;
    changes.borrow_and_update();
    unmoved.borrow_and_update();
    directory.replace_clusters(vec![
        cluster(1, "10.1.0.0/16"),
        cluster(2, "10.3.0.0/16"),
        cluster(3, "10.2.0.0/16"),
    ]);
    assert_eq!(changes.borrow_and_update().cluster_id, 3);
    assert!(!unmoved.has_changed().unwrap(), "only who moved hears of it");
}

#[test]
fn a_cluster_with_live_hosts_stays() {
    let (directory, start) = (directory(), Instant::now());
    let (_seat, _changes) = directory.join(peer("a", IN_2), DEFAULT_TOO, start).unwrap();
    let (one, _end) = directory.join_scheduler(scheduler(1), start).unwrap();
    let served_elsewhere = directory.retire(2).unwrap_err();
    assert_eq!(served_elsewhere.to_string(), "cluster 2 `cluster-2` has 1 live host: node-a (peer)");
    let both = directory.retire(1).unwrap_err().to_string();
    assert!(both.contains("2 live hosts: scheduler-1 (scheduler 10.1.0.2:8002), node-a (peer)"), "{both}");
    for number in 0..6 {
        directory.announce(peer(&format!("b{number}"), IN_2), Wish::default(), start).unwrap();
    }
    let many = directory.retire(2).unwrap_err().to_string();
    assert!(many.contains("7 live hosts") && many.ends_with("and 2 more"), "{many}");
    drop(one);
    directory.sweep(start + STALE_AFTER);
    directory.retire(2).unwrap();
    assert!(directory.cluster(2).is_none());
}

#[test]
fn schedulers_of_unknown_clusters_are_refused() {
    let directory = directory();
    let error = directory.join_scheduler(scheduler(9), Instant::now()).unwrap_err();
    assert_eq!(error, AssignError::UnknownSchedulerCluster { id: 9 });
}

#[test]
fn a_restart_counts_on_the_schedulers_it_knew() {
    let (directory, start) = (directory(), Instant::now());
    directory.restore_schedulers(vec![scheduler(2), scheduler(9)], start);
    let node = peer("a", IN_2).node();
    assert_eq!(addrs(&directory.assign(&node, &DEFAULT_TOO).unwrap()), ["10.2.0.2:8002"]);
    assert_eq!(directory.counts().schedulers, 1, "cluster 9 is gone");
    directory.sweep(start + STALE_AFTER);
    assert_eq!(directory.counts().schedulers, 0);
}

#[test]
fn registrations_are_bounded() {
    let (directory, start) = (limited(2), Instant::now());
    directory.announce(peer("a", IN_2), Wish::default(), start).unwrap();
    let (_two, _end) = directory.join_scheduler(scheduler(2), start).unwrap();
    let full = AssignError::Full { limit: 2 };
    assert_eq!(directory.announce(peer("b", IN_2), Wish::default(), start).unwrap_err(), full);
    assert_eq!(directory.join(peer("b", IN_2), Wish::default(), start).unwrap_err(), full);
    assert_eq!(directory.join_scheduler(scheduler(1), start).unwrap_err(), full);
    directory.announce(peer("a", IN_2), Wish::default(), start).unwrap();
    let (_again, _end) = directory.join_scheduler(scheduler(2), start).unwrap();
}
