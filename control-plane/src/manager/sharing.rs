//! Several managers on one database: each second a manager says that it lives and what changed of its registrations, and
//! reads what the others said, and whether clusters were edited.
//!
//! Not for a manager alone with its file. Invariants: what is written grows with what changes, not with how many hosts
//! there are; while the database is away nobody is forgotten.

use super::clusters::Clusters;
use super::directory::Directory;
use super::store::{Store, StoreError};
use super::unix_seconds;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(1);
/// A turn that takes longer met a database that is away.
const TURN_LIMIT: Duration = Duration::from_secs(10);
/// Registrations told in one turn: 10,000 hosts that move over at once are told in three.
const CHANGES_PER_TURN: usize = 4000;
/// Ends of registrations are kept for so long, for others to read; who was longer away reads all anew.
const ENDS_KEPT: Duration = Duration::from_secs(120);
const CLEAR_EVERY: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Sharing {
    /// Of this life of this process.
    me: String,
    stale_after: Duration,
    directory: Arc<Directory>,
    clusters: Clusters,
    store: Store,
    version: i64,
    fellows: BTreeMap<String, Fellow>,
    last_number: u32,
    mark: Option<(i64, i64, i64)>,
    /// When which version was told.
    told: VecDeque<(Instant, i64)>,
    last_turn: Option<Instant>,
    cleared: Option<Instant>,
}

/// Another manager.
#[derive(Debug)]
struct Fellow {
    /// What the directory knows it by.
    number: u32,
    beat: i64,
    /// Version up to which we know its registrations.
    seen: i64,
    deadline: Instant,
}

impl Sharing {
    pub(super) fn new(
        directory: Arc<Directory>,
        clusters: Clusters,
        store: Store,
        stale_after: Duration,
    ) -> Self {
        directory.share();
        Self {
            me: uuid::Uuid::new_v4().to_string(),
            stale_after,
            directory,
            clusters,
            store,
            version: 0,
            fellows: BTreeMap::new(),
            last_number: 0,
            mark: None,
            told: VecDeque::new(),
            last_turn: None,
            cleared: None,
        }
    }

    /// One turn a second until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let problem = match tokio::time::timeout(TURN_LIMIT, self.turn()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {TURN_LIMIT:?}")),
            };
            match (&problem, failing) {
                (Some(problem), false) => {
                    tracing::warn!(problem, "hear of other managers: going on with what is known");
                }
                (None, true) => tracing::info!("hearing of other managers again"),
                _ => {}
            }
            failing = problem.is_some();
        }
    }

    /// Says and hears everything once.
    pub(super) async fn turn(&mut self) -> Result<(), StoreError> {
        if !self.store.beat(&self.me, unix_seconds(SystemTime::now())).await? {
            self.version = 0;
            self.directory.all_changed();
        }
        self.tell().await?;
        self.hear().await?;
        let mark = self.store.clusters_mark().await?;
        if self.mark.replace(mark).is_some_and(|before| before != mark)
            && let Err(error) = self.clusters.reload().await
        {
            tracing::warn!(%error, "take in clusters as another manager edited them");
            self.mark = None;
        }
        self.clear().await
    }

    async fn tell(&mut self) -> Result<(), StoreError> {
        let changes = self.directory.take_changes(CHANGES_PER_TURN);
        if changes.is_empty() {
            return Ok(());
        }
        // A turn that is cut short by its limit must not lose them either.
        let kept =
            Untold { directory: &self.directory, keys: changes.iter().map(|(key, _)| key.clone()).collect() };
        self.store.tell(&self.me, self.version + 1, &changes).await?;
        kept.told();
        self.version += 1;
        self.told.push_back((Instant::now(), self.version));
        Ok(())
    }

    async fn hear(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        let gap = self.last_turn.map_or(Duration::ZERO, |last| now - last);
        let there = self.store.fellows(&self.me).await?;
        for row in &there {
            let fellow = self.fellows.entry(row.id.clone()).or_insert_with(|| {
                self.last_number += 1;
                // Whether it lives shows within the time that it has for a beat.
                Fellow { number: self.last_number, beat: row.beat, seen: 0, deadline: now + self.stale_after }
            });
            // Nobody could be heard for a while: that is not their silence.
            if fellow.beat != row.beat || gap > self.stale_after / 2 {
                (fellow.beat, fellow.deadline) = (row.beat, now + self.stale_after);
            }
            if gap > ENDS_KEPT / 2 {
                self.directory.forget(fellow.number);
                fellow.seen = 0;
            }
            if fellow.deadline <= now {
                if fellow.seen > 0 {
                    tracing::warn!(
                        manager = row.id,
                        "another manager is silent: its hosts are gone or move over"
                    );
                    self.directory.forget(fellow.number);
                    fellow.seen = 0;
                }
            } else if row.version > fellow.seen {
                let changes = self.store.told_by(&row.id, fellow.seen).await?;
                self.directory.learn(fellow.number, changes);
                fellow.seen = row.version;
            }
        }
        let gone = |id: &String| there.iter().all(|row| row.id != *id);
        for (_, fellow) in self.fellows.extract_if(.., |id, _| gone(id)) {
            self.directory.forget(fellow.number);
        }
        self.last_turn = Some(now);
        Ok(())
    }

    async fn clear(&mut self) -> Result<(), StoreError> {
        let mut old = None;
        while let Some((_, version)) = self.told.pop_front_if(|(at, _)| at.elapsed() > ENDS_KEPT) {
            old = Some(version);
        }
        if let Some(version) = old {
            self.store.clear_ended(&self.me, version).await?;
        }
        if self.cleared.is_none_or(|at| at.elapsed() > CLEAR_EVERY) {
            self.store.clear_managers(unix_seconds(SystemTime::now())).await?;
            self.cleared = Some(Instant::now());
        }
        Ok(())
    }
}

/// Changes under way: unless they were told, they go back.
struct Untold<'a> {
    directory: &'a Directory,
    keys: Vec<super::directory::Key>,
}

impl Untold<'_> {
    fn told(mut self) {
        self.keys.clear();
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.directory.changed_still(std::mem::take(&mut self.keys));
    }
}
