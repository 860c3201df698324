//! One generation as the provider would tell it: from our records, and what is not on record asked about once.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Counter, put};
use crate::domain::family::Family;
use crate::domain::generation::Generation;
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::pass_through;
use crate::http::document::refusals::Looking;
use crate::http::document::requests::ProviderStatus;
use crate::http::idempotency::GENERATION;
use crate::http::parameter::{OfFamily, OfProvider};
use crate::http::problem::Problem;
use crate::store::StoreError;

/// The status of a generation in the provider's shape, from our records and at no cost to the budget.
///
/// What the provider told last is passed on as it came, with every field; what it left out and we know is added. One that is not
/// known here is asked about once and taken on. A poll after the shortest usual time may pull the first read forward, at most once in
/// 15 s for each generation and never beyond the budget; what it brings the next poll tells.
#[utoipa::path(get, path = "/gateway/v1/{family}/generations/{generation_id}", tag = "gateway", operation_id = "get_generation_as_provider", security(("key" = ["read"])),
    params(OfFamily, OfProvider),
    responses((status = 200, description = "As the provider documents it for this family.", body = ProviderStatus,
        headers(("Recoup-Generation" = GenerationId, description = "Our id of it."))), Looking))]
pub(super) async fn look(
    counter: Counter,
    family: &'static Family,
    provider_id: ProviderId,
) -> Result<Response, Problem> {
    let (answer, answered) = oneshot::channel();
    let adopter = counter.adopter.clone();
    counter.tasks.carry(async move { drop(answer.send(adopter.find(family, &provider_id).await)) });
    let found = answered.await.map_err(|_| Problem::internal("Something went wrong on our side."))?;
    let generation = found?;
    counter.polls.note(&generation).await;
    let mut response = Json(status(&counter, &generation).await?).into_response();
    put(response.headers_mut(), GENERATION, Some(generation.id.to_string()));
    Ok(response)
}

/// The same under the path that some clients of the provider read.
#[utoipa::path(get, path = "/gateway/v1/{family}/status/{generation_id}", tag = "gateway", operation_id = "get_status_as_provider", security(("key" = ["read"])),
    params(OfFamily, OfProvider),
    responses((status = 200, description = "As the provider documents it for this family.", body = ProviderStatus,
        headers(("Recoup-Generation" = GenerationId, description = "Our id of it."))), Looking))]
pub(super) async fn look_by_status(
    counter: Counter,
    family: &'static Family,
    provider_id: ProviderId,
) -> Result<Response, Problem> {
    look(counter, family, provider_id).await
}

/// A generation in the provider's shape.
pub(super) async fn status(counter: &Counter, generation: &Generation) -> Result<Option<Value>, StoreError> {
    let (store, rules) = (&counter.adopter.store, &counter.adopter.rules);
    let bodies = store.provider_bodies(generation, rules.confirm).await?;
    let sold = if generation.family.path == "veo" { store.purchase_answer(generation.id).await? } else { None };
    Ok(pass_through::status(generation, &bodies, sold.as_deref()))
}
