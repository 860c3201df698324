//! `/v1/events`: what the user's systems are told: a list, one, and the stream.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::auth::{MayOperate, MayRead};
use super::extract::{ApiJson, Query, invalid_field};
use super::generations::paging;
use super::idempotency::invalid_header;
use super::problem::Problem;
use super::view::ListView;
use super::{Api, AppState};
use crate::domain::event::{DispatchState, Event, EventKind};
use crate::domain::id::{EventId, GenerationId};
use crate::domain::time::Time;
use crate::store::{Changes, Dispatch, EventFilter, Told};

/// Events read ahead of a reader: what bounds the memory of a slow one.
const PAGE: u32 = 50;
/// Pause between two signs of life: proxies close what is silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize)]
struct EventView {
    id: EventId,
    generation: GenerationId,
    state: DispatchState,
    r#type: EventKind,
    timestamp: Time,
    sequence: u32,
    data: Option<Box<serde_json::value::RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dispatches: Option<Vec<Dispatch>>,
}

impl EventView {
    fn of(told: Told, dispatches: Option<Vec<Dispatch>>) -> Self {
        let Told { event: Event { id, generation, kind, at, sequence, shown }, state } = told;
        Self { id, generation, state, r#type: kind, timestamp: at, sequence, data: shown, dispatches }
    }
}

/// The filter of a list; `None` when it names a generation that nothing knows.
pub(super) async fn filter(api: &Api, query: &mut Query) -> Result<Option<EventFilter>, Problem> {
    let words = |words: Vec<&str>| format!("one of {}", words.join(", "));
    let kinds = words(EventKind::ALL.iter().map(|word| word.as_str()).collect());
    let states = words(DispatchState::ALL.iter().map(|word| word.as_str()).collect());
    let kinds = query.words("type", &kinds, EventKind::parse)?;
    let states = query.words("state", &states, DispatchState::parse)?;
    let generation = match query.one("generation")? {
        None => None,
        Some(id) => match api.resolve(&id).await {
            Ok(id) => Some(id),
            Err(problem) if problem.code() == "NOT_FOUND" => return Ok(None),
            Err(problem) => return Err(problem),
        },
    };
    Ok(Some(EventFilter { kinds, states, generation }))
}

/// `GET /v1/events`.
async fn list(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    mut query: Query,
) -> Result<Json<ListView<EventView>>, Problem> {
    let filter = filter(&api, &mut query).await?;
    let paging = paging(&mut query)?;
    query.end()?;
    let Some(filter) = filter else { return Ok(Json(ListView::whole(Vec::new()))) };
    let page = api.store.events(&filter, &paging, api.rules.refund_window).await?;
    Ok(Json(ListView::of(page, |told| EventView::of(told, None))))
}

/// `GET /v1/events/{id}`.
async fn one(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    query.end()?;
    let found = match EventId::parse(&id) {
        Ok(id) => api.store.event(id, api.rules.refund_window).await?,
        Err(_) => None,
    };
    let (told, dispatches) = found.ok_or_else(|| Problem::not_found("There is no event of this id."))?;
    Ok(Json(EventView::of(told, Some(dispatches))).into_response())
}

/// `POST /v1/events/{id}/redeliveries`: to every place it ever went to.
async fn redeliver(
    State(api): State<Api>,
    MayOperate(_caller): MayOperate,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("There is no event of this id.");
    let id = EventId::parse(&id).map_err(|_| unknown())?;
    let endpoints = api.store.redeliver(id, api.clock.now()).await?.ok_or_else(unknown)?;
    if endpoints == 0 {
        return Err(Problem::conflict(
            "This event was never sent anywhere: no endpoint of the configuration wanted it.",
        ));
    }
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({"event": id, "endpoints": endpoints}))).into_response())
}

/// One word or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

/// Which events to send again.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    r#type: Option<Words>,
    state: Option<Words>,
    generation: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeliveries {
    #[serde(default)]
    filter: Which,
    dry_run: bool,
}

/// `POST /v1/events/redeliveries`: many at once, or with `dry_run` only their number.
async fn redeliver_all(
    State(api): State<Api>,
    MayOperate(_caller): MayOperate,
    ApiJson(wish): ApiJson<Redeliveries>,
) -> Result<Response, Problem> {
    let Redeliveries { filter, dry_run } = wish;
    let filter = EventFilter {
        kinds: words("/filter/type", filter.r#type, EventKind::parse)?,
        states: words("/filter/state", filter.state, DispatchState::parse)?,
        generation: match filter.generation {
            Some(id) => Some(api.resolve(&id).await?),
            None => None,
        },
    };
    let events = api.store.redeliver_all(&filter, dry_run, api.clock.now()).await?;
    let status = if dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(serde_json::json!({"events": events, "dry_run": dry_run}))).into_response())
}

fn words<T>(pointer: &str, words: Option<Words>, read: fn(&str) -> Option<T>) -> Result<Vec<T>, Problem> {
    let words = match words {
        None => Vec::new(),
        Some(Words::One(word)) => vec![word],
        Some(Words::Many(words)) => words,
    };
    let word = |word: String| read(&word).ok_or_else(|| invalid_field(pointer, format!("{word:?} is not known")));
    words.into_iter().map(word).collect()
}

/// `GET /v1/events/stream`: what happens from now on, or since `Last-Event-ID`.
async fn stream(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    headers: HeaderMap,
    query: Query,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    query.end()?;
    let last = last_event_id(&headers)?;
    // Register for the wake-up before looking.
    let changes = api.store.changes();
    let position = api.store.event_position(last).await?.ok_or_else(|| {
        Problem::gone("The event in Last-Event-ID is not known (any more). Read /v1/events, then connect without it.")
    })?;
    let reader = Reader { api, changes, position, page: Vec::new().into_iter() };
    let events = futures_util::stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("still here")))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|id| EventId::parse(id).ok());
    id.map(Some).ok_or_else(|| invalid_header("Last-Event-ID", "must be the id of an event, as the stream gave it"))
}

/// One reader of the stream. Holds a page of events at most, however slow it is.
struct Reader {
    api: Api,
    changes: broadcast::Receiver<Changes>,
    position: i64,
    page: std::vec::IntoIter<(i64, Event)>,
}

impl Reader {
    /// The next event, once there is one; `None` when the service stops or the database fails (the client reconnects).
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some((position, event)) = self.page.next() {
                self.position = position;
                let body = serde_json::to_string(&event.body()).ok()?;
                return Some(sse::Event::default().id(event.id.to_string()).event(event.kind.as_str()).data(body));
            }
            match self.api.store.events_after(self.position, PAGE, self.api.rules.refund_window).await {
                Ok(page) if page.is_empty() => self.wait().await?,
                Ok(page) => self.page = page.into_iter(),
                Err(error) => {
                    tracing::warn!(%error, "an event stream ends");
                    return None;
                }
            }
        }
    }

    async fn wait(&mut self) -> Option<()> {
        loop {
            tokio::select! {
                changes = self.changes.recv() => match changes {
                    Ok(changes) if !changes.iter().any(|change| change.told) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return Some(()),
                    Err(RecvError::Closed) => return None,
                },
                () = self.api.stop.cancelled() => return None,
            }
        }
    }
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/events", get(list))
        .route("/v1/events/stream", get(stream))
        .route("/v1/events/{id}", get(one))
        .route("/v1/events/redeliveries", post(redeliver_all))
        .route("/v1/events/{id}/redeliveries", post(redeliver))
}
