//! `/trends`: outcomes, webhooks, times and money over the last hours or days, out of sums that are kept as things happen.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::chart::{Bars, Ranges, Series, Times};
use super::session::Visitor;
use super::text::{self, clock, count, short};
use super::{Frame, Refused, Section, answer};
use crate::domain::credits::CreditState;
use crate::domain::experience::Experience;
use crate::domain::family::FAMILIES;
use crate::domain::generation::Status;
use crate::domain::history::{Bucket, OutcomeTally, Span, WebhookTally};
use crate::domain::money::Usd;
use crate::domain::money_report::{MoneyReport, Sum};
use crate::domain::outcome::Source;
use crate::domain::time::Time;
use crate::http::extract::{Query, invalid_parameter};
use crate::http::problem::Problem;
use crate::http::{Api, AppState};

/// What can be looked back at: word, name, steps, how long each is.
const SPANS: [(&str, &str, u32, Bucket); 4] = [
    ("24h", "24 hours", 24, Bucket::Hour),
    ("7d", "7 days", 168, Bucket::Hour),
    ("30d", "30 days", 30, Bucket::Day),
    ("90d", "90 days", 90, Bucket::Day),
];

/// Codes listed.
const CODES: usize = 12;

#[derive(Debug)]
struct Choice {
    word: &'static str,
    name: &'static str,
    chosen: bool,
}

#[derive(Debug)]
struct Code {
    /// `None`: the provider gave no code.
    word: Option<String>,
    shown: String,
    count: String,
    amount: String,
    /// Its share of the most frequent one, of a thousand.
    share: u64,
}

#[derive(Template)]
#[template(path = "trends.html")]
struct TrendsPage {
    frame: Frame,
    choices: Vec<Choice>,
    outcomes: Bars,
    webhooks: Bars,
    losses: Bars,
    loss: String,
    lags: Bars,
    lag: String,
    spend: Bars,
    times: Ranges,
    in_time: String,
    codes: Vec<Code>,
}

/// `GET /trends`.
async fn trends(State(api): State<Api>, visitor: Visitor, mut query: Query) -> Result<Response, Refused> {
    let word = query.one("span")?.unwrap_or_else(|| "24h".to_owned());
    query.end()?;
    let now = api.clock.now();
    let chosen = SPANS.iter().find(|(known, ..)| *known == word);
    let (word, _, buckets, bucket) =
        *chosen.ok_or_else(|| invalid_parameter("span", "must be one of 24h, 7d, 30d, 90d"))?;
    let span = Span { bucket, buckets, now };
    let outcomes = api.store.outcome_history(span).await?;
    let webhooks = api.store.webhook_history(span).await?;
    // Money is told by whole days.
    let days = Span {
        bucket: Bucket::Day,
        buckets: (span.buckets * u32::try_from(bucket.hours()).unwrap_or(1)).div_ceil(24).max(7),
        now,
    };
    let by_day = api.store.money_by_day(days).await?;
    let report = api.store.money_report(Some(span.from()), None, now, api.rules.refund_window).await?;
    let choices = SPANS.iter().map(|(known, name, ..)| Choice { word: known, name, chosen: *known == word });
    let page = TrendsPage {
        choices: choices.collect(),
        outcomes: outcomes_chart(span, &outcomes),
        losses: losses_chart(span, &outcomes),
        loss: loss(&outcomes),
        lags: lags_chart(span, &webhooks),
        lag: lag(&webhooks),
        webhooks: webhooks_chart(span, &webhooks),
        spend: spend(days, &by_day),
        times: times(&api).await?,
        in_time: in_time(&outcomes),
        codes: codes(&report),
        frame: Frame::new("Over time", Section::Trends, visitor, now),
    };
    answer(&page)
}

/// One row of zeros for each bucket.
fn zeros(span: Span, series: usize) -> Vec<Vec<u64>> {
    span.begins().map(|_| vec![0; series]).collect()
}

fn add(values: &mut [Vec<u64>], span: Span, at: Time, series: usize, number: u64) {
    let length_ms = span.bucket.length().as_millis().max(1);
    let place = usize::try_from(at.since(span.from()).as_millis() / length_ms).unwrap_or(usize::MAX);
    if let Some(value) = values.get_mut(place).and_then(|bucket| bucket.get_mut(series)) {
        *value += number;
    }
}

fn outcomes_chart(span: Span, outcomes: &[OutcomeTally]) -> Bars {
    let series = [
        Series { name: "completed, told by a webhook", class: "s-good" },
        Series { name: "completed, found by a read", class: "s-read" },
        Series { name: "recovered: no webhook had come", class: "s-saved" },
        Series { name: "failed", class: "s-bad" },
        Series { name: "refused at submission", class: "s-dim" },
        Series { name: "given up", class: "s-lost" },
    ];
    let mut values = zeros(span, series.len());
    for tally in outcomes {
        let place = match (tally.status, tally.recovered, tally.source) {
            (Status::Completed, true, _) => 2,
            (Status::Completed, false, Some(Source::Check)) => 1,
            (Status::Completed, false, _) => 0,
            (Status::Failed, ..) => 3,
            (Status::Rejected, ..) => 4,
            (Status::Lost, ..) => 5,
            (
                Status::Prepared | Status::Submitting | Status::Unconfirmed | Status::Pending | Status::Processing,
                ..,
            ) => continue,
        };
        add(&mut values, span, tally.at, place, tally.outcomes);
    }
    Bars::of(("outcomes", "Outcomes, by result and by how they were learned"), span, &series, &values, count)
}

fn webhooks_chart(span: Span, webhooks: &[WebhookTally]) -> Bars {
    use crate::domain::decision::Disposition;
    let series = [
        Series { name: "taken over", class: "s-good" },
        Series { name: "repeats", class: "s-dim" },
        Series { name: "unreadable or unknown", class: "s-lost" },
        Series { name: "contradictions", class: "s-bad" },
    ];
    let mut values = zeros(span, series.len());
    for tally in webhooks {
        let place = match tally.disposition {
            Disposition::Accepted => 0,
            Disposition::Duplicate => 1,
            Disposition::Unreadable | Disposition::UnknownStatus => 2,
            Disposition::Conflict | Disposition::Mismatch => 3,
        };
        add(&mut values, span, tally.at, place, tally.webhooks);
    }
    Bars::of(("webhooks", "Webhooks, by what became of them"), span, &series, &values, count)
}

/// Outcomes that a webhook told, beside those that had to be asked for because none had come.
fn losses_chart(span: Span, outcomes: &[OutcomeTally]) -> Bars {
    let series =
        [Series { name: "told by a webhook", class: "s-good" }, Series { name: "no webhook had come", class: "s-bad" }];
    let mut values = zeros(span, series.len());
    for tally in outcomes.iter().filter(|tally| had_webhook_to_come(tally)) {
        add(&mut values, span, tally.at, usize::from(tally.recovered), tally.outcomes);
    }
    Bars::of(("losses", "Webhook loss"), span, &series, &values, count)
}

/// How far webhooks were behind the read that had found the outcome, on average of each bucket.
fn lags_chart(span: Span, webhooks: &[WebhookTally]) -> Bars {
    let series = [Series { name: "behind the read, on average", class: "s-lost" }];
    let (mut late, mut lag_ms) = (zeros(span, 1), zeros(span, 1));
    for tally in webhooks {
        add(&mut late, span, tally.at, 0, tally.late);
        add(&mut lag_ms, span, tally.at, 0, u64::try_from(tally.lag.as_millis()).unwrap_or(u64::MAX));
    }
    let average = |(lag_ms, late): (&Vec<u64>, &Vec<u64>)| {
        lag_ms.iter().zip(late).map(|(lag_ms, late)| lag_ms.checked_div(*late).unwrap_or(0)).collect()
    };
    let values: Vec<Vec<u64>> = lag_ms.iter().zip(&late).map(average).collect();
    let write = |lag_ms| clock(std::time::Duration::from_millis(lag_ms));
    Bars::of(("lags", "Webhook lag"), span, &series, &values, write).without_totals()
}

/// Whether a webhook told it or was lost: what was read where none was to come is neither.
fn had_webhook_to_come(tally: &OutcomeTally) -> bool {
    tally.source == Some(Source::Webhook) || tally.recovered
}

/// The share of outcomes that no webhook had told.
fn loss(outcomes: &[OutcomeTally]) -> String {
    let learned: u64 = outcomes.iter().filter(|tally| had_webhook_to_come(tally)).map(|tally| tally.outcomes).sum();
    let lost: u64 = outcomes.iter().filter(|tally| tally.recovered).map(|tally| tally.outcomes).sum();
    match percent(lost, learned) {
        None => "No outcome was told by a webhook, or lost its webhook, in this time.".to_owned(),
        Some(percent) => {
            format!(
                "{} of {} outcomes had to be found by asking: no webhook had come ({percent} %).",
                count(lost),
                count(learned)
            )
        }
    }
}

fn lag(webhooks: &[WebhookTally]) -> String {
    let (late, lag) =
        webhooks.iter().fold((0, std::time::Duration::ZERO), |(late, lag), tally| (late + tally.late, lag + tally.lag));
    match u32::try_from(late) {
        Ok(0) | Err(_) => "No webhook came behind the read that had found the outcome.".to_owned(),
        Ok(number) => format!(
            "{} webhooks came behind the read that had found the outcome, {} behind it on average.",
            count(late),
            clock(lag / number)
        ),
    }
}

fn in_time(outcomes: &[OutcomeTally]) -> String {
    let completed = outcomes.iter().filter(|tally| tally.status == Status::Completed);
    let (all, in_time) =
        completed.fold((0, 0), |(all, in_time), tally| (all + tally.outcomes, in_time + tally.in_time));
    percent(in_time, all).map_or_else(String::new, |percent| {
        format!("{percent} % of {} completed generations were known by their expected time.", count(all))
    })
}

/// With a decimal, where there is anything to share.
fn percent(part: u64, whole: u64) -> Option<String> {
    let tenths = (part.saturating_mul(1_000) + whole / 2).checked_div(whole)?;
    Some(format!("{}.{}", tenths / 10, tenths % 10))
}

fn spend(days: Span, by_day: &[(Time, MoneyReport)]) -> Bars {
    let series = [
        Series { name: "delivered", class: "s-good" },
        Series { name: "in the making", class: "s-read" },
        Series { name: "refunded or to be", class: "s-dim" },
        Series { name: "at risk", class: "s-bad" },
    ];
    let mut values = zeros(days, series.len());
    for (at, report) in by_day {
        for (state, Sum { amount, .. }) in &report.by_state {
            let place = match state {
                CreditState::Delivered => 0,
                CreditState::Charged => 1,
                CreditState::RefundExpected | CreditState::Refunded => 2,
                CreditState::AtRisk => 3,
                CreditState::NotCharged => continue,
            };
            add(&mut values, days, *at, place, u64::try_from(amount.as_micros()).unwrap_or(0));
        }
    }
    Bars::of(("spend", "Spent by day of purchase, in USD"), days, &series, &values, dollars)
}

fn dollars(micros: u64) -> String {
    text::dollars(Usd::from_micros(i64::try_from(micros).unwrap_or(i64::MAX)))
}

/// The kinds that were seen, and those of the first family.
async fn times(api: &Api) -> Result<Ranges, Problem> {
    let Experience { paces, .. } = api.store.experience().await?;
    let rules = &api.rules;
    let times = paces.iter().filter_map(|(kind, pace)| {
        let family = FAMILIES.iter().find(|family| family.path == kind.family)?;
        let seconds = (kind.duration_seconds > 0).then_some(kind.duration_seconds);
        let promised = rules.expected.of(family, Some(&kind.model), seconds);
        let model = short(&kind.model);
        Some(Times {
            label: seconds.map_or_else(|| model.clone(), |seconds| format!("{model}, {seconds} s")),
            promised: (promised.from, promised.to),
            seen: pace.quantile(50).zip(pace.quantile(95)),
            known: pace.known(),
        })
    });
    Ok(Ranges::of(&times.collect::<Vec<_>>()))
}

fn codes(report: &MoneyReport) -> Vec<Code> {
    let without = Some((None, &report.without_error_code)).filter(|(_, sum)| sum.count > 0);
    let mut codes: Vec<_> = report.by_error_code.iter().map(|(code, sum)| (Some(code), sum)).chain(without).collect();
    codes.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.count));
    let most = codes.first().map_or(1, |(_, sum)| sum.count.max(1));
    let code = |(code, sum): (Option<&String>, &Sum)| Code {
        word: code.cloned(),
        shown: code.map_or_else(String::new, |code| short(code)),
        count: count(sum.count),
        amount: text::dollars(sum.amount),
        share: sum.count * 1_000 / most,
    };
    codes.into_iter().take(CODES).map(code).collect()
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/trends", get(trends))
}
