//! The only axum: routes, limits, layers. Handlers extract, call a flow or a read, and answer.
//!
//! Never decides anything, never touches SQL, never logs a token, a key or a body.

mod answers;
mod attempts;
mod auth;
mod catalogue;
mod credits;
mod crowd;
mod deliveries;
mod docs;
mod document;
mod events;
mod extract;
mod gateway;
mod generations;
mod health;
mod idempotency;
mod lingering;
mod log;
mod page;
mod parameter;
mod places;
mod probe;
mod problem;
mod registration;
mod scrape;
mod seats;
pub mod server;
mod stats;
mod view;
mod webhook;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use url::Url;
use utoipa_axum::router::OpenApiRouter;

pub use auth::ApiKeys;
pub use crowd::Crowds;
pub use gateway::Counter;
pub use places::Places;
pub use probe::{PROBE, Probe};
pub use webhook::Gate;

use crate::clock::Clock;
use crate::domain::callback::CallbackKeys;
use crate::domain::schedule::Rules;
use crate::flow::intake::Intake;
use crate::flow::poll::Polls;
use crate::flow::reconcile::Asks;
use crate::planted;
use crate::provider::budget::Budget;
use crate::store::Store;
#[cfg(any(test, fuzzing))]
use crate::store::{Filter, Paging};
use crate::worker::sweep::Swept;

/// What the API reads and writes with.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where everything is kept.
    pub store: Store,
    /// How it is judged.
    pub rules: Arc<Rules>,
    /// Signs callback URLs.
    pub keys: CallbackKeys,
    /// Where the provider reaches us; `None` where it does not, and outcomes are read.
    pub public_url: Option<String>,
    /// When it is.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when waiting is over.
    pub stop: CancellationToken,
}

/// What readiness and metrics look at.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The budget of status reads.
    pub budget: Arc<Budget>,
    /// What the sweeper does.
    pub sweeper: watch::Receiver<Swept>,
    /// The counters.
    pub metrics: PrometheusHandle,
    /// Whether metrics are served without a key: on a listener of their own.
    pub metrics_open: bool,
    /// Where events go: the names of the outlets.
    pub outlets: Arc<[String]>,
    /// Where the provider is.
    pub provider_url: Url,
    /// Where this machine reaches us: everything but the webhooks.
    pub listening_at: String,
}

impl Parts {
    fn sweeping(&self) -> bool {
        self.sweeper.has_changed().is_ok()
    }
}

/// Everything handlers are made of; each asks for the parts it uses.
pub type AppState = Arc<Everything>;

/// What [`AppState`] shares.
#[derive(Debug)]
pub struct Everything {
    /// The API.
    pub api: Api,
    /// The way in for webhooks.
    pub intake: Intake,
    /// Who may send them.
    pub gate: Gate,
    /// The drop-in for the provider.
    pub counter: Counter,
    /// People's requests for a read.
    pub asks: Asks,
    /// Clients that poll.
    pub polls: Polls,
    /// Who may call.
    pub api_keys: ApiKeys,
    /// What is looked at.
    pub parts: Parts,
    /// How many may be served at once.
    pub crowds: Crowds,
}

macro_rules! parts_of_the_state {
    ($($part:ty = $field:ident,)+) => {
        $(impl FromRef<AppState> for $part {
            fn from_ref(state: &AppState) -> Self {
                state.$field.clone()
            }
        })+
    };
}

parts_of_the_state! {
    Api = api,
    Intake = intake,
    Counter = counter,
    Asks = asks,
    Polls = polls,
    ApiKeys = api_keys,
    Parts = parts,
}

/// What the provider may reach.
pub fn public_router(state: &AppState) -> Router {
    if planted::is(planted::Fault::AdminOnPublic) {
        return whole_router(state);
    }
    finish(state, webhook::routes().into())
}

/// Everything else, for a listener of its own.
pub fn admin_router(state: &AppState) -> Router {
    finish(state, operator_routes(state))
}

/// Both on one listener.
pub fn whole_router(state: &AppState) -> Router {
    finish(state, Router::from(webhook::routes()).merge(operator_routes(state)))
}

/// The API document (`OpenAPI` 3.1), as JSON for people: made of the same routes that are served.
pub fn document_text() -> String {
    let routes = webhook::routes().merge(called_routes()).merge(uncounted_routes()).merge(health::live_routes());
    let document = document::document(routes.into_openapi());
    format!("{document:#}\n")
}

/// What people and their programs call: so many at once, and none with yet another wrong key.
fn operator_routes(state: &AppState) -> Router<AppState> {
    Router::from(called_routes())
        .merge(page::routes())
        .route_layer(middleware::from_fn_with_state(state.crowds.clone(), crowd::call))
        .merge(Router::from(uncounted_routes()))
        .route_layer(middleware::from_fn_with_state(Arc::clone(state), auth::slow_down))
}

fn called_routes() -> OpenApiRouter<AppState> {
    let money = credits::routes().merge(answers::routes()).merge(events::routes());
    let told = catalogue::routes().merge(stats::routes()).merge(docs::routes());
    generations::routes().merge(money).merge(deliveries::routes()).merge(told)
}

/// The gateway has a limit of its own, and whether it lives must be seen in the largest crowd.
fn uncounted_routes() -> OpenApiRouter<AppState> {
    gateway::routes().merge(health::routes())
}

/// What the query of a list of generations means; `None` when it is refused. For the fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) fn list_query(query: &str) -> Option<(Filter, Paging)> {
    let mut query = extract::Query::of(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect());
    let read = (generations::filter(&mut query).ok()?, generations::paging(&mut query).ok()?);
    query.end().ok()?;
    Some(read)
}

fn finish(state: &AppState, routes: Router<AppState>) -> Router {
    let around = log::Around { clock: Arc::clone(&state.api.clock), tasks: state.counter.tasks.clone() };
    routes
        .merge(Router::from(health::live_routes()))
        .fallback(async || problem::Problem::not_found("There is nothing here."))
        .method_not_allowed_fallback(async || {
            problem::Problem::method_not_allowed("This route does not know the method.")
        })
        .layer(CatchPanicLayer::custom(log::panicked))
        .layer(middleware::from_fn_with_state(around, log::request))
        .layer(CatchPanicLayer::custom(log::panicked_outside))
        .with_state(Arc::clone(state))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What axum itself says its routes are.
    fn routes(router: &Router<AppState>) -> BTreeSet<String> {
        let shown = format!("{router:?}");
        let quoted = shown.split('"').skip(1).step_by(2);
        quoted.filter(|text| text.starts_with('/')).map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_described_and_every_description_is_a_route() {
        let all: Router<AppState> = Router::from(
            webhook::routes().merge(called_routes()).merge(uncounted_routes()).merge(health::live_routes()),
        );
        let (all, page) = (routes(&all.merge(page::routes())), routes(&page::routes()));
        assert!(all.contains("/v1/generations/{id}") && page.contains("/generations/{id}"), "{all:?} {page:?}");
        let document: serde_json::Value = serde_json::from_str(&document_text()).unwrap();
        let described = document["paths"].as_object().unwrap().keys().map(|path| match path.as_str() {
            "/webhooks/{family}/{token}" => "/webhooks/{*path}".to_owned(),
            path if path.starts_with("/gateway/v1/") => "/gateway/{*path}".to_owned(),
            path => path.to_owned(),
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), all.difference(&page).cloned().collect());
    }
}
