//! `/events`: what the user's systems were told, where it went, and sending it again: one, or all of a filter after their
//! number was shown.

use askama::Template;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;

use super::generations::{Field, pairs, with};
use super::session::Visitor;
use super::text::{When, plain, several, short};
use super::{Frame, Refused, Section, answer};
use crate::domain::event::{DispatchState, EventKind};
use crate::domain::id::EventId;
use crate::domain::time::Time;
use crate::http::extract::Query;
use crate::http::generations::paging;
use crate::http::problem::Problem;
use crate::http::{Api, AppState, events};
use crate::store::{Dispatch, Page, Told};

#[derive(Debug)]
struct EventRow {
    id: String,
    generation: String,
    kind: &'static str,
    state: &'static str,
    at: When,
    sequence: u32,
}

impl EventRow {
    fn of(told: &Told, now: Time) -> Self {
        Self {
            id: told.event.id.to_string(),
            generation: told.event.generation.to_string(),
            kind: told.event.kind.as_str(),
            state: told.state.as_str(),
            at: When::of(told.event.at, now),
            sequence: told.event.sequence,
        }
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    frame: Frame,
    fields: Vec<Field>,
    generation: String,
    rows: Vec<EventRow>,
    first: bool,
    newest: String,
    next: Option<String>,
    /// The filter, for sending all of it again.
    again: String,
}

/// `GET /events`.
async fn list(State(api): State<Api>, visitor: Visitor, RawQuery(query): RawQuery) -> Result<Response, Refused> {
    let given = pairs(query.as_deref());
    let (now, mut query) = (api.clock.now(), Query::of(given.clone()));
    let done = query.one("done")?;
    let filter = events::filter(&api, &mut query).await?;
    let paging = paging(&mut query)?;
    query.end()?;
    let page = match filter {
        Some(filter) => api.store.events(&filter, &paging, api.rules.refund_window).await?,
        None => Page { rows: Vec::new(), next_cursor: None },
    };
    let address = |cursor: Option<&str>| format!("/events?{}", with(&given, "cursor", cursor));
    let generation = given.iter().find(|(key, _)| key == "generation").map(|(_, value)| plain(value));
    let page = EventsPage {
        fields: vec![
            Field::of("type", "Type", EventKind::ALL.iter().map(|word| word.as_str()), &given),
            Field::of("state", "State", DispatchState::ALL.iter().map(|word| word.as_str()), &given),
        ],
        generation: generation.unwrap_or_default(),
        rows: page.rows.iter().map(|told| EventRow::of(told, now)).collect(),
        first: paging.after.is_none(),
        newest: address(None),
        next: page.next_cursor.map(|cursor| address(Some(&cursor))),
        again: with(&pairs(Some(&with(&given, "cursor", None))), "done", None),
        frame: Frame::new("Events", Section::Events, visitor, now).done(done),
    };
    answer(&page)
}

/// An event's way to one place.
#[derive(Debug)]
struct Way {
    endpoint: String,
    state: &'static str,
    attempts: u32,
    last: Option<When>,
    next: Option<When>,
    http_status: Option<u16>,
    said: Option<String>,
}

impl Way {
    fn of(dispatch: &Dispatch, now: Time) -> Self {
        Self {
            endpoint: plain(&dispatch.endpoint),
            state: dispatch.state.as_str(),
            attempts: dispatch.attempts,
            last: dispatch.last_attempt_at.map(|at| When::of(at, now)),
            next: dispatch.next_attempt_at.map(|at| When::of(at, now)),
            http_status: dispatch.http_status,
            said: dispatch.said.as_deref().map(short),
        }
    }
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    frame: Frame,
    row: EventRow,
    ways: Vec<Way>,
    body: String,
}

/// `GET /events/{id}`.
async fn one(
    State(api): State<Api>,
    visitor: Visitor,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Response, Refused> {
    let done = query.one("done")?;
    query.end()?;
    let unknown = || Problem::not_found("There is no event of this id.");
    let id = EventId::parse(&id).map_err(|_| unknown())?;
    let (told, dispatches) = api.store.event(id, api.rules.refund_window).await?.ok_or_else(unknown)?;
    let now = api.clock.now();
    let body = serde_json::to_value(told.event.body()).and_then(|body| serde_json::to_string_pretty(&body));
    let page = EventPage {
        row: EventRow::of(&told, now),
        ways: dispatches.iter().map(|dispatch| Way::of(dispatch, now)).collect(),
        body: plain(&body.unwrap_or_default()),
        frame: Frame::new("Event", Section::Events, visitor, now).done(done),
    };
    answer(&page)
}

#[derive(Template)]
#[template(path = "redeliver.html")]
struct RedeliverPage {
    frame: Frame,
    count: String,
    none: bool,
    filter: Vec<(String, String)>,
    back: String,
}

/// `GET /events/redeliver`: how many it would be, before it is done.
async fn dry_run(State(api): State<Api>, visitor: Visitor, RawQuery(query): RawQuery) -> Result<Response, Refused> {
    visitor.operates()?;
    let given = pairs(query.as_deref());
    let mut query = Query::of(given.clone());
    let filter = events::filter(&api, &mut query).await?;
    query.end()?;
    let now = api.clock.now();
    let count = match filter {
        Some(filter) => api.store.redeliver_all(&filter, true, now).await?,
        None => 0,
    };
    let back = format!("/events?{}", with(&given, "", None));
    let frame = Frame::new("Send events again", Section::Events, visitor, now);
    let said = several(u64::try_from(count).unwrap_or(u64::MAX), "event");
    answer(&RedeliverPage { frame, count: said, none: count == 0, filter: given, back })
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/events", get(list)).route("/events/redeliver", get(dry_run)).route("/events/{id}", get(one))
}
