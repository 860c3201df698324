//! Sums by the hour for the charts: outcomes by how they were learned, webhooks by what became of them. Kept by the writer, once for
//! a group of changes, so that no chart ever looks at the rows themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::params;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::impossible;
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::decision::Disposition;
use crate::domain::family::Family;
use crate::domain::generation::{Generation, Status};
use crate::domain::history::{Bucket, OutcomeTally, Span, WebhookTally};
use crate::domain::outcome::Source;
use crate::domain::time::Time;

/// Milliseconds of a bucket; the migration divides by it.
const HOUR_MS: i64 = 3_600_000;

/// Outcomes, those in time, milliseconds they took. The key: hour, family, model, status, source, recovered.
type Outcomes = BTreeMap<(i64, u8, String, u8, u8, bool), (i64, i64, i64)>;
/// Webhooks, late ones, milliseconds they were late. The key: hour, family, disposition.
type Webhooks = BTreeMap<(i64, u8, u8), (i64, i64, i64)>;

/// What the sums are to be changed by.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    outcomes: Outcomes,
    webhooks: Webhooks,
}

impl Tallies {
    /// Takes a change of a generation in.
    pub(super) fn count(&mut self, before: Option<&Generation>, after: Option<&Generation>) {
        if before.map(|before| &before.state) == after.map(|after| &after.state) {
            return;
        }
        for (generation, sign) in [(before, -1), (after, 1)] {
            let Some((generation, at)) = generation.and_then(|it| Some((it, it.state.settled_at()?))) else { continue };
            let learned = generation.state.learned();
            let key = (
                at.as_ms() / HOUR_MS,
                generation.family.code(),
                generation.request.model.clone().unwrap_or_default(),
                generation.state.status().code(),
                learned.map_or(0, |learned| learned.source.code()),
                learned.is_some_and(|learned| learned.recovered),
            );
            let took_ms = i64::try_from(at.since(generation.began_at()).as_millis()).unwrap_or(i64::MAX);
            let (outcomes, in_time, took) = self.outcomes.entry(key).or_default();
            *outcomes += sign;
            *in_time += sign * i64::from(generation.expected_by.is_some_and(|by| at <= by));
            *took = took.saturating_add(sign * took_ms);
        }
    }

    /// Takes a webhook in, and how long it came behind the read that had found the outcome, if it did.
    pub(super) fn webhook(&mut self, family: &Family, disposition: Disposition, lag: Option<Duration>, now: Time) {
        let key = (now.as_ms() / HOUR_MS, family.code(), disposition.code());
        let (webhooks, late, lag_ms) = self.webhooks.entry(key).or_default();
        *webhooks += 1;
        *late += i64::from(lag.is_some());
        *lag_ms = lag_ms.saturating_add(lag.map_or(0, |lag| i64::try_from(lag.as_millis()).unwrap_or(i64::MAX)));
    }
}

impl Tx<'_> {
    /// Brings the charts' sums up to date.
    pub(super) fn write_tallies(&mut self) -> Result<(), StoreError> {
        let Tallies { outcomes, webhooks } = std::mem::take(&mut self.sums.tallies);
        for (key, change) in outcomes {
            let (hour, family, model, status, source, recovered) = key;
            let (outcomes, in_time, took_ms) = change;
            if change == (0, 0, 0) {
                continue;
            }
            self.execute(
                "INSERT INTO outcome_hours VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT DO UPDATE SET outcomes = outcomes + excluded.outcomes, in_time = in_time + excluded.in_time,
                                           took_ms = took_ms + excluded.took_ms",
                params![hour, family, model, status, source, recovered, outcomes, in_time, took_ms],
            )?;
        }
        for ((hour, family, disposition), (webhooks, late, lag_ms)) in webhooks {
            self.execute(
                "INSERT INTO webhook_hours VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET webhooks = webhooks + excluded.webhooks, late = late + excluded.late,
                                           lag_ms = lag_ms + excluded.lag_ms",
                params![hour, family, disposition, webhooks, late, lag_ms],
            )?;
        }
        Ok(())
    }
}

impl Store {
    /// What was learned in each hour or day of a span; buckets in which nothing happened are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn outcome_history(&self, span: Span) -> Result<Vec<OutcomeTally>, StoreError> {
        let rows = sqlx::query(
            "SELECT hour / ?1 AS bucket, family, model, status, source, recovered, sum(outcomes) AS outcomes,
                    sum(in_time) AS in_time, sum(took_ms) AS took_ms
             FROM outcome_hours WHERE hour >= ?2 AND hour < ?3 GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(outcomes) > 0",
        );
        let rows = rows.bind(span.bucket.hours()).bind(span.from_hour()).bind(span.until_hour());
        let rows = rows.fetch_all(&self.readers).await?;
        rows.iter().map(|row| outcome(row, span.bucket)).collect()
    }

    /// The webhooks of each hour or day of a span; buckets in which none came are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn webhook_history(&self, span: Span) -> Result<Vec<WebhookTally>, StoreError> {
        let rows = sqlx::query(
            "SELECT hour / ?1 AS bucket, family, disposition, sum(webhooks) AS webhooks, sum(late) AS late, sum(lag_ms) AS lag_ms
             FROM webhook_hours WHERE hour >= ?2 AND hour < ?3 GROUP BY 1, 2, 3",
        );
        let rows = rows.bind(span.bucket.hours()).bind(span.from_hour()).bind(span.until_hour());
        let rows = rows.fetch_all(&self.readers).await?;
        rows.iter().map(|row| webhook(row, span.bucket)).collect()
    }

    /// How many webhooks came in each of the `minutes` before `now`, oldest first; of very many, as far back as the last so many go.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn webhooks_by_minute(&self, minutes: u32, now: Time) -> Result<Vec<u64>, StoreError> {
        let rows: Vec<i64> = sqlx::query_scalar("SELECT received_at FROM deliveries ORDER BY id DESC LIMIT 5000")
            .fetch_all(&self.readers)
            .await?;
        let mut counts = vec![0; usize::try_from(minutes).unwrap_or(0)];
        for at in rows {
            let minutes_ago = usize::try_from(now.since(Time::from_ms(at)).as_secs() / 60).unwrap_or(usize::MAX);
            let place = counts.len().checked_sub(1).and_then(|last| last.checked_sub(minutes_ago));
            if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                *count += 1;
            }
        }
        Ok(counts)
    }
}

fn begin(row: &SqliteRow, bucket: Bucket) -> Result<Time, StoreError> {
    let number: i64 = row.try_get("bucket")?;
    Ok(Time::from_ms(number * bucket.hours() * HOUR_MS))
}

fn count(row: &SqliteRow, table: &'static str, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| impossible(table, column, 0))
}

fn outcome(row: &SqliteRow, bucket: Bucket) -> Result<OutcomeTally, StoreError> {
    let wrong = |column| impossible("outcome_hours", column, 0);
    let count = |column| count(row, "outcome_hours", column);
    Ok(OutcomeTally {
        at: begin(row, bucket)?,
        family: Family::of_code(row.try_get("family")?).ok_or_else(|| wrong("family"))?,
        model: Some(row.try_get::<String, _>("model")?).filter(|model| !model.is_empty()),
        status: Status::of_code(row.try_get("status")?).ok_or_else(|| wrong("status"))?,
        source: Source::of_code(row.try_get("source")?),
        recovered: row.try_get("recovered")?,
        outcomes: count("outcomes")?,
        in_time: count("in_time")?,
        took: Duration::from_millis(count("took_ms")?),
    })
}

fn webhook(row: &SqliteRow, bucket: Bucket) -> Result<WebhookTally, StoreError> {
    let wrong = |column| impossible("webhook_hours", column, 0);
    let count = |column| count(row, "webhook_hours", column);
    Ok(WebhookTally {
        at: begin(row, bucket)?,
        family: Family::of_code(row.try_get("family")?).ok_or_else(|| wrong("family"))?,
        disposition: Disposition::of_code(row.try_get("disposition")?).ok_or_else(|| wrong("disposition"))?,
        webhooks: count("webhooks")?,
        late: count("late")?,
        lag: Duration::from_millis(count("lag_ms")?),
    })
}
