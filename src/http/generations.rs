//! `/v1/generations`: prepare, register, bind, list, read, wait, check, confirm a refund.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::auth::{MayOperate, MayRead, MaySubmit};
use super::extract::{ApiJson, Query, invalid_field, invalid_parameter};
use super::problem::Problem;
use super::view::{GenerationView, ListView};
use super::{Api, AppState};
use crate::domain::callback::Reference;
use crate::domain::credits::CreditState;
use crate::domain::family::{FAMILIES, Family};
use crate::domain::generation::{Attention, Details, Generation, Request, Status};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::money::Usd;
use crate::domain::outcome::Source;
use crate::domain::time::Time;
use crate::flow::reconcile::Asks;
use crate::store::{Amended, Filter, Order, Paging, Refund, Registered};

/// Longest `?wait`, in seconds.
const WAIT_SECONDS_MAX: u32 = 60;
/// Rows of a page: usual and most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;
/// How far a purchase may lie in the future: clocks differ.
const SKEW: Duration = Duration::from_mins(5);
/// Longest clip that can be registered, in seconds.
const DURATION_SECONDS_MAX: u32 = 3_600;
/// Longest prompt in characters: the longest documented limit is 4,000.
const PROMPT_CHARS_MAX: usize = 10_000;
const MODEL_CHARS_MAX: usize = 128;
const LABELS_MAX: usize = 50;
const LABEL_KEY_CHARS_MAX: usize = 64;
const LABEL_VALUE_CHARS_MAX: usize = 512;

/// What is told about a purchase.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    family: Option<String>,
    generation_id: Option<ProviderId>,
    model: Option<String>,
    duration_seconds: Option<u32>,
    price: Option<Usd>,
    submitted_at: Option<Time>,
    prompt: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

/// What is added to a purchase.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Amendment {
    generation_id: Option<ProviderId>,
    model: Option<String>,
    duration_seconds: Option<u32>,
    price: Option<Usd>,
    submitted_at: Option<Time>,
    prompt: Option<String>,
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

fn labels(metadata: Option<&BTreeMap<String, String>>) -> Result<(), Problem> {
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

impl Api {
    fn view(&self, generation: Generation) -> GenerationView {
        GenerationView::of(generation, self.clock.now(), self.rules.refund_window)
    }

    /// The generation of our id or the provider's.
    async fn find(&self, id: &str) -> Result<Generation, Problem> {
        if let Ok(own) = GenerationId::parse(id)
            && let Some(generation) = self.store.generation(own).await?
        {
            return Ok(generation);
        }
        let found = match ProviderId::parse(id) {
            Ok(provider_id) => self.store.generation_of(&provider_id).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| Problem::not_found("There is no generation of this id, neither ours nor the provider's."))
    }

    /// Our id of a generation.
    pub(super) async fn resolve(&self, id: &str) -> Result<GenerationId, Problem> {
        Ok(self.find(id).await?.id)
    }
}

/// `POST /v1/generations`.
pub(super) async fn create(
    State(api): State<Api>,
    MaySubmit(_caller): MaySubmit,
    ApiJson(registration): ApiJson<Registration>,
) -> Result<Response, Problem> {
    let now = api.clock.now();
    let family = registration.family()?;
    let mut details = registration.details(now)?;
    match details.provider_id.take() {
        Some(provider_id) => match api.store.register(&api.rules, family, provider_id, details, now).await? {
            Registered::New(generation) => Ok(created(&api, generation, None)),
            Registered::Known(generation) => Ok(Json(api.view(generation)).into_response()),
        },
        None => prepare(&api, family, details, now).await,
    }
}

async fn prepare(api: &Api, family: &'static Family, details: Details, now: Time) -> Result<Response, Problem> {
    let id = GenerationId::fresh(now);
    let token = api.keys.mint(family, Reference::Generation(id));
    let token = token.ok_or_else(|| Problem::internal("There is no secret to sign callback URLs with."))?;
    let generation = api.store.prepare(&api.rules, id, family, details, now).await?;
    Ok(created(api, generation, Some(callback_url(&api.public_url, family, &token))))
}

/// The address the provider is to call.
pub fn callback_url(public_url: &str, family: &Family, token: &str) -> String {
    format!("{}/webhooks/{}/{token}", public_url.trim_end_matches('/'), family.path)
}

fn created(api: &Api, generation: Generation, callback_url: Option<String>) -> Response {
    #[derive(serde::Serialize)]
    struct Created {
        #[serde(flatten)]
        generation: GenerationView,
        #[serde(skip_serializing_if = "Option::is_none")]
        callback_url: Option<String>,
    }
    let location = HeaderValue::try_from(format!("/v1/generations/{}", generation.id));
    let body = Json(Created { generation: api.view(generation), callback_url });
    let headers: HeaderMap = location.into_iter().map(|location| (LOCATION, location)).collect();
    (StatusCode::CREATED, headers, body).into_response()
}

/// `PATCH /v1/generations/{id}`.
pub(super) async fn amend(
    State(api): State<Api>,
    MaySubmit(caller): MaySubmit,
    Path(id): Path<String>,
    ApiJson(amendment): ApiJson<Amendment>,
) -> Result<Json<GenerationView>, Problem> {
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

/// `GET /v1/generations`.
pub(super) async fn list(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    mut query: Query,
) -> Result<Json<ListView<GenerationView>>, Problem> {
    let filter = filter(&mut query)?;
    let paging = paging(&mut query)?;
    query.end()?;
    let page = api.store.generations(&filter, &paging, api.clock.now(), api.rules.refund_window).await?;
    Ok(Json(ListView::of(page, |generation| api.view(generation))))
}

fn filter(query: &mut Query) -> Result<Filter, Problem> {
    let words = |words: &[&str]| format!("one of {}", words.join(", "));
    let statuses: Vec<_> = Status::ALL.iter().map(|word| word.as_str()).collect();
    let attentions: Vec<_> = Attention::ALL.iter().map(|word| word.as_str()).chain(["any"]).collect();
    let credits: Vec<_> = CreditState::ALL.iter().map(|word| word.as_str()).collect();
    let attention = query.words("attention", &words(&attentions), |word| match word {
        "any" => Some(None),
        word => Attention::parse(word).map(Some),
    })?;
    let sources = query.words("source", "one of webhook, check, gateway", |word| match word {
        "gateway" => Some(None),
        word => Source::parse(word).map(Some),
    })?;
    let families: Vec<_> = FAMILIES.iter().map(|family| family.path).collect();
    let mut filter = Filter {
        statuses: query.words("status", &words(&statuses), Status::parse)?,
        any_attention: attention.contains(&None),
        attentions: attention.into_iter().flatten().collect(),
        credits: query.words("credits", &words(&credits), CreditState::parse)?,
        error_codes: query.all("error_code"),
        families: query
            .words("family", &words(&families), |path| Family::of(path).map(|family| family.path.to_owned()))?,
        models: query.all("model"),
        refused_at_submission: sources.contains(&None),
        sources: sources.into_iter().flatten().collect(),
        created_after: query.time("created_after")?,
        created_before: query.time("created_before")?,
        metadata: BTreeMap::new(),
    };
    // Any attention is an alternative to each single one.
    if filter.any_attention {
        filter.attentions.clear();
    }
    for (key, value) in query.keyed("metadata") {
        let name = format!("metadata[{key}]");
        if filter.metadata.insert(key, value).is_some() {
            return Err(invalid_parameter(&name, "may be given only once"));
        }
    }
    Ok(filter)
}

/// `order`, `limit` and `cursor`.
pub(super) fn paging(query: &mut Query) -> Result<Paging, Problem> {
    let order = match query.one("order")?.as_deref() {
        None | Some("desc") => Order::Descending,
        Some("asc") => Order::Ascending,
        Some(other) => {
            return Err(invalid_parameter("order", format!("{other:?} is not allowed; it must be asc or desc")));
        }
    };
    let limit = query.number("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT);
    let after = match query.one("cursor")? {
        None => None,
        Some(text) => Some(Paging::read_cursor(&text, order).ok_or_else(|| {
            invalid_parameter("cursor", "is not a cursor of this list in this order; take next_cursor as it came")
        })?),
    };
    Ok(Paging { order, limit, after })
}

/// `GET /v1/generations/{id}`, with `?wait=SECONDS` as soon as it is final.
pub(super) async fn one(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Json<GenerationView>, Problem> {
    let wait = query.number("wait", 0..=WAIT_SECONDS_MAX)?.unwrap_or(0);
    query.end()?;
    // Register for the wake-up before looking.
    let mut changes = api.store.changes();
    let mut generation = api.find(&id).await?;
    let end = api.clock.sleep(Duration::from_secs(u64::from(wait)));
    tokio::pin!(end);
    while generation.state.settled_at().is_none() && wait > 0 {
        tokio::select! {
            change = changes.recv() => match change {
                Ok(change) if change.id != generation.id => {}
                Ok(_) | Err(RecvError::Lagged(_)) => generation = api.find(&id).await?,
                Err(RecvError::Closed) => break,
            },
            () = &mut end => break,
            () = api.stop.cancelled() => break,
        }
    }
    Ok(Json(api.view(generation)))
}

/// `GET /v1/generations/{id}/timeline`.
pub(super) async fn timeline(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    query.end()?;
    let generation = api.find(&id).await?;
    let entries = api.store.timeline(&generation).await?;
    Ok(Json(ListView::whole(entries)).into_response())
}

/// `POST /v1/generations/{id}/checks`.
pub(super) async fn check(
    State(api): State<Api>,
    State(asks): State<Asks>,
    MayOperate(_caller): MayOperate,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = api.resolve(&id).await?;
    let check = asks.check(id).await?;
    let record = api.store.check(check).await?;
    let generation = api.store.generation(id).await?;
    let (Some(record), Some(generation)) = (record, generation) else {
        return Err(Problem::not_found("The generation was removed meanwhile."));
    };
    let check = serde_json::json!({
        "id": record.id, "sent_at": record.sent_at, "answered_at": record.answered_at, "answer": record.answer,
        "http_status": record.http_status, "said": record.said,
    });
    Ok(Json(serde_json::json!({"check": check, "generation": api.view(generation)})).into_response())
}

/// `POST /v1/generations/{id}/refunds`.
pub(super) async fn refund(
    State(api): State<Api>,
    MayOperate(caller): MayOperate,
    Path(id): Path<String>,
) -> Result<Json<GenerationView>, Problem> {
    let id = api.resolve(&id).await?;
    match api.store.confirm_refund(&api.rules, id, caller.0, api.clock.now()).await? {
        Refund::Confirmed(generation) => Ok(Json(api.view(generation))),
        Refund::Unknown => Err(Problem::not_found("There is no generation of this id.")),
        Refund::NotDue(generation) => Err(Problem::conflict(format!(
            "It is {}: credits can come back only for one that failed, was lost, or was never confirmed.",
            generation.state.status().as_str()
        ))),
    }
}

/// For routes that need the whole state's parts.
pub(super) fn routes() -> axum::Router<AppState> {
    use axum::routing::{get, post};
    axum::Router::new()
        .route("/v1/generations", get(list).post(create))
        .route("/v1/generations/{id}", get(one).patch(amend))
        .route("/v1/generations/{id}/timeline", get(timeline))
        .route("/v1/generations/{id}/checks", post(check))
        .route("/v1/generations/{id}/refunds", post(refund))
}
