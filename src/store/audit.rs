//! What is on record about one generation, counted: for those who check that it all belongs together.

use sqlx::Row;

use super::rows::{self, JOINED, WIDTH, impossible};
use super::{Store, StoreError};
use crate::domain::event::EventKind;
use crate::domain::generation::Generation;
use crate::domain::id::GenerationId;

/// The rows behind a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Versions of the outcome, oldest first.
    pub versions: Vec<u32>,
    /// Its events, oldest first: number, kind, id.
    pub events: Vec<(u32, String, String)>,
    /// Webhooks that were kept.
    pub deliveries: u32,
    /// Reads that the provider answered with its word on it.
    pub answers: u32,
}

impl Store {
    /// A generation and the rows behind it, at one moment.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn audit(&self, id: GenerationId) -> Result<Option<(Generation, Audit)>, StoreError> {
        let sql = format!(
            "SELECT {JOINED}, (SELECT json_group_array(version ORDER BY id) FROM outcomes WHERE generation = g.id), g.outcomes,
                    (SELECT json_group_array(json_array(sequence, kind, hex(uid)) ORDER BY id) FROM events WHERE generation = g.id),
                    (SELECT count(*) FROM deliveries WHERE generation = g.id),
                    (SELECT count(*) FROM checks WHERE generation = g.id AND answer = 'known')
             FROM generations g WHERE uid = ?1"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_bytes().as_slice());
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        let (versions, outcomes): (String, u32) = (row.try_get(WIDTH)?, row.try_get(WIDTH + 1)?);
        let events: String = row.try_get(WIDTH + 2)?;
        let unreadable = |error: serde_json::Error| StoreError::Failed(error.to_string());
        let mut versions: Vec<u32> = serde_json::from_str(&versions).map_err(unreadable)?;
        // The latest is in the generation itself, until it is about to change.
        if outcomes > 0 && !versions.contains(&outcomes) {
            versions.push(outcomes);
        }
        let events: Vec<(u32, u8, String)> = serde_json::from_str(&events).map_err(unreadable)?;
        let named = |(number, kind, id): (u32, u8, String)| {
            let kind = EventKind::of_code(kind).ok_or_else(|| impossible("events", "kind", 0))?;
            Ok((number, kind.as_str().to_owned(), id))
        };
        let audit = Audit {
            versions,
            events: events.into_iter().map(named).collect::<Result<_, StoreError>>()?,
            deliveries: row.try_get(WIDTH + 3)?,
            answers: row.try_get(WIDTH + 4)?,
        };
        Ok(Some((rows::read(&row)?.generation, audit)))
    }
}
