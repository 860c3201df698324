//! `/livez`, `/readyz` and `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::ApiKeys;
use super::document::refusals::Guarded;
use super::problem::Problem;
use super::{Api, AppState, Parts, scrape, stats};
use crate::config::Scope;
use crate::domain::reading;

/// One part of the service.
#[derive(Debug, Serialize, ToSchema)]
struct Part {
    name: &'static str,
    /// `ok`, `warning` or `failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

/// The process runs.
#[derive(Debug, Serialize, ToSchema)]
struct Liveness {
    /// `live`.
    status: &'static str,
}

/// Whether the service works, part by part.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    parts: Vec<Part>,
    /// `ready` or `unready`.
    status: &'static str,
}

/// 200 while the process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", operation_id = "livez",
    responses((status = 200, description = "It runs.", body = Liveness)))]
async fn live() -> Json<Liveness> {
    Json(Liveness { status: "live" })
}

/// 200 when the database takes writes and the workers run, else 503.
#[utoipa::path(get, path = "/readyz", tag = "operations", operation_id = "readyz",
    responses((status = 200, description = "Ready.", body = Readiness), (status = 503, description = "Not ready.", body = Readiness)))]
async fn ready(State(api): State<Api>, State(parts): State<Parts>) -> Response {
    let part = |name, status, detail: Option<String>| Part { name, status, detail };
    let database = match api.store.heartbeat(api.clock.now()).await {
        Ok(()) => part("database", "ok", None),
        Err(error) => {
            tracing::warn!(%error, "not ready: the database takes no writes");
            part("database", "failed", Some("takes no writes".to_owned()))
        }
    };
    let workers = match (api.stop.is_cancelled(), parts.sweeping()) {
        (false, true) => part("workers", "ok", None),
        (true, _) => part("workers", "failed", Some("stopping".to_owned())),
        (false, false) => part("workers", "failed", Some("the sweeper has ended".to_owned())),
    };
    let key = if parts.budget.key_refused() {
        part("provider_key", "warning", Some("the provider refuses provider.api_key".to_owned()))
    } else {
        part("provider_key", "ok", None)
    };
    let mut all = vec![database, workers, key];
    if let Ok(Some(behind)) = stats::behind(&api).await {
        all.push(part("outcomes", "ok", Some(reading::explain(behind))));
    }
    let parts = all;
    let failed = parts.iter().any(|part| part.status == "failed");
    let (code, status) = if failed { (StatusCode::SERVICE_UNAVAILABLE, "unready") } else { (StatusCode::OK, "ready") };
    (code, Json(Readiness { parts, status })).into_response()
}

/// Metrics in Prometheus' text form. Needs no key on the admin listener.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "metrics", security(("key" = ["read"])),
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain; version=0.0.4"), Guarded))]
async fn metrics(
    State(api): State<Api>,
    State(parts): State<Parts>,
    State(keys): State<ApiKeys>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !parts.metrics_open {
        keys.authorize(&headers, Scope::Read)?;
    }
    let text = scrape::look(&api, &parts).await?.render() + &parts.metrics.render();
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))], text).into_response())
}

/// The routes of the operator's side.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(ready)).routes(routes!(metrics))
}

/// The route of both sides.
pub(super) fn live_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(live))
}
