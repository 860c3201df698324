//! Purchases that pass through us: the intent before the call, the answer after it, and keys that make them happen once.

use std::sync::{Arc, LazyLock};

use rusqlite::params;
use sqlx::sqlite::SqliteRow;

use super::idempotency::{Idempotency, Repeated};
use super::record::expect_one;
use super::repeats::PurchaseRequest;
use super::row::Row;
use super::rows::{self, COLUMNS, impossible};
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::decision::{Decision, Fact, Submission};
use crate::domain::error_code::ErrorCode;
use crate::domain::family::Family;
use crate::domain::generation::{Details, Generation, State, Via};
use crate::domain::id::GenerationId;
use crate::domain::purchase::{Reply, RequestOptions, SubmitResult};
use crate::domain::schedule::Rules;
use crate::domain::time::Time;
use crate::planted;

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
    /// What is asked for beside prompt, model and length.
    pub options: RequestOptions,
    /// By what it is recognised when it is sent again.
    pub request: PurchaseRequest,
    /// The caller's key.
    pub idempotency: Option<Idempotency>,
}

/// What came of writing an intent down.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It may be sent now.
    New,
    /// The key was used before: nothing may be sent.
    KeyUsed(Repeated<Reply>),
    /// The same was sent before, and its caller cannot know what became of it: nothing may be sent.
    Repeats(GenerationId),
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
    /// What is asked for beside prompt, model and length.
    pub options: RequestOptions,
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
        self.writer.run(move |tx| tx.begin_purchase(&rules, &intent, now)).await
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
        self.writer.run(move |tx| tx.finish_purchase(&rules, id, &submission, &reply, now)).await
    }

    /// Ends the purchases whose answer the process before this one took to its grave: they may have been made. What was sold just before
    /// it ended may have been told to nobody. Only for the
    /// start: there is one process, so nobody else is waiting for an answer.
    ///
    /// # Errors
    /// [`StoreError`] when that was not kept.
    pub async fn end_interrupted_purchases(&self, rules: &Arc<Rules>, now: Time) -> Result<(), StoreError> {
        self.writer.run(move |tx| tx.doubt_last_answers(now)).await?;
        loop {
            let rules = Arc::clone(rules);
            match self.writer.run(move |tx| tx.end_interrupted(&rules, now)).await? {
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
            "SELECT {REPLY}, sent_at, answered_at, request_bytes, request_sha256, options FROM submissions
             WHERE generation = (SELECT id FROM generations WHERE uid = ?1)"
        );
        let row =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        let record = |row: SqliteRow| {
            Ok::<_, StoreError>(SubmissionRecord {
                sent_at: Time::from_ms(row.get("sent_at")?),
                answered_at: row.get::<Option<i64>>("answered_at")?.map(Time::from_ms),
                request_bytes: row.get("request_bytes")?,
                request_sha256: row.get("request_sha256")?,
                options: options(row.get("options")?)?,
                reply: reply(&row)?,
            })
        };
        row.map(record).transpose()
    }
}

/// The columns of [`reply`].
pub(super) const REPLY: &str = "result, http_status, content_type, retry_after, error_code, said, body";

/// Reads what came of a purchase; `None` while it is under way.
pub(super) fn reply(row: &impl Row) -> Result<Option<Reply>, StoreError> {
    let Some(result) = row.get::<Option<String>>("result")? else { return Ok(None) };
    Ok(Some(Reply {
        result: SubmitResult::parse(&result).ok_or_else(|| impossible("submissions", "result", 0))?,
        http_status: row.get("http_status")?,
        content_type: row.get("content_type")?,
        retry_after: row.get("retry_after")?,
        error_code: row.get("error_code")?,
        said: row.get::<Option<String>>("said")?.unwrap_or_default(),
        body: row.get::<Option<Vec<u8>>>("body")?.unwrap_or_default(),
    }))
}

pub(super) fn options(json: Option<String>) -> Result<RequestOptions, StoreError> {
    let Some(json) = json else { return Ok(RequestOptions::default()) };
    serde_json::from_str(&json).map_err(|_| impossible("submissions", "options", 0))
}

pub(super) static KEPT_REPLY: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {REPLY} FROM submissions WHERE generation = ?1"));
static UNANSWERED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT id, {COLUMNS} FROM generations WHERE id IN
         (SELECT generation FROM submissions WHERE answered_at IS NULL LIMIT ?1)"
    )
});

impl Tx<'_> {
    fn begin_purchase(&mut self, rules: &Rules, intent: &Intent, now: Time) -> Result<Begun, StoreError> {
        if let Some(idempotency) = &intent.idempotency
            && let Some(claim) = self.claimed(idempotency, now)?
        {
            let answer = self.kept_reply(claim.row)?;
            return Ok(Begun::KeyUsed(claim.repeated(answer)));
        }
        if intent.idempotency.is_none()
            && !planted::is(planted::Fault::RepeatSent)
            && let Some(first) = self.repeated_purchase(&intent.request, now)?
        {
            return Ok(Begun::Repeats(first));
        }
        let new = Generation::new(intent.id, intent.family, Via::Gateway, now);
        let decision = rules.decide(&new, &Fact::Intended(intent.details.clone()), self.experience, now);
        let row = self.insert(&decision, now)?;
        self.execute(
            "INSERT INTO submissions (generation, sent_at, request_bytes, request_sha256, callback_url, options)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                row,
                now.as_ms(),
                i64::try_from(intent.request_bytes).unwrap_or(i64::MAX),
                intent.request.body_sha256.as_slice(),
                intent.callback_url,
                intent.options.to_json(),
            ],
        )?;
        self.remember_request(&intent.request, row, now)?;
        if let Some(idempotency) = &intent.idempotency {
            self.claim(idempotency, row, None, now)?;
        }
        Ok(Begun::New)
    }

    fn finish_purchase(
        &mut self,
        rules: &Rules,
        id: GenerationId,
        submission: &Submission,
        reply: &Reply,
        now: Time,
    ) -> Result<Decision, StoreError> {
        let stored = self.by_id(id)?.ok_or_else(|| StoreError::Failed(format!("generation {id} is gone")))?;
        let family = stored.generation.family;
        let mut submission = submission.clone();
        if let Submission::Accepted { provider_id, .. } = &submission
            && self.by_provider_id(family, provider_id)?.is_some_and(|holder| holder.row != stored.row)
        {
            tracing::error!(%id, "the provider sold a generation that is on record already");
            submission = Submission::Foreign;
        }
        let decision = self.decide(rules, &stored, &Fact::Submission(submission), now)?;
        self.answer_submission(stored.row, reply, now)?;
        if reply.is_certainly_unsold() && matches!(decision.generation.state, State::Rejected { .. }) {
            self.free_request(stored.row)?;
        }
        match reply.error_code.as_deref() {
            Some(code) if ErrorCode::of(code).is_none() => self.unknown_code(code, family, now)?,
            Some(_) | None => {}
        }
        Ok(decision)
    }

    fn answer_submission(&self, row: i64, reply: &Reply, now: Time) -> Result<(), StoreError> {
        let rows = self.execute(
            "UPDATE submissions SET answered_at = ?1, result = ?2, http_status = ?3, content_type = ?4, retry_after = ?5,
                    error_code = ?6, said = ?7, body = ?8 WHERE generation = ?9",
            params![
                now.as_ms(),
                reply.result.as_str(),
                reply.http_status,
                reply.content_type,
                reply.retry_after,
                reply.error_code,
                reply.said,
                reply.body,
                row,
            ],
        )?;
        expect_one(rows, "submissions", row)
    }

    fn end_interrupted(&mut self, rules: &Rules, now: Time) -> Result<usize, StoreError> {
        let interrupted = self.all(&UNANSWERED, params![INTERRUPTED_MAX], |row| rows::read(row))?;
        let reply = Reply {
            result: SubmitResult::Unclear,
            http_status: None,
            content_type: None,
            retry_after: None,
            error_code: None,
            said: "the process ended before the answer came".to_owned(),
            body: Vec::new(),
        };
        for stored in &interrupted {
            self.decide(rules, stored, &Fact::Submission(Submission::Unclear), now)?;
            self.answer_submission(stored.row, &reply, now)?;
        }
        Ok(interrupted.len())
    }
}
