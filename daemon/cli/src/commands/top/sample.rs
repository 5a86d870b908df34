//! From two status documents to rates: pure, so that every figure on the screen is tested.
//!
//! Invariant: a counter that went back (the daemon restarted) gives a rate of 0, never a huge one.

use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What the daemon said at a moment.
pub(super) struct Sample {
    status: Value,
    at: Instant,
}

impl Sample {
    pub(super) fn new(status: Value, at: Instant) -> Self {
        Self { status, at }
    }
}

/// Everything that is shown. Rates are bytes per second.
#[derive(Debug, Default, Serialize)]
pub(super) struct View {
    pub(super) hostname: String,
    pub(super) ip: String,
    pub(super) kind: String,
    pub(super) version: String,
    pub(super) cluster: String,
    pub(super) scheduler: String,
    pub(super) engine: Choice,
    pub(super) shaper: Choice,
    pub(super) store_used_bytes: u64,
    pub(super) store_capacity_bytes: u64,
    pub(super) interval_seconds: f64,
    pub(super) classes: Vec<ClassRate>,
    pub(super) per_peer_limit: u64,
    pub(super) peers: Vec<PeerRate>,
    pub(super) tasks: Vec<TaskRate>,
    pub(super) warnings: Vec<String>,
}

/// What is in use, and why.
#[derive(Debug, Default, Serialize)]
pub(super) struct Choice {
    pub(super) name: String,
    pub(super) reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ClassRate {
    pub(super) class: String,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Of the direction that it is for; 0: none.
    pub(super) limit: u64,
    /// Whose it is.
    pub(super) limit_from: String,
    /// Part of the limit in use; `None`: no limit.
    pub(super) used: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct PeerRate {
    pub(super) ip: String,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) srtt_us: u64,
    pub(super) retransmits: u64,
    pub(super) connections: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct TaskRate {
    pub(super) task: String,
    pub(super) size: u64,
    pub(super) pieces_held: u64,
    pub(super) pieces_total: u64,
    pub(super) rate: u64,
    /// Where most of it came from.
    pub(super) source: String,
    pub(super) state: String,
    pub(super) running: bool,
}

impl View {
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        let status = &now.status;
        let elapsed = now.at.saturating_duration_since(before.at);
        let text = |pointer: &str| text(status, pointer);
        let scheduler = match status.pointer("/scheduler/connected").and_then(Value::as_bool) {
            Some(true) => format!("{} connected", text("/scheduler/addr")),
            _ => format!("not connected {}", text("/scheduler/error")),
        };
        Self {
            hostname: text("/host/hostname"),
            ip: text("/host/ip"),
            kind: text("/host/kind"),
            version: text("/host/version"),
            cluster: text("/cluster/name"),
            scheduler: scheduler.trim().to_owned(),
            engine: Choice { name: text("/engine/name"), reason: text("/engine/reason") },
            shaper: Choice { name: text("/shaper/mode"), reason: text("/shaper/reason") },
            store_used_bytes: number(status, "/store/used_bytes"),
            store_capacity_bytes: number(status, "/store/capacity_bytes"),
            interval_seconds: elapsed.as_secs_f64(),
            classes: classes(&before.status, status, elapsed),
            per_peer_limit: number(status, "/shaper/limits/per_peer/bytes_per_second"),
            peers: peers(&before.status, status, elapsed),
            tasks: tasks(&before.status, status, elapsed),
            warnings: list(status, "/warnings").iter().filter_map(Value::as_str).map(tame).collect(),
        }
    }
}

fn classes(before: &Value, now: &Value, elapsed: Duration) -> Vec<ClassRate> {
    let old = by(before, "/shaper/classes", "class");
    let mut classes: Vec<ClassRate> = list(now, "/shaper/classes")
        .iter()
        .map(|class| {
            let name = text(class, "/class");
            let old = old.get(name.as_str()).copied();
            let sent = rate(old, class, "/sent_bytes", elapsed);
            let received = rate(old, class, "/received_bytes", elapsed);
            let limit = number(now, &format!("/shaper/limits/{name}/bytes_per_second"));
            let limited = if name == "upload" { sent } else { received };
            ClassRate {
                limit_from: text(now, &format!("/shaper/limits/{name}/from")),
                used: (limit > 0).then(|| limited as f64 / limit as f64),
                class: name,
                sent,
                received,
                limit,
            }
        })
        .collect();
    let capacity =
        number(now, "/shaper/uplink_capacity/bytes_per_second").max(number(now, "/shaper/yield_capacity"));
    let sent = rate(Some(before), now, "/shaper/others_sent_bytes", elapsed);
    classes.push(ClassRate {
        class: "others".to_owned(),
        sent,
        received: rate(Some(before), now, "/shaper/others_received_bytes", elapsed),
        limit: capacity,
        limit_from: "uplink".to_owned(),
        used: (capacity > 0).then(|| sent as f64 / capacity as f64),
    });
    classes
}

/// The busiest first, then those that moved most.
fn peers(before: &Value, now: &Value, elapsed: Duration) -> Vec<PeerRate> {
    let old = by(before, "/peers", "ip");
    let peer = |peer: &Value| {
        let ip = text(peer, "/ip");
        let old = old.get(ip.as_str()).copied();
        PeerRate {
            sent: rate(old, peer, "/sent_bytes", elapsed),
            received: rate(old, peer, "/received_bytes", elapsed),
            sent_bytes: number(peer, "/sent_bytes"),
            received_bytes: number(peer, "/received_bytes"),
            srtt_us: number(peer, "/srtt_us"),
            retransmits: number(peer, "/retransmits"),
            connections: number(peer, "/connections"),
            ip,
        }
    };
    let mut peers: Vec<PeerRate> = list(now, "/peers").iter().map(peer).collect();
    peers.sort_by_key(|peer| {
        std::cmp::Reverse((peer.sent + peer.received, peer.sent_bytes.saturating_add(peer.received_bytes)))
    });
    peers
}

/// Running ones first, then the last that ended.
fn tasks(before: &Value, now: &Value, elapsed: Duration) -> Vec<TaskRate> {
    let old = by(before, "/tasks", "task");
    let sources = ["peer_same_zone", "peer_cross_zone", "seed", "origin"];
    let fetched = |task: &Value| -> u64 {
        sources.iter().map(|source| number(task, &format!("/fetched/{source}"))).sum()
    };
    let mut tasks: Vec<(u64, TaskRate)> = list(now, "/tasks")
        .iter()
        .map(|task| {
            let name = text(task, "/task");
            let grown = fetched(task).saturating_sub(old.get(name.as_str()).map_or(0, |old| fetched(old)));
            let most = sources.iter().max_by_key(|source| number(task, &format!("/fetched/{source}")));
            let source =
                most.filter(|_| fetched(task) > 0).map_or(String::new(), |source| (*source).to_owned());
            let running = task.get("finished_unix_ms").is_none_or(Value::is_null);
            let shown = TaskRate {
                size: number(task, "/size"),
                pieces_held: number(task, "/pieces_held"),
                pieces_total: number(task, "/pieces_total"),
                rate: if running { per_second(grown, elapsed) } else { 0 },
                state: text(task, "/state"),
                task: name,
                source,
                running,
            };
            (number(task, "/started_unix_ms"), shown)
        })
        .collect();
    tasks.sort_by_key(|(started, task)| std::cmp::Reverse((task.running, *started)));
    tasks.into_iter().map(|(_, task)| task).collect()
}

fn list<'v>(document: &'v Value, pointer: &str) -> &'v [Value] {
    document.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Items of a list by one of their fields.
fn by<'v>(document: &'v Value, pointer: &str, key: &str) -> HashMap<&'v str, &'v Value> {
    list(document, pointer).iter().filter_map(|item| Some((item.get(key)?.as_str()?, item))).collect()
}

fn rate(old: Option<&Value>, now: &Value, pointer: &str, elapsed: Duration) -> u64 {
    let now = number(now, pointer);
    per_second(now.saturating_sub(old.map_or(0, |old| number(old, pointer))), elapsed)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and nothing here is negative"
)]
fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    if elapsed.is_zero() { 0 } else { (bytes as f64 / elapsed.as_secs_f64()).round() as u64 }
}

fn number(document: &Value, pointer: &str) -> u64 {
    document.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn text(document: &Value, pointer: &str) -> String {
    document.pointer(pointer).and_then(Value::as_str).map(tame).unwrap_or_default()
}

/// Names come from other machines, and a terminal obeys control characters.
fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(before: Value, now: Value) -> View {
        let start = Instant::now();
        View::between(&Sample::new(before, start), &Sample::new(now, start + Duration::from_secs(2)))
    }

    #[test]
    fn rates_are_growth_over_time_and_limits_are_of_their_direction() {
        let status = |sent: u64, received: u64| {
            json!({
                "shaper": {
                    "classes": [
                        {"class": "upload", "sent_bytes": sent, "received_bytes": 5},
                        {"class": "download", "sent_bytes": 5, "received_bytes": received},
                    ],
                    "limits": {
                        "upload": {"bytes_per_second": 1000, "from": "cluster"},
                        "download": {"bytes_per_second": 0, "from": "none"},
                    },
                    "others_sent_bytes": sent * 10,
                    "uplink_capacity": {"bytes_per_second": 10_000},
                }
            })
        };
        let view = view(status(1000, 0), status(2000, 700));
        let [upload, download, others] = view.classes.as_slice() else { panic!("{:?}", view.classes) };
        assert_eq!((upload.sent, upload.limit, upload.used), (500, 1000, Some(0.5)));
        assert_eq!(upload.limit_from, "cluster");
        assert_eq!((download.received, download.used), (350, None));
        assert_eq!((others.sent, others.used), (5000, Some(0.5)));
    }

    #[test]
    fn busy_peers_come_first_and_a_restart_is_no_burst() {
        let peer = |ip: &str, sent: u64| json!({"ip": ip, "sent_bytes": sent, "received_bytes": 0});
        let view = view(
            json!({"peers": [peer("10.0.0.1", 9000), peer("10.0.0.2", 100)]}),
            json!({"peers": [peer("10.0.0.1", 10), peer("10.0.0.2", 300), peer("10.0.0.\u{1b}3", 0)]}),
        );
        let shown: Vec<_> = view.peers.iter().map(|peer| (peer.ip.as_str(), peer.sent)).collect();
        assert_eq!(shown, [("10.0.0.2", 100), ("10.0.0.1", 0), ("10.0.0.?3", 0)]);
    }

    #[test]
    fn running_tasks_come_first_with_their_rate() {
        let task = |name: &str, seed: u64, ended: Value| {
            json!({"task": name, "size": 100, "fetched": {"seed": seed, "origin": 1}, "started_unix_ms": 5,
                   "finished_unix_ms": ended, "state": "x", "pieces_held": 1, "pieces_total": 4})
        };
        let view = view(
            json!({"tasks": [task("a", 0, Value::Null)]}),
            json!({"tasks": [task("b", 50, json!(9)), task("a", 20, Value::Null)]}),
        );
        let [first, second] = view.tasks.as_slice() else { panic!() };
        assert_eq!((first.task.as_str(), first.rate, first.source.as_str()), ("a", 10, "seed"));
        assert_eq!((second.task.as_str(), second.rate, second.running), ("b", 0, false));
    }

    #[test]
    fn an_empty_document_is_a_view_too() {
        let view = view(json!({}), json!({"warnings": ["disk full"]}));
        assert_eq!((view.warnings.len(), view.peers.len(), view.classes.len()), (1, 0, 1));
        assert_eq!(view.scheduler, "not connected");
    }
}
