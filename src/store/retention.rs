//! What is removed after a while: raw bodies, and settled generations where the user wants that. Small batches only.

use rusqlite::params;

use super::{Store, StoreError};
use crate::domain::time::Time;

/// Bodies looked at for those to remove.
const STEP_OVER_MAX: u32 = 20_000;

impl Store {
    /// Removes the raw bodies of at most `limit` deliveries that came before `before`; rows and hashes stay. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was removed.
    pub async fn prune_bodies(&self, before: Time, limit: u32, now: Time) -> Result<usize, StoreError> {
        self.writer
            .run(move |tx| {
                // In the order they came: those that a clock running ahead has put into the future are stepped over.
                tx.execute(
                    "DELETE FROM bodies WHERE delivery IN (SELECT delivery FROM
                     (SELECT b.delivery, d.received_at FROM (SELECT delivery FROM bodies ORDER BY delivery LIMIT ?4) b
                      CROSS JOIN deliveries d ON d.id = b.delivery WHERE d.received_at <= ?3 ORDER BY b.delivery LIMIT ?2)
                     WHERE received_at < ?1)",
                    params![before.as_ms(), limit, now.as_ms(), STEP_OVER_MAX],
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
                     (SELECT id FROM generations INDEXED BY generations_created_at
                      WHERE coalesce(submitted_at, created_at) < ?1 AND created_at < ?1 AND check_at IS NULL AND attention IS NULL
                        AND (status IN (7, 4)
                             OR (status = 8 AND (refunded_at IS NOT NULL OR settled_at < ?2)))
                        AND NOT EXISTS (
                            SELECT 1 FROM events e WHERE e.generation = generations.id
                              AND (EXISTS (SELECT 1 FROM outlets o WHERE e.id > o.position AND o.callers_only <= e.for_caller)
                                   OR EXISTS (SELECT 1 FROM dispatches d WHERE d.event = e.id AND d.state = 1)))
                      ORDER BY created_at LIMIT ?3)",
                    params![before.as_ms(), refunds_before.as_ms(), limit],
                )
            })
            .await
    }
}
