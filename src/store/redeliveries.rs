//! Events sent again because a person wants it: one, or all of a filter.

use rusqlite::params;

use super::events::EventFilter;
use super::sql::Sql;
use super::tx::{Change, Tx};
use super::{Store, StoreError};
use crate::domain::id::{EventId, GenerationId};
use crate::domain::time::Time;

/// Events sent again in one transaction: bounds how long a big filter holds the writer.
const BATCH: usize = 500;

impl Store {
    /// Sends an event again to every place it ever went to. `None` when there is no such event; else how many places.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn redeliver(&self, id: EventId, now: Time) -> Result<Option<usize>, StoreError> {
        self.writer
            .run(move |tx| {
                let event =
                    tx.first("SELECT id FROM events WHERE uid = ?1", params![id.as_bytes().as_slice()], |row| {
                        Ok(row.get(0)?)
                    })?;
                let Some(event) = event else { return Ok(None) };
                let again = tx.execute(
                    "UPDATE dispatches SET state = 1, attempts = 0, next_at = ?1 WHERE event = ?2",
                    params![now.as_ms(), event],
                )?;
                tx.wake(event)?;
                Ok(Some(again))
            })
            .await
    }

    /// Sends every event of a filter again that is not on its way already; with `dry_run` only counts them. In small batches:
    /// what is sent again is so when this returns, or fails.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn redeliver_all(&self, filter: &EventFilter, dry_run: bool, now: Time) -> Result<usize, StoreError> {
        let (mut count, mut last) = (0, 0);
        loop {
            let which = Sql::new(
                "SELECT DISTINCT s.event FROM dispatches s CROSS JOIN events e ON e.id = s.event WHERE s.event > ",
            );
            let which = which.bind(last).and("s.state <> 1").join(&filter.condition());
            let which = which.push(" ORDER BY s.event LIMIT ").bind(i64::try_from(BATCH).unwrap_or(i64::MAX));
            let (sql, values) = which.query()?;
            let events: Vec<i64> =
                sqlx::query_scalar_with(sqlx::AssertSqlSafe(sql), values).fetch_all(&self.readers).await?;
            let Some(next) = events.last() else { return Ok(count) };
            last = *next;
            let is_last = events.len() < BATCH;
            count += if dry_run { events.len() } else { self.writer.run(move |tx| tx.redeliver(&events, now)).await? };
            if is_last {
                return Ok(count);
            }
        }
    }
}

impl Tx<'_> {
    fn redeliver(&mut self, events: &[i64], now: Time) -> Result<usize, StoreError> {
        let mut count = 0;
        for event in events {
            let again = self.execute(
                "UPDATE dispatches SET state = 1, attempts = 0, next_at = ?1 WHERE event = ?2 AND state <> 1",
                params![now.as_ms(), event],
            )?;
            count += usize::from(again > 0);
        }
        match events.first() {
            Some(event) => self.wake(*event).map(|()| count),
            None => Ok(count),
        }
    }

    /// Wakes the dispatchers: there is something to send about an event's generation.
    fn wake(&mut self, event: i64) -> Result<(), StoreError> {
        let uid: Option<Vec<u8>> = self.first(
            "SELECT g.uid FROM events e JOIN generations g ON g.id = e.generation WHERE e.id = ?1",
            params![event],
            |row| Ok(row.get(0)?),
        )?;
        let id = uid.as_deref().and_then(GenerationId::from_bytes);
        self.changed.extend(id.map(|id| Change { id, look_at: None, told: true, for_caller: true, outcome: None }));
        Ok(())
    }
}
