//! `/v1/deliveries`: received webhooks, with their raw bodies, and replays.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::auth::{MayOperate, MayRead};
use super::extract::Query;
use super::generations::paging;
use super::problem::Problem;
use super::view::{DeliveryView, ListView, ReceivedView};
use super::{Api, AppState};
use crate::domain::decision::Disposition;
use crate::domain::id::DeliveryId;
use crate::flow::intake::Intake;
use crate::store::{Delivery, DeliveryFilter, Page};

/// A page of deliveries as the query wants it, and whether it is the first.
pub(super) async fn page(api: &Api, mut query: Query) -> Result<(Page<Delivery>, bool), Problem> {
    let allowed: Vec<_> = Disposition::ALL.iter().map(|word| word.as_str()).collect();
    let allowed = format!("one of {}", allowed.join(", "));
    let dispositions = query.words("disposition", &allowed, Disposition::parse)?;
    let generation = query.one("generation")?;
    let paging = paging(&mut query)?;
    query.end()?;
    let generation = match generation {
        None => None,
        Some(id) => match api.resolve(&id).await {
            Ok(id) => Some(id),
            Err(problem) if problem.code() == "NOT_FOUND" => {
                return Ok((Page { rows: Vec::new(), next_cursor: None }, true));
            }
            Err(problem) => return Err(problem),
        },
    };
    let page = api.store.deliveries(&DeliveryFilter { dispositions, generation }, &paging).await?;
    Ok((page, paging.after.is_none()))
}

/// `GET /v1/deliveries`.
async fn list(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    query: Query,
) -> Result<Json<ListView<DeliveryView>>, Problem> {
    let (page, _) = page(&api, query).await?;
    Ok(Json(ListView::of(page, DeliveryView::from)))
}

/// `GET /v1/deliveries/{id}`.
async fn one(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<ReceivedView>, Problem> {
    query.end()?;
    let received = api.store.delivery(parse(&id)?).await?;
    received.map(|received| Json(received.into())).ok_or_else(unknown)
}

/// `POST /v1/deliveries/{id}/replays`.
async fn replay(
    State(api): State<Api>,
    State(intake): State<Intake>,
    MayOperate(_caller): MayOperate,
    Path(id): Path<String>,
) -> Result<Json<ReceivedView>, Problem> {
    let recorded = intake.replay(parse(&id)?).await?;
    // A repeat of which nothing new was kept is shown as the one it repeats.
    let shown = recorded.delivery.map_or_else(|| parse(&id), Ok)?;
    let received = api.store.delivery(shown).await?;
    received.map(|received| Json(received.into())).ok_or_else(unknown)
}

fn parse(id: &str) -> Result<DeliveryId, Problem> {
    DeliveryId::parse(id).map_err(|_| unknown())
}

fn unknown() -> Problem {
    Problem::not_found("There is no delivery of this id.")
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/deliveries", get(list))
        .route("/v1/deliveries/{id}", get(one))
        .route("/v1/deliveries/{id}/replays", post(replay))
}
