//! What a person can do from the page: the API's own actions behind forms. Each needs the scope `operate`, comes from the page
//! itself (see [`super::routes`]), and ends where it began, with a word about what was done.

use axum::Router;
use axum::extract::{Path, RawForm, State};
use axum::response::Response;
use axum::routing::post;

use super::generations::{pairs, with};
use super::session::Visitor;
use super::{Refused, see_other};
use crate::domain::id::{DeliveryId, EventId};
use crate::flow::intake::Intake;
use crate::flow::reconcile::Asks;
use crate::http::crowd::Place;
use crate::http::extract::{Query, invalid_field};
use crate::http::problem::Problem;
use crate::http::{Api, AppState, events};
use crate::store::Refund;

/// Longest note, in characters.
const NOTE_MAX: usize = 2_000;

/// What can be done about a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask the provider now.
    Check,
    /// Confirm that the credits came back.
    Refund,
}

impl Action {
    /// The last part of its address.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Refund => "refund",
        }
    }

    /// On its button.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Check => "Ask the provider now",
            Self::Refund => "The credits came back",
        }
    }

    /// Below it.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Check => "One read out of the budget.",
            Self::Refund => "Confirm only what the balance shows.",
        }
    }
}

/// What was done, by the word in the address; anything else says nothing.
pub(super) fn said(word: &str) -> Option<&'static str> {
    Some(match word {
        "checked" => "The provider was asked. Its answer is in the timeline.",
        "refunded" => "Noted: the credits came back.",
        "noted" => "The note is in the timeline.",
        "replayed" => "The kept body was run through the intake again. This is what came of it.",
        "redelivered" => "It is sent again.",
        _ => return None,
    })
}

/// Back to where it was asked for, with a word.
fn back(path: &str, done: &str) -> Response {
    see_other(&format!("{path}?done={done}"))
}

/// `POST /generations/{id}/check`.
async fn check(
    State(api): State<Api>,
    State(asks): State<Asks>,
    visitor: Visitor,
    place: Place,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    visitor.operates()?;
    let id = api.resolve(&id).await?;
    place.give_back();
    asks.check(id).await?;
    Ok(back(&format!("/generations/{id}"), "checked"))
}

/// `POST /generations/{id}/refund`.
async fn refund(State(api): State<Api>, visitor: Visitor, Path(id): Path<String>) -> Result<Response, Refused> {
    visitor.operates()?;
    let id = api.resolve(&id).await?;
    match api.store.confirm_refund(&api.rules, id, visitor.name, api.clock.now()).await? {
        Refund::Confirmed(_) => Ok(back(&format!("/generations/{id}"), "refunded")),
        Refund::Unknown => Err(Problem::not_found("There is no generation of this id.").into()),
        Refund::NotDue(_) => {
            let why = "Credits can come back only for one that failed, was lost, or was never confirmed.";
            Err(Problem::conflict(why).into())
        }
    }
}

/// `POST /generations/{id}/note`.
async fn note(
    State(api): State<Api>,
    visitor: Visitor,
    Path(id): Path<String>,
    RawForm(form): RawForm,
) -> Result<Response, Refused> {
    visitor.operates()?;
    let id = api.resolve(&id).await?;
    let text = pairs(std::str::from_utf8(&form).ok()).into_iter().find(|(key, _)| key == "text");
    let text = text.map(|(_, text)| text.trim().to_owned()).unwrap_or_default();
    if !(1..=NOTE_MAX).contains(&text.chars().count()) {
        return Err(invalid_field("/text", format!("A note has 1 to {NOTE_MAX} characters.")).into());
    }
    api.store.add_note(id, visitor.name, text, api.clock.now()).await?;
    Ok(back(&format!("/generations/{id}"), "noted"))
}

/// `POST /deliveries/{id}/replay`.
async fn replay(State(intake): State<Intake>, visitor: Visitor, Path(id): Path<String>) -> Result<Response, Refused> {
    visitor.operates()?;
    let unknown = || Problem::not_found("There is no delivery of this id.");
    let id = DeliveryId::parse(&id).map_err(|_| unknown())?;
    let recorded = intake.replay(id).await?;
    // A repeat of which nothing new was kept is shown as the one it repeats.
    Ok(back(&format!("/deliveries/{}", recorded.delivery.unwrap_or(id)), "replayed"))
}

/// `POST /events/{id}/redeliver`.
async fn redeliver(State(api): State<Api>, visitor: Visitor, Path(id): Path<String>) -> Result<Response, Refused> {
    visitor.operates()?;
    let unknown = || Problem::not_found("There is no event of this id.");
    let id = EventId::parse(&id).map_err(|_| unknown())?;
    match api.store.redeliver(id, api.clock.now()).await?.ok_or_else(unknown)? {
        0 => {
            Err(Problem::conflict("This event was never sent anywhere: no endpoint of the configuration wanted it.")
                .into())
        }
        _ => Ok(back(&format!("/events/{id}"), "redelivered")),
    }
}

/// `POST /events/redeliver`: all of the filter in the form.
async fn redeliver_all(State(api): State<Api>, visitor: Visitor, RawForm(form): RawForm) -> Result<Response, Refused> {
    visitor.operates()?;
    let given = pairs(std::str::from_utf8(&form).ok());
    let mut query = Query::of(given.clone());
    let filter = events::filter(&api, &mut query).await?;
    query.end()?;
    if let Some(filter) = filter {
        api.store.redeliver_all(&filter, false, api.clock.now()).await?;
    }
    Ok(see_other(&format!("/events?{}", with(&given, "done", Some("redelivered")))))
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/generations/{id}/check", post(check))
        .route("/generations/{id}/refund", post(refund))
        .route("/generations/{id}/note", post(note))
        .route("/deliveries/{id}/replay", post(replay))
        .route("/events/redeliver", post(redeliver_all))
        .route("/events/{id}/redeliver", post(redeliver))
}
