//! `/v1/generations`: list, read, wait, check, confirm a refund. Telling of one is `registration`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use super::auth::{MayOperate, MayRead};
use super::extract::{Query, invalid_parameter};
use super::problem::Problem;
use super::view::ListView;
use super::{Api, AppState, registration};
use crate::domain::credits::CreditState;
use crate::domain::family::{FAMILIES, Family};
use crate::domain::generation::{Attention, Generation, Status};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::outcome::Source;
use crate::domain::shown::Shown;
use crate::flow::reconcile::Asks;
use crate::store::{Filter, Order, Paging, Refund};

/// Longest `?wait`, in seconds.
const WAIT_SECONDS_MAX: u32 = 60;
/// Rows of a page: usual and most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;
impl Api {
    pub(super) fn view(&self, generation: Generation) -> Shown {
        Shown::of(generation, self.clock.now(), self.rules.refund_window)
    }

    /// The generation of our id or the provider's.
    pub(super) async fn find(&self, id: &str) -> Result<Generation, Problem> {
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

/// `GET /v1/generations`.
pub(super) async fn list(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    mut query: Query,
) -> Result<Json<ListView<Shown>>, Problem> {
    let filter = filter(&mut query)?;
    let paging = paging(&mut query)?;
    query.end()?;
    let page = api.store.generations(&filter, &paging, api.clock.now(), api.rules.refund_window).await?;
    Ok(Json(ListView::of(page, |generation| api.view(generation))))
}

pub(super) fn filter(query: &mut Query) -> Result<Filter, Problem> {
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
) -> Result<Json<Shown>, Problem> {
    let wait = query.number("wait", 0..=WAIT_SECONDS_MAX)?.unwrap_or(0);
    query.end()?;
    let mut generation = api.find(&id).await?;
    if wait == 0 || generation.state.settled_at().is_some() {
        return Ok(Json(api.view(generation)));
    }
    let watched = api.store.watch(generation.id);
    let end = api.clock.sleep(Duration::from_secs(u64::from(wait)));
    tokio::pin!(end);
    loop {
        // Register for the wake-up before looking.
        let mut changed = pin!(watched.changed());
        changed.as_mut().enable();
        generation = api.find(&id).await?;
        if generation.state.settled_at().is_some() {
            break;
        }
        tokio::select! {
            () = changed => {}
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
) -> Result<Json<Shown>, Problem> {
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
        .route("/v1/generations", get(list).post(registration::create))
        .route("/v1/generations/{id}", get(one).patch(registration::amend))
        .route("/v1/generations/{id}/timeline", get(timeline))
        .route("/v1/generations/{id}/checks", post(check))
        .route("/v1/generations/{id}/refunds", post(refund))
}
