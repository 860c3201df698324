//! `/v1/generations/{id}/diagnosis` and `/evidence`: what happened, in words and with proof.

use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::auth::MayRead;
use super::extract::{Query, invalid_parameter};
use super::problem::Problem;
use super::{Api, AppState};
use crate::domain::diagnosis::Diagnosis;
use crate::domain::shown::Shown;
use crate::domain::time::Time;

#[derive(Serialize)]
struct DiagnosisView {
    at: Time,
    #[serde(flatten)]
    diagnosis: Diagnosis,
    generation: Shown,
}

/// `GET /v1/generations/{id}/diagnosis`.
async fn diagnosis(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    query.end()?;
    let generation = api.find(&id).await?;
    let at = api.clock.now();
    let diagnosis = api.rules.diagnose(&generation, at);
    Ok(Json(DiagnosisView { at, diagnosis, generation: api.view(generation) }).into_response())
}

/// `GET /v1/generations/{id}/evidence`, with `?format=md` as a Markdown page.
async fn evidence(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Path(id): Path<String>,
    mut query: Query,
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

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/generations/{id}/diagnosis", get(diagnosis))
        .route("/v1/generations/{id}/evidence", get(evidence))
}
