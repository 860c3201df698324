//! `/v1/deliveries`: received webhooks, with their raw bodies, and replays.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{MayOperate, MayRead};
use super::document::refusals::{Listing, Reading, Replaying};
use super::extract::{Named, Query};
use super::generations::{PAGING, paging};
use super::parameter::{Asked, Form, OfDelivery, Parameter, Parameters};
use super::problem::Problem;
use super::view::{DeliveryView, ListView, ReceivedView};
use super::{Api, AppState};
use crate::domain::decision::Disposition;
use crate::domain::id::DeliveryId;
use crate::flow::intake::Intake;
use crate::store::{Delivery, DeliveryFilter, Page};

const FILTERS: &[Parameter] = &[
    Parameter { name: "disposition", about: "Of which this became.", form: Form::Words(dispositions) },
    Parameter { name: "generation", about: "About this one: our id or the provider's.", form: Form::Text },
];

struct InList;

impl Parameters for InList {
    const LIST: &'static [&'static [Parameter]] = &[FILTERS, PAGING];
}

fn dispositions() -> Vec<&'static str> {
    Disposition::ALL.iter().map(|word| word.as_str()).collect()
}

/// A page of deliveries as the query wants it, and whether it is the first.
pub(super) async fn page(api: &Api, mut query: Query) -> Result<(Page<Delivery>, bool), Problem> {
    let allowed = format!("one of {}", dispositions().join(", "));
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

/// Lists received webhooks, newest first.
#[utoipa::path(get, path = "/v1/deliveries", tag = "deliveries", operation_id = "list_deliveries", security(("key" = ["read"])),
    params(Asked<InList>),
    responses((status = 200, description = "A page.", body = ListView<DeliveryView>), Listing))]
async fn list(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Asked { query, .. }: Asked<InList>,
) -> Result<Json<ListView<DeliveryView>>, Problem> {
    let (page, _) = page(&api, query).await?;
    Ok(Json(ListView::of(page, DeliveryView::from)))
}

/// One received webhook with its raw body.
#[utoipa::path(get, path = "/v1/deliveries/{id}", tag = "deliveries", operation_id = "get_delivery", security(("key" = ["read"])),
    params(OfDelivery),
    responses((status = 200, description = "The delivery.", body = ReceivedView), Reading))]
async fn one(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Named(id): Named,
    query: Query,
) -> Result<Json<ReceivedView>, Problem> {
    query.end()?;
    let received = api.store.delivery(parse(&id)?).await?;
    received.map(|received| Json(received.into())).ok_or_else(unknown)
}

/// Runs a kept body through the intake again.
#[utoipa::path(post, path = "/v1/deliveries/{id}/replays", tag = "deliveries", operation_id = "replay_delivery", security(("key" = ["operate"])),
    params(OfDelivery),
    responses((status = 200, description = "What became of it this time.", body = ReceivedView), Replaying))]
async fn replay(
    State(api): State<Api>,
    State(intake): State<Intake>,
    MayOperate(_caller): MayOperate,
    Named(id): Named,
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
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(one)).routes(routes!(replay))
}
