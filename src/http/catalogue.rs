//! `/v1/error-codes` and `/v1/models`: what the provider's words mean, and what it offers.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::MayRead;
use super::document::refusals::{Listing, Reading};
use super::extract::{Named, Query};
use super::parameter::OfCode;
use super::problem::Problem;
use super::view::ListView;
use super::{Api, AppState};
use crate::domain::error_code::{Appears, Category, ERROR_CODES, ErrorCode, UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION};
use crate::domain::experience::{Experience, Kind};
use crate::domain::family::{Expected, FAMILIES, Family, Medium, Model};
use crate::domain::pace::Pace;
use crate::domain::schedule::ExpectedTimes;
use crate::store::UnknownCode;

/// A code of the catalogue, or one that was seen and is not in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorCode)]
struct CodeView {
    code: String,
    /// Whether it is in the catalogue, or was only seen.
    known: bool,
    category: Option<Category>,
    description: &'static str,
    solution: &'static str,
    /// The status the provider refuses with, where it does.
    http_status: Option<u16>,
    appears_in: Vec<Appears>,
    /// Whether the same request may succeed when it is sent again.
    retryable: bool,
    /// Whether the credits come back; null where nothing is charged.
    refunded: Option<bool>,
    families: Vec<String>,
    /// How often it was seen; only for one that is not in the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    count: Option<i64>,
}

impl From<&'static ErrorCode> for CodeView {
    fn from(known: &'static ErrorCode) -> Self {
        Self {
            code: known.code.to_owned(),
            known: true,
            category: Some(known.category),
            description: known.description,
            solution: known.solution,
            http_status: known.http_status,
            appears_in: known.appears_in.to_vec(),
            retryable: known.retryable,
            refunded: known.refunded,
            families: known.families.iter().map(|family| (*family).to_owned()).collect(),
            count: None,
        }
    }
}

impl From<UnknownCode> for CodeView {
    fn from(unknown: UnknownCode) -> Self {
        Self {
            code: unknown.code,
            known: false,
            category: None,
            description: UNKNOWN_DESCRIPTION,
            solution: UNKNOWN_SOLUTION,
            http_status: None,
            appears_in: Vec::new(),
            retryable: false,
            // A failed generation is refunded, whatever its code (provider.md section 5).
            refunded: Some(true),
            families: vec![unknown.family],
            count: Some(unknown.seen),
        }
    }
}

/// The catalogue of error codes, and those that were seen and are not in it.
#[utoipa::path(get, path = "/v1/error-codes", tag = "catalogue", operation_id = "list_error_codes", security(("key" = ["read"])),
    responses((status = 200, description = "All of them.", body = ListView<CodeView>), Listing))]
async fn codes(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    query: Query,
) -> Result<Json<ListView<CodeView>>, Problem> {
    query.end()?;
    let unknown = api.store.unknown_codes().await?;
    let codes = ERROR_CODES.iter().map(CodeView::from).chain(unknown.into_iter().map(CodeView::from));
    Ok(Json(ListView::whole(codes.collect())))
}

/// What one error code means.
#[utoipa::path(get, path = "/v1/error-codes/{code}", tag = "catalogue", operation_id = "get_error_code", security(("key" = ["read"])),
    params(OfCode),
    responses((status = 200, description = "The code.", body = CodeView), Reading))]
async fn code(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Named(code): Named,
    query: Query,
) -> Result<Json<CodeView>, Problem> {
    query.end()?;
    if let Some(known) = ErrorCode::of(&code) {
        return Ok(Json(known.into()));
    }
    let unknown = api.store.unknown_codes().await?.into_iter().find(|unknown| unknown.code == code);
    unknown.map(|unknown| Json(unknown.into())).ok_or_else(|| Problem::not_found("This code was never seen."))
}

/// A model of the provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
struct ModelView {
    /// The value of a purchase's `model` field.
    model: &'static str,
    family: &'static str,
    title: &'static str,
    medium: Medium,
    resolution: Option<&'static str>,
    /// The durations on offer; none for pictures.
    durations: Vec<OfferView>,
    expected_seconds: RangeView,
    relative_cost: Option<&'static str>,
    /// When to use it.
    use_for: &'static str,
    /// What the provider, or its own client, takes where no model is named.
    is_default: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Offer)]
struct OfferView {
    duration_seconds: u32,
    expected_seconds: RangeView,
    is_default: bool,
}

/// `from` and `to` as configured or built in; `learned` replaces `to` once 50 outcomes are known. In seconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExpectedSeconds)]
struct RangeView {
    from: u64,
    to: u64,
    /// Null while too few outcomes are known.
    learned: Option<u64>,
    /// How many are known.
    outcomes: u64,
}

impl RangeView {
    fn of(expected: Expected, pace: Option<&Pace>) -> Self {
        let learned = pace.and_then(|pace| pace.learned(expected)).map(|learned| learned.as_secs());
        let outcomes = pace.map_or(0, Pace::known);
        Self { from: expected.from.as_secs(), to: expected.to.as_secs(), learned, outcomes }
    }
}

impl ModelView {
    fn of(family: &'static Family, model: &'static Model, expected: &ExpectedTimes, experience: &Experience) -> Self {
        let pace = |duration_seconds: u32| {
            let kind = Kind { family: family.path.to_owned(), model: model.name.to_owned(), duration_seconds };
            experience.paces.get(&kind)
        };
        let offer = |seconds: u32| OfferView {
            duration_seconds: seconds,
            expected_seconds: RangeView::of(expected.of(family, Some(model.name), Some(seconds)), pace(seconds)),
            is_default: family.default_duration == Some(seconds),
        };
        Self {
            model: model.name,
            family: family.path,
            title: family.title,
            medium: family.medium,
            resolution: model.resolution,
            durations: model.offers.iter().map(|known| offer(known.seconds)).collect(),
            expected_seconds: RangeView::of(model.expected, pace(0)),
            relative_cost: model.relative_cost,
            use_for: model.use_for,
            is_default: family.default_model == Some(model.name),
        }
    }
}

/// What the provider offers: models, durations, how long they take, when to use which.
#[utoipa::path(get, path = "/v1/models", tag = "catalogue", operation_id = "list_models", security(("key" = ["read"])),
    responses((status = 200, description = "All of them.", body = ListView<ModelView>), Listing))]
async fn models(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    query: Query,
) -> Result<Json<ListView<ModelView>>, Problem> {
    query.end()?;
    let (expected, experience) = (&api.rules.expected, &api.store.experience().await?);
    let of_family = |family: &'static Family| {
        family.models.iter().map(move |model| ModelView::of(family, model, expected, experience))
    };
    Ok(Json(ListView::whole(FAMILIES.iter().flat_map(of_family).collect())))
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(codes)).routes(routes!(code)).routes(routes!(models))
}
