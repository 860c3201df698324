//! Removes what the user does not want to keep: small batches, one transaction each, with rest in between.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::planted;
use crate::store::{Store, StoreError};
use crate::telemetry::meters;

/// How often there is a look for something to remove.
const EVERY: Duration = Duration::from_hours(1);
/// Rows of one transaction: small enough that no webhook waits noticeably.
const BATCH: u32 = 200;
/// Rest between two batches.
const REST: Duration = Duration::from_millis(50);

/// What is removed, and when. A zero duration keeps for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Raw bodies older than this.
    pub payloads: Duration,
    /// Settled generations older than this.
    pub generations: Duration,
    /// How long a refund may take: money that is open is never removed.
    pub refund_window: Duration,
    /// The places that events go to: what one of them has yet to be sent is not removed.
    pub outlets: Arc<[String]>,
}

/// Removes until told to stop.
///
/// # Errors
/// [`StoreError::Broken`] when the database is.
pub async fn run(
    retention: Retention,
    store: Store,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    loop {
        let pause = match remove(&retention, &store, &*clock).await {
            Ok(0) => EVERY,
            Ok(_) => REST,
            Err(error @ StoreError::Broken(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "could not remove what is past its retention");
                EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = clock.sleep(pause) => {}
        }
    }
}

/// One batch of each kind; tells how much was removed.
async fn remove(retention: &Retention, store: &Store, clock: &dyn Clock) -> Result<usize, StoreError> {
    let now = clock.now();
    let batch = if planted::is(planted::Fault::RemovedAtOnce) { u32::MAX >> 1 } else { BATCH };
    let keys = store.prune_idempotency_keys(batch, now).await?;
    meters::removed("idempotency_keys", keys);
    let requests = store.prune_purchase_requests(batch, now).await?;
    meters::removed("purchase_requests", requests);
    let mut removed = keys + requests;
    if !retention.payloads.is_zero() {
        let bodies = store.prune_bodies(now - retention.payloads, batch, now).await?;
        meters::removed("payloads", bodies);
        removed += bodies;
    }
    if !retention.generations.is_zero() {
        let refunds_before = now - retention.refund_window;
        let before = now - retention.generations;
        let rows = store.prune_generations(before, refunds_before, &retention.outlets, batch).await?;
        meters::removed("generations", rows);
        removed += rows;
    }
    Ok(removed)
}
