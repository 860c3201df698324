//! How many requests are served at once. Who finds no place within a second is told to come back: an answer now is worth more than a
//! place in a queue that only grows.
//!
//! One limit for all connections together, one for webhooks and one for calls, so that neither shuts the other out. Never counts
//! what only waits: a caller gives its place back before it waits for something that takes its time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::planted;
use crate::telemetry::meters;

/// Webhooks on their way into the database: as many as one transaction takes.
const WEBHOOKS_MAX: usize = 512;
/// Calls of the API and the page (reliability.md 5.1).
const CALLS_MAX: usize = 64;
/// How long a place is waited for (reliability.md, A17).
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);
/// When to come back to the API; the provider comes back by itself.
const CALL_RETRY_AFTER: Duration = Duration::from_secs(1);
const WEBHOOK_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The places there are.
#[derive(Clone, Debug)]
pub struct Crowds {
    webhooks: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

impl Default for Crowds {
    fn default() -> Self {
        Self { webhooks: Arc::new(Semaphore::new(WEBHOOKS_MAX)), calls: Arc::new(Semaphore::new(CALLS_MAX)) }
    }
}

impl Crowds {
    /// A place for a webhook.
    ///
    /// # Errors
    /// 503 when there was none for too long.
    pub(super) async fn webhook(&self) -> Result<OwnedSemaphorePermit, Problem> {
        place(&self.webhooks, "webhook").await.ok_or_else(|| {
            Problem::unavailable("Too many webhooks are being written. Nothing was kept; send it again.")
                .retry_after(WEBHOOK_RETRY_AFTER)
        })
    }
}

async fn place(places: &Arc<Semaphore>, kind: &'static str) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    let patience = if planted::is(planted::Fault::NobodyTurnedAway) { Duration::MAX } else { PLACE_TIMEOUT };
    let place = tokio::time::timeout(patience, Arc::clone(places).acquire_owned()).await;
    if place.is_err() {
        meters::turned_away(kind);
    }
    place.ok()?.ok()
}

/// The place of a call, to be given back before it waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    /// From here on the call only waits.
    pub(super) fn give_back(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Around every call of the API and the page.
pub(super) async fn call(State(crowds): State<Crowds>, mut request: Request, next: Next) -> Response {
    let Some(permit) = place(&crowds.calls, "call").await else {
        return Problem::unavailable("Too many requests are being served. Nothing was done; send it again.")
            .retry_after(CALL_RETRY_AFTER)
            .into_response();
    };
    let place = Place(Arc::new(Mutex::new(Some(permit))));
    request.extensions_mut().insert(place.clone());
    let response = next.run(request).await;
    place.give_back();
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_only_waits_leaves_its_place_to_others() {
        let places = Arc::new(Semaphore::new(1));
        let permit = place(&places, "call").await;
        assert!(place(&places, "call").now_or_never().is_none(), "the only place is taken");
        let waiting = Place(Arc::new(Mutex::new(permit)));
        waiting.give_back();
        waiting.clone().give_back();
        assert!(place(&places, "call").await.is_some());
    }
}
