//! `/`: what is at risk, what needs a person, what is being made, and whether webhooks and reads keep up.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::chart::Spark;
use super::session::Visitor;
use super::strip::{Row, why};
use super::text::{When, count, dollars, rough, several};
use super::{Frame, Refused, Section, answer};
use crate::domain::credits::CreditState;
use crate::domain::generation::Status;
use crate::domain::money_report::{MoneyReport, Sum};
use crate::domain::reading;
use crate::domain::schedule::Webhooks;
use crate::domain::time::Time;
use crate::http::extract::Query;
use crate::http::stats::{self, AHEAD};
use crate::http::{Api, AppState, Parts};
use crate::store::{DeliveryFilter, Filter, Order, Paging};

/// Generations shown of each kind.
const SHOWN: u32 = 12;
/// Minutes of webhooks shown.
const MINUTES: u32 = 60;

/// What somebody has to be told first.
#[derive(Debug)]
pub(super) struct Warning {
    pub(super) what: String,
    pub(super) advice: &'static str,
    pub(super) link: &'static str,
}

#[derive(Debug)]
struct Reason {
    word: &'static str,
    why: &'static str,
    sum: Figure,
}

#[derive(Debug)]
struct Figure {
    name: &'static str,
    credits: &'static str,
    amount: String,
    count: String,
    told: String,
}

impl Figure {
    fn of(name: &'static str, credits: &'static str, sum: Sum) -> Self {
        Self {
            name,
            credits,
            amount: dollars(sum.amount),
            count: count(sum.count),
            told: several(sum.count, "generation"),
        }
    }
}

#[derive(Debug)]
struct Reads {
    used: usize,
    limit: u32,
    due: String,
    oldest: Option<When>,
    forecast: String,
}

#[derive(Template)]
#[template(path = "now.html")]
struct NowPage {
    frame: Frame,
    at_risk: Figure,
    nothing_at_risk: bool,
    reasons: Vec<Reason>,
    figures: Vec<Figure>,
    warnings: Vec<Warning>,
    people: Vec<Row>,
    more_people: bool,
    open: Vec<Row>,
    more_open: bool,
    spark: Spark,
    last_webhook: Option<When>,
    /// That outcomes are read, where they are.
    reading: Option<String>,
    webhooks: String,
    reads: Reads,
    pending: String,
    dead: String,
}

/// `GET /`.
async fn now(
    State(api): State<Api>,
    State(parts): State<Parts>,
    visitor: Visitor,
    query: Query,
) -> Result<Response, Refused> {
    query.end()?;
    let now = api.clock.now();
    let report = api.store.money_report(None, None, now, api.rules.refund_window).await?;
    let sum = |state: CreditState| report.by_state.get(&state).copied().unwrap_or_default();
    let figures = vec![
        Figure::of("In the making", "charged", sum(CreditState::Charged)),
        Figure::of("Delivered", "delivered", sum(CreditState::Delivered)),
        Figure::of("Recovered without a webhook", "", report.recovered),
        Figure::of("Refund expected", "refund_expected", sum(CreditState::RefundExpected)),
        Figure::of("Refunded", "refunded", sum(CreditState::Refunded)),
    ];
    let people = rows(&api, Filter { any_attention: true, ..Filter::default() }, Order::Ascending, now).await?;
    let running = vec![Status::Submitting, Status::Unconfirmed, Status::Pending, Status::Processing];
    let open = rows(&api, Filter { statuses: running, ..Filter::default() }, Order::Ascending, now).await?;
    let minutes = api.store.webhooks_by_minute(MINUTES, now).await?;
    let webhooks = minutes.iter().sum();
    let newest = Paging { order: Order::Descending, limit: 1, after: None };
    let last = api.store.deliveries(&DeliveryFilter::default(), &newest).await?.rows.into_iter().next();
    let dispatches = api.store.dispatch_counts().await?;
    let page = NowPage {
        at_risk: Figure::of("At risk", "at_risk", sum(CreditState::AtRisk)),
        nothing_at_risk: sum(CreditState::AtRisk).count == 0,
        reasons: reasons(&report),
        figures,
        warnings: warnings(&api, &parts).await?,
        more_people: people.1,
        people: people.0,
        more_open: open.1,
        open: open.0,
        spark: Spark::of(&minutes, format!("{} in the last hour, by the minute", several(webhooks, "webhook"))),
        last_webhook: last.map(|delivery| When::of(delivery.received_at, now)),
        reading: reading(&api).await?,
        webhooks: count(webhooks),
        reads: reads(&api, &parts, now).await?,
        pending: dispatches.pending.to_string(),
        dead: dispatches.dead.to_string(),
        frame: Frame::new("Now", Section::Now, visitor, now),
    };
    answer(&page)
}

async fn rows(api: &Api, filter: Filter, order: Order, now: Time) -> Result<(Vec<Row>, bool), Refused> {
    let paging = Paging { order, limit: SHOWN, after: None };
    let page = api.store.generations(&filter, &paging, now, api.rules.refund_window).await?;
    let more = page.next_cursor.is_some();
    Ok((page.rows.iter().map(|generation| Row::of(generation, &api.rules, now)).collect(), more))
}

/// What is at risk, by why.
fn reasons(report: &MoneyReport) -> Vec<Reason> {
    let mut reasons: Vec<_> = report.at_risk.iter().collect();
    reasons.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.amount, sum.count)));
    let reason = |(attention, sum): (&crate::domain::generation::Attention, &Sum)| Reason {
        word: attention.as_str(),
        why: why(*attention),
        sum: Figure::of("", attention.as_str(), *sum),
    };
    reasons.into_iter().map(reason).collect()
}

async fn reads(api: &Api, parts: &Parts, now: Time) -> Result<Reads, Refused> {
    let backlog = api.store.backlog(AHEAD, now).await?;
    let forecast = match stats::forecast(&backlog, parts) {
        _ if backlog.due == 0 => "nothing waits".to_owned(),
        Some(span) => format!("worked off in about {}", rough(span.max(Duration::from_secs(1)))),
        None => "more falls due than the budget allows".to_owned(),
    };
    Ok(Reads {
        used: parts.budget.used(),
        limit: parts.budget.rate(),
        due: count(backlog.due),
        oldest: backlog.oldest.map(|oldest| When::of(oldest, now)),
        forecast,
    })
}

/// That outcomes are read, and how far behind that is; `None` where webhooks bring them.
pub(super) async fn reading(api: &Api) -> Result<Option<String>, Refused> {
    let behind = stats::behind(api).await?;
    Ok(behind.map(reading::explain))
}

/// What is wrong with the whole of it.
pub(super) async fn warnings(api: &Api, parts: &Parts) -> Result<Vec<Warning>, Refused> {
    let mut warnings = Vec::new();
    if parts.budget.key_refused() {
        warnings.push(Warning {
            what: "The provider refuses provider.api_key.".to_owned(),
            advice: "Nothing can be bought or asked about until the key is right.",
            link: "/setup",
        });
    }
    let expected = api.rules.webhooks == Webhooks::Expected;
    for (family, trust) in api.store.experience().await?.trusts {
        let (missed, of) = trust.lately();
        if expected && trust.is_silent() {
            warnings.push(Warning {
                what: format!("Webhooks of {family} do not arrive: {missed} of the last {of} outcomes came without one."),
                advice: "Reads find the outcomes. The likely cause is the public URL: it is not reachable from outside, or redirects.",
                link: "/setup",
            });
        }
    }
    let dead = api.store.dispatch_counts().await?.dead;
    if !dead.is_zero() {
        warnings.push(Warning {
            what: format!("{dead} dispatches of events were given up."),
            advice: "The endpoint did not take them. Put it right, then send them again.",
            link: "/events?state=dead",
        });
    }
    Ok(warnings)
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/", get(now))
}
