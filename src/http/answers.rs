//! `/v1/generations/{id}/diagnosis` and `/evidence`: what happened, in words and with proof.

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::MayRead;
use super::document::refusals::Reading;
use super::extract::{Named, Query, invalid_parameter};
use super::parameter::{Asked, Form, OfGeneration, Parameter, Parameters};
use super::problem::Problem;
use super::{Api, AppState};
use crate::domain::diagnosis::Diagnosis;
use crate::domain::equal_purchases::EqualPurchases;
use crate::domain::evidence::Evidence;
use crate::domain::shown::Shown;
use crate::domain::time::Time;

#[derive(Serialize, ToSchema)]
#[schema(as = DiagnosisOfGeneration)]
struct DiagnosisView {
    /// When this was said.
    at: Time,
    #[serde(flatten)]
    diagnosis: Diagnosis,
    generation: Shown,
}

/// What happened to a generation, in words: why it failed, whether it is slow, where the money is, whether it was bought twice, what to do.
#[utoipa::path(get, path = "/v1/generations/{id}/diagnosis", tag = "generations", operation_id = "diagnose_generation", security(("key" = ["read"])),
    params(OfGeneration),
    responses((status = 200, description = "The answers, each with the facts it rests on.", body = DiagnosisView), Reading))]
async fn diagnosis(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Named(id): Named,
    query: Query,
) -> Result<Json<DiagnosisView>, Problem> {
    query.end()?;
    let generation = api.find(&id).await?;
    let at = api.clock.now();
    let equal = api.store.equal_generations(&generation).await?;
    let equal = EqualPurchases::of(&generation, &equal, at, api.rules.refund_window);
    let diagnosis = api.rules.diagnose(&generation, at).and_equal(&equal);
    let diagnosis = diagnosis.and_candidates(&api.store.candidates(generation.id).await?);
    Ok(Json(DiagnosisView { at, diagnosis, generation: api.view(generation) }))
}

/// What is on record about a generation, fit to be sent to the provider's support.
///
/// Ids, times, price, and every message with its hash. Holds no credential and no label.
#[utoipa::path(get, path = "/v1/generations/{id}/evidence", tag = "generations", operation_id = "get_evidence", security(("key" = ["read"])),
    params(OfGeneration, Asked<AsFile>),
    responses(
        (status = 200, description = "A file.", content((Evidence = "application/json"), (String = "text/markdown")),
            headers(("Content-Disposition" = String, description = "The name of the file."))),
        Reading))]
async fn evidence(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Named(id): Named,
    Asked { mut query, .. }: Asked<AsFile>,
) -> Result<Response, Problem> {
    let as_page = match query.one("format")?.as_deref() {
        None | Some("json") => false,
        Some("md") => true,
        Some(other) => {
            return Err(invalid_parameter("format", format!("{other:?} is not allowed; it must be json or md")));
        }
    };
    query.end()?;
    evidence_of(&api, &id, as_page).await
}

/// The evidence of a generation as a file: a Markdown page, or JSON.
pub(super) async fn evidence_of(api: &Api, id: &str, as_page: bool) -> Result<Response, Problem> {
    let generation = api.find(id).await?;
    let now = api.clock.now();
    let summary = api.rules.diagnose(&generation, now).summary;
    let evidence = api.store.evidence(&generation, summary, now, api.rules.refund_window).await?;
    let name = |ending| format!("attachment; filename=\"evidence-{}.{ending}\"", generation.id);
    Ok(if as_page {
        let headers = [(CONTENT_TYPE, "text/markdown; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name("md"))];
        (headers, evidence.to_markdown()).into_response()
    } else {
        ([(CONTENT_DISPOSITION, name("json"))], Json(evidence)).into_response()
    })
}

/// How the evidence is asked for.
struct AsFile;

impl Parameters for AsFile {
    const LIST: &'static [&'static [Parameter]] =
        &[&[Parameter { name: "format", about: "JSON, or a Markdown page.", form: Form::Word(&["json", "md"]) }]];
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(diagnosis)).routes(routes!(evidence))
}
