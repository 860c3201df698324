//! `/gateway`: a drop-in for the provider. Purchases and status reads in its own shape, everything else is 404.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::auth::{ApiKeys, Caller};
use super::document::refusals::Looking;
use super::document::requests::{IdempotencyKey, MetadataHeader, ProviderStatus, Purchase, Sold};
use super::extract::{self, Named, invalid_field};
use super::idempotency::{self, GENERATION, invalid_header, named};
use super::parameter::{OfFamily, OfProvider};
use super::problem::Problem;
use super::seats::Seat;
use super::{AppState, registration};
use crate::config::Scope;
use crate::domain::family::Family;
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::purchase::{NotAPurchase, Order, Reply, SubmitResult};
use crate::domain::shape;
use crate::flow::adopt::Adopter;
use crate::flow::gateway::{Bought, Gateway, PurchaseError, Wanted};
use crate::flow::poll::Polls;
use crate::worker::Tasks;

const ERROR_CODE: HeaderName = HeaderName::from_static("recoup-error-code");
/// Only when what came of a purchase could not be kept yet.
const UNRECORDED: HeaderName = HeaderName::from_static("recoup-unrecorded");
const METADATA: &str = "recoup-metadata";
/// Bodies of purchases held at the same time, in bytes: ten of the largest.
const HELD_BYTES_MAX: usize = 640 * 1_024 * 1_024;
const KIB: usize = 1_024;
/// Longer bodies are read on a thread of their own: 67 MB keep a core busy for a tenth of a second.
const READ_IN_PLACE_BYTES_MAX: usize = 256 * KIB;

/// Everything the drop-in is made of.
#[derive(Clone, Debug)]
pub struct Counter {
    /// Buys.
    pub gateway: Gateway,
    /// Takes on what others bought.
    pub adopter: Adopter,
    /// Counts who polls.
    pub polls: Polls,
    /// Carries what was begun to its end.
    pub tasks: Tasks,
    /// Longest purchase, in bytes.
    pub body_bytes_max: usize,
    /// Room for bodies, in KiB.
    room: Arc<Semaphore>,
}

impl Counter {
    /// A counter that takes bodies up to that length.
    pub fn new(gateway: Gateway, adopter: Adopter, polls: Polls, tasks: Tasks, body_bytes_max: usize) -> Self {
        let room = Arc::new(Semaphore::new(HELD_BYTES_MAX.max(body_bytes_max) / KIB + 1));
        Self { gateway, adopter, polls, tasks, body_bytes_max, room }
    }

    /// Room for a body, before it is read: what would not fit into memory is turned away.
    fn room(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Problem> {
        let announced = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes = announced.unwrap_or(self.body_bytes_max).min(self.body_bytes_max);
        let kib = u32::try_from(bytes / KIB + 1).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| {
            Problem::unavailable("Too many purchases are being sent at once. Nothing was bought; send it again.")
                .retry_after(std::time::Duration::from_secs(1))
        })
    }
}

/// What a request to the drop-in means.
enum Meant {
    Buy(&'static Family),
    Look(&'static Family, ProviderId),
}

/// Reads method and path; `None` for anything the provider does not have.
fn meant(method: &Method, path: &str) -> Option<Meant> {
    let path = path.strip_prefix("v1/")?;
    if *method == Method::POST {
        return Family::of(path.strip_suffix("/generate")?).map(Meant::Buy);
    }
    // The documentation of Sora puts a slash behind the id (provider.md 10.5).
    let path = path.strip_suffix('/').unwrap_or(path);
    let (family, id) = path.rsplit_once("/generations/")?;
    (*method == Method::GET).then_some(Meant::Look(Family::of(family)?, ProviderId::parse(id).ok()?))
}

/// Everything under `/gateway`.
async fn serve(
    State(keys): State<ApiKeys>,
    State(counter): State<Counter>,
    path: Result<Named, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    match path.ok().and_then(|Named(path)| meant(&parts.method, &path)) {
        Some(Meant::Buy(family)) => {
            let caller = keys.authorize(&parts.headers, Scope::Submit)?;
            Seat::keep(&parts.extensions);
            buy(&counter, family, &caller, &parts.headers, body).await
        }
        Some(Meant::Look(family, provider_id)) => {
            keys.authorize(&parts.headers, Scope::Read)?;
            Seat::keep(&parts.extensions);
            look(counter, family, provider_id).await
        }
        None => {
            keys.authenticate(&parts.headers)?;
            Err(Problem::not_found(
                "The gateway has POST /gateway/v1/{family}/generate and GET /gateway/v1/{family}/generations/{id}, for the \
                 families of /v1/models and ids of A-Z, a-z, 0-9, _ and -.",
            ))
        }
    }
}

/// Buys a generation, as the provider sells it.
///
/// The body goes to the provider as it came but for `callback_url`; the provider's status and body come back unchanged. The intent is
/// kept before anything is sent. Send it again only after a 502 `PROVIDER_UNREACHABLE`, or with the same `Idempotency-Key`.
#[utoipa::path(post, path = "/gateway/v1/{family}/generate", tag = "gateway", operation_id = "buy_generation", security(("key" = ["submit"])),
    params(OfFamily, IdempotencyKey, MetadataHeader),
    request_body(content = Purchase),
    responses(Sold))]
async fn buy(
    counter: &Counter,
    family: &'static Family,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = idempotency::key(headers)?;
    let metadata = metadata(headers)?;
    let room = counter.room(headers)?;
    let body = Bytes::from(extract::body(body, counter.body_bytes_max).await?);
    let (order, body_sha256) = read(family, body.clone()).await?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let scope = format!("{} POST /gateway/v1/{}/generate", caller.0, family.path);
    let (idempotency, pass_trace) = (key.map(|key| (scope, key)), headers.contains_key("traceparent"));
    let wanted = Wanted { family, order, body, body_sha256, content_type, metadata, pass_trace, idempotency };
    let (answer, answered) = oneshot::channel();
    let gateway = counter.gateway.clone();
    // A caller that hangs up drops this future, not the purchase.
    counter.tasks.carry(async move {
        gateway.purchase(wanted, answer).await;
        drop(room);
    });
    let bought = answered.await.map_err(|_| {
        Problem::internal("Something went wrong on our side. Look up the generation before you buy it again.")
    })?;
    sold(bought.map_err(refusal)?)
}

/// What the body asks for, and its hash.
async fn read(family: &'static Family, body: Bytes) -> Result<(Order, [u8; 32]), Problem> {
    let bytes = body.len();
    let read = move || (Order::read(family, &body), Sha256::digest(&body).into());
    let (order, sha256) = if bytes < READ_IN_PLACE_BYTES_MAX {
        read()
    } else {
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| Problem::internal("The body could not be read.").caused_by(&error))?
    };
    let order = order.map_err(|error| match error {
        NotAPurchase::NotAnObject(why) => Problem::invalid_json(format!("The body must be a JSON object: {why}.")),
        NotAPurchase::CallbackUrl => invalid_field("/callback_url", error.to_string()),
    })?;
    Ok((order, sha256))
}

fn refusal(error: PurchaseError) -> Problem {
    match error {
        PurchaseError::Store(error) => Problem::from(error),
        PurchaseError::NoSecret => {
            Problem::internal("There is no secret to sign callback URLs with.").caused_by(&error)
        }
        PurchaseError::UnderWay(generation) => idempotency::in_use(generation),
        PurchaseError::OtherBody(generation) => idempotency::reused(generation),
    }
}

/// The provider's answer unchanged, or the problem where there was none.
fn sold(bought: Bought) -> Result<Response, Problem> {
    let Bought { generation, reply, replayed, recorded } = bought;
    let Some(status) = reply.http_status.and_then(|status| StatusCode::from_u16(status).ok()) else {
        let mut problem = named(no_answer(&reply), generation);
        if replayed {
            problem = problem.with_header(idempotency::REPLAYED, HeaderValue::from_static("true"));
        }
        return Err(problem);
    };
    let mut response = (status, reply.body).into_response();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    put(headers, CONTENT_TYPE, reply.content_type);
    put(headers, RETRY_AFTER, reply.retry_after);
    put(headers, ERROR_CODE, reply.error_code);
    put(headers, GENERATION, Some(generation.to_string()));
    if replayed {
        idempotency::mark_replayed(headers);
    }
    if !recorded {
        headers.insert(UNRECORDED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(name, value);
    }
}

fn no_answer(reply: &Reply) -> Problem {
    match reply.result {
        SubmitResult::NotSent => Problem::provider_unreachable(
            "There was no connection to the provider, so nothing was sent and nothing was charged. It is safe to send it again.",
        ),
        SubmitResult::Accepted | SubmitResult::Refused | SubmitResult::Unclear => Problem::submit_unconfirmed(
            "The purchase was sent and no usable answer came back: it may have been charged. Do not send it again; it is on \
             record under the id in Recoup-Generation, and its webhook settles it if it was bought.",
        ),
    }
    .caused_by(&reply.said)
}

/// The status of a generation in the provider's shape, from our records and at no cost to the budget.
///
/// One that is not known here is asked about once and taken on. A poll after the shortest usual time may pull the first read forward, at
/// most once in 15 s for each generation and never beyond the budget; what it brings the next poll tells.
#[utoipa::path(get, path = "/gateway/v1/{family}/generations/{generation_id}", tag = "gateway", operation_id = "get_generation_as_provider", security(("key" = ["read"])),
    params(OfFamily, OfProvider),
    responses((status = 200, description = "As the provider documents it for this family.", body = ProviderStatus,
        headers(("Recoup-Generation" = GenerationId, description = "Our id of it."))), Looking))]
async fn look(counter: Counter, family: &'static Family, provider_id: ProviderId) -> Result<Response, Problem> {
    let (answer, answered) = oneshot::channel();
    let adopter = counter.adopter;
    counter.tasks.carry(async move { drop(answer.send(adopter.find(family, &provider_id).await)) });
    let found = answered.await.map_err(|_| Problem::internal("Something went wrong on our side."))?;
    let generation = found?;
    counter.polls.note(&generation).await;
    let mut response = Json(shape::status(&generation)).into_response();
    put(response.headers_mut(), GENERATION, Some(generation.id.to_string()));
    Ok(response)
}

/// The caller's labels: a JSON object of strings.
fn metadata(headers: &HeaderMap) -> Result<Option<BTreeMap<String, String>>, Problem> {
    let mut values = headers.get_all(METADATA).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let labels: Option<BTreeMap<String, String>> = serde_json::from_slice(value.as_bytes()).ok();
    match (labels, values.next()) {
        (Some(labels), None) => {
            registration::labels(Some(&labels))
                .map_err(|problem| invalid_header("Recoup-Metadata", problem.detail()))?;
            Ok(Some(labels))
        }
        _ => Err(invalid_header("Recoup-Metadata", "must stand once and be a JSON object of strings")),
    }
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    #[derive(OpenApi)]
    #[openapi(paths(buy, look))]
    struct Described;
    OpenApiRouter::with_openapi(Described::openapi()).route("/gateway/{*path}", any(serve))
}
