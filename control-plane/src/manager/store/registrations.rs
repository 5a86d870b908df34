//! What several managers of one database tell each other of their registrations.
//!
//! Invariant: a registration has one row and the row one owner, the manager that wrote it last; the end of a registration
//! is written by its owner alone.

use super::{Store, StoreError, failed};
use crate::manager::directory::{Key, Kind, Record};

/// Rows of one statement; PostgreSQL takes 65,535 values, SQLite 32,766.
const ROWS_PER_STATEMENT: usize = 1000;
/// A manager that was silent for so long is cleared away, seconds.
const FORGOTTEN_AFTER_S: i64 = 3600;

/// A manager of this database, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Fellow {
    pub(crate) id: String,
    /// Grows while it lives.
    pub(crate) beat: i64,
    /// Of its registrations.
    pub(crate) version: i64,
}

/// A registration, or that it ended.
pub(crate) type Change = (Key, Option<Record>);

impl Store {
    /// Says that `manager` lives. `false`: nobody knew of it any more, and now it has told nothing.
    pub(crate) async fn beat(&self, manager: &str, now: i64) -> Result<bool, StoreError> {
        let act = failed("beat");
        let known = sqlx::query("UPDATE managers SET beat = beat + 1, beat_at = $2 WHERE id = $1")
            .bind(manager)
            .bind(now)
            .execute(&self.pool)
            .await
            .map_err(act)?;
        if known.rows_affected() > 0 {
            return Ok(true);
        }
        sqlx::query("INSERT INTO managers (id, beat, version, beat_at) VALUES ($1, 1, 0, $2)")
            .bind(manager)
            .bind(now)
            .execute(&self.pool)
            .await
            .map_err(act)?;
        Ok(false)
    }

    /// Tells what changed; `version` is one more than the last.
    pub(crate) async fn tell(
        &self,
        manager: &str,
        version: i64,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        const ACT: &str = "tell other managers of registrations";
        let mut transaction = self.begin(ACT).await?;
        for some in changes.chunks(ROWS_PER_STATEMENT) {
            let sql = format!(
                "INSERT INTO registrations (kind, id, manager, version, data) VALUES {} \
                 ON CONFLICT (kind, id) DO UPDATE SET manager = excluded.manager, version = excluded.version, \
                 data = excluded.data WHERE excluded.data <> '' OR registrations.manager = excluded.manager",
                self.dialect.places(some.len(), 5)
            );
            let mut insert = sqlx::query(&sql).persistent(false);
            for (key, record) in some {
                let data = record.as_ref().map(|record| to_json(key, record)).transpose()?;
                insert = insert.bind(key.kind as i64).bind(&key.id).bind(manager).bind(version);
                insert = insert.bind(data.unwrap_or_default());
            }
            insert.execute(&mut *transaction).await.map_err(failed(ACT))?;
        }
        sqlx::query("UPDATE managers SET version = $2 WHERE id = $1")
            .bind(manager)
            .bind(version)
            .execute(&mut *transaction)
            .await
            .map_err(failed(ACT))?;
        transaction.commit().await.map_err(failed(ACT))
    }

    /// All managers but this one.
    pub(crate) async fn fellows(&self, manager: &str) -> Result<Vec<Fellow>, StoreError> {
        sqlx::query_as("SELECT id, beat, version FROM managers WHERE id <> $1 ORDER BY id")
            .bind(manager)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("list managers"))
    }

    /// What a manager told since its version `since`.
    pub(crate) async fn told_by(&self, manager: &str, since: i64) -> Result<Vec<Change>, StoreError> {
        let rows: Vec<(i64, String, String)> =
            sqlx::query_as("SELECT kind, id, data FROM registrations WHERE manager = $1 AND version > $2")
                .bind(manager)
                .bind(since)
                .fetch_all(&self.pool)
                .await
                .map_err(failed("read registrations of another manager"))?;
        rows.into_iter().map(change).collect()
    }

    /// Forgets ended registrations of `manager` up to a version that the others had time to read.
    pub(crate) async fn clear_ended(&self, manager: &str, version: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM registrations WHERE manager = $1 AND version <= $2 AND data = ''")
            .bind(manager)
            .bind(version)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("clear ended registrations"))
    }

    /// Forgets managers that are long gone, and what they told.
    pub(crate) async fn clear_managers(&self, now: i64) -> Result<(), StoreError> {
        const ACT: &str = "clear managers that are gone";
        let mut transaction = self.begin_write(ACT).await?;
        sqlx::query("DELETE FROM managers WHERE beat_at < $1")
            .bind(now - FORGOTTEN_AFTER_S)
            .execute(&mut *transaction)
            .await
            .map_err(failed(ACT))?;
        sqlx::query("DELETE FROM registrations WHERE manager NOT IN (SELECT id FROM managers)")
            .execute(&mut *transaction)
            .await
            .map_err(failed(ACT))?;
        transaction.commit().await.map_err(failed(ACT))
    }

    /// Three numbers that are others whenever the clusters are: how many, all their edits, the newest.
    pub(crate) async fn clusters_mark(&self) -> Result<(i64, i64, i64), StoreError> {
        sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(SUM(revision), 0) AS BIGINT), COALESCE(MAX(id), 0) FROM clusters",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed("look whether clusters changed"))
    }
}

fn to_json(key: &Key, record: &Record) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| broken(key, &error))
}

fn change((kind, id, data): (i64, String, String)) -> Result<Change, StoreError> {
    let kind = if kind == Kind::Scheduler as i64 { Kind::Scheduler } else { Kind::Peer };
    let key = Key { kind, id };
    let record = if data.is_empty() {
        None
    } else {
        Some(serde_json::from_str(&data).map_err(|error| broken(&key, &error))?)
    };
    Ok((key, record))
}

fn broken(key: &Key, problem: &impl ToString) -> StoreError {
    StoreError::Row { row: format!("registration `{}`", key.id), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_both;
    use super::*;
    use crate::manager::host::SchedulerHost;

    on_both! {
        what_one_tells_the_other_reads_once,
        an_ended_registration_is_its_owners_to_end,
        who_is_silent_is_cleared_away,
        every_edit_of_clusters_leaves_another_mark,
    }

    fn scheduler(id: &str) -> Change {
        let host = SchedulerHost {
            hostname: "box".to_owned(),
            addr: id.to_owned(),
            scheduler_cluster_id: 2,
            version: "1".to_owned(),
        };
        (key(id), Some(Record::Scheduler { host, registered_at: 7 }))
    }

    fn key(id: &str) -> Key {
        Key { kind: Kind::Scheduler, id: id.to_owned() }
    }

    async fn what_one_tells_the_other_reads_once(store: &Store) {
        assert!(!store.beat("one", 5).await.unwrap());
        assert!(store.beat("one", 6).await.unwrap());
        store.tell("one", 1, &[scheduler("a:1"), scheduler("b:1")]).await.unwrap();
        let fellows = store.fellows("two").await.unwrap();
        assert_eq!(fellows, [Fellow { id: "one".to_owned(), beat: 2, version: 1 }]);
        assert!(store.fellows("one").await.unwrap().is_empty());
        assert_eq!(store.told_by("one", 0).await.unwrap(), [scheduler("a:1"), scheduler("b:1")]);
        assert!(store.told_by("one", 1).await.unwrap().is_empty());
        let many: Vec<Change> = (0..2500).map(|number| scheduler(&format!("{number:04}:1"))).collect();
        store.tell("one", 2, &many).await.unwrap();
        assert_eq!(store.told_by("one", 1).await.unwrap().len(), 2500);
    }

    async fn an_ended_registration_is_its_owners_to_end(store: &Store) {
        store.tell("one", 1, &[scheduler("a:1"), scheduler("b:1")]).await.unwrap();
        store.tell("two", 1, &[scheduler("a:1")]).await.unwrap();
        store.tell("one", 2, &[(key("a:1"), None), (key("b:1"), None)]).await.unwrap();
        assert_eq!(store.told_by("two", 0).await.unwrap(), [scheduler("a:1")]);
        assert_eq!(store.told_by("one", 1).await.unwrap(), [(key("b:1"), None)]);
        store.clear_ended("one", 1).await.unwrap();
        assert_eq!(store.told_by("one", 0).await.unwrap().len(), 1);
        store.clear_ended("one", 2).await.unwrap();
        assert!(store.told_by("one", 0).await.unwrap().is_empty());
    }

    async fn who_is_silent_is_cleared_away(store: &Store) {
        store.beat("old", 100).await.unwrap();
        store.beat("new", 100 + FORGOTTEN_AFTER_S).await.unwrap();
        store.tell("old", 1, &[scheduler("a:1")]).await.unwrap();
        store.tell("new", 1, &[scheduler("b:1")]).await.unwrap();
        store.clear_managers(101 + FORGOTTEN_AFTER_S).await.unwrap();
        assert_eq!(store.fellows("").await.unwrap().len(), 1);
        assert!(store.told_by("old", 0).await.unwrap().is_empty());
        assert!(!store.beat("old", 200 + FORGOTTEN_AFTER_S).await.unwrap(), "it has to tell all anew");
    }

    async fn every_edit_of_clusters_leaves_another_mark(store: &Store) {
        use crate::manager::cluster::ClusterSpec;
        let spec =
            |name: &str| ClusterSpec { name: name.to_owned(), is_default: false, ..ClusterSpec::first() };
        let mut marks = vec![store.clusters_mark().await.unwrap()];
        let id = store.insert_cluster(&spec("a"), 1).await.unwrap();
        marks.push(store.clusters_mark().await.unwrap());
        store.update_cluster(id, 1, &spec("b"), 1).await.unwrap();
        marks.push(store.clusters_mark().await.unwrap());
        store.delete_cluster(id).await.unwrap();
        store.insert_cluster(&spec("c"), 1).await.unwrap();
        marks.push(store.clusters_mark().await.unwrap());
        marks.dedup();
        assert_eq!(marks.len(), 4, "{marks:?}");
    }
}
