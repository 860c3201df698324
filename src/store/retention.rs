//! What is removed after a while: raw bodies, and settled generations where the user wants that. Small batches only.

use rusqlite::params;

use super::{Store, StoreError};
use crate::domain::time::Time;

impl Store {
    /// Removes the raw bodies of at most `limit` deliveries that came before `before`; rows and hashes stay. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was removed.
    pub async fn prune_bodies(&self, before: Time, limit: u32) -> Result<usize, StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute(
                    "UPDATE deliveries SET body = NULL WHERE id IN
                     (SELECT id FROM deliveries WHERE body IS NOT NULL AND received_at < ?1
                      ORDER BY received_at LIMIT ?2)",
                    params![before.as_ms(), limit],
                )
            })
            .await
    }

    /// Removes at most `limit` generations that began and were first known before `before`, with all that happened to them. One whose money is
    /// open is never removed: only completed, refused, and failed ones past `refunds_before`, and none with an event that is
    /// still to be sent. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was removed.
    pub async fn prune_generations(&self, before: Time, refunds_before: Time, limit: u32) -> Result<usize, StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute(
                    "DELETE FROM generations WHERE id IN
                     (SELECT id FROM generations INDEXED BY generations_began_at
                      WHERE coalesce(submitted_at, created_at) < ?1 AND created_at < ?1 AND check_at IS NULL AND attention IS NULL
                        AND (status IN ('completed', 'rejected')
                             OR (status = 'failed' AND (refunded_at IS NOT NULL OR settled_at < ?2)))
                        AND NOT EXISTS (
                            SELECT 1 FROM events e WHERE e.generation = generations.id
                              AND (e.id > (SELECT min(position) FROM outlets)
                                   OR EXISTS (SELECT 1 FROM dispatches d WHERE d.event = e.id AND d.state = 'pending')))
                      ORDER BY coalesce(submitted_at, created_at) LIMIT ?3)",
                    params![before.as_ms(), refunds_before.as_ms(), limit],
                )
            })
            .await
    }
}
