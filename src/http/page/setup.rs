//! `/setup`: which URLs to use, whether the provider's key works, whether webhooks arrive, and what this is.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::now::{Warning, reading, warnings};
use super::session::Visitor;
use super::text::{When, clock, count};
use super::{Frame, Refused, Section, answer};
use crate::config::Scope;
use crate::domain::callback::{Reference, callback_url};
use crate::domain::family::FAMILIES;
use crate::domain::trust::Trust;
use crate::http::extract::Query;
use crate::http::{Api, AppState, Parts};
use crate::store::{DeliveryFilter, Order, Paging};

/// The webhooks of one family.
#[derive(Debug)]
struct Arrivals {
    family: String,
    told: String,
    missed: String,
    late: String,
    lately: String,
    lag: String,
    grace: String,
}

impl Arrivals {
    fn of(family: String, trust: &Trust, api: &Api) -> Self {
        let (missed, of) = trust.lately();
        Self {
            family,
            told: count(trust.told),
            missed: count(trust.missed),
            late: count(trust.late),
            lately: format!("{missed} of the last {of} missed"),
            lag: trust.lag(50).map_or_else(|| "–".to_owned(), clock),
            grace: clock(trust.grace(api.rules.grace, api.rules.webhook_retry_window)),
        }
    }
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    frame: Frame,
    public_url: Option<String>,
    /// That outcomes are read, where they are.
    reading: Option<String>,
    provider_url: String,
    gateway_url: String,
    /// Only for those who may buy: such a URL is a credential.
    callback_urls: Vec<(&'static str, String)>,
    may_see_urls: bool,
    key_refused: bool,
    warnings: Vec<Warning>,
    arrivals: Vec<Arrivals>,
    last_webhook: Option<When>,
    sqlite: String,
    database: String,
    last_backup: Option<(When, String)>,
}

/// `GET /setup`.
async fn setup(
    State(api): State<Api>,
    State(parts): State<Parts>,
    visitor: Visitor,
    query: Query,
) -> Result<Response, Refused> {
    query.end()?;
    let now = api.clock.now();
    let may_see_urls = visitor.may(Scope::Submit) || visitor.may(Scope::Operate);
    let newest = Paging { order: Order::Descending, limit: 1, after: None };
    let last = api.store.deliveries(&DeliveryFilter::default(), &newest).await?.rows.into_iter().next();
    let trusts = api.store.experience().await?.trusts;
    let (size, backup) = (api.store.size().await?, api.store.last_backup().await);
    let page = SetupPage {
        gateway_url: gateway_url(&api, &parts),
        callback_urls: if may_see_urls { standing_urls(&api) } else { Vec::new() },
        may_see_urls,
        provider_url: parts.provider_url.to_string(),
        reading: reading(&api).await?,
        key_refused: parts.budget.key_refused(),
        warnings: warnings(&api, &parts).await?,
        arrivals: trusts.into_iter().map(|(family, trust)| Arrivals::of(family, &trust, &api)).collect(),
        last_webhook: last.map(|delivery| When::of(delivery.received_at, now)),
        sqlite: size.sqlite,
        database: bytes(size.bytes),
        last_backup: backup.map(|made| (When::of(made.at, now), bytes(made.bytes))),
        public_url: api.public_url.clone(),
        frame: Frame::new("Set-up", Section::Setup, visitor, now),
    };
    answer(&page)
}

fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().si().to_string()
}

fn standing_urls(api: &Api) -> Vec<(&'static str, String)> {
    let Some(public_url) = &api.public_url else { return Vec::new() };
    let url = |family| Some(callback_url(public_url, family, &api.keys.mint(family, Reference::Standing)?));
    FAMILIES.iter().filter_map(|family| Some((family.title, url(family)?))).collect()
}

/// Where purchases go: on the operator's side where that has a listener of its own.
fn gateway_url(api: &Api, parts: &Parts) -> String {
    let base = api.public_url.as_deref().unwrap_or(&parts.listening_at);
    format!("{}/gateway", base.trim_end_matches('/'))
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/setup", get(setup))
}
