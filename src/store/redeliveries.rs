//! Events sent again because a person wants it: one, or all of a filter.

use sqlx::sqlite::Sqlite;
use sqlx::{QueryBuilder, Row};

use super::events::EventFilter;
use super::writer::Change;
use super::{Store, StoreError};
use crate::domain::id::{EventId, GenerationId};
use crate::domain::time::Time;

impl Store {
    /// Sends an event again to every place it ever went to. `None` when there is no such event; else how many places.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn redeliver(&self, id: EventId, now: Time) -> Result<Option<u64>, StoreError> {
        self.writer
            .run(move |tx| {
                Box::pin(async move {
                    let found: Option<(i64, Vec<u8>)> = sqlx::query_as(
                        "SELECT e.id, g.uid FROM events e JOIN generations g ON g.id = e.generation WHERE e.uid = ?1",
                    )
                    .bind(id.as_bytes().as_slice())
                    .fetch_optional(&mut *tx.connection)
                    .await?;
                    let Some((event, uid)) = found else { return Ok(None) };
                    wake(tx.changed, &uid);
                    let again = sqlx::query(
                        "UPDATE dispatches SET state = 'pending', attempts = 0, next_at = ?1 WHERE event = ?2",
                    )
                    .bind(now.as_ms())
                    .bind(event)
                    .execute(&mut *tx.connection)
                    .await?;
                    Ok(Some(again.rows_affected()))
                })
            })
            .await
    }

    /// Sends every event of a filter again that is not on its way already; with `dry_run` only counts them.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    pub async fn redeliver_all(&self, filter: &EventFilter, dry_run: bool, now: Time) -> Result<u64, StoreError> {
        let mut which = QueryBuilder::<Sqlite>::new(if dry_run {
            "SELECT count(DISTINCT event) FROM dispatches WHERE state <> 'pending' AND event IN (SELECT e.id FROM events e WHERE TRUE"
        } else {
            "UPDATE dispatches SET state = 'pending', attempts = 0, next_at = "
        });
        if dry_run {
            filter.push(&mut which);
            let count: i64 = which.push(")").build_query_scalar().fetch_one(&self.readers).await?;
            return Ok(u64::try_from(count).unwrap_or(0));
        }
        which.push_bind(now.as_ms());
        which.push(" WHERE state <> 'pending' AND event IN (SELECT e.id FROM events e WHERE TRUE");
        filter.push(&mut which);
        which.push(") RETURNING event");
        self.writer
            .run(move |tx| {
                Box::pin(async move {
                    let rows = which.build().fetch_all(&mut *tx.connection).await?;
                    if let Some(row) = rows.first() {
                        let uid: Vec<u8> = sqlx::query_scalar(
                            "SELECT g.uid FROM events e JOIN generations g ON g.id = e.generation WHERE e.id = ?1",
                        )
                        .bind(row.try_get::<i64, _>("event")?)
                        .fetch_one(&mut *tx.connection)
                        .await?;
                        wake(tx.changed, &uid);
                    }
                    let events = rows.iter().map(|row| row.try_get::<i64, _>("event"));
                    let events = events.collect::<Result<std::collections::BTreeSet<_>, _>>()?;
                    Ok(u64::try_from(events.len()).unwrap_or(0))
                })
            })
            .await
    }
}

/// Wakes the dispatchers: there is something to send about this generation.
fn wake(changed: &mut Vec<Change>, uid: &[u8]) {
    changed.extend(GenerationId::from_bytes(uid).map(|id| Change { id, look_at: None, told: true }));
}
