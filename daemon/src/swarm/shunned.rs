//! Peers that sent wrong bytes: named in the status, and not asked again for a while.

use crate::status::BadPeerReport;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a peer that lied is not asked again.
pub(super) const SHUN_FOR: Duration = Duration::from_secs(600);
/// Most peers remembered.
const MAX_SHUNNED: usize = 1024;

#[derive(Default)]
pub(super) struct Shunned {
    peers: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    ip: IpAddr,
    detail: String,
    until: Instant,
    until_unix_ms: u64,
}

impl Shunned {
    pub(super) fn add(&self, host_id: &str, ip: IpAddr, detail: String, now: Instant) {
        let mut peers = self.peers.lock();
        peers.retain(|_, entry| entry.until > now);
        if peers.len() < MAX_SHUNNED || peers.contains_key(host_id) {
            let until_unix_ms = unix_ms(SystemTime::now() + SHUN_FOR);
            peers.insert(host_id.to_owned(), Entry { ip, detail, until: now + SHUN_FOR, until_unix_ms });
        }
    }

    pub(super) fn contains(&self, host_id: &str, now: Instant) -> bool {
        self.peers.lock().get(host_id).is_some_and(|entry| entry.until > now)
    }

    pub(super) fn report(&self, now: Instant) -> Vec<BadPeerReport> {
        let peers = self.peers.lock();
        let current = peers.iter().filter(|(_, entry)| entry.until > now);
        current
            .map(|(host_id, entry)| BadPeerReport {
                host_id: host_id.clone(),
                ip: entry.ip.to_string(),
                detail: entry.detail.clone(),
                until_unix_ms: entry.until_unix_ms,
            })
            .collect()
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_shunned_for_a_while() {
        let (shunned, now) = (Shunned::default(), Instant::now());
        shunned.add("liar", [10, 0, 0, 9].into(), "piece 3 is wrong".into(), now);
        assert!(shunned.contains("liar", now) && !shunned.contains("other", now));
        assert_eq!(shunned.report(now)[0].ip, "10.0.0.9");
        assert!(!shunned.contains("liar", now + SHUN_FOR));
        assert!(shunned.report(now + SHUN_FOR).is_empty());
    }
}
