//! `/deliveries`: received webhooks, the unusual ones by a click, and one with its raw body.

use askama::Template;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;

use super::generations::{Field, pairs, with};
use super::session::Visitor;
use super::text::{When, plain, short};
use super::{Frame, Refused, Section, answer};
use crate::domain::decision::Disposition;
use crate::domain::delivery_headers::Signature;
use crate::domain::id::DeliveryId;
use crate::domain::time::Time;
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::{Api, AppState, deliveries};
use crate::store::{Delivery, Received};

/// Longest body shown whole, in bytes.
const BODY_SHOWN_MAX: usize = 64 * 1_024;

#[derive(Debug)]
struct DeliveryRow {
    id: String,
    generation: Option<String>,
    family: &'static str,
    kind: &'static str,
    received: When,
    disposition: &'static str,
    reason: Option<String>,
    bytes: u64,
    sha256: String,
    replay_of: Option<String>,
    signature: Option<&'static str>,
}

impl DeliveryRow {
    fn of(delivery: &Delivery, now: Time) -> Self {
        Self {
            id: delivery.id.to_string(),
            generation: delivery.generation.map(|id| id.to_string()),
            family: delivery.family.path,
            kind: if delivery.standing { "standing URL" } else { "own URL" },
            received: When::of(delivery.received_at, now),
            disposition: delivery.disposition.as_str(),
            reason: delivery.reason.as_deref().map(short),
            bytes: delivery.body_bytes,
            sha256: hex::encode(&delivery.body_sha256),
            replay_of: delivery.replay_of.map(|id| id.to_string()),
            signature: delivery.signature.map(|signature| match signature {
                Signature::Verified => "the provider's",
                Signature::Unchecked => "not verified: webhook.provider_secret is not set",
            }),
        }
    }
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    frame: Frame,
    field: Field,
    generation: String,
    rows: Vec<DeliveryRow>,
    first: bool,
    newest: String,
    next: Option<String>,
}

/// `GET /deliveries`.
async fn list(State(api): State<Api>, visitor: Visitor, RawQuery(query): RawQuery) -> Result<Response, Refused> {
    let given = pairs(query.as_deref());
    let now = api.clock.now();
    let (page, first) = deliveries::page(&api, Query::of(given.clone())).await?;
    let address = |cursor: Option<&str>| format!("/deliveries?{}", with(&given, "cursor", cursor));
    let generation = given.iter().find(|(key, _)| key == "generation").map(|(_, value)| plain(value));
    let page = DeliveriesPage {
        field: Field::of("disposition", "Disposition", Disposition::ALL.iter().map(|word| word.as_str()), &given),
        generation: generation.unwrap_or_default(),
        rows: page.rows.iter().map(|delivery| DeliveryRow::of(delivery, now)).collect(),
        first,
        newest: address(None),
        next: page.next_cursor.map(|cursor| address(Some(&cursor))),
        frame: Frame::new("Deliveries", Section::Deliveries, visitor, now),
    };
    answer(&page)
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    frame: Frame,
    row: DeliveryRow,
    body: Option<String>,
    note: Option<&'static str>,
    headers: Vec<(String, String)>,
}

/// `GET /deliveries/{id}`.
async fn one(
    State(api): State<Api>,
    visitor: Visitor,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Response, Refused> {
    let done = query.one("done")?;
    query.end()?;
    let unknown = || Problem::not_found("There is no delivery of this id.");
    let id = DeliveryId::parse(&id).map_err(|_| unknown())?;
    let Received { delivery, body, headers } = api.store.delivery(id).await?.ok_or_else(unknown)?;
    let now = api.clock.now();
    let (body, note) = readable(body);
    let frame = Frame::new("Delivery", Section::Deliveries, visitor, now).done(done);
    let headers = headers.0.into_iter().map(|(name, value)| (plain(&name), plain(&value))).collect();
    answer(&DeliveryPage { frame, row: DeliveryRow::of(&delivery, now), body, note, headers })
}

/// A body as it can be read, and what has to be said about it.
fn readable(body: Option<Vec<u8>>) -> (Option<String>, Option<&'static str>) {
    let Some(mut body) = body else { return (None, Some("Retention removed the raw body; its hash stays.")) };
    let long = body.len() > BODY_SHOWN_MAX;
    body.truncate(BODY_SHOWN_MAX);
    let (text, note) = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(json) => (
            serde_json::to_string_pretty(&json).unwrap_or_default(),
            Some("Indented for reading; the API gives it byte for byte."),
        ),
        Err(_) => (
            String::from_utf8_lossy(&body).into_owned(),
            Some("Not JSON. Bytes that are no text are replaced; the API gives it byte for byte."),
        ),
    };
    (Some(plain(&text)), if long { Some("Only its beginning is shown; the API gives it whole.") } else { note })
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/deliveries", get(list)).route("/deliveries/{id}", get(one))
}
