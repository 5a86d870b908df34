//! Reading the history of bandwidth, page by page.
//!
//! Invariant: of rows that an answer does not show no more is read than the index has of them, and they are sorted only
//! where several make one entry.

use super::{COARSE_S, COLUMNS, Step};
use crate::manager::bandwidth::{LIVE_STEP_S, Query, STEP_S};
use crate::manager::store::{Store, StoreError, failed, id_from, id_to};
use crate::usage::Usage;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, AnyConnection, Row};

impl Store {
    /// Steps since a moment, the oldest first, and how many there are.
    pub(crate) async fn bandwidth(&self, query: &Query) -> Result<(Vec<Step>, usize), StoreError> {
        const ACT: &str = "read bandwidth";
        let (act, mut moment) = (failed(ACT), self.moment(ACT).await?);
        let (window, total) = match query.by_host {
            true => window(&mut moment, query).await?,
            false => whole(&mut moment, query).await?,
        };
        let sql = format!(
            "{} ORDER BY {} LIMIT {} OFFSET {}",
            entries(query, &window),
            window.order(),
            query.limit,
            window.skip
        );
        let page = bound(&sql, query).fetch_all(&mut *moment).await.map_err(act)?;
        let steps = page.iter().map(|row| step(row, query.by_host)).collect::<Result<_, _>>()?;
        Ok((steps, usize::try_from(total).unwrap_or(0)))
    }
}

/// Which rows are read, and how many entries before the page are made of them.
struct Window {
    since: i64,
    until: i64,
    skip: i64,
    /// Each entry is one row, and all rows are of this step.
    plain: Option<i64>,
}

impl Window {
    fn all(query: &Query) -> Self {
        Self { since: query.since, until: i64::MAX, skip: query.skip, plain: None }
    }

    /// By step, cluster and host: where it can be as the index has it, so that a page ends where it is full.
    fn order(&self) -> &'static str {
        if self.plain.is_some() { "at, cluster_id, host" } else { "1, 2, 3" }
    }
}

/// Whole clusters are a few rows: all that were asked for.
async fn whole(connection: &mut AnyConnection, query: &Query) -> Result<(Window, i64), StoreError> {
    let window = Window::all(query);
    let count = format!("SELECT COUNT(*) FROM ({}) AS steps", entries(query, &window));
    let count = bound(&count, query).fetch_one(connection).await.and_then(|row| row.try_get(0));
    Ok((window, count.map_err(failed("count bandwidth"))?))
}

/// What the rows of one step of the answer are, by the index.
struct Counted {
    since: i64,
    /// Entries they make.
    entries: i64,
    /// The step of them all, where each is an entry of its own.
    plain: Option<i64>,
}

/// The steps that a page of hosts lies in, and how many entries all pages have.
async fn window(connection: &mut AnyConnection, query: &Query) -> Result<(Window, i64), StoreError> {
    let counted = counted(connection, query).await?;
    let (mut total, end) = (0, query.skip.saturating_add(query.limit));
    let mut window: Option<Window> = None;
    for Counted { since, entries, plain } in counted {
        if total + entries > query.skip && total < end {
            let until = since.saturating_add(query.step);
            let (since, skip) = (since.max(query.since), query.skip - total);
            let of_page = window.get_or_insert(Window { since, until, skip, plain });
            of_page.until = until;
            of_page.plain = of_page.plain.filter(|step| plain == Some(*step));
        }
        total += entries;
    }
    let nothing = Window { until: query.since, ..Window::all(query) };
    Ok((window.unwrap_or(nothing), total))
}

/// How many entries each step of the answer has. Counting what lies at one moment takes the index alone; only where a
/// step has rows of several, hosts are told apart.
async fn counted(connection: &mut AnyConnection, query: &Query) -> Result<Vec<Counted>, StoreError> {
    let act = failed("count bandwidth");
    let sql = format!(
        "SELECT (at / $1) * $1 AS since, COUNT(*), step FROM bandwidth WHERE {} GROUP BY step, at ORDER BY 1",
        rows(query, &Window::all(query))
    );
    let moments = bound(&sql, query).fetch_all(&mut *connection).await.map_err(act)?;
    let mut counted: Vec<Counted> = Vec::new();
    for row in &moments {
        let since: i64 = row.try_get(0).map_err(act)?;
        match counted.last_mut().filter(|last| last.since == since) {
            Some(last) => last.plain = None,
            None => counted.push(Counted {
                since,
                entries: row.try_get(1).map_err(act)?,
                plain: Some(row.try_get(2).map_err(act)?),
            }),
        }
    }
    let mixed: Vec<i64> = counted.iter().filter(|step| step.plain.is_none()).map(|step| step.since).collect();
    let (Some(first), Some(last)) = (mixed.first(), mixed.last()) else { return Ok(counted) };
    let (since, until) = (query.since.max(*first), last.saturating_add(query.step));
    let some = Window { since, until, ..Window::all(query) };
    let sql = format!(
        "SELECT since, COUNT(*) FROM (SELECT DISTINCT (at / $1) * $1 AS since, cluster_id, host FROM bandwidth \
         WHERE {}) AS entries GROUP BY since",
        rows(query, &some)
    );
    let told_apart = bound(&sql, query).fetch_all(connection).await.map_err(act)?;
    for row in told_apart {
        let (since, entries): (i64, i64) = (row.try_get(0).map_err(act)?, row.try_get(1).map_err(act)?);
        if let Ok(place) = counted.binary_search_by_key(&since, |step| step.since) {
            counted[place].entries = entries;
        }
    }
    Ok(counted)
}

/// The entries that rows make; the parameter is the step.
fn entries(query: &Query, window: &Window) -> String {
    // Sums as floating point: exact to 2^53 bytes, and beyond they do not overflow.
    let sums = COLUMNS.map(|column| format!("SUM(CAST({column} AS DOUBLE PRECISION)) AS {column}"));
    let host = if query.by_host { "host" } else { "CAST('' AS TEXT)" };
    format!(
        "SELECT (at / $1) * $1 AS since, cluster_id, {host} AS name, {} FROM bandwidth WHERE {} GROUP BY {}",
        sums.join(", "),
        rows(query, window),
        window.order()
    )
}

/// The rows that entries are made of; the parameter is the cluster.
fn rows(query: &Query, Window { since, until, plain, .. }: &Window) -> String {
    let steps = match plain {
        Some(step) => format!("step = {step}"),
        None if query.step < STEP_S => format!("step = {LIVE_STEP_S}"),
        None => format!("step IN ({STEP_S}, {COARSE_S})"),
    };
    // A cluster's sum is a row of its own: the host without a name.
    let whose = if query.by_host { "host <> ''" } else { "host = ''" };
    format!("{steps} AND at >= {since} AND at < {until} AND ($2 IS NULL OR cluster_id = $2) AND {whose}")
}

fn bound<'q>(sql: &'q str, query: &Query) -> sqlx::query::Query<'q, Any, AnyArguments<'q>> {
    // Moments stand in the text: it is another one each time.
    let cluster_id = query.cluster_id.map(|id| id_to(id).unwrap_or(-1));
    sqlx::query(sql).persistent(false).bind(query.step).bind(cluster_id)
}

fn step(row: &AnyRow, by_host: bool) -> Result<Step, StoreError> {
    let act = failed("read bandwidth");
    let mut fields = [0; 15];
    for (field, column) in fields.iter_mut().zip(COLUMNS) {
        let sum: f64 = row.try_get(column).map_err(act)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a sum of bytes; `as` saturates"
        )]
        let sum = sum as u64;
        *field = sum;
    }
    let host: String = row.try_get("name").map_err(act)?;
    Ok(Step {
        at: row.try_get("since").map_err(act)?,
        cluster_id: id_from(row.try_get("cluster_id").map_err(act)?)?,
        host: by_host.then_some(host),
        usage: Usage::from_fields(fields),
    })
}
