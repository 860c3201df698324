//! `/livez`, `/readyz` and `/metrics`.

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::auth::ApiKeys;
use super::problem::Problem;
use super::{Api, AppState, Parts, stats};
use crate::config::Scope;
use crate::domain::time::Time;

/// One part of the service.
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// `GET /livez`: 200 while the process runs.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({"status": "live"}))
}

/// `GET /readyz`: 200 when the database takes writes and the workers run.
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
    let listed = [database, workers, key];
    let failed = listed.iter().any(|part| part.status == "failed");
    let (code, status) = if failed { (StatusCode::SERVICE_UNAVAILABLE, "unready") } else { (StatusCode::OK, "ready") };
    (code, Json(serde_json::json!({"status": status, "parts": listed}))).into_response()
}

/// `GET /metrics` in Prometheus' text form.
async fn metrics(
    State(api): State<Api>,
    State(parts): State<Parts>,
    State(keys): State<ApiKeys>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !parts.metrics_open {
        keys.authorize(&headers, Scope::Read)?;
    }
    let now = api.clock.now();
    let backlog = api.store.backlog(stats::AHEAD, now).await?;
    gauge("recoup_checks_due", i64::try_from(backlog.due).unwrap_or(i64::MAX));
    // Infinite when more falls due than can be asked about.
    let forecast = stats::forecast(&backlog, &parts).map_or(f64::INFINITY, |span| span.as_secs_f64());
    ::metrics::gauge!("recoup_checks_backlog_forecast_seconds").set(forecast);
    gauge("recoup_generations_needing_attention", api.store.needing_attention().await?);
    gauge("recoup_status_reads_in_last_minute", i64::try_from(parts.budget.used()).unwrap_or(i64::MAX));
    let oldest = api.store.next_look_at().await?.map_or(0.0, |next| age_seconds(next, now));
    ::metrics::gauge!("recoup_oldest_due_age_seconds").set(oldest);
    let text = parts.metrics.render();
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))], text).into_response())
}

fn age_seconds(since: Time, now: Time) -> f64 {
    now.since(since).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "Prometheus knows only floats")]
fn gauge(name: &'static str, value: i64) {
    ::metrics::gauge!(name).set(value as f64);
}

/// The routes of the operator's side.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/readyz", get(ready)).route("/metrics", get(metrics))
}
