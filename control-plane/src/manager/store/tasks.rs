//! Tasks in the database, as their clusters' schedulers told of them last.
//!
//! Invariant: bounded: tasks that nothing happens to for long, and where there are too many those that nothing happened to
//! for longest, are forgotten.

use super::{Store, StoreError, failed, id_from, id_to};
use crate::manager::tasks::{KnownTask, TaskHost, TaskQuery};
use sqlx::FromRow;

const KEPT_FOR_S: i64 = 7 * 24 * 3600;
/// Most tasks, some 50 MB.
const MAX_TASKS: i64 = 20_000;
const ROWS_PER_STATEMENT: usize = 500;
const COLUMNS: &str =
    "cluster_id, task, bytes, pieces, holders, downloading, moved_bytes, origin_bytes, last_seen, hosts";

#[derive(FromRow)]
struct TaskRow {
    cluster_id: i64,
    task: String,
    bytes: i64,
    pieces: i64,
    holders: i64,
    downloading: i64,
    moved_bytes: i64,
    origin_bytes: i64,
    last_seen: i64,
    hosts: String,
}

impl Store {
    /// Takes in tasks as they are now; what they moved is added. Each at most once.
    pub(crate) async fn put_tasks(&self, tasks: &[KnownTask]) -> Result<(), StoreError> {
        const ACT: &str = "write tasks";
        let mut transaction = self.begin(ACT).await?;
        for some in tasks.chunks(ROWS_PER_STATEMENT) {
            let sql = format!(
                "INSERT INTO tasks ({COLUMNS}) VALUES {} ON CONFLICT (cluster_id, task) DO UPDATE SET \
                 bytes = CASE WHEN excluded.bytes > 0 THEN excluded.bytes ELSE tasks.bytes END, \
                 pieces = CASE WHEN excluded.bytes > 0 THEN excluded.pieces ELSE tasks.pieces END, \
                 holders = excluded.holders, downloading = excluded.downloading, hosts = excluded.hosts, \
                 last_seen = excluded.last_seen, moved_bytes = {}, origin_bytes = {}",
                self.dialect.places(some.len(), 10),
                sum("moved_bytes"),
                sum("origin_bytes")
            );
            let mut query = sqlx::query(&sql).persistent(false);
            for task in some {
                let hosts = serde_json::to_string(&task.hosts).map_err(|error| broken(&task.task, &error))?;
                query = query.bind(id_to(task.cluster_id)).bind(&task.task).bind(figure(task.bytes));
                query = query.bind(i64::from(task.pieces)).bind(i64::from(task.holders));
                query = query.bind(i64::from(task.downloading)).bind(figure(task.moved_bytes));
                query = query.bind(figure(task.origin_bytes)).bind(task.last_seen).bind(hosts);
            }
            query.execute(&mut *transaction).await.map_err(failed(ACT))?;
        }
        transaction.commit().await.map_err(failed(ACT))
    }

    /// The tasks that something happened to last first, and how many there are.
    pub(crate) async fn tasks(&self, query: &TaskQuery) -> Result<(Vec<KnownTask>, usize), StoreError> {
        const ACT: &str = "list tasks";
        let (act, mut moment) = (failed(ACT), self.moment(ACT).await?);
        let cluster_id = query.cluster_id.map(|id| id_to(id).unwrap_or(-1));
        let of = "FROM tasks WHERE ($1 IS NULL OR cluster_id = $1) AND ($2 = '' OR task = $2)";
        let page =
            format!("SELECT {COLUMNS} {of} ORDER BY last_seen DESC, cluster_id, task LIMIT $3 OFFSET $4");
        let rows: Vec<TaskRow> = sqlx::query_as(&page)
            .bind(cluster_id)
            .bind(query.task.as_deref().unwrap_or(""))
            .bind(query.limit)
            .bind(query.skip)
            .fetch_all(&mut *moment)
            .await
            .map_err(act)?;
        let count: i64 = sqlx::query_scalar(&format!("SELECT COUNT(*) {of}"))
            .bind(cluster_id)
            .bind(query.task.as_deref().unwrap_or(""))
            .fetch_one(&mut *moment)
            .await
            .map_err(act)?;
        let tasks = rows.into_iter().map(KnownTask::try_from).collect::<Result<_, _>>()?;
        Ok((tasks, usize::try_from(count).unwrap_or(0)))
    }

    pub(crate) async fn prune_tasks(&self, now: i64) -> Result<(), StoreError> {
        self.prune_tasks_to(now, MAX_TASKS).await
    }

    async fn prune_tasks_to(&self, now: i64, most: i64) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM tasks WHERE last_seen < $1 OR last_seen <= COALESCE(\
             (SELECT last_seen FROM tasks ORDER BY last_seen DESC LIMIT 1 OFFSET $2), 0)",
        )
        .bind(now - KEPT_FOR_S)
        .bind(most)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed("prune tasks"))
    }
}

/// What a sum of bytes becomes; far from where arithmetic overflows.
fn sum(column: &str) -> String {
    const MOST: i64 = 1 << 60;
    format!("CASE WHEN tasks.{column} > {MOST} THEN {MOST} ELSE tasks.{column} + excluded.{column} END")
}

fn figure(bytes: u64) -> i64 {
    i64::try_from(bytes.min(1 << 55)).unwrap_or(0)
}

fn broken(task: &str, problem: &impl ToString) -> StoreError {
    StoreError::Row { row: format!("task `{task}`"), problem: problem.to_string() }
}

impl TryFrom<TaskRow> for KnownTask {
    type Error = StoreError;

    fn try_from(row: TaskRow) -> Result<Self, StoreError> {
        let hosts: Vec<TaskHost> =
            serde_json::from_str(&row.hosts).map_err(|error| broken(&row.task, &error))?;
        let count = |number: i64| u32::try_from(number).map_err(|error| broken(&row.task, &error));
        Ok(Self {
            cluster_id: id_from(row.cluster_id)?,
            bytes: id_from(row.bytes)?,
            pieces: count(row.pieces)?,
            holders: count(row.holders)?,
            downloading: count(row.downloading)?,
            moved_bytes: id_from(row.moved_bytes)?,
            origin_bytes: id_from(row.origin_bytes)?,
            last_seen: row.last_seen,
            hosts,
            task: row.task,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_both;
    use super::*;

    on_both! { tasks_are_as_told_last_and_what_they_moved_adds_up, tasks_are_bounded }

    fn task(cluster_id: u64, name: &str, bytes: u64, last_seen: i64) -> KnownTask {
        let hosts = vec![TaskHost { host_id: "a".to_owned(), complete: true, pieces: 3 }];
        let (moved_bytes, origin_bytes) = (10, 4);
        let (task, pieces, holders, downloading) = (name.to_owned(), 3, 1, 2);
        KnownTask {
            cluster_id,
            task,
            bytes,
            pieces,
            holders,
            downloading,
            moved_bytes,
            origin_bytes,
            last_seen,
            hosts,
        }
    }

    const ALL: TaskQuery = TaskQuery { cluster_id: None, task: None, skip: 0, limit: 100 };

    async fn tasks_are_as_told_last_and_what_they_moved_adds_up(store: &Store) {
        store.put_tasks(&[task(1, "sha256:a", 100, 5), task(2, "sha256:a", 100, 6)]).await.unwrap();
        store
            .put_tasks(&[KnownTask { holders: 9, hosts: vec![], ..task(1, "sha256:a", 0, 7) }])
            .await
            .unwrap();
        let (tasks, total) = store.tasks(&ALL).await.unwrap();
        assert_eq!((total, tasks[0].cluster_id, tasks[1].cluster_id), (2, 1, 2));
        let first = &tasks[0];
        assert_eq!((first.bytes, first.holders, first.moved_bytes, first.origin_bytes), (100, 9, 20, 8));
        assert_eq!(tasks[1], task(2, "sha256:a", 100, 6));
        let one = TaskQuery { task: Some("sha256:a".to_owned()), cluster_id: Some(2), ..ALL };
        assert_eq!(store.tasks(&one).await.unwrap().1, 1);
        let none = TaskQuery { task: Some("sha256:b".to_owned()), ..ALL };
        assert!(store.tasks(&none).await.unwrap().0.is_empty());
    }

    async fn tasks_are_bounded(store: &Store) {
        let tasks: Vec<_> = (0..1200_i64).map(|at| task(1, &format!("sha256:{at}"), 1, 100 + at)).collect();
        store.put_tasks(&tasks).await.unwrap();
        store.prune_tasks_to(0, 1000).await.unwrap();
        let (left, total) = store.tasks(&ALL).await.unwrap();
        assert_eq!((total, left[0].last_seen), (1000, 1299));
        store.prune_tasks_to(1250 + KEPT_FOR_S, 1000).await.unwrap();
        assert_eq!(store.tasks(&ALL).await.unwrap().1, 50);
    }
}
