//! Purchases that are sent again: by what an earlier one is recognised, and what is remembered of it for a day.
//!
//! Never decides what a repeat is answered (`flow/gateway.rs`), and never forgets a purchase that may have been made.

use std::time::Duration;

use rusqlite::params;

use super::idempotency::KEPT;
use super::rows::impossible;
use super::submissions::reply;
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::generation::Generation;
use crate::domain::id::GenerationId;
use crate::domain::purchase::{Reply, RequestOptions};
use crate::domain::time::Time;
use crate::planted;

/// An equal purchase counts as a repeat of one whose answer was lost for so long; later it is one that is wanted again.
const REPEATED_WITHIN: Duration = Duration::from_mins(10);

/// Answers kept so shortly before the start may have died with the process on their way to the caller.
const MAYBE_UNTOLD_WITHIN: Duration = Duration::from_secs(10);

/// By what a purchase is recognised when it is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurchaseRequest {
    /// Who buys and where: API key and route.
    pub scope: String,
    /// SHA-256 of the request's body as the caller sent it.
    pub body_sha256: [u8; 32],
    /// The caller's `X-Request-ID`: the same on all attempts of one call.
    pub request_id: Option<String>,
}

/// A purchase as it stands.
#[derive(Clone, Debug)]
pub struct PurchaseStanding {
    /// What it is by now.
    pub generation: Generation,
    /// What its request asked for beside prompt, model and length.
    pub options: RequestOptions,
    /// What was answered to it; `None` while it is under way.
    pub reply: Option<Reply>,
}

impl Store {
    /// A purchase made through us, as it stands.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn purchase_standing(&self, id: GenerationId) -> Result<Option<PurchaseStanding>, StoreError> {
        let Some(generation) = self.generation(id).await? else { return Ok(None) };
        let Some(submission) = self.submission(id).await? else { return Ok(None) };
        Ok(Some(PurchaseStanding { generation, options: submission.options, reply: submission.reply }))
    }

    /// Writes down that the caller of a purchase left before it was answered: whoever sends the same again repeats it.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn note_caller_left(&self, id: GenerationId, now: Time) -> Result<(), StoreError> {
        self.mark(
            "UPDATE purchase_requests SET left_at = ?1 WHERE generation = (SELECT id FROM generations WHERE uid = ?2)",
            id,
            now,
        )
        .await
    }

    /// Writes down that a caller was told what became of a purchase whose answer was lost: the next equal one is a purchase of its own.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn note_caller_told(&self, id: GenerationId, now: Time) -> Result<(), StoreError> {
        self.mark(
            "UPDATE purchase_requests SET told_at = ?1
             WHERE told_at IS NULL AND generation = (SELECT id FROM generations WHERE uid = ?2)",
            id,
            now,
        )
        .await
    }

    async fn mark(&self, sql: &'static str, id: GenerationId, now: Time) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute(sql, params![now.as_ms(), id.as_bytes().as_slice()])?;
                Ok(())
            })
            .await
    }

    /// Forgets at most `limit` requests whose time is over. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was removed.
    pub async fn prune_purchase_requests(&self, limit: u32, now: Time) -> Result<usize, StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute(
                    "DELETE FROM purchase_requests WHERE generation IN
                     (SELECT generation FROM purchase_requests WHERE sent_at <= ?1 ORDER BY sent_at LIMIT ?2)",
                    params![(now - KEPT).as_ms(), limit],
                )
            })
            .await
    }
}

/// All attempts of one call, whatever became of the first.
const SAME_CALL: &str = "
    SELECT r.generation, g.uid FROM purchase_requests r JOIN generations g ON g.id = r.generation
    WHERE r.body_sha256 = ?1 AND r.scope = ?2 AND r.sent_at > ?3 AND r.request_id = ?4 ORDER BY r.sent_at DESC LIMIT 1";

/// The answer was lost and no caller has been told what became of the purchase, or its caller left before it was told: of a purchase that
/// was not refused, since what was refused may be sent again. Not one whose credits a person saw come back.
const ANSWER_LOST: &str = "
    SELECT r.generation, g.uid FROM purchase_requests r
    JOIN generations g ON g.id = r.generation JOIN submissions s ON s.generation = r.generation
    WHERE r.body_sha256 = ?1 AND r.scope = ?2 AND r.sent_at > ?3 AND r.told_at IS NULL AND g.refunded_at IS NULL
      AND (s.result = 'unclear' OR (r.left_at IS NOT NULL AND (s.result IS NULL OR s.result = 'accepted'))) ORDER BY r.sent_at DESC LIMIT 1";

impl Tx<'_> {
    /// The purchase that this request repeats.
    pub(super) fn repeated_purchase(
        &self,
        request: &PurchaseRequest,
        now: Time,
    ) -> Result<Option<GenerationId>, StoreError> {
        let PurchaseRequest { scope, body_sha256, request_id } = request;
        let found = |row: &rusqlite::Row<'_>| {
            let (number, uid): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            GenerationId::from_bytes(&uid).ok_or_else(|| impossible("generations", "uid", number))
        };
        if let Some(request_id) = request_id {
            let values = params![body_sha256.as_slice(), scope, (now - KEPT).as_ms(), request_id];
            if let Some(first) = self.first(SAME_CALL, values, found)? {
                return Ok(Some(first));
            }
        }
        self.first(ANSWER_LOST, params![body_sha256.as_slice(), scope, (now - REPEATED_WITHIN).as_ms()], found)
    }

    /// Remembers by what a purchase is recognised.
    pub(super) fn remember_request(&self, request: &PurchaseRequest, row: i64, now: Time) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO purchase_requests (generation, scope, body_sha256, request_id, sent_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![row, request.scope, request.body_sha256.as_slice(), request.request_id, now.as_ms()],
        )?;
        Ok(())
    }

    /// Forgets by what a purchase is recognised, its idempotency key included: it is certain that nothing was sold, so the same may be
    /// sent again.
    pub(super) fn free_request(&self, row: i64) -> Result<(), StoreError> {
        if planted::is(planted::Fault::KeyKeptWhenUnsold) {
            return Ok(());
        }
        self.execute("DELETE FROM purchase_requests WHERE generation = ?1", params![row])?;
        self.execute("DELETE FROM idempotency_keys WHERE generation = ?1", params![row])?;
        Ok(())
    }

    /// At the start: whoever sends again what was sold or told moments ago may have got no answer from the process before this one, and
    /// repeats it.
    pub(super) fn doubt_last_answers(&self, now: Time) -> Result<usize, StoreError> {
        self.execute(
            "UPDATE purchase_requests SET left_at = ?1, told_at = NULL WHERE sent_at > ?2 AND (told_at > ?3 OR (told_at IS NULL
             AND left_at IS NULL AND EXISTS (SELECT 1 FROM submissions s
             WHERE s.generation = purchase_requests.generation AND s.result = 'accepted' AND s.answered_at > ?3)))",
            params![now.as_ms(), (now - REPEATED_WITHIN).as_ms(), (now - MAYBE_UNTOLD_WITHIN).as_ms()],
        )
    }

    /// What was answered to a purchase; `None` while it is under way.
    pub(super) fn kept_reply(&self, row: i64) -> Result<Option<Reply>, StoreError> {
        Ok(self.first(&super::submissions::KEPT_REPLY, params![row], |row| reply(row))?.flatten())
    }
}
