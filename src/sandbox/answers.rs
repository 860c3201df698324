//! The simulated provider's routes: purchases, status reads, lists, balance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::faults::{no_credits, text, too_many_requests};
use super::plan::{Fate, Fault, Plan};
use super::requests::Fields;
use super::script::Directions;
use super::world::{Asked, Purchase, STARTS_AFTER, price};
use super::{Sandbox, controls, requests, results, script, shape};
use crate::domain::family::Family;

/// Five images of 10 MB in base64 fit.
const BODY_BYTES_MAX: usize = 80 * 1_024 * 1_024;
/// What the provider's own client calls a request (provider.md section 13).
const REQUEST_ID: &str = "x-request-id";

type Shared = State<Arc<Sandbox>>;

pub(super) fn router(sandbox: Arc<Sandbox>) -> Router {
    Router::new()
        .route("/v1/data/balance", get(balance))
        .route("/v1/{*path}", get(read).post(submit))
        .route("/results/{*path}", get(results::result))
        .merge(controls::router())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(echo_request_id))
        .with_state(sandbox)
}

/// Every answer names its request: as the caller did, or in the client's own form.
async fn echo_request_id(request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&format!("{:016x}", fastrand::u64(..))).ok());
    let mut answer = next.run(request).await;
    if let Some(id) = id {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}

/// `POST /v1/{family}/generate`
async fn submit(State(sandbox): Shared, Path(path): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let family = path.strip_suffix("/generate").and_then(Family::of);
    let Some(family) = family else { return text(StatusCode::NOT_FOUND, "Not Found") };
    if let Some(refusal) = sandbox.refuse_key(&headers) {
        return refusal;
    }
    let fault = sandbox.world().submit_faults.pop_front();
    if let Some(fault) = fault.as_ref().filter(|fault| !fault.sells()) {
        return sandbox.misbehave(fault, "", StatusCode::NO_CONTENT.into_response()).await;
    }
    let (fields, directions) = match sandbox.read_purchase(family, &headers, &body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let script = sandbox.world().next_script(prompt(&fields), directions.script);
    if let Some(script) = script.filter(|script| !script.sells) {
        return sandbox.follow(script, "", StatusCode::NO_CONTENT.into_response()).await;
    }
    let purchase = match sandbox.sell(family, &fields, directions.plan, &headers) {
        Ok(purchase) => purchase,
        Err(refusal) => return *refusal,
    };
    let usual = (StatusCode::CREATED, Json(shape::accepted(&purchase))).into_response();
    match (fault, script) {
        (Some(fault), _) => sandbox.misbehave(&fault, &purchase.id, usual).await,
        (None, Some(script)) => sandbox.follow(script, &purchase.id, usual).await,
        (None, None) => usual,
    }
}

/// `GET /v1/{family}/generations/{id}`, as `.../status/{id}` too, which public clients use (provider.md section 13); without
/// an id the list.
async fn read(
    State(sandbox): Shared,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let path = path.trim_end_matches('/');
    let place = path.rsplit_once("/generations/").or_else(|| path.rsplit_once("/status/"));
    let list = path.strip_suffix("/generations");
    let Some(family) = place.map(|(family, _)| family).or(list).and_then(Family::of) else {
        return text(StatusCode::NOT_FOUND, "Not Found");
    };
    if let Some(refusal) = sandbox.refuse_key(&headers) {
        return refusal;
    }
    match place {
        Some((_, id)) => sandbox.status(family, id).await,
        None => sandbox.list(family, &query).await,
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

    async fn status(&self, family: &'static Family, id: &str) -> Response {
        let now = self.clock.now();
        let fault = {
            let mut world = self.world();
            if let Some(purchase) = world.find(family, id) {
                purchase.reads.push(now);
            }
            if world.read_is_too_many(now, self.settings.status_reads_per_minute) {
                Some(Fault::RateLimited { retry_after: None })
            } else {
                world.status_faults.pop_front().or_else(|| world.every_status.clone())
            }
        };
        self.changed();
        let usual = match self.world().find(family, id).filter(|purchase| purchase.plan.fate != Fate::Forgotten) {
            Some(purchase) => Json(shape::status(purchase, &purchase.standing(now))).into_response(),
            None if family.path == "veo" => text(StatusCode::NOT_FOUND, "TASK_NOT_FOUND"),
            None => text(StatusCode::NOT_FOUND, "Generation not found"),
        };
        match fault {
            Some(fault) => self.misbehave(&fault, id, usual).await,
            None => usual,
        }
    }

    /// A bare array of status answers, newest first (provider.md sections 1 and 13). One read, however much it shows.
    async fn list(&self, family: &'static Family, query: &HashMap<String, String>) -> Response {
        let now = self.clock.now();
        let fault = {
            let mut world = self.world();
            if !world.lists.has(family.path) {
                return text(StatusCode::NOT_FOUND, "Not Found");
            }
            world.list_reads.push(now);
            if world.read_is_too_many(now, self.settings.status_reads_per_minute) {
                return too_many_requests();
            }
            world.list_faults.pop_front()
        };
        self.changed();
        let (limit, offset) = match (number(query, "limit", 50, 1..=100), number(query, "offset", 0, 0..=usize::MAX)) {
            (Ok(limit), Ok(offset)) => (limit, offset),
            (Err(refusal), _) | (_, Err(refusal)) => return *refusal,
        };
        let shown: Vec<Value> = {
            let world = self.world();
            let page = world.listed(family.path).skip(offset).take(limit);
            page.map(|purchase| shape::status(purchase, &purchase.standing(now))).collect()
        };
        let usual = Json(shown).into_response();
        match fault {
            Some(fault) => self.misbehave(&fault, "", usual).await,
            None => usual,
        }
    }

    /// What is asked for, where it is as documented (provider.md section 5).
    fn read_purchase(
        &self,
        family: &'static Family,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(Fields, Directions), Box<Response>> {
        let fields = requests::read(headers, body)?;
        requests::check(family, &fields, self.settings.https_callbacks_only)?;
        let directions = script::read(prompt(&fields));
        let directions = directions.map_err(|word| Box::new(text(StatusCode::UNPROCESSABLE_ENTITY, &word)))?;
        Ok((fields, directions))
    }

    /// Charges and takes the job on, or tells again what was bought under the same key.
    fn sell(
        self: &Arc<Self>,
        family: &'static Family,
        fields: &Fields,
        plan: Option<Plan>,
        headers: &HeaderMap,
    ) -> Result<Purchase, Box<Response>> {
        let header = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let asked = Asked { seed: None, request_id: header(REQUEST_ID), idempotency_key: header("x-idempotency-key") };
        let holder = header(AUTHORIZATION.as_str()).unwrap_or_default();
        let purchase = {
            let mut world = self.world();
            if let Some(before) = world.bought_before(&holder, asked.idempotency_key.as_deref()) {
                return Ok(before);
            }
            let purchase = self.make(&mut world, family, fields, plan, asked)?;
            world.keep(&holder, purchase.clone());
            purchase
        };
        self.announce(&purchase);
        self.changed();
        Ok(purchase)
    }

    fn make(
        &self,
        world: &mut super::world::World,
        family: &'static Family,
        fields: &Fields,
        plan: Option<Plan>,
        asked: Asked,
    ) -> Result<Purchase, Box<Response>> {
        let usual = family.default_model.or(family.models.first().map(|model| model.name)).unwrap_or_default();
        let model = fields.get("model").and_then(Value::as_str).unwrap_or(usual).to_owned();
        let seconds = seconds(fields).or(family.default_duration);
        let (price, now) = (price(family, &model, seconds), self.clock.now());
        if world.balance(now, self.settings.speed) < price {
            return Err(Box::new(no_credits(if family.path == "kling/o3-photo" { 2 } else { 1 })));
        }
        let drawn = self.settings.chances.draw(&mut world.chance);
        let plan = plan.or_else(|| world.plans.pop_front()).unwrap_or(drawn);
        let expected = family.expected(Some(&model), seconds);
        let spread = expected.to.saturating_sub(expected.from).mul_f64(world.chance.f64());
        let usual_time = (expected.from + spread) / self.settings.speed;
        let takes = plan.takes_ms.map_or(usual_time, Duration::from_millis);
        let seed = fields.get("seed").and_then(Value::as_u64).and_then(|seed| u32::try_from(seed).ok());
        let seed = (family.path == "veo").then(|| seed.unwrap_or_else(|| world.chance.u32(1..=10_000)));
        Ok(Purchase {
            id: uuid(&mut world.chance),
            family,
            model,
            seconds,
            prompt: prompt(fields).to_owned(),
            callback_url: fields.get("callback_url").and_then(Value::as_str).map(str::to_owned),
            price,
            bought_at: now,
            starts_at: now + (STARTS_AFTER / self.settings.speed).min(takes / 2),
            ends_at: now + takes,
            asked: Asked { seed, ..asked },
            plan,
            reads: Vec::new(),
            attempts: Vec::new(),
            results_at: match &self.settings.results_at {
                Some(own) => format!("{own}/results"),
                None => results::ELSEWHERE.to_owned(),
            },
        })
    }
}

fn prompt(fields: &Fields) -> &str {
    fields.get("prompt").and_then(Value::as_str).unwrap_or_default()
}

/// A number of the query, or the refusal in `FastAPI`'s form.
fn number(
    query: &HashMap<String, String>,
    name: &str,
    usual: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, Box<Response>> {
    let Some(given) = query.get(name) else { return Ok(usual) };
    match given.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(_) | Err(_) => {
            let message = format!("Input should be a number from {} to {}", range.start(), range.end());
            let detail = json!([{"type": "value_error", "loc": ["query", name], "msg": message, "input": given}]);
            Err(Box::new((StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": detail }))).into_response()))
        }
    }
}

/// A random UUID of the sandbox's own chance.
fn uuid(chance: &mut fastrand::Rng) -> String {
    uuid::Builder::from_random_bytes(chance.u128(..).to_be_bytes()).into_uuid().to_string()
}

fn seconds(request: &Fields) -> Option<u32> {
    match request.get("duration")? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().and_then(|seconds| seconds.try_into().ok()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
