//! The simulated provider's routes: purchases, status reads, balance, and its controls.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::plan::{Fate, Fault, Plan};
use super::world::{Purchase, STARTS_AFTER, price};
use super::{Sandbox, results, shape};
use crate::domain::family::{DurationForm, Family};

/// Five images of 10 MB in base64 fit.
const BODY_BYTES_MAX: usize = 80 * 1_024 * 1_024;

type Shared = State<Arc<Sandbox>>;

pub(super) fn router(sandbox: Arc<Sandbox>) -> Router {
    Router::new()
        .route("/v1/data/balance", get(balance))
        .route("/v1/{*path}", get(status).post(submit))
        .route("/results/{*path}", get(results::result))
        .route("/sandbox/plans", post(plan))
        .route("/sandbox/faults", post(fault))
        .route("/sandbox/ledger", get(ledger))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(sandbox)
}

/// `POST /v1/{family}/generate`
async fn submit(State(sandbox): Shared, Path(path): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let family = path.strip_suffix("/generate").and_then(Family::of);
    let Some(family) = family else { return text(StatusCode::NOT_FOUND, "Not Found") };
    if let Some(refusal) = sandbox.refuse_key(&headers) {
        return refusal;
    }
    let fault = sandbox.world().submit_faults.pop_front();
    let kept = matches!(
        fault,
        Some(Fault::Cut | Fault::Hang | Fault::Empty | Fault::Garbage | Fault::Huge { .. } | Fault::Bought(_))
    );
    if let Some(fault) = fault.as_ref().filter(|_| !kept) {
        return sandbox.misbehave(fault, "").await;
    }
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request @ Value::Object(_)) => request,
        Ok(_) | Err(_) => return text(StatusCode::UNPROCESSABLE_ENTITY, "Body must be a JSON object"),
    };
    let purchase = match sandbox.buy(family, &request) {
        Ok(purchase) => purchase,
        Err(refusal) => return refusal,
    };
    sandbox.announce(&purchase);
    sandbox.changed();
    match fault {
        Some(fault) => sandbox.misbehave(&fault, &purchase.id).await,
        None => (StatusCode::CREATED, Json(shape::accepted(&purchase))).into_response(),
    }
}

/// `GET /v1/{family}/generations/{id}`
async fn status(State(sandbox): Shared, Path(path): Path<String>, headers: HeaderMap) -> Response {
    let (family, id) = match path.trim_end_matches('/').rsplit_once("/generations/") {
        Some((family, id)) => (Family::of(family), id),
        None => (None, ""),
    };
    let Some(family) = family else { return text(StatusCode::NOT_FOUND, "Not Found") };
    if let Some(refusal) = sandbox.refuse_key(&headers) {
        return refusal;
    }
    let now = sandbox.clock.now();
    let fault = {
        let mut world = sandbox.world();
        if let Some(purchase) = world.find(family, id) {
            purchase.reads.push(now);
        }
        if world.read_is_too_many(now, sandbox.settings.status_reads_per_minute) {
            Some(Fault::RateLimited { retry_after: None })
        } else {
            world.status_faults.pop_front().or_else(|| world.every_status.clone())
        }
    };
    sandbox.changed();
    if let Some(fault) = fault {
        return sandbox.misbehave(&fault, id).await;
    }
    let mut world = sandbox.world();
    match world.find(family, id).filter(|purchase| purchase.plan.fate != Fate::Forgotten) {
        Some(purchase) => Json(shape::status(purchase, &purchase.standing(now))).into_response(),
        None if family.path == "veo" => text(StatusCode::NOT_FOUND, "TASK_NOT_FOUND"),
        None => text(StatusCode::NOT_FOUND, "Generation not found"),
    }
}

/// `GET /v1/data/balance` (provider.md section 1)
async fn balance(State(sandbox): Shared, headers: HeaderMap) -> Response {
    if let Some(refusal) = sandbox.refuse_key(&headers) {
        return refusal;
    }
    let balance = sandbox.world().balance(sandbox.clock.now(), sandbox.settings.speed);
    Json(json!({ "balance": balance })).into_response()
}

/// `POST /sandbox/plans`: the fate of the next purchase.
async fn plan(State(sandbox): Shared, Json(plan): Json<Plan>) -> StatusCode {
    sandbox.plan_next(plan);
    StatusCode::NO_CONTENT
}

/// Which answers misbehave.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum On {
    Submit,
    Status,
    EveryStatus,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    on: On,
    fault: Option<Fault>,
}

/// `POST /sandbox/faults`: misbehaviour of the next answer, or of every status answer.
async fn fault(State(sandbox): Shared, Json(order): Json<Order>) -> StatusCode {
    match (order.on, order.fault) {
        (On::Submit, Some(fault)) => sandbox.fault_next_submit(fault),
        (On::Status, Some(fault)) => sandbox.fault_next_status(fault),
        (On::EveryStatus, fault) => sandbox.fault_every_status(fault),
        (On::Submit | On::Status, None) => return StatusCode::UNPROCESSABLE_ENTITY,
    }
    StatusCode::NO_CONTENT
}

/// `GET /sandbox/ledger`: everything that was bought and what became of it.
async fn ledger(State(sandbox): Shared) -> Json<Vec<Purchase>> {
    Json(sandbox.ledger())
}

fn text(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

impl Sandbox {
    fn refuse_key(&self, headers: &HeaderMap) -> Option<Response> {
        let wanted = self.settings.api_key.as_deref();
        let body = match headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            None => json!({"error": "Unauthorized", "message": "Authorization header required"}),
            Some(given) => match given.strip_prefix("Bearer ") {
                None => json!({"error": "Unauthorized", "message": "Expected format: Bearer <key>"}),
                Some(key) if wanted.is_none_or(|wanted| wanted == key) => return None,
                Some(_) => json!({"detail": "Invalid API key"}),
            },
        };
        Some((StatusCode::UNAUTHORIZED, Json(body)).into_response())
    }

    /// Charges and takes the job on, or refuses it as documented (provider.md section 5).
    fn buy(&self, family: &'static Family, request: &Value) -> Result<Purchase, Response> {
        validate(family, request).map_err(|detail| text(StatusCode::UNPROCESSABLE_ENTITY, &detail))?;
        let prompt = request.get("prompt").and_then(Value::as_str).unwrap_or_default().to_owned();
        let scripted = Plan::from_prompt(&prompt).map_err(|detail| text(StatusCode::UNPROCESSABLE_ENTITY, &detail))?;
        let usual = family.default_model.or(family.models.first().map(|model| model.name)).unwrap_or_default();
        let model = request.get("model").and_then(Value::as_str).unwrap_or(usual).to_owned();
        let seconds = seconds(request).or(family.default_duration);
        let (price, now) = (price(family, &model, seconds), self.clock.now());
        let mut world = self.world();
        if world.balance(now, self.settings.speed) < price {
            return Err(no_credits(if family.path == "kling/o3-photo" { 2 } else { 1 }));
        }
        let drawn = self.settings.chances.draw(&mut world.chance);
        let plan = scripted.or_else(|| world.plans.pop_front()).unwrap_or(drawn);
        let expected = family.expected(Some(&model), seconds);
        let spread = expected.to.saturating_sub(expected.from).mul_f64(world.chance.f64());
        let usual_time = (expected.from + spread) / self.settings.speed;
        let takes = plan.takes_ms.map_or(usual_time, Duration::from_millis);
        let purchase = Purchase {
            id: uuid(&mut world.chance),
            family,
            model,
            seconds,
            prompt,
            callback_url: request.get("callback_url").and_then(Value::as_str).map(str::to_owned),
            price,
            bought_at: now,
            starts_at: now + (STARTS_AFTER / self.settings.speed).min(takes / 2),
            ends_at: now + takes,
            plan,
            reads: Vec::new(),
            attempts: Vec::new(),
            results_at: match &self.settings.results_at {
                Some(own) => format!("{own}/results"),
                None => results::ELSEWHERE.to_owned(),
            },
        };
        world.purchases.push(purchase.clone());
        Ok(purchase)
    }

    async fn misbehave(&self, fault: &Fault, id: &str) -> Response {
        match fault {
            Fault::Answer { status, body } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, Json(body.clone())).into_response()
            }
            Fault::Unauthorized { shape } => unauthorized(*shape),
            Fault::NoCredits { form } => no_credits(*form),
            Fault::RateLimited { retry_after } => {
                let wait = retry_after.map(|seconds| [(RETRY_AFTER, seconds.to_string())]);
                let body = Json(json!({"detail": "Too many requests"}));
                match wait {
                    Some(wait) => (StatusCode::TOO_MANY_REQUESTS, wait, body).into_response(),
                    None => (StatusCode::TOO_MANY_REQUESTS, body).into_response(),
                }
            }
            Fault::DetailText => text(StatusCode::UNPROCESSABLE_ENTITY, "prompt: must not be empty"),
            Fault::DetailList => unprocessable(&json!([
                {"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"},
            ])),
            Fault::DetailObject => {
                unprocessable(&json!({"code": "INVALID_PARAMETERS", "message": "prompt is missing"}))
            }
            Fault::ServerError => text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
            Fault::Html => (StatusCode::BAD_GATEWAY, "<html><body>502 Bad Gateway</body></html>").into_response(),
            Fault::Empty => StatusCode::OK.into_response(),
            Fault::Garbage => (StatusCode::OK, r#"{"generation_id": "half a docu"#).into_response(),
            Fault::WrongId => Json(json!({
                "generation_id": "another-one", "status": "completed", "video_url": "https://cdn.example.net/wrong.mp4",
            }))
            .into_response(),
            Fault::Redirect { location } => {
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location.clone())]).into_response()
            }
            Fault::Huge { bytes } => huge(*bytes),
            Fault::Cut => cut(id),
            Fault::Bought(fault) => Box::pin(self.misbehave(fault, id)).await,
            Fault::Hang => {
                self.stop.cancelled().await;
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

/// A body that promises more than it sends, and then breaks the connection.
fn cut(id: &str) -> Response {
    let begun = Bytes::from(format!(r#"{{"generation_id": "{id}", "sta"#));
    let pieces = [Ok(begun), Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))];
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    (StatusCode::OK, [(CONTENT_LENGTH, "4096")], body).into_response()
}

fn huge(bytes: u64) -> Response {
    const PIECE: &[u8] = &[b' '; 4_096];
    let pieces = bytes / 4_096;
    let body = futures_util::stream::iter((0..pieces).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(PIECE))));
    (StatusCode::OK, Body::from_stream(body)).into_response()
}

fn unprocessable(detail: &Value) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": detail }))).into_response()
}

fn unauthorized(shape: u8) -> Response {
    let body = match shape {
        1 => json!({"error": "Unauthorized", "message": "Invalid API key"}),
        2 => json!({"detail": "Missing credentials"}),
        _ => json!({"detail": "Invalid API key"}),
    };
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

fn no_credits(form: u8) -> Response {
    let body = match form {
        2 => json!({"success": false, "message": "INSUFFICIENT_CREDITS"}),
        _ => json!({"detail": "INSUFFICIENT_CREDITS"}),
    };
    (StatusCode::PAYMENT_REQUIRED, Json(body)).into_response()
}

/// A random UUID of the sandbox's own chance.
fn uuid(chance: &mut fastrand::Rng) -> String {
    uuid::Builder::from_random_bytes(chance.u128(..).to_be_bytes()).into_uuid().to_string()
}

fn seconds(request: &Value) -> Option<u32> {
    match request.get("duration")? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().and_then(|seconds| seconds.try_into().ok()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What O3 video documents of its requests; the others are only asked for a prompt.
fn validate(family: &Family, request: &Value) -> Result<(), String> {
    let prompt = request.get("prompt").and_then(Value::as_str).unwrap_or_default();
    if prompt.is_empty() || prompt.chars().count() > 2_500 {
        return Err("prompt: must be 1 to 2500 characters".to_owned());
    }
    if family.path != "kling/o3-video" {
        return Ok(());
    }
    if let Some(model) = request.get("model")
        && model.as_str().and_then(|name| family.model(name)).is_none()
    {
        return Err("model must be kling_o3 or kling_o3_pro".to_owned());
    }
    let durations = ["5", "10", "15"];
    if family.duration_form == DurationForm::Text
        && let Some(duration) = request.get("duration")
        && !duration.as_str().is_some_and(|text| durations.contains(&text))
    {
        return Err("duration must be one of 5, 10, 15".to_owned());
    }
    let images = |field: &str| request.get(field).and_then(Value::as_array).map_or(0, Vec::len);
    let (urls, inline) = (images("images_url"), images("images_base64"));
    if urls > 0 && inline > 0 {
        return Err("images_url and images_base64 cannot be used together".to_owned());
    }
    if urls + inline > 5 {
        return Err(format!("at most 5 images are allowed, got {}", urls + inline));
    }
    Ok(())
}
