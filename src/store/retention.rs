//! What is removed after a while: raw bodies, and settled generations where the user wants that. Small batches only.

use rusqlite::params;

use super::{Store, StoreError};
use crate::domain::time::Time;
use crate::planted;

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
                let removed = tx.execute(
                    "DELETE FROM bodies WHERE delivery IN (SELECT delivery FROM
                     (SELECT b.delivery, d.received_at FROM (SELECT delivery FROM bodies ORDER BY delivery LIMIT ?4) b
                      CROSS JOIN deliveries d ON d.id = b.delivery WHERE d.received_at <= ?3 ORDER BY b.delivery LIMIT ?2)
                     WHERE received_at < ?1)",
                    params![before.as_ms(), limit, now.as_ms(), STEP_OVER_MAX.max(limit)],
                )?;
                if planted::is(planted::Fault::HashRemoved) {
                    let without = "UPDATE deliveries SET body_sha256 = randomblob(32) WHERE disposition <> 1 AND disposition = 4";
                    tx.execute(without, [])?;
                }
                Ok(removed)
            })
            .await
    }

    /// Removes at most `limit` generations that began and were first known before `before`, with all that happened to them. One whose money is
    /// open is never removed: only completed, refused, and failed ones past `refunds_before`, and none with an event that is
    /// still to be sent to one of `outlets`: those that are no longer configured want nothing. Tells how many.
    ///
    /// # Errors
    /// [`StoreError`] when nothing was removed.
    pub async fn prune_generations(
        &self,
        before: Time,
        refunds_before: Time,
        outlets: &[String],
        limit: u32,
    ) -> Result<usize, StoreError> {
        let outlets = serde_json::Value::from(outlets).to_string();
        self.writer
            .run(move |tx| {
                // The trigger takes what is removed out of the sums: what changed it in this group has to be in them.
                tx.write_sums()?;
                tx.execute(
                    "DELETE FROM generations WHERE id IN
                     (SELECT id FROM generations INDEXED BY generations_created_at
                      WHERE coalesce(submitted_at, created_at) < ?1 AND created_at < ?1 AND (?4 OR (check_at IS NULL AND attention IS NULL))
                        AND (status IN (7, 4) OR ?4
                             OR (status = 8 AND (refunded_at IS NOT NULL OR settled_at < ?2)))
                        AND NOT EXISTS (
                            SELECT 1 FROM events e WHERE e.generation = generations.id
                              AND EXISTS (
                                SELECT 1 FROM outlets o WHERE o.name IN (SELECT value FROM json_each(?5))
                                  AND ((e.id > o.position AND o.callers_only <= e.for_caller)
                                       OR EXISTS (SELECT 1 FROM dispatches d
                                                  WHERE d.event = e.id AND d.outlet = o.id AND d.state = 1))))
                      ORDER BY created_at LIMIT ?3)",
                    params![
                        before.as_ms(),
                        refunds_before.as_ms(),
                        limit,
                        planted::is(planted::Fault::OpenMoneyRemoved),
                        outlets
                    ],
                )
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use sqlx::{ConnectOptions, Executor};

    use super::*;
    use crate::config::Config;
    use crate::domain::id::GenerationId;
    use crate::domain::money_report::{MoneyReport, Sum};

    /// One that failed and whose credits nobody has confirmed.
    const FAILED: &str = "INSERT INTO generations (uid, provider_id, family, status, source, verification, recovered, via, created_at,
            settled_at, checks, running_streak, not_found_streak, error_streak, late_answers, deliveries, outcomes, events)
        VALUES (x'01000000000000000000000000000000', 'one', 1, 8, 1, 1, 0, 2, 7200000, 7200001, 0, 0, 0, 0, 0, 0, 1, 0);
        INSERT INTO credit_hours VALUES (2, 8, 0, '', '', 0, 0, 1, 0, 0);
        INSERT INTO credit_days VALUES (0, 8, 0, '', '', 0, 0, 1, 0, 0)";

    #[tokio::test]
    async fn what_is_changed_and_removed_in_one_group_leaves_the_sums() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("sums.db").display());
        let (store, writer) = Store::open(&url).await.unwrap();
        let mut connection = super::super::options(&url).unwrap().connect().await.unwrap();
        connection.execute(FAILED).await.unwrap();
        let (rules, now) = (Arc::new(Config::default().rules()), Time::from_ms(8_000_000));
        let mut id = [0; 16];
        id[0] = 1;
        let id = GenerationId::from_bytes(&id).unwrap();
        // Both are queued before the writer runs: one group.
        let mut running = tokio::task::JoinSet::new();
        running.spawn(writer.run());
        let (confirmed, removed) = tokio::join!(
            store.confirm_refund(&rules, id, "ops".to_owned(), now),
            store.prune_generations(now, now, &[], 10),
        );
        confirmed.unwrap();
        assert_eq!(removed.unwrap(), 1);
        let report = store.money_report(None, None, now, Duration::from_mins(5)).await.unwrap();
        let none = MoneyReport::of(&[], Sum::default());
        assert_eq!(serde_json::to_string(&report).unwrap(), serde_json::to_string(&none).unwrap());
    }
}
