//! Buying through the gateway: the request read, the purchase handed on, the provider's answer given back unchanged.
//!
//! Never decides what an answer means for the money; that is `flow/gateway.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::{Counter, KIB, put};
use crate::domain::family::Family;
use crate::domain::purchase::{NotAPurchase, Order, Reply, SubmitResult};
use crate::flow::gateway::{Bought, PurchaseError, Wanted};
use crate::http::auth::Caller;
use crate::http::document::requests::{IdempotencyKey, MetadataHeader, Purchase, RepeatHeaders, Sold};
use crate::http::extract::{self, invalid_field};
use crate::http::idempotency::{self, GENERATION, invalid_header, named};
use crate::http::parameter::OfFamily;
use crate::http::problem::Problem;
use crate::http::registration;

const ERROR_CODE: HeaderName = HeaderName::from_static("recoup-error-code");
/// Only when what came of a purchase could not be kept yet.
const UNRECORDED: HeaderName = HeaderName::from_static("recoup-unrecorded");
const METADATA: &str = "recoup-metadata";
/// Longer bodies are read on a thread of their own: 67 MB keep a core busy for a tenth of a second.
const READ_IN_PLACE_BYTES_MAX: usize = 256 * KIB;

/// Buys a generation, as the provider sells it.
///
/// The body goes to the provider as it came but for `callback_url`; the provider's status and body come back unchanged. The intent is
/// kept before anything is sent. A request that repeats a purchase is not sent: it waits for what becomes of the first and is answered that.
/// It repeats one with the same API key, route and body, and the same `X-Request-ID` within a day, or the same `Idempotency-Key`, or without
/// a key within ten minutes of one whose answer was lost. Who wants another one sends an `Idempotency-Key` of its own.
#[utoipa::path(post, path = "/gateway/v1/{family}/generate", tag = "gateway", operation_id = "buy_generation", security(("key" = ["submit"])),
    params(OfFamily, IdempotencyKey, RepeatHeaders, MetadataHeader),
    request_body(content = Purchase),
    responses(Sold))]
pub(super) async fn buy(
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
    let wanted = Wanted {
        family,
        order,
        body,
        body_sha256,
        content_type,
        metadata,
        pass_trace: headers.contains_key("traceparent"),
        scope,
        idempotency_key: key,
        request_id: idempotency::request_id(headers),
        patience: idempotency::patience(headers).map_or(counter.repeat_wait, |wait| wait.min(counter.repeat_wait)),
        room: Some(room),
    };
    let (answer, answered) = oneshot::channel();
    let gateway = counter.gateway.clone();
    // A caller that hangs up drops this future, not the purchase.
    counter.tasks.carry(async move { gateway.purchase(wanted, answer).await });
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
    let Bought { generation, reply, replayed, is_repeat, recorded } = bought;
    let Some(status) = reply.http_status.and_then(|status| StatusCode::from_u16(status).ok()) else {
        let mut problem = named(no_answer(&reply, is_repeat), generation);
        if replayed {
            problem = problem.with_header(idempotency::REPLAYED, HeaderValue::from_static("true"));
        }
        return Err(if is_repeat { idempotency::repeat_of(problem, generation) } else { problem });
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
    if is_repeat {
        put(headers, idempotency::REPEAT_OF, Some(generation.to_string()));
    }
    if !recorded {
        headers.insert(UNRECORDED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// When to come again after an answer was lost: at once, since it is here that the repeat waits.
const LOST_RETRY_AFTER: Duration = Duration::from_secs(1);

fn no_answer(reply: &Reply, is_repeat: bool) -> Problem {
    match reply.result {
        SubmitResult::NotSent => Problem::provider_unreachable(
            "There was no connection to the provider, so nothing was sent and nothing was charged. It is safe to send it again.",
        ),
        SubmitResult::Accepted | SubmitResult::Refused | SubmitResult::Unclear => {
            let detail = if is_repeat {
                "This repeats a purchase whose answer was lost, so it was not sent: it may have been charged. It is on record under \
                 the id in Recoup-Repeat-Of. Ask again later; who wants another one sends an Idempotency-Key of its own."
            } else {
                "The purchase was sent and no usable answer came back: it may have been charged. It is on record under the id in \
                 Recoup-Generation. The same request again is not sent: it waits for what became of this one."
            };
            let wait = reply.retry_after.as_deref().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
            Problem::submit_unconfirmed(detail).retry_after(wait.unwrap_or(LOST_RETRY_AFTER))
        }
    }
    .caused_by(&reply.said)
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
