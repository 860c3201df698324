//! The money report's groups: whole days and hours out of the sums that the writer keeps, the edges out of the generations themselves.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::params;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rows::impossible;
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::generation::{Attention, Generation, Status};
use crate::domain::history;
use crate::domain::money::Usd;
use crate::domain::money_report::{Group, MoneyReport, Sum};
use crate::domain::time::Time;

/// Milliseconds of the smaller bucket; the migration divides by it.
const HOUR_MS: i64 = 3_600_000;
/// Hours of the larger one.
const DAY_HOURS: i64 = 24;

const GROUPED: &str = "status, attention, error_code, model, recovered, refunded";

/// The same, of generations themselves.
const GROUPED_ROWS: &str = "status, coalesce(attention, 0) AS attention, coalesce(error_code, '') AS error_code,
    coalesce(model, '') AS model, recovered, refunded_at IS NOT NULL AS refunded, count(*) AS count,
    count(price_micros) AS priced, coalesce(sum(price_micros), 0) AS micros";

/// Begin (inclusive) and end (exclusive), in milliseconds.
type Span = (i64, i64);

/// A span cut into whole buckets (their numbers) and what is left at its ends.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    buckets: Span,
    edges: [Span; 2],
}

impl Cut {
    fn of((since, until): Span, bucket_ms: i64) -> Self {
        // Integer division rounds towards zero, so the bucket of 1970 holds two: it is never taken as a whole.
        let first = since.div_euclid(bucket_ms).saturating_add(i64::from(since.rem_euclid(bucket_ms) > 0)).max(1);
        let last = until.div_euclid(bucket_ms);
        if first >= last {
            return Self { buckets: (0, 0), edges: [(since, until), (0, 0)] };
        }
        Self { buckets: (first, last), edges: [(since, first * bucket_ms), (last * bucket_ms, until)] }
    }
}

/// What the sums are to be changed by.
#[derive(Debug, Default)]
pub(super) struct Totals(BTreeMap<Key, (i64, i64, i64)>);

/// What is summed up together: hour of the purchase, status, attention, error code, model, recovered, refunded.
type Key = (i64, u8, u8, String, String, bool, bool);

impl Totals {
    /// Takes a change of a generation in.
    pub(super) fn count(&mut self, before: Option<&Generation>, after: Option<&Generation>) {
        for (generation, sign) in [(before, -1), (after, 1)] {
            let Some(generation) = generation else { continue };
            let code = generation.state.error().and_then(|error| error.code.clone());
            let key = (
                generation.began_at().as_ms() / HOUR_MS,
                generation.state.status().code(),
                generation.attention.map_or(0, Attention::code),
                code.unwrap_or_default(),
                generation.request.model.clone().unwrap_or_default(),
                generation.state.learned().is_some_and(|learned| learned.recovered),
                generation.refunded_at.is_some(),
            );
            let (count, priced, micros) = self.0.entry(key).or_default();
            *count += sign;
            *priced += sign * i64::from(generation.price.is_some());
            *micros += sign * generation.price.map_or(0, Usd::as_micros);
        }
    }
}

fn change(sums: &str) -> String {
    format!(
        "INSERT INTO {sums} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET generations = generations + excluded.generations, priced = priced + excluded.priced,
                                   micros = micros + excluded.micros"
    )
}

static CHANGE_HOURS: LazyLock<String> = LazyLock::new(|| change("credit_hours"));
static CHANGE_DAYS: LazyLock<String> = LazyLock::new(|| change("credit_days"));

impl Tx<'_> {
    /// Brings the money report's sums up to date.
    pub(super) fn write_totals(&mut self) -> Result<(), StoreError> {
        for (key, change) in std::mem::take(&mut self.sums.totals.0) {
            let (hour, status, attention, error_code, model, recovered, refunded) = key;
            let (count, priced, micros) = change;
            if change == (0, 0, 0) {
                continue;
            }
            for (sql, bucket) in [(&CHANGE_HOURS, hour), (&CHANGE_DAYS, hour / DAY_HOURS)] {
                self.execute(
                    sql,
                    params![bucket, status, attention, error_code, model, recovered, refunded, count, priced, micros],
                )?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// Where the money of the generations bought from `since` to before `until` is at `now`.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn money_report(
        &self,
        since: Option<Time>,
        until: Option<Time>,
        now: Time,
        refund_window: Duration,
    ) -> Result<MoneyReport, StoreError> {
        // One transaction, so that all parts see the same moment.
        let mut snapshot = self.readers.begin().await?;
        let span = (since.map_or(i64::MIN, Time::as_ms), until.map_or(i64::MAX, Time::as_ms));
        let mut groups = Vec::new();
        if since.is_none() && until.is_none() {
            groups.extend(sums(&mut snapshot, DAYS, (i64::MIN, i64::MAX)).await?);
        } else {
            let days = Cut::of(span, HOUR_MS * DAY_HOURS);
            groups.extend(sums(&mut snapshot, DAYS, days.buckets).await?);
            for rest in days.edges {
                let hours = Cut::of(rest, HOUR_MS);
                groups.extend(sums(&mut snapshot, HOURS, hours.buckets).await?);
                for edge in hours.edges {
                    groups.extend(edge_groups(&mut snapshot, edge).await?);
                }
            }
        }
        let awaiting = awaiting_refund(&mut snapshot, span, now - refund_window).await?;
        snapshot.commit().await?;
        Ok(MoneyReport::of(&groups, awaiting))
    }

    /// The same day by day; days on which nothing was bought are left out. Refunds inside their window count as made.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn money_by_day(&self, span: history::Span) -> Result<Vec<(Time, MoneyReport)>, StoreError> {
        let sql = BY_DAY.replace("{GROUPED}", GROUPED);
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(span.from_hour() / DAY_HOURS)
            .bind(span.until_hour().div_euclid(DAY_HOURS))
            .fetch_all(&self.readers)
            .await?;
        let mut days: BTreeMap<i64, Vec<Group>> = BTreeMap::new();
        for row in &rows {
            days.entry(row.try_get("day")?).or_default().push(group(row)?);
        }
        let report = |(day, groups): (i64, Vec<Group>)| {
            (Time::from_ms(day * DAY_HOURS * HOUR_MS), MoneyReport::of(&groups, Sum::default()))
        };
        Ok(days.into_iter().map(report).collect())
    }
}

const BY_DAY: &str = "SELECT day, {GROUPED}, generations AS count, priced, micros FROM credit_days
     WHERE day >= ?1 AND day < ?2 AND generations > 0";

const DAYS: &str =
    "SELECT {GROUPED}, sum(generations) AS count, sum(priced) AS priced, sum(micros) AS micros FROM credit_days
     WHERE day >= ?1 AND day < ?2 AND generations > 0 GROUP BY {GROUPED}";
const HOURS: &str =
    "SELECT {GROUPED}, sum(generations) AS count, sum(priced) AS priced, sum(micros) AS micros FROM credit_hours
     WHERE hour >= ?1 AND hour < ?2 AND generations > 0 GROUP BY {GROUPED}";

async fn sums(connection: &mut SqliteConnection, sql: &str, (from, to): Span) -> Result<Vec<Group>, StoreError> {
    if from >= to {
        return Ok(Vec::new());
    }
    let sql = sql.replace("{GROUPED}", GROUPED);
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(from).bind(to).fetch_all(connection).await?;
    rows.iter().map(group).collect()
}

async fn edge_groups(connection: &mut SqliteConnection, (from, to): Span) -> Result<Vec<Group>, StoreError> {
    if from >= to {
        return Ok(Vec::new());
    }
    // Most are first known when they are bought; the others have an index of their own.
    let usual = format!(
        "SELECT {GROUPED_ROWS} FROM generations INDEXED BY generations_created_at
         WHERE created_at >= ?1 AND created_at < ?2 AND coalesce(submitted_at, created_at) = created_at
         GROUP BY 1, 2, 3, 4, 5, 6"
    );
    let others = format!(
        "SELECT {GROUPED_ROWS} FROM generations INDEXED BY generations_submitted_at
         WHERE submitted_at >= ?1 AND submitted_at < ?2 AND submitted_at <> created_at
         GROUP BY 1, 2, 3, 4, 5, 6"
    );
    let usual = sqlx::query(sqlx::AssertSqlSafe(usual)).bind(from).bind(to);
    let mut rows = usual.fetch_all(&mut *connection).await?;
    let others = sqlx::query(sqlx::AssertSqlSafe(others));
    rows.extend(others.bind(from).bind(to).fetch_all(connection).await?);
    rows.iter().map(group).collect()
}

/// Failed ones whose refund window is open: few, and found by the time they failed.
async fn awaiting_refund(connection: &mut SqliteConnection, span: Span, failed_after: Time) -> Result<Sum, StoreError> {
    let (count, micros): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(price_micros), 0) FROM generations INDEXED BY generations_failed_at
         WHERE status = 8 AND refunded_at IS NULL AND settled_at > ?1
           AND coalesce(submitted_at, created_at) >= ?2 AND coalesce(submitted_at, created_at) < ?3",
    )
    .bind(failed_after.as_ms())
    .bind(span.0)
    .bind(span.1)
    .fetch_one(connection)
    .await?;
    Ok(Sum { count: u64::try_from(count).unwrap_or(0), amount: Usd::from_micros(micros) })
}

fn group(row: &SqliteRow) -> Result<Group, StoreError> {
    let text = |column: &str| -> Result<Option<String>, StoreError> {
        Ok(Some(row.try_get::<String, _>(column)?).filter(|text| !text.is_empty()))
    };
    let (status, attention): (u8, u8) = (row.try_get("status")?, row.try_get("attention")?);
    let wrong = |column: &str| impossible("credit_hours", column, 0);
    let count = |column: &str| u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| wrong(column));
    Ok(Group {
        status: Status::of_code(status).ok_or_else(|| wrong("status"))?,
        attention: Attention::of_code(attention),
        error_code: text("error_code")?,
        model: text("model")?,
        recovered: row.try_get("recovered")?,
        refunded: row.try_get("refunded")?,
        count: count("count")?,
        priced: count("priced")?,
        amount: Usd::from_micros(row.try_get("micros")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_into_whole_buckets_and_its_edges() {
        let h = HOUR_MS;
        let cut = |since, until| Cut::of((since, until), h);
        assert_eq!(cut(2 * h, 5 * h), Cut { buckets: (2, 5), edges: [(2 * h, 2 * h), (5 * h, 5 * h)] });
        assert_eq!(cut(2 * h + 1, 5 * h + 7), Cut { buckets: (3, 5), edges: [(2 * h + 1, 3 * h), (5 * h, 5 * h + 7)] });
        assert_eq!(cut(2 * h + 1, 2 * h + 9), Cut { buckets: (0, 0), edges: [(2 * h + 1, 2 * h + 9), (0, 0)] });
        assert_eq!(cut(-5, 2 * h), Cut { buckets: (1, 2), edges: [(-5, h), (2 * h, 2 * h)] });
        let all = cut(i64::MIN, i64::MAX);
        assert_eq!((all.buckets.0, all.edges[0]), (1, (i64::MIN, h)));
        assert_eq!(all.edges[1].1, i64::MAX);
    }
}
