//! Every metric there is: its name, what it means, its labels and how its histogram is cut.
//!
//! A name that is not here cannot be recorded. Names begin with `recoup_`, are in base units, and what only grows ends in `_total`.
//! Labels have few values, never an id: where the values are known, each combination is there from the start, at zero.

use crate::domain::credits::CreditState;
use crate::domain::decision::Disposition;
use crate::domain::event::DispatchState;
use crate::domain::family::FAMILIES;
use crate::domain::generation::{Attention, Status};
use crate::domain::purchase::SubmitResult;

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// As it is at the moment of the scrape.
    Gauge,
    /// Counted by size; the upper bounds.
    Histogram(&'static [f64]),
}

/// What a metric is told apart by.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values; `None` where they are few but not ours to list.
    pub values: Option<fn() -> Vec<&'static str>>,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is told apart by.
    pub labels: &'static [Label],
    /// What it means.
    pub help: &'static str,
}

const fn label(name: &'static str, values: fn() -> Vec<&'static str>) -> Label {
    Label { name, values: Some(values) }
}

const fn open(name: &'static str) -> Label {
    Label { name, values: None }
}

const FAMILY: Label = label("family", || FAMILIES.iter().map(|family| family.path).collect());
const DISPOSITION: Label = label("disposition", || Disposition::ALL.iter().map(|it| it.as_str()).collect());
/// The codes of the problems a webhook can be turned away with before it is taken in.
const REFUSAL: Label =
    label("reason", || vec!["NOT_FOUND", "WRONG_SIGNATURE", "BODY_TOO_LARGE", "BODY_TIMEOUT", "INVALID_JSON"]);
const SOLD: Label = label("result", || SubmitResult::ALL.iter().map(|it| it.as_str()).collect());
const SAID: Label = label("answer", || vec!["known", "not_found", "paused", "nothing"]);
const OPERATION: Label = label("operation", || vec!["status", "list", "submit", "balance"]);
/// Classes of HTTP status; 429 apart from the other refusals, `none` for no answer.
const ANSWER: Label = label("answer", || vec!["2xx", "3xx", "4xx", "429", "5xx", "none"]);
const RESULT: Label = label("result", || vec!["completed", "failed", "rejected"]);
/// As the API's `source`.
const SOURCE: Label = label("source", || vec!["webhook", "check", "gateway"]);
const TRIED: Label = label("state", || DispatchState::ALL.iter().map(|it| it.as_str()).collect());
const UNSENT: Label = label("state", || vec![DispatchState::Pending.as_str(), DispatchState::Dead.as_str()]);
const STATUS: Label = label("status", || Status::ALL.iter().map(|it| it.as_str()).collect());
const ATTENTION: Label = label("attention", || Attention::ALL.iter().map(|it| it.as_str()).collect());
const CREDITS: Label = label("state", || CreditState::ALL.iter().map(|it| it.as_str()).collect());
const REMOVED: Label = label("what", || vec!["idempotency_keys", "purchase_requests", "payloads", "generations"]);
/// The routes of the router, and `unmatched`.
const ROUTE: Label = open("route");
/// The HTTP statuses that we answer with.
const HTTP_STATUS: Label = open("status");
/// Why we ended a connection: it did not get on with a request, rested too long after one, or a newcomer had no seat.
const ENDED: Label = label("reason", || vec!["slow", "idle", "full"]);
/// What found no place.
const TURNED_AWAY: Label = label("kind", || vec!["webhook", "call"]);
const VERSION: Label = open("version");
const SQLITE: Label = open("sqlite");

/// From a disk that acknowledges at once to one that is in trouble.
const COMMIT_S: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Up to the size of the largest group (`store/writer.rs`).
const COMMANDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// Up to the longest time limit of a purchase with large images.
const ANSWER_S: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// The expected times of all families, the hard limit (900 s), and what comes long after.
const OUTCOME_S: &[f64] =
    &[5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 420.0, 600.0, 900.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0];
/// Around the time the provider keeps retrying a webhook (150 s).
const LAG_S: &[f64] = &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 150.0, 300.0, 600.0, 1_800.0, 3_600.0];
/// At once, and after each pause of the default retry schedule.
const EVENT_LAG_S: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 35.0, 155.0, 755.0, 4_355.0, 25_955.0, 112_355.0];

macro_rules! inventory {
    ($($name:ident = $kind:expr, $text:literal [$($label:ident),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $name: Metric = Metric { name: $text, kind: $kind, labels: &[$($label),*], help: $help };
        )+
        /// All of them.
        pub static ALL: &[&Metric] = &[$(&$name),+];
    };
}

use Kind::{Counter, Gauge, Histogram};

inventory! {
    // Webhooks
    WEBHOOKS = Counter, "recoup_webhooks_total" [FAMILY, DISPOSITION],
        "Authentic webhooks by what became of them.";
    WEBHOOKS_REFUSED = Counter, "recoup_webhooks_refused_total" [REFUSAL],
        "Webhooks turned away before they were read: wrong URL or sender, or a body that was too long or too slow.";
    WEBHOOK_UNKNOWN_STATUS = Counter, "recoup_webhook_unknown_status_total" [FAMILY],
        "Webhooks with a status word we do not know, taken as still running.";
    WEBHOOK_LAG = Histogram(LAG_S), "recoup_webhook_lag_seconds" [FAMILY],
        "How long the first webhook of a generation came behind the read that had found its outcome.";
    // Outcomes
    OUTCOMES = Counter, "recoup_outcomes_total" [RESULT, SOURCE],
        "Generations that got their first outcome, by how it was learned.";
    OUTCOMES_RECOVERED = Counter, "recoup_outcomes_recovered_total" [RESULT],
        "Outcomes found by a read while no webhook had come: lost without it.";
    TIME_TO_OUTCOME = Histogram(OUTCOME_S), "recoup_time_to_outcome_seconds" [FAMILY, RESULT, SOURCE],
        "Time from the purchase to its first outcome.";
    OUTCOMES_BEHIND = Gauge, "recoup_outcomes_behind_seconds" [],
        "How far behind the provider outcomes are at most that are read, past the middle of their expected time; 0 where webhooks bring them.";
    // Purchases
    PURCHASES = Counter, "recoup_purchases_total" [FAMILY, SOLD],
        "Purchases sent to the provider by what came of them; unclear ones may have been charged.";
    PURCHASE_REPEATS = Counter, "recoup_purchase_repeats_total" [FAMILY],
        "Purchases that repeat an earlier one and were not sent: they are answered with what becomes of the first.";
    // Reads
    CHECKS = Counter, "recoup_checks_total" [FAMILY, SAID],
        "Status reads by what the provider's answer means.";
    PROVIDER_ANSWERS = Histogram(ANSWER_S), "recoup_provider_answer_seconds" [OPERATION, ANSWER],
        "Time until the provider had answered whole, by class of HTTP status.";
    STATUS_READS = Gauge, "recoup_status_reads_in_last_minute" [],
        "Status reads of the last minute, those under way included.";
    STATUS_READS_LIMIT = Gauge, "recoup_status_reads_limit" [],
        "Status reads that may be made in a minute; fewer than configured for a while after a 429.";
    STATUS_READS_PAUSE = Gauge, "recoup_status_reads_pause_seconds" [],
        "How long no status read will be made: after a 429, a refused key, or while the provider is down.";
    PROVIDER_KEY_REFUSED = Gauge, "recoup_provider_key_refused" [],
        "1 while the provider refuses our API key.";
    PROVIDER_DOWN = Gauge, "recoup_provider_breaker_open" [],
        "1 while too many status reads in a row brought nothing.";
    CHECKS_DUE = Gauge, "recoup_checks_due" [],
        "Generations that are due to be asked about.";
    CHECKS_FORECAST = Gauge, "recoup_checks_backlog_forecast_seconds" [],
        "When all that is due will have been asked about; infinite when more falls due than can be.";
    OLDEST_DUE = Gauge, "recoup_oldest_due_age_seconds" [],
        "For how long the generation that is due first has been.";
    // Money
    GENERATIONS = Gauge, "recoup_generations" [STATUS],
        "Generations on record.";
    NEEDING_ATTENTION = Gauge, "recoup_generations_needing_attention" [ATTENTION],
        "Generations a person should look at.";
    CREDITS_AT_RISK = Gauge, "recoup_credits_at_risk_usd" [ATTENTION],
        "Charged, or maybe charged, and in doubt; as far as prices are known.";
    CREDITS_BY_STATE = Gauge, "recoup_credits_usd" [CREDITS],
        "Where the credits of all generations on record are; as far as prices are known.";
    CREDITS_RECOVERED = Gauge, "recoup_credits_recovered_usd" [],
        "Credits of the generations whose outcome was found by a read while no webhook had come.";
    PRICES_UNKNOWN = Gauge, "recoup_generations_without_price" [],
        "Generations charged, or maybe charged, whose price nobody told: missing in every sum.";
    // Events
    EVENT_ATTEMPTS = Counter, "recoup_event_attempts_total" [TRIED],
        "Attempts to send an event by how the event stood after it.";
    EVENT_LAG = Histogram(EVENT_LAG_S), "recoup_event_lag_seconds" [],
        "Time from an event to its arrival at one place.";
    EVENTS_UNSENT = Gauge, "recoup_events_unsent" [UNSENT],
        "Events begun to be sent that have not arrived, once for each place; counted to 10001.";
    EVENTS_OLDEST = Gauge, "recoup_events_oldest_pending_age_seconds" [],
        "Age of the oldest event that some place is still to get.";
    ENDPOINTS_DISABLED = Gauge, "recoup_event_endpoints_disabled" [],
        "Places that answered 410 and are sent nothing until the next start.";
    // Database
    COMMITS = Histogram(COMMIT_S), "recoup_commit_seconds" [],
        "Time one group of writes took, the sync to disk included.";
    COMMIT_COMMANDS = Histogram(COMMANDS), "recoup_commit_commands" [],
        "Writes that one commit took together.";
    COMMITS_FAILED = Counter, "recoup_commits_failed_total" [],
        "Groups of writes the database did not take.";
    WRITES_WAITING = Gauge, "recoup_writes_waiting" [],
        "Writes that wait for the present group to be committed.";
    WRITES_OLDEST = Gauge, "recoup_writes_oldest_age_seconds" [],
        "Longest that any waiting write can have waited: since the writer took its present group.";
    DATABASE_BYTES = Gauge, "recoup_database_bytes" [],
        "Size of the database file.";
    DATABASE_LOG_BYTES = Gauge, "recoup_database_wal_bytes" [],
        "Size of the write-ahead log beside it.";
    DISK_FREE_BYTES = Gauge, "recoup_disk_free_bytes" [],
        "Space left to us where the database is.";
    LAST_BACKUP = Gauge, "recoup_last_backup_timestamp_seconds" [],
        "When `recoup backup` last succeeded, in seconds since 1970; absent when it never did.";
    REMOVED_ROWS = Counter, "recoup_retention_removed_total" [REMOVED],
        "What retention removed.";
    // Process
    HTTP_REQUESTS = Counter, "recoup_http_requests_total" [ROUTE, HTTP_STATUS],
        "Requests answered.";
    CONNECTIONS_ENDED = Counter, "recoup_connections_ended_total" [ENDED],
        "Connections that we ended because they kept us waiting or rested too long, or for a newcomer when all seats were taken.";
    REQUESTS_TURNED_AWAY = Counter, "recoup_requests_turned_away_total" [TURNED_AWAY],
        "Requests answered 503 because too many were being served.";
    BUILD = Gauge, "recoup_build_info" [VERSION, SQLITE],
        "1; the labels say what runs.";
    STARTED = Gauge, "recoup_process_start_time_seconds" [],
        "When the process started, in seconds since 1970.";
    RESIDENT_BYTES = Gauge, "recoup_process_resident_memory_bytes" [],
        "Memory of the process.";
    CPU_SECONDS = Counter, "recoup_process_cpu_seconds_total" [],
        "Processor time of the process.";
    OPEN_FILES = Gauge, "recoup_process_open_fds" [],
        "File descriptors in use.";
    OPEN_FILES_MAX = Gauge, "recoup_process_max_fds" [],
        "File descriptors the process may have.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_in_the_prefix_in_base_units_and_once() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name stands twice");
        for metric in ALL {
            let name = metric.name;
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.starts_with("recoup_") && name.chars().all(plain), "{name}");
            assert_eq!(name.ends_with("_total"), matches!(metric.kind, Kind::Counter), "{name}");
            for unit in
                ["ms", "millis", "milliseconds", "minutes", "hours", "kb", "mb", "kib", "mib", "cents", "percent"]
            {
                assert!(!name.split('_').any(|word| word == unit), "{name} is not in a base unit");
            }
            for taken in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(taken), "{name} reads like a part of a histogram");
            }
            assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{name} says nothing");
            let ages = name.contains("age") || name.contains("lag") || name.contains("pause");
            assert!(!ages || name.ends_with("_seconds"), "{name} has no unit");
            assert!(!name.contains("credits") || name.ends_with("_usd"), "{name} has no unit");
        }
    }

    #[test]
    fn labels_have_few_values_and_no_ids() {
        for metric in ALL {
            let mut series = 1;
            for label in metric.labels {
                assert!(!label.name.contains("id") || label.name == "sqlite", "{}: {}", metric.name, label.name);
                series *= label.values.map_or(1, |values| values().len());
            }
            assert!(series <= 100, "{} has {series} series", metric.name);
        }
    }

    #[test]
    fn histograms_are_cut_in_rising_order() {
        for metric in ALL {
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(!bounds.is_empty() && bounds.is_sorted_by(|a, b| a < b), "{}", metric.name);
            }
        }
    }
}
