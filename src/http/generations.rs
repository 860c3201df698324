//! `/v1/generations`: list, read, wait, check, confirm a refund. Telling of one is `registration`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{MayOperate, MayRead};
use super::crowd::Place;
use super::document::refusals::{Checking, Listing, Operating, Reading};
use super::extract::{Named, Query, invalid_parameter};
use super::parameter::{Asked, Form, OfGeneration, Parameter, Parameters};
use super::problem::Problem;
use super::view::ListView;
use super::{Api, AppState, registration};
use crate::domain::credits::CreditState;
use crate::domain::family::{FAMILIES, Family};
use crate::domain::generation::{Attention, Generation, Status};
use crate::domain::id::{CheckId, GenerationId, ProviderId};
use crate::domain::outcome::Source;
use crate::domain::pass_through;
use crate::domain::shown::Shown;
use crate::domain::time::Time;
use crate::flow::poll::Polls;
use crate::flow::reconcile::Asks;
use crate::store::{CheckRecord, Entry, Filter, Order, Paging, Refund};

/// Longest `?wait`, in seconds.
const WAIT_SECONDS_MAX: u32 = 60;
/// Rows of a page: usual and most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// What pages of any list are asked for with.
pub(super) const PAGING: &[Parameter] = &[
    Parameter { name: "order", about: "Newest or oldest first.", form: Form::Word(&["desc", "asc"]) },
    Parameter { name: "limit", about: "Rows of a page.", form: Form::Whole { from: 1, to: LIMIT_MAX, usual: LIMIT } },
    Parameter { name: "cursor", about: "`next_cursor` of the page before, as it came.", form: Form::Text },
];

const FILTERS: &[Parameter] = &[
    Parameter { name: "status", about: "In one of these states.", form: Form::Words(statuses) },
    Parameter {
        name: "attention",
        about: "Calling for a person, for one of these reasons or for `any`.",
        form: Form::Words(attentions),
    },
    Parameter { name: "credits", about: "With the credits there.", form: Form::Words(credits) },
    Parameter { name: "error_code", about: "Failed or refused with one of these codes.", form: Form::Texts },
    Parameter { name: "family", about: "Of one of these families.", form: Form::Words(families) },
    Parameter { name: "model", about: "Of one of these models.", form: Form::Texts },
    Parameter { name: "source", about: "Whose outcome was learned so.", form: Form::Words(sources) },
    Parameter {
        name: "doubled",
        about: "`true`: only those of which an equal purchase (the same prompt, family, model and length) was made within ten minutes.",
        form: Form::Word(&["false", "true"]),
    },
    Parameter { name: "created_after", about: "Known here since then.", form: Form::Time },
    Parameter { name: "created_before", about: "Known here before then.", form: Form::Time },
    Parameter { name: "metadata", about: "With these labels: `metadata[key]=value`.", form: Form::Labels },
];

/// What the list of generations is asked for with.
pub(super) struct InList;

impl Parameters for InList {
    const LIST: &'static [&'static [Parameter]] = &[FILTERS, PAGING];
}

/// What one generation is asked for with.
pub(super) struct OfOne;

impl Parameters for OfOne {
    const LIST: &'static [&'static [Parameter]] = &[&[Parameter {
        name: "wait",
        about: "Seconds to wait for the outcome.",
        form: Form::Whole { from: 0, to: WAIT_SECONDS_MAX, usual: 0 },
    }]];
}

fn statuses() -> Vec<&'static str> {
    Status::ALL.iter().map(|word| word.as_str()).collect()
}

fn attentions() -> Vec<&'static str> {
    Attention::ALL.iter().map(|word| word.as_str()).chain(["any"]).collect()
}

fn credits() -> Vec<&'static str> {
    CreditState::ALL.iter().map(|word| word.as_str()).collect()
}

fn families() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.path).collect()
}

fn sources() -> Vec<&'static str> {
    Source::ALL.iter().map(|word| word.as_str()).chain(["gateway"]).collect()
}

/// A read of the provider's status.
#[derive(Serialize, ToSchema)]
#[schema(as = Check)]
struct ReadView {
    id: CheckId,
    sent_at: Time,
    /// Null when no answer was kept.
    answered_at: Option<Time>,
    /// `known`, `not_found`, `paused` or `nothing`.
    answer: Option<String>,
    http_status: Option<u16>,
    /// What was said, in a few words.
    said: Option<String>,
}

impl From<CheckRecord> for ReadView {
    fn from(record: CheckRecord) -> Self {
        let CheckRecord { id, sent_at, answered_at, answer, http_status, said } = record;
        Self { id, sent_at, answered_at, answer, http_status, said }
    }
}

/// A check that was asked for, and the generation after it.
#[derive(Serialize, ToSchema)]
#[schema(as = CheckOfGeneration)]
pub(super) struct CheckView {
    check: ReadView,
    generation: Shown,
}

impl Api {
    pub(super) fn view(&self, generation: Generation) -> Shown {
        Shown::of(generation, self.clock.now(), self.rules.refund_window)
    }

    /// The same with every link of its result.
    async fn view_whole(&self, generation: Generation) -> Result<Shown, Problem> {
        if generation.state.result_url().is_none() {
            return Ok(self.view(generation));
        }
        let bodies = self.store.provider_bodies(&generation, self.rules.confirm).await?;
        let results = pass_through::results(&generation, &bodies);
        Ok(self.view(generation).with_results(results))
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

/// Lists generations, newest first.
///
/// Pages are stable while rows arrive: rows that come later are before the first page.
#[utoipa::path(get, path = "/v1/generations", tag = "generations", operation_id = "list_generations", security(("key" = ["read"])),
    params(Asked<InList>),
    responses((status = 200, description = "A page.", body = ListView<Shown>), Listing))]
pub(super) async fn list(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Asked { mut query, .. }: Asked<InList>,
) -> Result<Json<ListView<Shown>>, Problem> {
    let filter = filter(&mut query)?;
    let paging = paging(&mut query)?;
    query.end()?;
    let page = api.store.generations(&filter, &paging, api.clock.now(), api.rules.refund_window).await?;
    Ok(Json(ListView::of(page, |generation| api.view(generation))))
}

pub(super) fn filter(query: &mut Query) -> Result<Filter, Problem> {
    let words = |words: &[&str]| format!("one of {}", words.join(", "));
    let attention = query.words("attention", &words(&attentions()), |word| match word {
        "any" => Some(None),
        word => Attention::parse(word).map(Some),
    })?;
    let sources = query.words("source", &words(&sources()), |word| match word {
        "gateway" => Some(None),
        word => Source::parse(word).map(Some),
    })?;
    let mut filter = Filter {
        statuses: query.words("status", &words(&statuses()), Status::parse)?,
        any_attention: attention.contains(&None),
        attentions: attention.into_iter().flatten().collect(),
        credits: query.words("credits", &words(&credits()), CreditState::parse)?,
        error_codes: query.all("error_code"),
        families: query
            .words("family", &words(&families()), |path| Family::of(path).map(|family| family.path.to_owned()))?,
        models: query.all("model"),
        refused_at_submission: sources.contains(&None),
        sources: sources.into_iter().flatten().collect(),
        doubled: doubled(query)?,
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

fn doubled(query: &mut Query) -> Result<bool, Problem> {
    match query.one("doubled")?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(invalid_parameter("doubled", format!("{other:?} is not allowed; it must be true or false"))),
    }
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

/// One generation; with `wait` as soon as it is final.
///
/// Asking counts as a poll: after the shortest usual time it may pull the first read of the provider's status forward.
#[utoipa::path(get, path = "/v1/generations/{id}", tag = "generations", operation_id = "get_generation", security(("key" = ["read"])),
    params(OfGeneration, Asked<OfOne>),
    responses((status = 200, description = "The generation.", body = Shown), Reading))]
pub(super) async fn one(
    State(api): State<Api>,
    State(polls): State<Polls>,
    MayRead(_caller): MayRead,
    place: Place,
    Named(id): Named,
    Asked { mut query, .. }: Asked<OfOne>,
) -> Result<Json<Shown>, Problem> {
    let wait = query.number("wait", 0..=WAIT_SECONDS_MAX)?.unwrap_or(0);
    query.end()?;
    let mut generation = api.find(&id).await?;
    polls.note(&generation).await;
    if wait == 0 || generation.state.settled_at().is_some() {
        return Ok(Json(api.view_whole(generation).await?));
    }
    place.give_back();
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
    Ok(Json(api.view_whole(generation).await?))
}

/// Everything that happened to a generation, oldest first.
#[utoipa::path(get, path = "/v1/generations/{id}/timeline", tag = "generations", operation_id = "get_timeline", security(("key" = ["read"])),
    params(OfGeneration),
    responses((status = 200, description = "All of it.", body = ListView<Entry>), Reading))]
pub(super) async fn timeline(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Named(id): Named,
    query: Query,
) -> Result<Json<ListView<Entry>>, Problem> {
    query.end()?;
    let generation = api.find(&id).await?;
    let entries = api.store.timeline(&generation).await?;
    Ok(Json(ListView::whole(entries)))
}

/// Asks the provider now, out of the same budget as every other read of a status.
#[utoipa::path(post, path = "/v1/generations/{id}/checks", tag = "generations", operation_id = "check_generation", security(("key" = ["operate"])),
    params(OfGeneration),
    responses((status = 200, description = "What the provider said, and the generation after it.", body = CheckView), Checking))]
pub(super) async fn check(
    State(api): State<Api>,
    State(asks): State<Asks>,
    MayOperate(_caller): MayOperate,
    place: Place,
    Named(id): Named,
) -> Result<Json<CheckView>, Problem> {
    let id = api.resolve(&id).await?;
    place.give_back();
    let check = asks.check(id).await?;
    let record = api.store.check(check).await?;
    let generation = api.store.generation(id).await?;
    let (Some(record), Some(generation)) = (record, generation) else {
        return Err(Problem::not_found("The generation was removed meanwhile."));
    };
    Ok(Json(CheckView { check: record.into(), generation: api.view(generation) }))
}

/// Confirms that a person saw the credits come back.
#[utoipa::path(post, path = "/v1/generations/{id}/refunds", tag = "generations", operation_id = "confirm_refund", security(("key" = ["operate"])),
    params(OfGeneration),
    responses((status = 200, description = "The generation, refunded.", body = Shown), Operating))]
pub(super) async fn refund(
    State(api): State<Api>,
    MayOperate(caller): MayOperate,
    Named(id): Named,
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

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(list, registration::create))
        .routes(routes!(one, registration::amend))
        .routes(routes!(timeline))
        .routes(routes!(check))
        .routes(routes!(refund))
}
