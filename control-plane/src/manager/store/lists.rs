//! What moved from zone to zone, and the busiest hosts and tasks, in the database.
//!
//! Invariant: of a step that is over no more is kept than [`KEPT`] of a cluster and kind; none is kept beyond
//! [`KEPT_FOR_S`].

use super::{Store, StoreError, failed, id_from, id_to};
use crate::manager::bandwidth::{ListKey, ListQuery, ListRows};
use sqlx::Row;

/// Entries of a step that is over: zones in all directions of 16, hosts and tasks more than anybody reads.
const KEPT: i64 = 256;
const KEPT_FOR_S: i64 = 30 * 24 * 3600;
/// Step, seconds.
pub(super) const STEP_S: i64 = 300;
/// Most rows, some 100 MB: where there are more clusters than that holds for 30 days the oldest go first.
const MAX_ROWS: i64 = 500_000;
const ROWS_PER_STATEMENT: usize = 500;
/// Largest figure of one flush, and of a row: sums of rows stay below 2^63.
const MAX_FIGURE: u64 = 1 << 50;
const MAX_SUM: i64 = 1 << 55;

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) cluster_id: u64,
    pub(crate) name: String,
    pub(crate) other: String,
    pub(crate) bytes: u64,
    pub(crate) origin_bytes: u64,
}

impl Store {
    /// Adds to what is there already.
    pub(crate) async fn add_to_lists(&self, rows: &ListRows) -> Result<(), StoreError> {
        const ACT: &str = "write lists of bandwidth";
        let rows: Vec<_> = rows.iter().collect();
        let mut transaction = self.begin(ACT).await?;
        for some in rows.chunks(ROWS_PER_STATEMENT) {
            let sum = |column: &str| {
                format!(
                    "{column} = CASE WHEN bandwidth_lists.{column} + excluded.{column} > {MAX_SUM} THEN {MAX_SUM} \
                     ELSE bandwidth_lists.{column} + excluded.{column} END"
                )
            };
            let sql = format!(
                "INSERT INTO bandwidth_lists (at, cluster_id, kind, name, other, bytes, origin_bytes) VALUES {} \
                 ON CONFLICT (at, cluster_id, kind, name, other) DO UPDATE SET {}, {}",
                self.dialect.places(some.len(), 7),
                sum("bytes"),
                sum("origin_bytes")
            );
            let mut query = sqlx::query(&sql).persistent(false);
            for (ListKey { at, cluster_id, kind, name, other }, (bytes, origin)) in some {
                let figure = |figure: &u64| i64::try_from((*figure).min(MAX_FIGURE)).unwrap_or(0);
                query = query.bind(at).bind(id_to(*cluster_id)).bind(*kind as i64).bind(name).bind(other);
                query = query.bind(figure(bytes)).bind(figure(origin));
            }
            query.execute(&mut *transaction).await.map_err(failed(ACT))?;
        }
        transaction.commit().await.map_err(failed(ACT))
    }

    /// The sums since a moment, the largest first, and how many there are.
    pub(crate) async fn list(&self, query: &ListQuery) -> Result<(Vec<Entry>, usize), StoreError> {
        const ACT: &str = "read lists of bandwidth";
        let (act, mut moment) = (failed(ACT), self.moment(ACT).await?);
        let groups = "SELECT cluster_id, name, other, SUM(CAST(bytes AS DOUBLE PRECISION)) AS moved, \
                      SUM(CAST(origin_bytes AS DOUBLE PRECISION)) AS origin FROM bandwidth_lists \
                      WHERE at >= $1 AND kind = $2 AND ($3 IS NULL OR cluster_id = $3) \
                      GROUP BY cluster_id, name, other";
        let cluster_id = query.cluster_id.map(|id| id_to(id).unwrap_or(-1));
        let bind = |sql| sqlx::query(sql).bind(query.since).bind(query.kind as i64).bind(cluster_id);
        let page = format!("{groups} ORDER BY 4 DESC, 1, 2, 3 LIMIT $4 OFFSET $5");
        let rows =
            bind(&page).bind(query.limit).bind(query.skip).fetch_all(&mut *moment).await.map_err(act)?;
        let count = format!("SELECT COUNT(*) FROM ({groups}) AS entries");
        let count: i64 =
            bind(&count).fetch_one(&mut *moment).await.and_then(|row| row.try_get(0)).map_err(act)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a sum of bytes; `as` saturates"
        )]
        let bytes = |sum: f64| sum as u64;
        let entry = |row: &sqlx::any::AnyRow| {
            Ok(Entry {
                cluster_id: id_from(row.try_get("cluster_id").map_err(act)?)?,
                name: row.try_get("name").map_err(act)?,
                other: row.try_get("other").map_err(act)?,
                bytes: bytes(row.try_get("moved").map_err(act)?),
                origin_bytes: bytes(row.try_get("origin").map_err(act)?),
            })
        };
        let entries = rows.iter().map(entry).collect::<Result<_, StoreError>>()?;
        Ok((entries, usize::try_from(count).unwrap_or(0)))
    }

    /// Keeps the largest entries of steps that are over, and forgets old ones.
    pub(crate) async fn prune_lists(&self, now: i64) -> Result<(), StoreError> {
        self.prune_lists_to(now, KEPT, MAX_ROWS).await
    }

    async fn prune_lists_to(&self, now: i64, kept: i64, most: i64) -> Result<(), StoreError> {
        const ACT: &str = "prune lists of bandwidth";
        let mut transaction = self.begin_write(ACT).await?;
        let crowded: Option<i64> =
            sqlx::query_scalar("SELECT at FROM bandwidth_lists ORDER BY at DESC LIMIT 1 OFFSET $1")
                .bind(most)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed(ACT))?;
        let oldest = crowded.map_or(now - KEPT_FOR_S, |at| (at + STEP_S).max(now - KEPT_FOR_S));
        sqlx::query("DELETE FROM bandwidth_lists WHERE at < $1")
            .bind(oldest)
            .execute(&mut *transaction)
            .await
            .map_err(failed(ACT))?;
        // The two newest steps that are over: older ones were pruned when they were these.
        sqlx::query(
            "DELETE FROM bandwidth_lists WHERE at >= $1 AND at < $2 AND (at, cluster_id, kind, name, other) IN \
             (SELECT at, cluster_id, kind, name, other FROM \
              (SELECT at, cluster_id, kind, name, other, \
               ROW_NUMBER() OVER (PARTITION BY at, cluster_id, kind ORDER BY bytes DESC, name, other) AS place \
               FROM bandwidth_lists WHERE at >= $1 AND at < $2) AS placed WHERE place > $3)",
        )
        .bind(now - 3 * STEP_S)
        .bind(now - STEP_S)
        .bind(kept)
        .execute(&mut *transaction)
        .await
        .map_err(failed(ACT))?;
        transaction.commit().await.map_err(failed(ACT))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_both;
    use super::*;
    use crate::manager::bandwidth::ListKind;

    on_both! { lists_add_up_the_largest_first, lists_are_bounded, no_figure_breaks_a_list }

    fn row(at: i64, cluster_id: u64, name: &str, bytes: u64) -> ListRows {
        let (name, other) = (name.to_owned(), String::new());
        let key = ListKey { at, cluster_id, kind: ListKind::Host, name, other };
        ListRows::from([(key, (bytes, bytes / 2))])
    }

    const ALL: ListQuery =
        ListQuery { since: 0, kind: ListKind::Host, cluster_id: None, skip: 0, limit: 100 };

    async fn read(store: &Store, query: ListQuery) -> Vec<(u64, String, u64, u64)> {
        let entries = store.list(&query).await.unwrap().0.into_iter();
        entries.map(|entry| (entry.cluster_id, entry.name, entry.bytes, entry.origin_bytes)).collect()
    }

    async fn lists_add_up_the_largest_first(store: &Store) {
        for rows in [row(300, 1, "a", 4), row(300, 1, "a", 6), row(600, 1, "b", 100), row(600, 2, "a", 50)] {
            store.add_to_lists(&rows).await.unwrap();
        }
        let text = String::from;
        let all = [(1, text("b"), 100, 50), (2, text("a"), 50, 25), (1, text("a"), 10, 5)];
        assert_eq!(read(store, ALL).await, all);
        assert_eq!(read(store, ListQuery { cluster_id: Some(2), ..ALL }).await, all[1..2]);
        assert_eq!(read(store, ListQuery { since: 600, ..ALL }).await, all[..2]);
        assert!(read(store, ListQuery { kind: ListKind::Task, ..ALL }).await.is_empty());
        let (page, total) = store.list(&ListQuery { skip: 1, limit: 1, ..ALL }).await.unwrap();
        assert_eq!((page[0].cluster_id, total), (2, 3));
    }

    async fn lists_are_bounded(store: &Store) {
        for number in 0..10_u64 {
            store.add_to_lists(&row(300, 1, &format!("h{number}"), 100 + number)).await.unwrap();
            store.add_to_lists(&row(1200, 1, &format!("h{number}"), number)).await.unwrap();
        }
        store.prune_lists_to(1200, 3, 1000).await.unwrap();
        let left = read(store, ListQuery { limit: 5, ..ALL }).await;
        let names: Vec<_> = left.iter().map(|(_, name, ..)| name.as_str()).collect();
        assert_eq!(&names[..3], ["h9", "h8", "h7"], "of a step that is over the largest stay");
        assert_eq!(store.list(&ALL).await.unwrap().1, 10, "the running step is whole");
        store.prune_lists_to(1200, 3, 4).await.unwrap();
        assert_eq!(store.list(&ListQuery { since: 0, ..ALL }).await.unwrap().1, 0);
        store.add_to_lists(&row(1200, 1, "a", 1)).await.unwrap();
        store.prune_lists_to(1200 + KEPT_FOR_S, 3, 4).await.unwrap();
        assert_eq!(store.list(&ALL).await.unwrap().1, 1);
        store.prune_lists_to(1501 + KEPT_FOR_S, 3, 4).await.unwrap();
        assert_eq!(store.list(&ALL).await.unwrap().1, 0);
    }

    async fn no_figure_breaks_a_list(store: &Store) {
        for _ in 0..40 {
            store.add_to_lists(&row(300, 1, "a", u64::MAX)).await.unwrap();
        }
        assert_eq!(read(store, ALL).await[0].2, 1 << 55);
    }
}
