//! What happens, counted: one function for each thing that can. Called where it has happened, after the commit where there is one.

use std::sync::OnceLock;
use std::time::Duration;

use super::counts::{Counters, Histograms, METADATA, key};
use super::inventory as all;
use crate::domain::decision::{Answer, Disposition};
use crate::domain::event::DispatchState;
use crate::domain::family::Family;
use crate::domain::outcome::Source;
use crate::domain::purchase::SubmitResult;

/// Every counter and histogram.
#[derive(Debug)]
struct Meters {
    webhooks: Counters,
    webhooks_refused: Counters,
    webhook_unknown_status: Counters,
    webhook_lag: Histograms,
    outcomes: Counters,
    outcomes_recovered: Counters,
    time_to_outcome: Histograms,
    purchases: Counters,
    purchase_repeats: Counters,
    checks: Counters,
    provider_answers: Histograms,
    event_attempts: Counters,
    event_lag: Histograms,
    commits: Histograms,
    commit_commands: Histograms,
    commits_failed: Counters,
    removed_rows: Counters,
    connections_ended: Counters,
    requests_turned_away: Counters,
}

static METERS: OnceLock<Meters> = OnceLock::new();

/// Makes the series; before that nothing is counted, as in the simulator.
pub(super) fn register() {
    METERS.get_or_init(|| Meters {
        webhooks: Counters::of(&all::WEBHOOKS),
        webhooks_refused: Counters::of(&all::WEBHOOKS_REFUSED),
        webhook_unknown_status: Counters::of(&all::WEBHOOK_UNKNOWN_STATUS),
        webhook_lag: Histograms::of(&all::WEBHOOK_LAG),
        outcomes: Counters::of(&all::OUTCOMES),
        outcomes_recovered: Counters::of(&all::OUTCOMES_RECOVERED),
        time_to_outcome: Histograms::of(&all::TIME_TO_OUTCOME),
        purchases: Counters::of(&all::PURCHASES),
        purchase_repeats: Counters::of(&all::PURCHASE_REPEATS),
        checks: Counters::of(&all::CHECKS),
        provider_answers: Histograms::of(&all::PROVIDER_ANSWERS),
        event_attempts: Counters::of(&all::EVENT_ATTEMPTS),
        event_lag: Histograms::of(&all::EVENT_LAG),
        commits: Histograms::of(&all::COMMITS),
        commit_commands: Histograms::of(&all::COMMIT_COMMANDS),
        commits_failed: Counters::of(&all::COMMITS_FAILED),
        removed_rows: Counters::of(&all::REMOVED_ROWS),
        connections_ended: Counters::of(&all::CONNECTIONS_ENDED),
        requests_turned_away: Counters::of(&all::REQUESTS_TURNED_AWAY),
    });
}

fn with(count: impl FnOnce(&Meters)) {
    if let Some(meters) = METERS.get() {
        count(meters);
    }
}

/// A webhook was taken in. `lag`: how long it came behind the read that had found the outcome, if it did.
pub fn webhook(family: &Family, disposition: Disposition, lag: Option<Duration>) {
    with(|meters| {
        meters.webhooks.add(&[family.path, disposition.as_str()], 1);
        if let Some(lag) = lag {
            meters.webhook_lag.record(&[family.path], lag.as_secs_f64());
        }
    });
}

/// A webhook was turned away; `reason` is the problem's code.
pub fn webhook_refused(reason: &str) {
    with(|meters| meters.webhooks_refused.add(&[reason], 1));
}

/// A webhook had a status word we do not know.
pub fn webhook_unknown_status(family: &Family) {
    with(|meters| meters.webhook_unknown_status.add(&[family.path], 1));
}

/// The first outcome of a generation, as it was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whose.
    pub family: &'static Family,
    /// `completed`, `failed` or `rejected`.
    pub result: &'static str,
    /// How it was learned; `None` when the purchase was refused.
    pub source: Option<Source>,
    /// Found by a read while no webhook had come.
    pub recovered: bool,
    /// Time since the purchase; `None` when that was not known before.
    pub took: Option<Duration>,
}

/// A generation got its first outcome.
pub fn outcome(outcome: Outcome) {
    let Outcome { family, result, source, recovered, took } = outcome;
    let source = source.map_or("gateway", Source::as_str);
    with(|meters| {
        meters.outcomes.add(&[result, source], 1);
        if recovered {
            meters.outcomes_recovered.add(&[result], 1);
        }
        if let Some(took) = took {
            meters.time_to_outcome.record(&[family.path, result, source], took.as_secs_f64());
        }
    });
}

/// The provider was asked to sell.
pub fn purchase(family: &Family, result: SubmitResult) {
    with(|meters| meters.purchases.add(&[family.path, result.as_str()], 1));
}

/// A purchase that repeats an earlier one was not sent.
pub fn purchase_repeat(family: &Family) {
    with(|meters| meters.purchase_repeats.add(&[family.path], 1));
}

/// The provider was asked about a generation.
pub fn check(family: &Family, answer: &Answer) {
    with(|meters| meters.checks.add(&[family.path, answer.word()], 1));
}

/// What the provider was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A status.
    Status,
    /// A list.
    List,
    /// A purchase.
    Submit,
    /// The balance.
    Balance,
}

/// The provider has answered, or has not.
pub fn provider_answer(operation: Operation, http_status: Option<u16>, took: Duration) {
    let operation = match operation {
        Operation::Status => "status",
        Operation::List => "list",
        Operation::Submit => "submit",
        Operation::Balance => "balance",
    };
    let answer = match http_status {
        Some(429) => "429",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) | None => "none",
    };
    with(|meters| meters.provider_answers.record(&[operation, answer], took.as_secs_f64()));
}

/// An event was tried to be sent. `lag`: since it arose, when it arrived.
pub fn event_attempt(state: DispatchState, lag: Option<Duration>) {
    with(|meters| {
        meters.event_attempts.add(&[state.as_str()], 1);
        if let Some(lag) = lag {
            meters.event_lag.record(&[], lag.as_secs_f64());
        }
    });
}

/// A group of writes was committed.
pub fn commit(commands: usize, took: Duration) {
    let commands = u32::try_from(commands).unwrap_or(u32::MAX);
    with(|meters| {
        meters.commits.record(&[], took.as_secs_f64());
        meters.commit_commands.record(&[], f64::from(commands));
    });
}

/// A group of writes was not committed.
pub fn commit_failed() {
    with(|meters| meters.commits_failed.add(&[], 1));
}

/// Retention removed something: `idempotency_keys`, `purchase_requests`, `payloads` or `generations`.
pub fn removed(what: &str, rows: usize) {
    with(|meters| meters.removed_rows.add(&[what], u64::try_from(rows).unwrap_or(0)));
}

/// We ended a connection: it was `slow`, or all seats were taken (`full`).
pub fn connection_ended(reason: &str) {
    with(|meters| meters.connections_ended.add(&[reason], 1));
}

/// A `webhook` or a `call` found no place.
pub fn turned_away(kind: &str) {
    with(|meters| meters.requests_turned_away.add(&[kind], 1));
}

/// A request was answered.
pub fn request(route: &str, http_status: &str) {
    let key = key(&all::HTTP_REQUESTS, &[route, http_status]);
    metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA)).increment(1);
}
