//! Telling of generations: prepare one, register one bought elsewhere, add what became known.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::auth::{Caller, MaySubmit};
use super::document::refusals::{Amending, Creating};
use super::document::requests::{IdempotencyKey, KnownFamily, Labels, Price};
use super::extract::{self, API_BODY_BYTES_MAX, ApiJson, Named, invalid_field};
use super::parameter::OfGeneration;
use super::problem::Problem;
use super::{Api, idempotency};
use crate::domain::callback::{Reference, callback_url};
use crate::domain::family::{FAMILIES, Family};
use crate::domain::generation::{Details, Request};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::money::Usd;
use crate::domain::shown::Shown;
use crate::domain::time::Time;
use crate::store::{Amended, Created, Creation, Idempotency, Render};

/// How far a purchase may lie in the future: clocks differ.
const SKEW: Duration = Duration::from_mins(5);
/// Longest clip that can be registered, in seconds.
const DURATION_SECONDS_MAX: u32 = 3_600;
/// Longest prompt in characters: the longest documented limit is 4,000.
const PROMPT_CHARS_MAX: usize = 10_000;
const MODEL_CHARS_MAX: usize = 128;
pub(super) const LABELS_MAX: usize = 50;
pub(super) const LABEL_KEY_CHARS_MAX: usize = 64;
pub(super) const LABEL_VALUE_CHARS_MAX: usize = 512;

/// What is told about a purchase.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    /// Where it is bought; Kling O3 video where none is named.
    #[schema(value_type = Option<KnownFamily>)]
    family: Option<String>,
    /// The provider's id: with it, the generation was bought elsewhere; without it, it is about to be.
    generation_id: Option<ProviderId>,
    #[schema(min_length = 1, max_length = 128)]
    model: Option<String>,
    #[schema(minimum = 1, maximum = 3600)]
    duration_seconds: Option<u32>,
    #[schema(value_type = Option<Price>)]
    price: Option<Usd>,
    /// Not later than five minutes from now: clocks differ.
    submitted_at: Option<Time>,
    #[schema(min_length = 1, max_length = 10000)]
    prompt: Option<String>,
    #[schema(value_type = Option<Labels>)]
    metadata: Option<BTreeMap<String, String>>,
}

/// What is added to a purchase. A fact that is known stays; `metadata` is replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Amendment {
    generation_id: Option<ProviderId>,
    #[schema(min_length = 1, max_length = 128)]
    model: Option<String>,
    #[schema(minimum = 1, maximum = 3600)]
    duration_seconds: Option<u32>,
    #[schema(value_type = Option<Price>)]
    price: Option<Usd>,
    /// Not later than five minutes from now: clocks differ.
    submitted_at: Option<Time>,
    #[schema(min_length = 1, max_length = 10000)]
    prompt: Option<String>,
    #[schema(value_type = Option<Labels>)]
    metadata: Option<BTreeMap<String, String>>,
}

impl From<Amendment> for Registration {
    fn from(amendment: Amendment) -> Self {
        let Amendment { generation_id, model, duration_seconds, price, submitted_at, prompt, metadata } = amendment;
        Self { family: None, generation_id, model, duration_seconds, price, submitted_at, prompt, metadata }
    }
}

impl Registration {
    /// The family; Kling O3 video where none is named.
    fn family(&self) -> Result<&'static Family, Problem> {
        let Some(path) = &self.family else { return Ok(&FAMILIES[0]) };
        Family::of(path).ok_or_else(|| {
            let known: Vec<_> = FAMILIES.iter().map(|family| family.path).collect();
            invalid_field(
                "/family",
                format!("{path:?} is not a family of the provider; known are {}", known.join(", ")),
            )
        })
    }

    fn details(self, now: Time) -> Result<Details, Problem> {
        if self.duration_seconds.is_some_and(|seconds| !(1..=DURATION_SECONDS_MAX).contains(&seconds)) {
            let detail = format!("must be from 1 to {DURATION_SECONDS_MAX} seconds");
            return Err(invalid_field("/duration_seconds", detail));
        }
        if self.submitted_at.is_some_and(|at| at > now + SKEW) {
            return Err(invalid_field("/submitted_at", "lies in the future"));
        }
        short("/model", self.model.as_deref(), MODEL_CHARS_MAX)?;
        short("/prompt", self.prompt.as_deref(), PROMPT_CHARS_MAX)?;
        labels(self.metadata.as_ref())?;
        Ok(Details {
            provider_id: self.generation_id,
            price: self.price,
            submitted_at: self.submitted_at,
            request: Request { model: self.model, duration_seconds: self.duration_seconds, prompt: self.prompt },
            metadata: self.metadata,
        })
    }
}

fn short(pointer: &str, text: Option<&str>, chars_max: usize) -> Result<(), Problem> {
    match text {
        Some("") => Err(invalid_field(pointer, "must not be empty; leave it out instead")),
        Some(text) if text.chars().count() > chars_max => {
            Err(invalid_field(pointer, format!("may have at most {chars_max} characters")))
        }
        Some(_) | None => Ok(()),
    }
}

/// What labels may be: few, and short.
pub(super) fn labels(metadata: Option<&BTreeMap<String, String>>) -> Result<(), Problem> {
    let Some(metadata) = metadata else { return Ok(()) };
    if metadata.len() > LABELS_MAX {
        return Err(invalid_field("/metadata", format!("may have at most {LABELS_MAX} entries")));
    }
    for (key, value) in metadata {
        if !(1..=LABEL_KEY_CHARS_MAX).contains(&key.chars().count()) {
            return Err(invalid_field("/metadata", format!("a key must have 1 to {LABEL_KEY_CHARS_MAX} characters")));
        }
        if value.chars().count() > LABEL_VALUE_CHARS_MAX {
            let pointer = format!("/metadata/{}", key.replace('~', "~0").replace('/', "~1"));
            return Err(invalid_field(&pointer, format!("may have at most {LABEL_VALUE_CHARS_MAX} characters")));
        }
    }
    Ok(())
}

/// Registers a generation bought elsewhere, or prepares one that is about to be bought.
///
/// With `generation_id` it registers; what is not known yet of one that is known is filled in. Without it, it prepares: the answer
/// has a `callback_url` for the provider. Done once for each `Idempotency-Key`.
#[utoipa::path(post, path = "/v1/generations", tag = "generations", operation_id = "create_generation", security(("key" = ["submit"])),
    params(IdempotencyKey),
    request_body(content = Registration),
    responses(
        (status = 201, description = "New.", body = Made, headers(
            ("Location" = String, description = "Where it is."),
            ("Idempotency-Replayed" = String, description = "`true` for a recorded answer."))),
        (status = 200, description = "It was known; gaps were filled.", body = Made, headers(
            ("Idempotency-Replayed" = String, description = "`true` for a recorded answer."))),
        Creating))]
pub(super) async fn create(
    State(api): State<Api>,
    MaySubmit(caller): MaySubmit,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = idempotency::key(&headers)?;
    let body = extract::body(body, API_BODY_BYTES_MAX).await?;
    let registration: Registration = extract::parse(&body)?;
    let (family, now) = (registration.family()?, api.clock.now());
    let details = registration.details(now)?;
    let id = GenerationId::fresh(now);
    let callback_url = match details.provider_id {
        Some(_) => None,
        None => api.mint(family, id)?,
    };
    let show = {
        let api = api.clone();
        move |created: &Created| api.created(created, callback_url.clone())
    };
    let idempotency = key.map(|key| {
        let used = Idempotency { scope: scope(&caller), key, body_sha256: Sha256::digest(&body).into() };
        let render: Render = Box::new(show.clone());
        (used, render)
    });
    let creation = Creation { id, family, details, idempotency };
    match api.store.create(&api.rules, creation, now).await? {
        Created::Repeated(repeated) => {
            let (generation, (status, body)) = idempotency::answered(repeated)?;
            let mut response = answer(generation, status, body);
            idempotency::mark_replayed(response.headers_mut());
            Ok(response)
        }
        ref created @ (Created::New(ref generation) | Created::Known(ref generation)) => {
            let (status, body) = show(created);
            Ok(answer(generation.id, status, body))
        }
    }
}

/// Whose key an idempotency key is, and for what.
fn scope(caller: &Caller) -> String {
    format!("{} POST /v1/generations", caller.0)
}

fn answer(generation: GenerationId, status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
    if status == StatusCode::CREATED
        && let Ok(location) = HeaderValue::try_from(format!("/v1/generations/{generation}"))
    {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What was registered or prepared.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedGeneration)]
struct Made {
    #[serde(flatten)]
    generation: Shown,
    /// The `callback_url` to hand to the provider with the purchase. It is a credential. Null for one that was bought already, and
    /// where the provider does not reach this service: then it is to be given none.
    callback_url: Option<String>,
}

impl Api {
    /// What the provider is to call about this generation.
    fn mint(&self, family: &Family, id: GenerationId) -> Result<Option<String>, Problem> {
        let Some(public_url) = &self.public_url else { return Ok(None) };
        let token = self.keys.mint(family, Reference::Generation(id));
        let token = token.ok_or_else(|| Problem::internal("There is no secret to sign callback URLs with."))?;
        Ok(Some(callback_url(public_url, family, &token)))
    }

    /// The answer: 201 with the address for the provider, or 200 for one that was known.
    fn created(&self, created: &Created, callback_url: Option<String>) -> (u16, Vec<u8>) {
        let (status, generation) = match created {
            Created::New(generation) => (201, generation),
            Created::Known(generation) => (200, generation),
            // Nothing was made: the store answers with what it kept.
            Created::Repeated(_) => return (200, Vec::new()),
        };
        let made = Made { generation: self.view(generation.clone()), callback_url };
        (status, serde_json::to_vec(&made).unwrap_or_default())
    }
}

/// Adds what became known of a generation: binds the provider's id and price of a prepared one, replaces its labels.
#[utoipa::path(patch, path = "/v1/generations/{id}", tag = "generations", operation_id = "amend_generation", security(("key" = ["submit"])),
    params(OfGeneration),
    request_body(content = Amendment),
    responses((status = 200, description = "The generation with it.", body = Shown), Amending))]
pub(super) async fn amend(
    State(api): State<Api>,
    MaySubmit(caller): MaySubmit,
    Named(id): Named,
    ApiJson(amendment): ApiJson<Amendment>,
) -> Result<Json<Shown>, Problem> {
    let now = api.clock.now();
    let id = api.resolve(&id).await?;
    let details = Registration::from(amendment).details(now)?;
    match api.store.amend(&api.rules, id, details, caller.0, now).await? {
        Amended::Done(generation) => Ok(Json(api.view(generation))),
        Amended::Unknown => Err(Problem::not_found("There is no generation of this id.")),
        Amended::Taken(other) => {
            Err(Problem::conflict(format!("This generation_id already belongs to {other}. Nothing was changed.")))
        }
        Amended::Refused(fields) => Err(Problem::conflict(format!(
            "{} would overwrite what is known already. Nothing was changed.",
            fields.join(", ")
        ))),
    }
}
