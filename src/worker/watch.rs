//! Watches the database itself: whether it is whole when the service starts, and whether its files are in their place while it runs.
//!
//! What is broken ends the service; what is only busy or full is looked at again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// How often there is a look when nobody writes; who writes looks every time.
const EVERY: Duration = Duration::from_secs(10);
/// A large database is not read to its end at every start: some seconds find what a crash leaves behind, beside its first load.
const EXAMINED_AT_MOST: Duration = Duration::from_secs(5);

/// Watches until told to stop.
///
/// # Errors
/// [`StoreError::Broken`] when the database is.
pub async fn run(store: Store, clock: Arc<dyn Clock>, stop: CancellationToken) -> Result<(), StoreError> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        examined = store.examine(EXAMINED_AT_MOST) => only_broken(examined)?,
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = clock.sleep(EVERY) => {}
        }
        only_broken(store.look_after().await)?;
    }
}

fn only_broken(looked: Result<(), StoreError>) -> Result<(), StoreError> {
    match looked {
        Ok(()) => Ok(()),
        Err(error @ StoreError::Broken(_)) => Err(error),
        Err(error @ (StoreError::Unavailable(_) | StoreError::Impossible(_) | StoreError::Failed(_))) => {
            tracing::warn!(%error, "the database takes no writes");
            Ok(())
        }
    }
}
