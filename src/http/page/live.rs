//! `/live`: tells an open page that something changed, at most once a second. The page then asks for itself again.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::Stream;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::session::Visitor;
use crate::http::{Api, AppState};

/// Pause between two words about changes.
const PACE: Duration = Duration::from_secs(1);
/// Pause between two signs of life: proxies close what is silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `GET /live`.
async fn live(State(api): State<Api>, _visitor: Visitor) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = api.store.changes();
    let words = futures_util::stream::unfold((api, changes, false), |(api, mut changes, paced)| async move {
        if paced {
            tokio::time::sleep(PACE).await;
        }
        tokio::select! {
            change = changes.recv() => match change {
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    // What happened during a pause is told in one word.
                    while !matches!(changes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
                    Some((Ok(Event::default().event("change").data("")), (api, changes, true)))
                }
                Err(RecvError::Closed) => None,
            },
            () = api.stop.cancelled() => None,
        }
    });
    Sse::new(words).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("still here"))
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/live", get(live))
}
