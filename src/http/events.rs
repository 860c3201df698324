//! `/v1/events`: what the user's systems are told: a list, one, and the stream.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{MayOperate, MayRead};
use super::document::refusals::{Listing, Operating, Reading, Redelivering, Streaming};
use super::extract::{ApiJson, Named, Query, invalid_field};
use super::generations::{PAGING, paging};
use super::idempotency::invalid_header;
use super::parameter::{Asked, Form, OfEvent, Parameter, Parameters};
use super::problem::Problem;
use super::view::ListView;
use super::{Api, AppState};
use crate::domain::event::{DispatchState, Event, EventKind};
use crate::domain::id::{EventId, GenerationId};
use crate::domain::shown::Shown;
use crate::domain::time::Time;
use crate::store::{Changes, Dispatch, EventFilter, Told};

/// Events read ahead of a reader: what bounds the memory of a slow one.
const PAGE: u32 = 50;
/// Pause between two signs of life: proxies close what is silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
struct EventView {
    id: EventId,
    generation: GenerationId,
    /// Pending while any place has not got it; dead when one never will.
    state: DispatchState,
    r#type: EventKind,
    /// When it happened.
    timestamp: Time,
    /// The number of this event among those of its generation, from one.
    sequence: u32,
    /// The generation as it was then.
    #[schema(value_type = Option<Shown>)]
    data: Option<Box<serde_json::value::RawValue>>,
    /// How it stands with each place it goes to; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dispatches: Option<Vec<Dispatch>>,
}

impl EventView {
    fn of(told: Told, dispatches: Option<Vec<Dispatch>>) -> Self {
        let Told { event: Event { id, generation, kind, at, sequence, shown }, state } = told;
        Self { id, generation, state, r#type: kind, timestamp: at, sequence, data: shown, dispatches }
    }
}

const FILTERS: &[Parameter] = &[
    Parameter { name: "type", about: "Of one of these types.", form: Form::Words(kinds) },
    Parameter { name: "state", about: "Which stand so.", form: Form::Words(states) },
    Parameter { name: "generation", about: "About this one: our id or the provider's.", form: Form::Text },
];

struct InList;

impl Parameters for InList {
    const LIST: &'static [&'static [Parameter]] = &[FILTERS, PAGING];
}

fn kinds() -> Vec<&'static str> {
    EventKind::ALL.iter().map(|word| word.as_str()).collect()
}

fn states() -> Vec<&'static str> {
    DispatchState::ALL.iter().map(|word| word.as_str()).collect()
}

/// An event is sent again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Redelivery)]
struct RedeliveryView {
    event: EventId,
    /// To so many places.
    endpoints: usize,
}

/// Events are sent again, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Redeliveries)]
struct RedeliveriesView {
    events: usize,
    dry_run: bool,
}

/// The filter of a list; `None` when it names a generation that nothing knows.
pub(super) async fn filter(api: &Api, query: &mut Query) -> Result<Option<EventFilter>, Problem> {
    let words = |words: Vec<&str>| format!("one of {}", words.join(", "));
    let kinds = query.words("type", &words(kinds()), EventKind::parse)?;
    let states = query.words("state", &words(states()), DispatchState::parse)?;
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

/// Lists events, newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "list_events", security(("key" = ["read"])),
    params(Asked<InList>),
    responses((status = 200, description = "A page.", body = ListView<EventView>), Listing))]
async fn list(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Asked { mut query, .. }: Asked<InList>,
) -> Result<Json<ListView<EventView>>, Problem> {
    let filter = filter(&api, &mut query).await?;
    let paging = paging(&mut query)?;
    query.end()?;
    let Some(filter) = filter else { return Ok(Json(ListView::whole(Vec::new()))) };
    let page = api.store.events(&filter, &paging, api.rules.refund_window).await?;
    Ok(Json(ListView::of(page, |told| EventView::of(told, None))))
}

/// One event, and how it stands with each place it goes to.
#[utoipa::path(get, path = "/v1/events/{id}", tag = "events", operation_id = "get_event", security(("key" = ["read"])),
    params(OfEvent),
    responses((status = 200, description = "The event.", body = EventView), Reading))]
async fn one(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Named(id): Named,
    query: Query,
) -> Result<Json<EventView>, Problem> {
    query.end()?;
    let found = match EventId::parse(&id) {
        Ok(id) => api.store.event(id, api.rules.refund_window).await?,
        Err(_) => None,
    };
    let (told, dispatches) = found.ok_or_else(|| Problem::not_found("There is no event of this id."))?;
    Ok(Json(EventView::of(told, Some(dispatches))))
}

/// Sends an event again, to every place it ever went to.
#[utoipa::path(post, path = "/v1/events/{id}/redeliveries", tag = "events", operation_id = "redeliver_event", security(("key" = ["operate"])),
    params(OfEvent),
    responses((status = 202, description = "It is on its way.", body = RedeliveryView), Operating))]
async fn redeliver(
    State(api): State<Api>,
    MayOperate(_caller): MayOperate,
    Named(id): Named,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("There is no event of this id.");
    let id = EventId::parse(&id).map_err(|_| unknown())?;
    let endpoints = api.store.redeliver(id, api.clock.now()).await?.ok_or_else(unknown)?;
    if endpoints == 0 {
        return Err(Problem::conflict(
            "This event was never sent anywhere: no endpoint of the configuration wanted it.",
        ));
    }
    Ok((StatusCode::ACCEPTED, Json(RedeliveryView { event: id, endpoints })).into_response())
}

/// One word or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    Many(Vec<T>),
}

/// Which events to send again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RedeliveryFilter)]
struct Which {
    #[schema(value_type = Option<OneOrMore<EventKind>>)]
    r#type: Option<OneOrMore<String>>,
    #[schema(value_type = Option<OneOrMore<DispatchState>>)]
    state: Option<OneOrMore<String>>,
    /// Our id of a generation or the provider's.
    generation: Option<String>,
}

/// Which events to send again, and whether to do it or only to count them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RedeliveriesRequest)]
struct Redeliveries {
    /// All events, where nothing is said.
    #[serde(default)]
    filter: Which,
    /// Only count them.
    dry_run: bool,
}

/// Sends many events again, or with `dry_run` only counts them.
#[utoipa::path(post, path = "/v1/events/redeliveries", tag = "events", operation_id = "redeliver_events", security(("key" = ["operate"])),
    request_body(content = Redeliveries),
    responses((status = 200, description = "Counted.", body = RedeliveriesView), (status = 202, description = "They are on their way.", body = RedeliveriesView), Redelivering))]
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
    Ok((status, Json(RedeliveriesView { events, dry_run })).into_response())
}

fn words<T>(pointer: &str, words: Option<OneOrMore<String>>, read: fn(&str) -> Option<T>) -> Result<Vec<T>, Problem> {
    let words = match words {
        None => Vec::new(),
        Some(OneOrMore::One(word)) => vec![word],
        Some(OneOrMore::Many(words)) => words,
    };
    let word = |word: String| read(&word).ok_or_else(|| invalid_field(pointer, format!("{word:?} is not known")));
    words.into_iter().map(word).collect()
}

/// Events as they happen, from now on or since `Last-Event-ID`, as server-sent events.
///
/// Each has `id` (of the event), `event` (its type) and `data` (an `EventBody`). A comment line comes every 15 seconds.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events", operation_id = "stream_events", security(("key" = ["read"])),
    params(("Last-Event-ID" = Option<EventId>, Header, description = "The last event that arrived: the stream goes on behind it.")),
    responses((status = 200, description = "A stream that does not end.", body = String, content_type = "text/event-stream"), Streaming))]
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
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(stream))
        .routes(routes!(one))
        .routes(routes!(redeliver_all))
        .routes(routes!(redeliver))
}
