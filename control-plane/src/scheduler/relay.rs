//! What nodes say of the manager's orders, until the manager is told. The messages are passed on as they came: nothing
//! in the scheduler depends on them.
//!
//! Invariant: bounded; of one node and one order only the last word is kept, but what was found out is not pushed out by how
//! far something is.

use hawker_api::v1;
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Notify;

/// Reports waiting: a hundred thousand nodes with one order each.
const MAX_REPORTS: usize = 100_000;
/// Reports are gathered for this long.
const GATHER: Duration = Duration::from_millis(50);

type Key = (String, String, bool);

#[derive(Debug, Default)]
pub(super) struct Relay {
    reports: Mutex<BTreeMap<Key, v1::JobReport>>,
    news: Notify,
}

impl Relay {
    pub(super) fn add(&self, report: v1::JobReport) {
        let found = matches!(report.what, Some(v1::job_report::What::Resolved(_)));
        let key = (report.job.clone(), report.host_id.clone(), found);
        let mut reports = self.reports.lock();
        if reports.len() < MAX_REPORTS || reports.contains_key(&key) {
            reports.insert(key, report);
            self.news.notify_one();
        }
    }

    /// Returns when there is something to tell.
    pub(super) async fn news(&self) {
        if self.reports.lock().is_empty() {
            self.news.notified().await;
        }
        tokio::time::sleep(GATHER).await;
    }

    /// Takes out reports until they are larger than `bytes` together.
    pub(super) fn take(&self, bytes: usize) -> Vec<v1::JobReport> {
        let (mut reports, mut taken, mut size) = (self.reports.lock(), Vec::new(), 0);
        while size < bytes
            && let Some((_, report)) = reports.pop_first()
        {
            size += report.encoded_len();
            taken.push(report);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::job_report::What;

    fn report(host: &str, done: u64) -> v1::JobReport {
        let what = What::Hold(v1::HoldState { bytes_done: done, ..v1::HoldState::default() });
        v1::JobReport { job: "1".into(), host_id: host.into(), what: Some(what) }
    }

    #[tokio::test]
    async fn the_last_word_counts_and_is_told_once() {
        let relay = Relay::default();
        for (host, done) in [("a", 1), ("b", 2), ("a", 3)] {
            relay.add(report(host, done));
        }
        let resolved = What::Resolved(v1::Resolved { error: "x".repeat(100), ..v1::Resolved::default() });
        relay.add(v1::JobReport { what: Some(resolved), ..report("a", 0) });
        relay.news().await;
        assert_eq!(relay.take(1), [report("a", 3)]);
        assert_eq!(relay.take(1000).len(), 2);
        assert!(relay.take(1).is_empty());
    }
}
