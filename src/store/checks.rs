//! Reads of the status endpoint: the due list, the read written down before it is made, and its answer.
//!
//! The last reads written down are the budget's memory: a restart cannot forget them.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::record::expect_one;
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::decision::{Answer, Decision, Fact, Told};
use crate::domain::family::Family;
use crate::domain::generation::Generation;
use crate::domain::id::{CheckId, GenerationId, ProviderId};
use crate::domain::lanes::Due;
use crate::domain::money::Usd;
use crate::domain::poll::Poll;
use crate::domain::schedule::Rules;
use crate::domain::time::Time;

/// Longest answer kept as evidence, in bytes; no documented status answer comes near it.
const BODY_BYTES_MAX: usize = 16 * 1_024;
/// The same of one that tells of the generation: it is passed on, for which it has to be whole.
pub(super) const KNOWN_BODY_BYTES_MAX: usize = 64 * 1_024;

/// More reads than can be under way when a process ends.
const INTERRUPTED_MAX: u32 = 256;

/// A read that was written down and is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its id.
    pub check: CheckId,
    /// What to ask about; its provider id is known.
    pub generation: Generation,
}

/// A read as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRecord {
    /// Its id.
    pub id: CheckId,
    /// When it was sent.
    pub sent_at: Time,
    /// When it was answered; `None` when the process ended in between.
    pub answered_at: Option<Time>,
    /// `known`, `not_found`, `paused` or `nothing`.
    pub answer: Option<String>,
    /// The HTTP status, where there was one.
    pub http_status: Option<u16>,
    /// In a few words.
    pub said: Option<String>,
}

impl Store {
    /// The generations to ask about: the `limit` most freshly due, and the `limit` that wait longest.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn due(&self, limit: u32, now: Time) -> Result<(Vec<Due>, Vec<Due>), StoreError> {
        let read = async |order: &str| {
            let sql = format!(
                "SELECT id, uid, family, check_at, created_at, submitted_at, expected_by, running_streak, price_micros,
                        (claim IS NOT NULL OR deliveries > 0) AS doubted FROM generations
                 WHERE check_at <= ?1 ORDER BY check_at {order} LIMIT ?2"
            );
            let rows =
                sqlx::query(sqlx::AssertSqlSafe(sql)).bind(now.as_ms()).bind(limit).fetch_all(&self.readers).await?;
            rows.iter().map(due).collect::<Result<Vec<_>, StoreError>>()
        };
        let fresh = read("DESC").await?;
        // Mostly these are all of them.
        let all = u32::try_from(fresh.len()).is_ok_and(|count| count < limit);
        let backlog = if all { fresh.iter().rev().cloned().collect() } else { read("ASC").await? };
        Ok((fresh, backlog))
    }

    /// Ends the reads that the process before this one left unanswered, and makes their generations due again. Only for the
    /// start: there is one process, so nobody else is waiting for an answer.
    ///
    /// # Errors
    /// [`StoreError`] when that was not kept.
    pub async fn end_interrupted_checks(&self, rules: &Arc<Rules>, now: Time) -> Result<(), StoreError> {
        let rules = Arc::clone(rules);
        self.writer
            .run(move |tx| {
                let interrupted = tx.all(
                    "SELECT c.id, g.uid FROM (SELECT id, generation, answered_at FROM checks ORDER BY id DESC LIMIT ?1) c
                     JOIN generations g ON g.id = c.generation WHERE c.answered_at IS NULL",
                    params![INTERRUPTED_MAX],
                    |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
                )?;
                for (check, uid) in interrupted {
                    tx.execute(
                        "UPDATE checks SET answered_at = ?1, answer = 'nothing', said = ?2 WHERE id = ?3",
                        params![now.as_ms(), "the process ended before the answer came", check],
                    )?;
                    let id = GenerationId::from_bytes(&uid);
                    let stored = id.map(|id| tx.by_id(id)).transpose()?.flatten();
                    let Some(stored) = stored else { continue };
                    tx.freeze(&stored, rules.refund_window)?;
                    tx.execute(
                        "UPDATE generations SET check_at = min(check_at, ?1) WHERE id = ?2 AND check_at IS NOT NULL",
                        params![now.as_ms(), stored.row],
                    )?;
                }
                Ok(())
            })
            .await
    }

    /// When the next generation is to be asked about or told that time has passed.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn next_look_at(&self) -> Result<Option<Time>, StoreError> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(at) FROM (SELECT min(check_at) AS at FROM generations WHERE check_at IS NOT NULL
                                  UNION ALL SELECT min(turn_at) FROM generations WHERE turn_at IS NOT NULL)",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(next.map(Time::from_ms))
    }

    /// A client asked where a generation stands: makes its first read due where that is worth it. Tells whether it did.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn poll(&self, rules: &Arc<Rules>, id: GenerationId, poll: Poll, now: Time) -> Result<bool, StoreError> {
        let rules = Arc::clone(rules);
        self.writer
            .run(move |tx| {
                let Some(stored) = tx.by_id(id)? else { return Ok(false) };
                let before = stored.generation.watch.check_at;
                let after = tx.decide(&rules, &stored, &Fact::Polled(poll), now)?.generation.watch.check_at;
                Ok(before != after && after.is_some_and(|at| at <= now))
            })
            .await
    }

    /// Writes a read down before it is made. `None` when there is nothing to ask any more: the generation is unknown, has
    /// no id of the provider, or (unless `asked_for`) is not due because it was settled or read meanwhile.
    ///
    /// A due generation is not due again until `lease` has passed, so a process that dies in between repeats the read.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept: the read must not be made.
    pub async fn begin_check(
        &self,
        rules: &Arc<Rules>,
        id: GenerationId,
        asked_for: bool,
        lease: Duration,
        now: Time,
    ) -> Result<Option<Reading>, StoreError> {
        let refund_window = rules.refund_window;
        self.writer.run(move |tx| tx.begin_check(id, asked_for, lease, refund_window, now)).await
    }

    /// Takes an answer in: check, outcome and events in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept; the read is made again later.
    pub async fn record_answer(
        &self,
        rules: &Arc<Rules>,
        reading: &Reading,
        told: Told,
        now: Time,
    ) -> Result<Decision, StoreError> {
        let (rules, id, check) = (Arc::clone(rules), reading.generation.id, reading.check);
        self.writer
            .run(move |tx| {
                tx.answer_check(check, &told, now)?;
                let stored = tx.by_id(id)?.ok_or_else(|| StoreError::Failed(format!("generation {id} is gone")))?;
                tx.decide(&rules, &stored, &Fact::Answer(told.answer.clone()), now)
            })
            .await
    }

    /// Writes down a read about a generation that is not on record, before it is made.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept: the read must not be made.
    pub async fn begin_stray_check(&self, now: Time) -> Result<CheckId, StoreError> {
        let check = CheckId::fresh(now);
        self.writer
            .run(move |tx| {
                tx.insert_check(check, None, now)?;
                Ok(check)
            })
            .await
    }

    /// Takes in what the provider said about a generation that was not on record. It is now, if the provider knows it.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    #[expect(clippy::too_many_arguments, reason = "each says something else")]
    pub async fn record_stray_answer(
        &self,
        rules: &Arc<Rules>,
        family: &'static Family,
        provider_id: &ProviderId,
        check: CheckId,
        told: Told,
        prompt: Option<String>,
        now: Time,
    ) -> Result<Option<Generation>, StoreError> {
        let (rules, provider_id) = (Arc::clone(rules), provider_id.clone());
        self.writer
            .run(move |tx| {
                tx.answer_check(check, &told, now)?;
                let Answer::Known(_) = told.answer else { return Ok(None) };
                let new = match tx.by_provider_id(family, &provider_id)? {
                    // Registered, or told of by a webhook, while the provider was asked.
                    Some(stored) => return Ok(Some(stored.generation)),
                    None => {
                        Generation::adopted(GenerationId::fresh(now), family, provider_id.clone(), prompt.clone(), now)
                    }
                };
                let decision = rules.decide(&new, &Fact::Answer(told.answer.clone()), tx.experience, now);
                let row = tx.insert(&decision, now)?;
                tx.execute(
                    "UPDATE checks SET generation = ?1 WHERE uid = ?2",
                    params![row, check.as_bytes().as_slice()],
                )?;
                Ok(Some(decision.generation))
            })
            .await
    }

    /// When the last `count` reads were sent, and answered where they were, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn last_reads(&self, count: u32) -> Result<Vec<(Time, Option<Time>)>, StoreError> {
        let rows: Vec<(i64, Option<i64>)> =
            sqlx::query_as("SELECT sent_at, answered_at FROM checks WHERE listed = 0 ORDER BY id DESC LIMIT ?1")
                .bind(count)
                .fetch_all(&self.readers)
                .await?;
        Ok(rows.into_iter().map(|(sent, answered)| (Time::from_ms(sent), answered.map(Time::from_ms))).collect())
    }

    /// One read.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn check(&self, id: CheckId) -> Result<Option<CheckRecord>, StoreError> {
        let row =
            sqlx::query("SELECT id, uid, sent_at, answered_at, answer, http_status, said FROM checks WHERE uid = ?1")
                .bind(id.as_bytes().as_slice())
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(record).transpose()
    }
}

impl Tx<'_> {
    fn begin_check(
        &mut self,
        id: GenerationId,
        asked_for: bool,
        lease: Duration,
        refund_window: Duration,
        now: Time,
    ) -> Result<Option<Reading>, StoreError> {
        let Some(stored) = self.by_id(id)? else { return Ok(None) };
        let due = stored.generation.watch.check_at.is_some_and(|at| at <= now);
        if stored.generation.provider_id.is_none() || !(due || asked_for) {
            return Ok(None);
        }
        let check = CheckId::fresh(now);
        self.insert_check(check, Some(stored.row), now)?;
        self.freeze(&stored, refund_window)?;
        // A read that was asked for on a settled generation makes nothing due.
        let lease = due.then_some((now + lease).as_ms());
        let rows = self.execute(
            "UPDATE generations SET checks = checks + 1, check_at = coalesce(?1, check_at) WHERE id = ?2",
            params![lease, stored.row],
        )?;
        expect_one(rows, "generations", stored.row)?;
        Ok(Some(Reading { check, generation: stored.generation }))
    }

    fn insert_check(&self, check: CheckId, row: Option<i64>, now: Time) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO checks (uid, generation, sent_at) VALUES (?1, ?2, ?3)",
            params![check.as_bytes().as_slice(), row, now.as_ms()],
        )?;
        Ok(())
    }

    pub(super) fn answer_check(&self, check: CheckId, told: &Told, now: Time) -> Result<(), StoreError> {
        let bytes_max = match told.answer {
            Answer::Known(_) => KNOWN_BODY_BYTES_MAX,
            Answer::NotFound | Answer::Paused { .. } | Answer::Nothing => BODY_BYTES_MAX,
        };
        let rows = self.execute(
            "UPDATE checks SET answered_at = ?1, answer = ?2, http_status = ?3, said = ?4, body = ?5 WHERE uid = ?6",
            params![
                now.as_ms(),
                told.answer.word(),
                told.http_status,
                told.said,
                told.body.get(..told.body.len().min(bytes_max)),
                check.as_bytes().as_slice(),
            ],
        )?;
        expect_one(rows, "checks", 0)
    }
}

fn due(row: &SqliteRow) -> Result<Due, StoreError> {
    let uid: Vec<u8> = row.try_get("uid")?;
    let id: i64 = row.try_get("id")?;
    let impossible = |column| super::rows::impossible("generations", column, id);
    Ok(Due {
        id: GenerationId::from_bytes(&uid).ok_or_else(|| impossible("uid"))?,
        family: Family::of_code(row.try_get("family")?).ok_or_else(|| impossible("family"))?,
        check_at: Time::from_ms(row.try_get("check_at")?),
        began_at: Time::from_ms(
            row.try_get::<Option<i64>, _>("submitted_at")?.map_or_else(|| row.try_get("created_at"), Ok)?,
        ),
        running_streak: row.try_get("running_streak")?,
        doubted: row.try_get("doubted")?,
        expected_by: row.try_get::<Option<i64>, _>("expected_by")?.map(Time::from_ms),
        price: row.try_get::<Option<i64>, _>("price_micros")?.map(Usd::from_micros),
    })
}

/// Reads a row of `checks` as it is shown.
pub(super) fn record(row: &SqliteRow) -> Result<CheckRecord, StoreError> {
    let uid: Vec<u8> = row.try_get("uid")?;
    let id: i64 = row.try_get("id")?;
    Ok(CheckRecord {
        id: CheckId::from_bytes(&uid).ok_or_else(|| super::rows::impossible("checks", "uid", id))?,
        sent_at: Time::from_ms(row.try_get("sent_at")?),
        answered_at: row.try_get::<Option<i64>, _>("answered_at")?.map(Time::from_ms),
        answer: row.try_get("answer")?,
        http_status: row.try_get("http_status")?,
        said: row.try_get("said")?,
    })
}
