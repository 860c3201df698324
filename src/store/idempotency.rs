//! Idempotency keys: the same key and body twice is one request, for a day and across restarts.

use std::time::Duration;

use rusqlite::params;

use super::rows::impossible;
use super::tx::Tx;
use super::{Store, StoreError};
use crate::domain::id::GenerationId;
use crate::domain::time::Time;

/// How long a key is remembered (contract section 6).
pub(super) const KEPT: Duration = Duration::from_hours(24);

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
    pub(super) fn claimed(&self, used: &Idempotency, now: Time) -> Result<Option<Claim>, StoreError> {
        self.execute(
            "DELETE FROM idempotency_keys WHERE scope = ?1 AND key = ?2 AND created_at <= ?3",
            params![used.scope, used.key, (now - KEPT).as_ms()],
        )?;
        self.first(
            "SELECT generation, uid, body_sha256, k.status, body FROM idempotency_keys k JOIN generations g ON g.id = generation
             WHERE scope = ?1 AND key = ?2",
            params![used.scope, used.key],
            |row| {
                let (number, uid, status): (i64, Vec<u8>, Option<u16>) = (row.get(0)?, row.get(1)?, row.get(3)?);
                Ok(Claim {
                    row: number,
                    generation: GenerationId::from_bytes(&uid).ok_or_else(|| impossible("generations", "uid", number))?,
                    is_same_body: row.get::<_, Vec<u8>>(2)? == used.body_sha256,
                    answer: status.zip(row.get(4)?),
                })
            },
        )
    }

    /// Takes a key for a generation.
    pub(super) fn claim(
        &self,
        used: &Idempotency,
        row: i64,
        answer: Option<&(u16, Vec<u8>)>,
        now: Time,
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO idempotency_keys (scope, key, body_sha256, created_at, generation, status, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                used.scope,
                used.key,
                used.body_sha256.as_slice(),
                now.as_ms(),
                row,
                answer.map(|(status, _)| *status),
                answer.map(|(_, body)| body.as_slice()),
            ],
        )?;
        Ok(())
    }
}

impl Store {
    /// Forgets at most `limit` keys whose time is over. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was removed.
    pub async fn prune_idempotency_keys(&self, limit: u32, now: Time) -> Result<usize, StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute(
                    "DELETE FROM idempotency_keys WHERE id IN
                     (SELECT id FROM idempotency_keys WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)",
                    params![(now - KEPT).as_ms(), limit],
                )
            })
            .await
    }
}
