//! `/v1/stats`: what is open and at risk, whether webhooks arrive, how long things take, and whether the reads keep up.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::MayRead;
use super::document::refusals::Listing;
use super::extract::Query;
use super::problem::Problem;
use super::{Api, AppState, Parts};
use crate::domain::credits::CreditState;
use crate::domain::experience::{Experience, Kind};
use crate::domain::family::Family;
use crate::domain::generation::Attention;
use crate::domain::lanes;
use crate::domain::money_report::{MoneyReport, Sum};
use crate::domain::pace::Pace;
use crate::domain::schedule::{Rules, Webhooks};
use crate::domain::time::Time;
use crate::domain::trust::Trust;
use crate::store::{Backlog, DeliveryFilter, Order, Paging, StoreError};

/// Reads that fall due in so long are counted for the forecast.
pub(super) const AHEAD: Duration = Duration::from_mins(10);

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
struct StatsView {
    at: Time,
    version: &'static str,
    generations: GenerationsView,
    outcomes: OutcomesView,
    last_webhook_at: Option<Time>,
    webhooks: Vec<WebhooksView>,
    times: Vec<TimesView>,
    reads: ReadsView,
    events: EventsView,
}

/// What is open, and what a person should look at.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GenerationStats)]
struct GenerationsView {
    /// Neither an outcome nor given up; prepared ones are left out.
    open: u64,
    overdue: u64,
    /// With any attention.
    needing_attention: u64,
    at_risk: Sum,
    /// The same by its reason.
    at_risk_by: BTreeMap<Attention, Sum>,
}

/// What brings the outcomes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutcomeStats)]
struct OutcomesView {
    /// `webhooks`, or `reads` where `server.public_url` is empty. Then no webhook is missed.
    #[schema(value_type = String)]
    learned_by: &'static str,
    /// How far behind the provider an outcome is at most that comes after the middle of its expected time, as the reads keep up at
    /// present; null where webhooks bring them.
    behind_seconds: Option<f64>,
}

/// Events on their way, each counted once for every place it goes to, and not beyond 10 001.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventStats)]
struct EventsView {
    pending: u64,
    dead: u64,
}

/// What became of the webhooks of a family.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookStats)]
struct WebhooksView {
    family: String,
    /// Outcomes whose webhook came before anybody asked.
    told: u64,
    /// Outcomes that a read found, and whose webhook never came.
    missed: u64,
    /// Outcomes that a read found before their webhook came.
    late: u64,
    /// Nearly every outcome lately had to be asked for.
    silent: bool,
    /// The share of missed ones among the last `of_last` outcomes.
    loss: Option<f64>,
    of_last: usize,
    /// How long after the read the late ones came.
    lag_seconds: Option<Quantiles>,
    /// From the expected time to the first read, as things stand.
    grace_seconds: f64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Quantiles {
    median: f64,
    p95: f64,
}

/// How long one kind of generation takes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimeStats)]
struct TimesView {
    family: String,
    /// The family's path stands for all models that neither the table nor the settings know.
    model: String,
    /// Null where the model has no lengths, or where they are not known.
    duration_seconds: Option<u32>,
    completed: u64,
    /// Of the last ones.
    seconds: Option<Quantiles>,
    /// What new ones are expected to take at most.
    expected_seconds: f64,
    /// The same where it was learned; null while the table or the settings count.
    learned_seconds: Option<f64>,
}

/// The budget of status reads and what waits for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReadStats)]
struct ReadsView {
    per_minute: u32,
    in_last_minute: usize,
    due: u64,
    oldest_due_since: Option<Time>,
    due_within_ten_minutes: u64,
    /// When all that is due will have been asked about; `None` when more falls due than can be asked about.
    worked_off_at: Option<Time>,
}

impl WebhooksView {
    fn of(family: String, trust: &Trust, rules: &Rules) -> Self {
        let (missed, of_last) = trust.lately();
        Self {
            family,
            told: trust.told,
            missed: trust.missed,
            late: trust.late,
            silent: trust.is_silent() && rules.webhooks == Webhooks::Expected,
            loss: share(missed, of_last),
            of_last,
            lag_seconds: quantiles(|percent| trust.lag(percent)),
            grace_seconds: trust.grace(rules.grace, rules.webhook_retry_window).as_secs_f64(),
        }
    }
}

impl GenerationsView {
    fn of(report: MoneyReport) -> Self {
        let count = |attention: &Attention| report.by_attention.get(attention).map_or(0, |sum| sum.count);
        Self {
            open: report.open,
            overdue: count(&Attention::Overdue),
            needing_attention: report.by_attention.values().map(|sum| sum.count).sum(),
            at_risk: report.by_state.get(&CreditState::AtRisk).copied().unwrap_or_default(),
            at_risk_by: report.at_risk,
        }
    }
}

impl TimesView {
    fn of(kind: Kind, pace: &Pace, rules: &Rules) -> Self {
        let seconds = (kind.duration_seconds > 0).then_some(kind.duration_seconds);
        let family = Family::of(&kind.family);
        let table = family.map(|family| rules.expected.of(family, Some(&kind.model), seconds));
        let learned = table.and_then(|table| pace.learned(table));
        Self {
            duration_seconds: seconds,
            completed: pace.known(),
            seconds: quantiles(|percent| pace.quantile(percent)),
            expected_seconds: learned.or(table.map(|table| table.to)).map_or(0.0, |to| to.as_secs_f64()),
            learned_seconds: learned.map(|learned| learned.as_secs_f64()),
            family: kind.family,
            model: kind.model,
        }
    }
}

fn quantiles(of: impl Fn(usize) -> Option<Duration>) -> Option<Quantiles> {
    Some(Quantiles { median: of(50)?.as_secs_f64(), p95: of(95)?.as_secs_f64() })
}

fn share(part: usize, whole: usize) -> Option<f64> {
    let (part, whole) = (u32::try_from(part).ok()?, u32::try_from(whole).ok()?);
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

/// How long until all that is due has been asked about.
pub(super) fn forecast(backlog: &Backlog, parts: &Parts) -> Option<Duration> {
    lanes::forecast(backlog.due, parts.budget.rate(), backlog.arriving, AHEAD)
}

/// How far behind the provider the outcomes are that are read, as the reads keep up at present; `None` where webhooks bring them.
///
/// # Errors
/// [`StoreError`] when the database cannot be read.
pub(super) async fn behind(api: &Api) -> Result<Option<Duration>, StoreError> {
    if api.rules.webhooks == Webhooks::Expected {
        return Ok(None);
    }
    let now = api.clock.now();
    Ok(behind_at(&api.store.backlog(AHEAD, now).await?, &api.rules, now))
}

/// The same by what waits.
pub(super) fn behind_at(backlog: &Backlog, rules: &Rules, now: Time) -> Option<Duration> {
    rules.behind(backlog.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)))
}

/// Whether webhooks arrive, how long things take, and whether the reads keep up.
#[utoipa::path(get, path = "/v1/stats", tag = "operations", operation_id = "get_stats", security(("key" = ["read"])),
    responses((status = 200, description = "As it is now.", body = StatsView), Listing))]
async fn stats(
    State(api): State<Api>,
    State(parts): State<Parts>,
    MayRead(_caller): MayRead,
    query: Query,
) -> Result<Json<StatsView>, Problem> {
    query.end()?;
    let now = api.clock.now();
    let Experience { paces, trusts } = api.store.experience().await?;
    let backlog = api.store.backlog(AHEAD, now).await?;
    let reads = ReadsView {
        per_minute: parts.budget.rate(),
        in_last_minute: parts.budget.used(),
        due: backlog.due,
        oldest_due_since: backlog.oldest,
        due_within_ten_minutes: backlog.arriving,
        worked_off_at: forecast(&backlog, &parts).map(|span| now + span),
    };
    let outcomes = OutcomesView {
        learned_by: if api.rules.webhooks == Webhooks::Expected { "webhooks" } else { "reads" },
        behind_seconds: behind_at(&backlog, &api.rules, now).map(|behind| behind.as_secs_f64()),
    };
    let report = api.store.money_report(None, None, now, api.rules.refund_window).await?;
    let dispatches = api.store.dispatch_counts().await?;
    let newest = Paging { order: Order::Descending, limit: 1, after: None };
    let last = api.store.deliveries(&DeliveryFilter::default(), &newest).await?.rows.into_iter().next();
    let webhooks = trusts.into_iter().map(|(family, trust)| WebhooksView::of(family, &trust, &api.rules)).collect();
    let times = paces.into_iter().map(|(kind, pace)| TimesView::of(kind, &pace, &api.rules)).collect();
    Ok(Json(StatsView {
        at: now,
        version: env!("CARGO_PKG_VERSION"),
        generations: GenerationsView::of(report),
        outcomes,
        last_webhook_at: last.map(|delivery| delivery.received_at),
        webhooks,
        times,
        reads,
        events: EventsView { pending: dispatches.pending.get(), dead: dispatches.dead.get() },
    }))
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(stats))
}
