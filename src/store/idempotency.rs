//! Idempotency keys: the same key and body twice is one request, for a day and across restarts.

use std::time::Duration;

use super::writer::Tx;
use super::{Store, StoreError};
use crate::domain::id::GenerationId;
use crate::domain::time::Time;

/// How long a key is remembered (contract section 6).
const KEPT: Duration = Duration::from_hours(24);

/// A caller's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Whose key it is and for what: API key and route.
    pub scope: String,
    /// The key: 1 to 255 printable characters.
    pub key: String,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
}

/// What is known of a key that was used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeated<T> {
    /// The first request is still under way.
    UnderWay(GenerationId),
    /// It came with another body.
    OtherBody(GenerationId),
    /// This was answered.
    Answered(GenerationId, T),
}

/// A key's row.
#[derive(Debug)]
pub(super) struct Claim {
    /// Row of the generation it made.
    pub(super) row: i64,
    generation: GenerationId,
    is_same_body: bool,
    /// What was answered, where that is kept with the key.
    pub(super) answer: Option<(u16, Vec<u8>)>,
}

type ClaimRow = (i64, Vec<u8>, Vec<u8>, Option<u16>, Option<Vec<u8>>);

impl Claim {
    /// What to say, given what was answered.
    pub(super) fn repeated<T>(self, answer: Option<T>) -> Repeated<T> {
        match (self.is_same_body, answer) {
            (false, _) => Repeated::OtherBody(self.generation),
            (true, None) => Repeated::UnderWay(self.generation),
            (true, Some(answer)) => Repeated::Answered(self.generation, answer),
        }
    }
}

impl Tx<'_> {
    /// The row of a key that was used within its time.
    pub(super) async fn claimed(&mut self, used: &Idempotency, now: Time) -> Result<Option<Claim>, StoreError> {
        sqlx::query("DELETE FROM idempotency_keys WHERE scope = ?1 AND key = ?2 AND created_at <= ?3")
            .bind(&used.scope)
            .bind(&used.key)
            .bind((now - KEPT).as_ms())
            .execute(&mut *self.connection)
            .await?;
        let row: Option<ClaimRow> = sqlx::query_as(
            "SELECT generation, uid, body_sha256, k.status, body FROM idempotency_keys k JOIN generations g ON g.id = generation
             WHERE scope = ?1 AND key = ?2",
        )
        .bind(&used.scope)
        .bind(&used.key)
        .fetch_optional(&mut *self.connection)
        .await?;
        let Some((row, uid, body_sha256, status, body)) = row else { return Ok(None) };
        let generation =
            GenerationId::from_bytes(&uid).ok_or_else(|| super::rows::impossible("generations", "uid", row))?;
        Ok(Some(Claim { row, generation, is_same_body: body_sha256 == used.body_sha256, answer: status.zip(body) }))
    }

    /// Takes a key for a generation.
    pub(super) async fn claim(
        &mut self,
        used: &Idempotency,
        row: i64,
        answer: Option<&(u16, Vec<u8>)>,
        now: Time,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO idempotency_keys (scope, key, body_sha256, created_at, generation, status, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(&used.scope)
        .bind(&used.key)
        .bind(used.body_sha256.as_slice())
        .bind(now.as_ms())
        .bind(row)
        .bind(answer.map(|(status, _)| *status))
        .bind(answer.map(|(_, body)| body.as_slice()))
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}

impl Store {
    /// Forgets at most `limit` keys whose time is over. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was removed.
    pub async fn prune_idempotency_keys(&self, limit: u32, now: Time) -> Result<u64, StoreError> {
        self.writer
            .run(move |tx| {
                Box::pin(async move {
                    let pruned = sqlx::query(
                        "DELETE FROM idempotency_keys WHERE id IN
                         (SELECT id FROM idempotency_keys WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)",
                    )
                    .bind((now - KEPT).as_ms())
                    .bind(limit)
                    .execute(&mut *tx.connection)
                    .await?;
                    Ok(pruned.rows_affected())
                })
            })
            .await
    }
}
