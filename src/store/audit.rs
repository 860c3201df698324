//! What is on record about one generation, counted: for those who check that it all belongs together.

use super::rows::impossible;
use super::{Store, StoreError};
use crate::domain::event::EventKind;
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
    /// The rows behind a generation.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub async fn audit(&self, id: GenerationId) -> Result<Audit, StoreError> {
        let (versions, outcomes, events, deliveries, answers): (String, u32, String, u32, u32) = sqlx::query_as(
            "SELECT (SELECT json_group_array(version ORDER BY id) FROM outcomes WHERE generation = g.id), g.outcomes,
                    (SELECT json_group_array(json_array(sequence, kind, hex(uid)) ORDER BY id) FROM events WHERE generation = g.id),
                    (SELECT count(*) FROM deliveries WHERE generation = g.id),
                    (SELECT count(*) FROM checks WHERE generation = g.id AND answer = 'known')
             FROM generations g WHERE uid = ?1",
        )
        .bind(id.as_bytes().as_slice())
        .fetch_one(&self.readers)
        .await?;
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
        Ok(Audit {
            versions,
            events: events.into_iter().map(named).collect::<Result<_, StoreError>>()?,
            deliveries,
            answers,
        })
    }
}
