//! Equal purchases: found by an index when one is looked at, remembered when one comes to be known, so that a list of them looks at
//! nothing else.
//!
//! Says what is equal; what is made of it, and whether it was charged, is the domain's.

use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::params;
use sqlx::AssertSqlSafe;

use super::rows::{self, JOINED};
use super::tx::Tx;
use super::walk::Key;
use super::{Store, StoreError};
use crate::domain::equal_purchases::COUNTED_MAX;
use crate::domain::generation::Generation;

/// Purchases further apart are no accident. Migration 11 and [`STILL_DOUBLED`] have the same in milliseconds.
const WITHIN: Duration = Duration::from_mins(10);
/// Equal ones looked for when one comes to be known: each of the others was noted itself when it came.
const NOTED_MAX: usize = 100;

/// A list of doubled ones runs in the order of the generations.
pub(super) const BY_DOUBLED: Key = Key { time: Some("d.created_at"), number: "d.generation" };
/// Where it begins.
pub(super) const DOUBLED: &str = "doubled d INDEXED BY doubled_created_at";
/// Of a doubled one: it was or may have been sold, and so was an equal one. Neither prepared nor rejected; see `Status`.
pub(super) const STILL_DOUBLED: &str = "g.status NOT IN (1, 4) AND EXISTS (
    SELECT 1 FROM generations o INDEXED BY generations_equal
    WHERE o.family = g.family AND length(o.prompt) = length(g.prompt) AND substr(o.prompt, 1, 32) = substr(g.prompt, 1, 32)
      AND coalesce(o.submitted_at, o.created_at) BETWEEN coalesce(g.submitted_at, g.created_at) - 600000
                                                     AND coalesce(g.submitted_at, g.created_at) + 600000
      AND o.prompt = g.prompt AND o.model IS g.model AND o.duration_seconds IS g.duration_seconds
      AND o.id <> g.id AND o.status NOT IN (1, 4))";

static EQUAL: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {JOINED} FROM generations g INDEXED BY generations_equal
         WHERE g.family = ?1 AND length(g.prompt) = length(?2) AND substr(g.prompt, 1, 32) = substr(?2, 1, 32)
           AND coalesce(g.submitted_at, g.created_at) BETWEEN ?3 AND ?4
           AND g.prompt = ?2 AND g.model IS ?5 AND g.duration_seconds IS ?6 AND g.uid <> ?7
         ORDER BY coalesce(g.submitted_at, g.created_at) LIMIT ?8"
    )
});

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

impl Store {
    /// The generations with the same prompt, family, model and length that began within ten minutes of this one, oldest first, at
    /// most [`COUNTED_MAX`]; whether they were bought is not looked at. None where its prompt is not known.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn equal_generations(&self, generation: &Generation) -> Result<Vec<Generation>, StoreError> {
        let Some(prompt) = &generation.request.prompt else { return Ok(Vec::new()) };
        let began_at = generation.began_at();
        let rows = sqlx::query(AssertSqlSafe(EQUAL.as_str()))
            .bind(generation.family.code())
            .bind(prompt)
            .bind((began_at - WITHIN).as_ms())
            .bind((began_at + WITHIN).as_ms())
            .bind(&generation.request.model)
            .bind(generation.request.duration_seconds)
            .bind(generation.id.as_bytes().as_slice())
            .bind(limit(COUNTED_MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| rows::read(row).map(|stored| stored.generation)).collect()
    }
}

impl Tx<'_> {
    /// It came to be known what a generation asks for: where an equal one is on record, both are doubled.
    pub(super) fn note_equal(&self, row: i64, generation: &Generation) -> Result<(), StoreError> {
        let Some(prompt) = &generation.request.prompt else { return Ok(()) };
        let began_at = generation.began_at();
        let wanted = params![
            generation.family.code(),
            prompt,
            (began_at - WITHIN).as_ms(),
            (began_at + WITHIN).as_ms(),
            generation.request.model,
            generation.request.duration_seconds,
            generation.id.as_bytes().as_slice(),
            limit(NOTED_MAX),
        ];
        let equal = self.all(&EQUAL, wanted, |found| rows::read(found))?;
        let others = equal.iter().map(|other| (other.row, &other.generation));
        // One alone is not doubled.
        let own = (!equal.is_empty()).then_some((row, generation));
        for (row, generation) in others.chain(own) {
            self.execute(
                "INSERT INTO doubled (generation, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![row, generation.created_at.as_ms()],
            )?;
        }
        Ok(())
    }
}
