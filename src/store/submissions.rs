//! Purchases that pass through us: the intent before the call, the answer after it, and keys that make them happen once.

use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::idempotency::{Idempotency, Repeated};
use super::record::expect_one;
use super::rows::{self, COLUMNS, impossible};
use super::writer::Tx;
use super::{Store, StoreError};
use crate::domain::decision::{Decision, Fact, Submission};
use crate::domain::error_code::ErrorCode;
use crate::domain::family::Family;
use crate::domain::generation::{Details, Generation, Via};
use crate::domain::id::GenerationId;
use crate::domain::purchase::{Reply, SubmitResult};
use crate::domain::schedule::Rules;
use crate::domain::time::Time;

/// Purchases ended in one transaction at the start.
const INTERRUPTED_MAX: u32 = 200;

/// A purchase that is about to be made.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Our id.
    pub id: GenerationId,
    /// What is bought from.
    pub family: &'static Family,
    /// What is asked for, and the caller's labels.
    pub details: Details,
    /// Where the caller wants to be told.
    pub callback_url: Option<String>,
    /// Length of the request's body.
    pub request_bytes: u64,
    /// SHA-256 of the request's body as the caller sent it.
    pub request_sha256: [u8; 32],
    /// The caller's key.
    pub idempotency: Option<Idempotency>,
}

/// What came of writing an intent down.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It may be sent now.
    New,
    /// The key was used before: nothing may be sent.
    Repeated(Repeated<Reply>),
}

/// A purchase as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmissionRecord {
    /// When the intent was written down.
    pub sent_at: Time,
    /// When there was an answer, or none any more to be had.
    pub answered_at: Option<Time>,
    /// Length of the request's body.
    pub request_bytes: i64,
    /// SHA-256 of the request's body as the caller sent it.
    pub request_sha256: Vec<u8>,
    /// What came of it; `None` while it is under way.
    pub reply: Option<Reply>,
}

impl Store {
    /// Writes an intent down, unless its key was used before.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept: nothing may be sent.
    pub async fn begin_purchase(&self, rules: &Arc<Rules>, intent: Intent, now: Time) -> Result<Begun, StoreError> {
        let rules = Arc::clone(rules);
        self.writer.run(move |mut tx| Box::pin(async move { tx.begin_purchase(&rules, intent, now).await })).await
    }

    /// Takes the answer to a purchase in: submission, generation and events in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept; the generation goes on as submitting.
    pub async fn finish_purchase(
        &self,
        rules: &Arc<Rules>,
        id: GenerationId,
        submission: Submission,
        reply: Reply,
        now: Time,
    ) -> Result<Decision, StoreError> {
        let rules = Arc::clone(rules);
        self.writer
            .run(move |mut tx| Box::pin(async move { tx.finish_purchase(&rules, id, submission, &reply, now).await }))
            .await
    }

    /// Ends the purchases whose answer the process before this one took to its grave: they may have been made. Only for the
    /// start: there is one process, so nobody else is waiting for an answer.
    ///
    /// # Errors
    /// [`StoreError`] when that was not kept.
    pub async fn end_interrupted_purchases(&self, rules: &Arc<Rules>, now: Time) -> Result<(), StoreError> {
        loop {
            let rules = Arc::clone(rules);
            let batch = self.writer.run(move |mut tx| Box::pin(async move { tx.end_interrupted(&rules, now).await }));
            match batch.await? {
                0 => return Ok(()),
                ended => tracing::warn!(ended, "purchases whose answer was lost when the service last ended"),
            }
        }
    }

    /// The purchase of a generation that was bought through us.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn submission(&self, id: GenerationId) -> Result<Option<SubmissionRecord>, StoreError> {
        let sql = format!(
            "SELECT {REPLY}, sent_at, answered_at, request_bytes, request_sha256 FROM submissions
             WHERE generation = (SELECT id FROM generations WHERE uid = ?1)"
        );
        let row =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        let record = |row: SqliteRow| {
            Ok::<_, StoreError>(SubmissionRecord {
                sent_at: Time::from_ms(row.try_get("sent_at")?),
                answered_at: row.try_get::<Option<i64>, _>("answered_at")?.map(Time::from_ms),
                request_bytes: row.try_get("request_bytes")?,
                request_sha256: row.try_get("request_sha256")?,
                reply: reply(&row)?,
            })
        };
        row.map(record).transpose()
    }
}

/// The columns of [`reply`].
pub(super) const REPLY: &str = "result, http_status, content_type, retry_after, error_code, said, body";

/// Reads what came of a purchase; `None` while it is under way.
pub(super) fn reply(row: &SqliteRow) -> Result<Option<Reply>, StoreError> {
    let Some(result) = row.try_get::<Option<String>, _>("result")? else { return Ok(None) };
    Ok(Some(Reply {
        result: SubmitResult::parse(&result).ok_or_else(|| impossible("submissions", "result", 0))?,
        http_status: row.try_get("http_status")?,
        content_type: row.try_get("content_type")?,
        retry_after: row.try_get("retry_after")?,
        error_code: row.try_get("error_code")?,
        said: row.try_get::<Option<String>, _>("said")?.unwrap_or_default(),
        body: row.try_get::<Option<Vec<u8>>, _>("body")?.unwrap_or_default(),
    }))
}

impl Tx<'_> {
    async fn begin_purchase(&mut self, rules: &Rules, intent: Intent, now: Time) -> Result<Begun, StoreError> {
        if let Some(idempotency) = &intent.idempotency
            && let Some(claim) = self.claimed(idempotency, now).await?
        {
            let answer = self.kept_reply(claim.row).await?;
            return Ok(Begun::Repeated(claim.repeated(answer)));
        }
        let new = Generation::new(intent.id, intent.family, Via::Gateway, now);
        let decision = rules.decide(&new, &Fact::Intended(intent.details), self.experience, now);
        let row = self.insert(rules, &decision, now).await?;
        sqlx::query(
            "INSERT INTO submissions (generation, sent_at, request_bytes, request_sha256, callback_url)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(row)
        .bind(now.as_ms())
        .bind(i64::try_from(intent.request_bytes).unwrap_or(i64::MAX))
        .bind(intent.request_sha256.as_slice())
        .bind(intent.callback_url)
        .execute(&mut *self.connection)
        .await?;
        if let Some(idempotency) = &intent.idempotency {
            self.claim(idempotency, row, None, now).await?;
        }
        Ok(Begun::New)
    }

    async fn kept_reply(&mut self, row: i64) -> Result<Option<Reply>, StoreError> {
        let sql = format!("SELECT {REPLY} FROM submissions WHERE generation = ?1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(row).fetch_optional(&mut *self.connection).await?;
        Ok(row.as_ref().map(reply).transpose()?.flatten())
    }

    async fn finish_purchase(
        &mut self,
        rules: &Rules,
        id: GenerationId,
        submission: Submission,
        reply: &Reply,
        now: Time,
    ) -> Result<Decision, StoreError> {
        let stored = self.by_id(id).await?.ok_or_else(|| StoreError::Failed(format!("generation {id} is gone")))?;
        let family = stored.generation.family;
        let submission = match submission {
            Submission::Accepted { provider_id, price } => {
                let holder = self.by_provider_id(family, &provider_id).await?;
                if holder.is_some_and(|holder| holder.row != stored.row) {
                    tracing::error!(%id, "the provider sold a generation that is on record already");
                    Submission::Foreign
                } else {
                    Submission::Accepted { provider_id, price }
                }
            }
            other @ (Submission::Refused(_) | Submission::Unclear | Submission::Foreign) => other,
        };
        let decision = self.decide(rules, &stored, &Fact::Submission(submission), now).await?;
        self.answer_submission(stored.row, reply, now).await?;
        match reply.error_code.as_deref() {
            Some(code) if ErrorCode::of(code).is_none() => self.unknown_code(code, family, now).await?,
            Some(_) | None => {}
        }
        Ok(decision)
    }

    async fn answer_submission(&mut self, row: i64, reply: &Reply, now: Time) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "UPDATE submissions SET answered_at = ?1, result = ?2, http_status = ?3, content_type = ?4, retry_after = ?5,
                    error_code = ?6, said = ?7, body = ?8 WHERE generation = ?9",
        )
        .bind(now.as_ms())
        .bind(reply.result.as_str())
        .bind(reply.http_status)
        .bind(&reply.content_type)
        .bind(&reply.retry_after)
        .bind(&reply.error_code)
        .bind(&reply.said)
        .bind(&reply.body)
        .bind(row)
        .execute(&mut *self.connection)
        .await?
        .rows_affected();
        expect_one(rows, "submissions", row)
    }

    async fn end_interrupted(&mut self, rules: &Rules, now: Time) -> Result<usize, StoreError> {
        let sql = format!(
            "SELECT id, {COLUMNS} FROM generations WHERE id IN
             (SELECT generation FROM submissions WHERE answered_at IS NULL LIMIT ?1)"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(INTERRUPTED_MAX).fetch_all(&mut *self.connection).await?;
        let reply = Reply {
            result: SubmitResult::Unclear,
            http_status: None,
            content_type: None,
            retry_after: None,
            error_code: None,
            said: "the process ended before the answer came".to_owned(),
            body: Vec::new(),
        };
        for row in &rows {
            let stored = rows::read(row)?;
            self.decide(rules, &stored, &Fact::Submission(Submission::Unclear), now).await?;
            self.answer_submission(stored.row, &reply, now).await?;
        }
        Ok(rows.len())
    }
}
