//! The history of bandwidth in the database, how it is written and kept small: steps of 10 s, rolled up to 300 s as they
//! grow old or many.
//!
//! Invariants: no table row is ever added beyond the bounds for long: [`Store::prune_bandwidth`] restores them;
//! rolling up changes no sum; no figure, whatever was reported, makes a sum fail.

mod history;

use super::{Store, StoreError, failed, id_to};
use crate::manager::bandwidth::{Key, LIVE_FOR_S, LIVE_STEP_S, Rows, STEP_S};
use crate::usage::Usage;
use sqlx::{Any, Transaction};

/// In the order of [`Usage::fields`].
const COLUMNS: [&str; 15] = [
    "upload_sent",
    "upload_received",
    "download_sent",
    "download_received",
    "origin_sent",
    "origin_received",
    "control_sent",
    "control_received",
    "others_sent",
    "others_received",
    "delivered_local",
    "delivered_peer_same_zone",
    "delivered_peer_cross_zone",
    "delivered_seed",
    "delivered_origin",
];
/// Hosts of one statement: more make it no faster, and a slow one is a line of the log.
const ROWS_PER_STATEMENT: usize = 100;
/// Steps of what is old, seconds.
const COARSE_S: i64 = 300;
/// Age at which fine steps are rolled up, and at which coarse ones are forgotten, seconds.
const FINE_FOR_S: i64 = 24 * 3600;
const COARSE_FOR_S: i64 = 30 * 24 * 3600;
/// Most rows of either step, some 60 MB each: a hundred busy hosts for 14 hours, then for 17 days.
pub(super) const MAX_ROWS: i64 = 500_000;
/// Largest figure of one message: more than any link carries in a step.
const MAX_FIGURE: u64 = 1 << 50;
/// Largest figure of a row, and of one that was rolled up: their sums stay below 2^63.
const MAX_FINE: i64 = 1 << 55;
const MAX_COARSE: i64 = 1 << 60;

/// What a step of the answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: i64,
    pub(crate) cluster_id: u64,
    /// `None`: all hosts of the cluster.
    pub(crate) host: Option<String>,
    pub(crate) usage: Usage,
}

impl Store {
    /// Adds to what is there already.
    pub(crate) async fn add_bandwidth(&self, rows: &Rows) -> Result<(), StoreError> {
        let act = failed("write bandwidth");
        let rows: Vec<_> = rows.iter().collect();
        let mut transaction = self.begin("write bandwidth").await?;
        let insert = |rows| {
            format!(
                "INSERT INTO bandwidth (step, at, cluster_id, host, {}) VALUES {} {}",
                COLUMNS.join(", "),
                self.dialect.places(rows, 4 + COLUMNS.len()),
                added(MAX_FINE)
            )
        };
        let (full, last) = (insert(ROWS_PER_STATEMENT), insert(rows.len() % ROWS_PER_STATEMENT));
        for some in rows.chunks(ROWS_PER_STATEMENT) {
            let sql = if some.len() == ROWS_PER_STATEMENT { &full } else { &last };
            // Full statements are the same again and again; the last one is of any length.
            let mut query = sqlx::query(sql).persistent(some.len() == ROWS_PER_STATEMENT);
            for (Key { step, at, cluster_id, host }, usage) in some {
                query = query.bind(step).bind(at).bind(id_to(*cluster_id)).bind(host);
                for figure in usage.fields() {
                    query = query.bind(i64::try_from(figure.min(MAX_FIGURE)).unwrap_or(0));
                }
            }
            query.execute(&mut *transaction).await.map_err(act)?;
        }
        transaction.commit().await.map_err(act)
    }

    /// Rolls up and forgets what is too old or too much.
    pub(crate) async fn prune_bandwidth(&self, now: i64) -> Result<(), StoreError> {
        self.prune_bandwidth_to(now, MAX_ROWS).await
    }

    pub(super) async fn prune_bandwidth_to(&self, now: i64, most: i64) -> Result<(), StoreError> {
        let act = failed("prune bandwidth");
        let mut transaction = self.begin_write("prune bandwidth").await?;
        forget(&mut transaction, LIVE_STEP_S, now - LIVE_FOR_S).await?;
        let fine = cutoff(&mut transaction, STEP_S, now - FINE_FOR_S, most).await?;
        let sums = COLUMNS.map(|column| format!("SUM({column})"));
        let roll_up = format!(
            "INSERT INTO bandwidth (step, at, cluster_id, host, {}) \
             SELECT $1, (at / $1) * $1, cluster_id, host, {} FROM bandwidth WHERE step = $2 AND at < $3 \
             GROUP BY 2, 3, 4 {}",
            COLUMNS.join(", "),
            sums.join(", "),
            added(MAX_COARSE)
        );
        let rolled = sqlx::query(&roll_up).bind(COARSE_S).bind(STEP_S).bind(fine);
        rolled.execute(&mut *transaction).await.map_err(act)?;
        forget(&mut transaction, STEP_S, fine).await?;
        let coarse = cutoff(&mut transaction, COARSE_S, now - COARSE_FOR_S, most).await?;
        forget(&mut transaction, COARSE_S, coarse).await?;
        transaction.commit().await.map_err(act)
    }
}

/// What a row that is there already becomes.
fn added(most: i64) -> String {
    let sum = |column: &str| {
        format!(
            "{column} = CASE WHEN bandwidth.{column} + excluded.{column} > {most} THEN {most} \
             ELSE bandwidth.{column} + excluded.{column} END"
        )
    };
    let sums: Vec<String> = COLUMNS.iter().map(|column| sum(column)).collect();
    format!("ON CONFLICT (step, at, cluster_id, host) DO UPDATE SET {}", sums.join(", "))
}

/// Where the rows to keep begin: at `oldest`, or later where there are more than `most`. On a coarse step's border.
async fn cutoff(
    transaction: &mut Transaction<'_, Any>,
    step: i64,
    oldest: i64,
    most: i64,
) -> Result<i64, StoreError> {
    let sql = "SELECT at FROM bandwidth WHERE step = $1 ORDER BY at DESC LIMIT 1 OFFSET $2";
    let crowded: Option<i64> = sqlx::query_scalar(sql)
        .bind(step)
        .bind(most)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("count bandwidth"))?;
    // The step of the first row too many goes, too.
    let from = crowded.map_or(oldest, |at| oldest.max(at + COARSE_S));
    Ok(from - from.rem_euclid(COARSE_S))
}

async fn forget(transaction: &mut Transaction<'_, Any>, step: i64, before: i64) -> Result<(), StoreError> {
    let forgotten = sqlx::query("DELETE FROM bandwidth WHERE step = $1 AND at < $2").bind(step).bind(before);
    forgotten.execute(&mut **transaction).await.map(drop).map_err(failed("forget bandwidth"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_both;
    use super::*;
    use crate::manager::bandwidth::Query;
    use crate::usage::Moved;

    on_both! {
        what_comes_in_parts_adds_up_and_is_grouped_as_asked,
        pages_of_hosts_are_the_whole_list_in_parts,
        growing_old_changes_no_sum_and_then_it_is_forgotten,
        too_many_rows_are_rolled_up_early_and_then_forgotten,
        no_figure_breaks_a_sum,
    }

    fn usage(sent: u64) -> Usage {
        Usage { upload: Moved { sent, received: 1 }, ..Usage::default() }
    }

    fn rows(rows: &[(i64, u64, &str, u64)]) -> Rows {
        let row = |&(at, cluster_id, host, sent): &(i64, u64, &str, u64)| {
            let key = |host: &str| Key { step: STEP_S, at, cluster_id, host: host.to_owned() };
            [(key(host), usage(sent)), (key(""), usage(sent))]
        };
        let mut sums = Rows::new();
        for (key, usage) in rows.iter().flat_map(row) {
            sums.entry(key).or_default().add(&usage);
        }
        sums
    }

    const ALL: Query = Query { since: 0, step: 10, cluster_id: None, by_host: true, skip: 0, limit: 1000 };

    /// Where, whose, and bytes sent.
    async fn read(store: &Store, query: Query) -> Vec<(i64, u64, String, u64)> {
        let (steps, count) = store.bandwidth(&query).await.unwrap();
        assert!(count >= steps.len());
        let flat =
            |step: Step| (step.at, step.cluster_id, step.host.unwrap_or_default(), step.usage.upload.sent);
        steps.into_iter().map(flat).collect()
    }

    async fn what_comes_in_parts_adds_up_and_is_grouped_as_asked(store: &Store) {
        store.add_bandwidth(&rows(&[(100, 1, "a", 5), (100, 1, "b", 7), (110, 2, "c", 1)])).await.unwrap();
        store.add_bandwidth(&rows(&[(100, 1, "a", 10), (120, 1, "a", 2)])).await.unwrap();
        let text = String::from;
        assert_eq!(
            read(store, ALL).await,
            [(100, 1, text("a"), 15), (100, 1, text("b"), 7), (110, 2, text("c"), 1), (120, 1, text("a"), 2)]
        );
        let clusters = Query { by_host: false, step: 60, ..ALL };
        assert_eq!(
            read(store, clusters).await,
            [(60, 1, text(""), 22), (60, 2, text(""), 1), (120, 1, text(""), 2)]
        );
        let one = Query { cluster_id: Some(1), since: 110, ..ALL };
        assert_eq!(read(store, one).await, [(120, 1, text("a"), 2)]);
        let (page, total) = store.bandwidth(&Query { skip: 1, limit: 2, ..ALL }).await.unwrap();
        assert_eq!((page.len(), page[0].host.as_deref(), total), (2, Some("b"), 4));
        assert!(read(store, Query { cluster_id: Some(u64::MAX), ..ALL }).await.is_empty());
    }

    async fn pages_of_hosts_are_the_whole_list_in_parts(store: &Store) {
        let host = |n: i64| ["a", "b", "c", "d", "e"][usize::try_from(n).unwrap()];
        let many: Vec<_> =
            (0..60).map(|n| (100 + 10 * (n / 5), if n % 2 == 0 { 1 } else { 2 }, host(n % 5), 1)).collect();
        store.add_bandwidth(&rows(&many)).await.unwrap();
        for (step, since) in [(10, 0), (30, 120), (60, 130), (300, 0)] {
            let all = read(store, Query { step, since, ..ALL }).await;
            assert!(all.len() >= 5, "{all:?}");
            for limit in [1, 4, 7, 100] {
                let mut paged = Vec::new();
                for skip in (0..70).step_by(usize::try_from(limit).unwrap()) {
                    let query = Query { step, since, skip, limit, ..ALL };
                    paged.extend(read(store, query).await);
                    assert_eq!(store.bandwidth(&query).await.unwrap().1, all.len());
                }
                assert_eq!(paged, all, "step {step}, pages of {limit}");
            }
        }
    }

    async fn growing_old_changes_no_sum_and_then_it_is_forgotten(store: &Store) {
        let old = rows(&[(600, 1, "a", 5), (610, 1, "a", 7), (890, 1, "b", 1), (900, 1, "a", 2)]);
        store.add_bandwidth(&old).await.unwrap();
        store.prune_bandwidth(890 + FINE_FOR_S).await.unwrap();
        assert_eq!(read(store, ALL).await.len(), 4, "only whole coarse steps are rolled up");
        store.prune_bandwidth(900 + FINE_FOR_S).await.unwrap();
        let text = String::from;
        let rolled = [(600, 1, text("a"), 12), (600, 1, text("b"), 1), (900, 1, text("a"), 2)];
        assert_eq!(read(store, ALL).await, rolled);
        // Late news of the same time goes where the rest went.
        store.add_bandwidth(&rows(&[(650, 1, "a", 100), (600, 1, "a", 3)])).await.unwrap();
        let late = [(600, 1, text("a"), 15), (600, 1, text("b"), 1), (650, 1, text("a"), 100)];
        assert_eq!(read(store, ALL).await[..3], late);
        assert_eq!(store.bandwidth(&Query { limit: 1, ..ALL }).await.unwrap().1, 4);
        store.prune_bandwidth(900 + FINE_FOR_S).await.unwrap();
        assert_eq!(read(store, ALL).await[0], (600, 1, text("a"), 115));
        store.prune_bandwidth(900 + COARSE_FOR_S).await.unwrap();
        assert_eq!(read(store, ALL).await, [(900, 1, text("a"), 2)]);
    }

    async fn too_many_rows_are_rolled_up_early_and_then_forgotten(store: &Store) {
        let many: Vec<_> = (0..120).map(|step| (step * 10, 1, "a", 1)).collect();
        store.add_bandwidth(&rows(&many)).await.unwrap();
        store.prune_bandwidth_to(1200, 100).await.unwrap();
        let left = read(store, ALL).await;
        let fine = left.iter().filter(|row| row.3 == 1).count();
        assert!(fine <= 50 && left.iter().map(|row| row.3).sum::<u64>() == 120, "{left:?}");
        store.prune_bandwidth_to(1200, 2).await.unwrap();
        let left = read(store, ALL).await;
        assert!(left.len() <= 2 && !left.is_empty(), "{left:?}");
    }

    async fn no_figure_breaks_a_sum(store: &Store) {
        for _ in 0..40 {
            store.add_bandwidth(&rows(&[(0, 1, "a", u64::MAX), (10, 1, "a", u64::MAX)])).await.unwrap();
        }
        let clusters = Query { by_host: false, step: 300, ..ALL };
        let sum = read(store, clusters).await[0].3;
        assert_eq!(sum, 2 * (1 << 55));
        store.prune_bandwidth(FINE_FOR_S + 300).await.unwrap();
        assert_eq!(read(store, clusters).await[0].3, sum);
    }
}
