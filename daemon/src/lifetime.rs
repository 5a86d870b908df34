//! What was counted since the store was made, over restarts and hand-overs: bytes by class and by source.
//!
//! Kept in `totals.json` of the store, written every [`PERSIST_EVERY`] in which something was counted, at the end, and
//! when another daemon takes over. So a restart loses nothing, and a daemon that is killed at most what it counted since.
//! Metrics begin at zero with each process, as their format wants it.
//!
//! Invariant: a figure never falls; whoever holds the store's lock is the only one that writes the file.

use crate::status::BySource;
use hawker_abi::{Class, Counters};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NAME: &str = "totals.json";
/// What is lost by a kill at most.
pub(crate) const PERSIST_EVERY: Duration = Duration::from_secs(5);
/// Larger is no file of ours, bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// When counting began.
    pub since_unix_ms: u64,
    /// Daemons that counted, the one that runs included.
    pub starts: u64,
    /// Of these, those that took over from a running one.
    pub taken_over: u64,
    pub upload: Traffic,
    pub download: Traffic,
    pub origin: Traffic,
    pub control: Traffic,
    /// Given to runtimes.
    pub delivered: BySource,
}

/// On the wire, or where a daemon had no eBPF what its sockets took and gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// What this process counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Own {
    pub(crate) classes: [Counters; 4],
    pub(crate) delivered: BySource,
}

impl Totals {
    fn plus(&self, own: &Own) -> Self {
        let add = |before: Traffic, class: Class| {
            let more = own.classes[class as usize];
            let sent_bytes = before.sent_bytes.saturating_add(more.tx_bytes);
            Traffic { sent_bytes, received_bytes: before.received_bytes.saturating_add(more.rx_bytes) }
        };
        Self {
            upload: add(self.upload, Class::Upload),
            download: add(self.download, Class::Download),
            origin: add(self.origin, Class::Origin),
            control: add(self.control, Class::Control),
            delivered: self.delivered.plus(own.delivered),
            ..self.clone()
        }
    }
}

/// Reads what this process counted.
pub(crate) type Meter = Arc<dyn Fn() -> Own + Send + Sync>;

/// The figures of one store; clones share them.
#[derive(Clone)]
pub(crate) struct Lifetime {
    path: PathBuf,
    /// Of the processes before.
    before: Arc<Mutex<Totals>>,
    written: Arc<Mutex<Totals>>,
    meter: Meter,
}

impl Lifetime {
    /// Goes on from the file in `dir`; a file that cannot be read is said and begun anew.
    pub(crate) fn open(dir: &Path, meter: Meter) -> Self {
        let path = dir.join(NAME);
        let read = load(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the totals begin anew");
            Totals::default()
        });
        let since_unix_ms = if read.since_unix_ms == 0 { now_unix_ms() } else { read.since_unix_ms };
        let written = Arc::new(Mutex::new(read.clone()));
        let before = Totals { since_unix_ms, starts: read.starts + 1, ..read };
        Self { path, before: Arc::new(Mutex::new(before)), written, meter }
    }

    /// Goes on from what the daemon before counted to its end.
    pub(crate) fn take_over(&self, totals: &Totals) {
        let mut before = self.before.lock();
        let (starts, taken_over) = (totals.starts + 1, totals.taken_over + 1);
        *before = Totals { starts, taken_over, ..totals.clone() };
    }

    pub(crate) fn totals(&self) -> Totals {
        let own = (self.meter)();
        self.before.lock().plus(&own)
    }

    /// Writes the figures, if they changed.
    pub(crate) fn persist(&self) {
        // To the end, so that an older figure is not written over a newer one.
        let mut written = self.written.lock();
        let totals = self.totals();
        if *written == totals {
            return;
        }
        match save(&self.path, &totals) {
            Ok(()) => *written = totals,
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "write the totals"),
        }
    }

    /// Writes them now and then, for ever.
    pub(crate) async fn keep(self) {
        loop {
            tokio::time::sleep(PERSIST_EVERY).await;
            let lifetime = self.clone();
            if tokio::task::spawn_blocking(move || lifetime.persist()).await.is_err() {
                return;
            }
        }
    }
}

fn load(path: &Path) -> io::Result<Totals> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Totals::default()),
        Ok(file) if file.len() > MAX_FILE_BYTES => return Err(io::Error::other("too large")),
        found => found?,
    };
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// A power failure leaves the old file or the new one.
fn save(path: &Path, totals: &Totals) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec_pretty(totals)?)?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(sent: &Arc<Mutex<u64>>) -> Meter {
        let sent = Arc::clone(sent);
        Arc::new(move || {
            let mut own = Own::default();
            own.classes[Class::Upload as usize].tx_bytes = *sent.lock();
            own.delivered.local = *sent.lock() / 2;
            own
        })
    }

    #[test]
    fn restarts_lose_nothing_that_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let sent = Arc::new(Mutex::new(100));
        let first = Lifetime::open(dir.path(), counting(&sent));
        first.persist();
        *sent.lock() = 160;
        let killed = first.totals();
        assert_eq!(killed.upload.sent_bytes, 160);
        // Killed before it wrote again: 60 are lost, no more.
        *sent.lock() = 7;
        let second = Lifetime::open(dir.path(), counting(&sent));
        let totals = second.totals();
        assert_eq!((totals.upload.sent_bytes, totals.delivered.local, totals.starts), (107, 53, 2));
        assert_eq!(totals.since_unix_ms, killed.since_unix_ms);
        second.persist();
        *sent.lock() = 0;
        assert_eq!(Lifetime::open(dir.path(), counting(&sent)).totals().upload.sent_bytes, 107);
    }

    #[test]
    fn what_a_running_daemon_counted_comes_in_the_place_of_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let (before, sent) = (Arc::new(Mutex::new(100)), Arc::new(Mutex::new(5)));
        let incumbent = Lifetime::open(dir.path(), counting(&before));
        incumbent.persist();
        let successor = Lifetime::open(dir.path(), counting(&sent));
        *before.lock() = 130;
        successor.take_over(&incumbent.totals());
        *before.lock() = 131;
        successor.take_over(&incumbent.totals());
        let totals = successor.totals();
        assert_eq!((totals.upload.sent_bytes, totals.starts, totals.taken_over), (136, 2, 1));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["{", "[]", r#"{"upload":{"sent_bytes":-1}}"#] {
            fs::write(dir.path().join(NAME), text).unwrap();
            let lifetime = Lifetime::open(dir.path(), counting(&Arc::new(Mutex::new(3))));
            assert_eq!(lifetime.totals().upload.sent_bytes, 3, "{text}");
        }
        // Of a later version.
        fs::write(dir.path().join(NAME), r#"{"upload":{"sent_bytes":4,"x":1},"y":[]}"#).unwrap();
        let lifetime = Lifetime::open(dir.path(), counting(&Arc::new(Mutex::new(3))));
        assert_eq!(lifetime.totals().upload.sent_bytes, 7);
    }
}
