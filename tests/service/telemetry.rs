//! Metrics: what is declared is measured, what is measured is declared, and the dashboard and the alarms ask for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use recoup::clock::Clock;
use recoup::config::{Endpoint, Span};
use recoup::sandbox::{Fate, Plan};
use recoup::secret::Secret;
use recoup::telemetry::inventory::{ALL, Kind};
use serde_json::{Value, json};
use url::Url;

use crate::outbox::{Recorder, SECRET};
use crate::promql;
use crate::support::{KEY, O3, World, completed, failed, text};

/// One series of a scrape.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: String,
}

/// A scrape, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub series: Vec<Series>,
    kinds: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
}

impl Scrape {
    pub(crate) fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((name, rest)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                assert!(scrape.helps.insert(name.to_owned(), rest.to_owned()).is_none(), "{name} is described twice");
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is typed twice");
            } else {
                scrape.series.push(Series::read(line));
            }
        }
        scrape
    }

    /// The one value of a metric with these labels.
    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> &str {
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut found = self.series.iter().filter(|series| series.name == name && series.labels == labels);
        let (one, more) = (found.next(), found.next());
        assert!(more.is_none(), "{name} {labels:?} is there twice");
        &one.unwrap_or_else(|| panic!("there is no {name} {labels:?}")).value
    }

    /// The labels that series of that name have, with their values.
    pub(crate) fn labels(&self, name: &str) -> Option<BTreeMap<&str, BTreeSet<&str>>> {
        let mut found = None;
        for series in self.series.iter().filter(|series| series.name == name) {
            let labels: &mut BTreeMap<&str, BTreeSet<&str>> = found.get_or_insert_default();
            for (label, value) in &series.labels {
                labels.entry(label).or_default().insert(value);
            }
        }
        found
    }
}

impl Series {
    fn read(line: &str) -> Self {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "no number: {line}");
        let (name, labels) = match name.split_once('{') {
            None => (name, BTreeMap::new()),
            Some((name, labels)) => {
                let labels = labels.strip_suffix('}').unwrap().strip_suffix('"').unwrap();
                let labels = labels.split("\",").map(|label| label.split_once("=\"").unwrap());
                (name, labels.map(|(label, value)| (label.to_owned(), value.to_owned())).collect())
            }
        };
        Self { name: name.to_owned(), labels, value: value.to_owned() }
    }
}

impl World {
    async fn scrape(&self) -> Scrape {
        Scrape::read(&self.scraped().await)
    }

    async fn scraped(&self) -> String {
        text(&self.get("/metrics").await.expect(200))
    }
}

const GENERATE: &str = "/gateway/v1/kling/o3-video/generate";

/// A world in which every kind of thing has happened.
async fn eventful() -> World {
    let recorder = Recorder::start().await;
    let url = Url::parse(&recorder.url).unwrap();
    let world = World::with(move |config| {
        config.events.allow_private_addresses = true;
        config.events.endpoints = vec![Endpoint {
            url,
            secret: Secret::new(SECRET),
            secrets: Vec::new(),
            types: vec!["generation.*".to_owned()],
        }];
        config.retention.payloads = Span(Duration::from_hours(1));
    })
    .await;
    // Bought through the gateway: one whose webhook comes, one whose webhook is lost, one that is refused.
    let order = json!({"prompt": "a paper boat", "model": "kling_o3", "duration": "5"});
    world.sandbox.plan_next(Plan::completed());
    world.post(GENERATE, &order).await.expect(201);
    world.sandbox.plan_next(Plan::completed().lost());
    world.post(GENERATE, &order).await.expect(201);
    world.post(GENERATE, &json!({"prompt": "x", "model": "kling_o3", "duration": "7"})).await.expect(422);
    let lost = world.buy(Plan::completed().lost()).await;
    let stuck = world.buy(Plan { fate: Fate::NeverEnds, ..Plan::completed() }).await;
    world.advance_s(600).await;
    world.after_reads(2).await;
    // What the lost one's webhook would have said comes at last; then all that can be wrong with one.
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    world.webhook(&url, failed("p-1", "INVALID_IMAGE")).await.expect(200);
    world.webhook(&url, completed("p-2", "https://x/v")).await.expect(200);
    world.webhook(&url, "{").await.expect(422);
    world.webhook(&format!("{url}x"), "{}").await.expect(404);
    world
        .webhook(&world.standing_url(), json!({"generation_id": "p-3", "status": "dreaming"}).to_string())
        .await
        .expect(200);
    let found = text(&world.generation(&lost.id).await["result_url"]);
    world.webhook(&lost.callback_url, completed(&lost.provider_id, &found)).await.expect(200);
    recorder.after(2).await;
    // Long enough that what never ends is stuck, and that retention has something to remove.
    world.advance(Duration::from_hours(2)).await;
    assert_eq!(world.generation(&stuck.id).await["attention"], "stuck");
    assert_eq!(world.generation(&id).await["attention"], "conflict");
    // Where nobody listens nothing can be bought.
    let nowhere = Url::parse(&format!("http://127.0.0.1:{}", crate::process::free_port())).unwrap();
    let other = World::with(move |config| config.provider.base_url = nowhere).await;
    other.post(GENERATE, &order).await.problem(502, "PROVIDER_UNREACHABLE");
    let copy = world.folder.path().join("copy.db");
    recoup::store::backup(&world.config.database.url, &copy, world.clock.now()).await.unwrap();
    world
}

/// The declared metric that a sample's name belongs to.
fn declared(name: &str) -> Option<&'static recoup::telemetry::inventory::Metric> {
    ALL.iter().copied().find(|metric| match metric.kind {
        Kind::Counter | Kind::Gauge => metric.name == name,
        Kind::Histogram(_) => {
            ["_bucket", "_sum", "_count"].iter().any(|part| name.strip_suffix(part) == Some(metric.name))
        }
    })
}

#[tokio::test]
async fn what_is_measured_is_what_is_declared() {
    let world = eventful().await;
    let scraped = world.scraped().await;
    let scrape = Scrape::read(&scraped);
    for series in &scrape.series {
        let metric = declared(&series.name).unwrap_or_else(|| panic!("{} is not declared", series.name));
        let mut labels: Vec<&str> = series.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        let mut known: Vec<&str> = metric.labels.iter().map(|label| label.name).collect();
        labels.sort_unstable();
        known.sort_unstable();
        assert_eq!(labels, known, "{}", series.name);
        for label in metric.labels {
            let listed = label.values.is_none_or(|values| values().contains(&series.labels[label.name].as_str()));
            assert!(listed, "{}: {} = {}", metric.name, label.name, series.labels[label.name]);
        }
    }
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(scrape.kinds.get(metric.name).map(String::as_str), Some(kind), "{} was not measured", metric.name);
        assert_eq!(scrape.helps.get(metric.name).map(String::as_str), Some(metric.help));
    }
    assert_eq!(scrape.kinds.len(), ALL.len());
    assert!(scrape.series.len() < 1_500, "{} series", scrape.series.len());
    for secret in [KEY, "paper boat", "p-1", "gen_", "a secret for callback URLs"] {
        assert!(!scraped.contains(secret), "{secret} is in the metrics");
    }
}

#[test]
fn every_declared_name_is_recorded_somewhere() {
    let sources = crate::architecture::sources();
    let inventory = &sources.iter().find(|(name, _)| name == "telemetry/inventory.rs").unwrap().1;
    let mut names = 0;
    for line in inventory.lines().map(str::trim) {
        let Some((name, _)) = line.split_once(" = ").filter(|(_, rest)| rest.contains(", \"recoup_")) else { continue };
        names += 1;
        let used = sources
            .iter()
            .any(|(_, text)| text.contains(&format!("all::{name},")) || text.contains(&format!("all::{name})")));
        assert!(used, "{name} is declared and never recorded");
    }
    assert_eq!(names, ALL.len());
    for (file, text) in sources.iter().filter(|(file, _)| !file.starts_with("telemetry/")) {
        let macros = ["counter!", "gauge!", "histogram!"];
        assert!(!macros.iter().any(|word| text.contains(word)), "{file} records a name that is not declared");
    }
}

#[tokio::test]
async fn money_queues_and_files_are_told_as_they_are() {
    let world = eventful().await;
    let scrape = world.scrape().await;
    let credits = world.get("/v1/credits").await.expect(200);
    for (attention, sum) in credits["by_attention"].as_object().unwrap() {
        let labels = [("attention", attention.as_str())];
        assert_eq!(scrape.value("recoup_generations_needing_attention", &labels), sum["count"].to_string());
    }
    for (state, sum) in credits["by_state"].as_object().unwrap() {
        assert_eq!(usd(scrape.value("recoup_credits_usd", &[("state", state)])), text(&sum["amount"]), "{state}");
    }
    let at_risk = scrape.series.iter().filter(|series| series.name == "recoup_credits_at_risk_usd");
    let at_risk: f64 = at_risk.map(|series| series.value.parse::<f64>().unwrap()).sum();
    assert_eq!(usd(&at_risk.to_string()), text(&credits["by_state"]["at_risk"]["amount"]));
    assert!(at_risk > 0.0, "what never ends was paid for");
    assert_eq!(usd(scrape.value("recoup_credits_recovered_usd", &[])), text(&credits["recovered"]["amount"]));
    assert_eq!(scrape.value("recoup_generations", &[("status", "rejected")]), "1");
    assert_eq!(scrape.value("recoup_status_reads_limit", &[]), "48");
    assert_eq!(scrape.value("recoup_provider_key_refused", &[]), "0");
    assert_eq!(scrape.value("recoup_events_oldest_pending_age_seconds", &[]), "0", "all events have arrived");
    assert_eq!(scrape.value("recoup_events_unsent", &[("state", "dead")]), "0");
    let file = world.folder.path().join("recoup.db");
    // What the log holds is not in the file yet.
    let (length, log) = (file.metadata().unwrap().len(), file.with_extension("db-wal").metadata().unwrap().len());
    let told: u64 = scrape.value("recoup_database_bytes", &[]).parse().unwrap();
    assert!((length..=length + log).contains(&told), "{told} is neither {length} nor up to {log} more");
    assert_ne!(scrape.value("recoup_disk_free_bytes", &[]), "0");
    let made = recoup::store::LastBackup::of(&file).unwrap();
    let at = scrape.value("recoup_last_backup_timestamp_seconds", &[]).parse::<f64>().unwrap();
    assert_eq!(format!("{:.0}", at * 1e3), made.at.as_ms().to_string());
}

/// As the API writes money.
fn usd(value: &str) -> String {
    format!("{:.4}", value.parse::<f64>().unwrap())
}

#[tokio::test]
async fn what_waits_is_told_with_its_age() {
    let world = World::with(|config| {
        config.events.allow_private_addresses = true;
        // Nobody listens there.
        let url = Url::parse(&format!("http://127.0.0.1:{}/hook", crate::process::free_port())).unwrap();
        config.events.endpoints = vec![Endpoint {
            url,
            secret: Secret::new(SECRET),
            secrets: Vec::new(),
            types: vec!["generation.*".to_owned()],
        }];
        config.reconcile.enabled = false;
    })
    .await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    world.register("p-2").await;
    // The first attempt fails at once, the next one is to be made in five seconds.
    while world.get(&format!("/v1/events?generation={id}")).await.expect(200)["data"][0]["state"] != "pending" {}
    world.clock.advance(Duration::from_secs(4));
    let scrape = world.scrape().await;
    assert_eq!(scrape.value("recoup_events_oldest_pending_age_seconds", &[]), "4");
    // Expected within three minutes, and thirty seconds of grace.
    world.clock.advance(Duration::from_secs(216));
    let scrape = world.scrape().await;
    assert_eq!(scrape.value("recoup_oldest_due_age_seconds", &[]), "10");
    assert_eq!(scrape.value("recoup_checks_due", &[]), "1");
    assert_eq!(scrape.value("recoup_generations", &[("status", "completed")]), "1");
}

#[tokio::test]
async fn a_refused_key_and_a_pause_are_told() {
    let world = World::with(|config| config.provider.api_key = Secret::new("not the provider's key")).await;
    let id = world.register("p-1").await;
    world.post(&format!("/v1/generations/{id}/checks"), &json!({})).await.expect(200);
    let scrape = world.scrape().await;
    assert_eq!(scrape.value("recoup_provider_key_refused", &[]), "1");
    assert_eq!(scrape.value("recoup_status_reads_pause_seconds", &[]), "300");
    assert_ne!(scrape.value("recoup_checks_total", &[("family", O3), ("answer", "paused")]), "0");
}

fn deployed(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)).unwrap()
}

/// What the dashboard asks for: the panel's title and the expression.
fn dashboard() -> Vec<(String, String)> {
    fn panels(value: &Value, found: &mut Vec<(String, String)>) {
        for panel in value["panels"].as_array().unwrap_or(&Vec::new()) {
            for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
                found.push((text(&panel["title"]), text(&target["expr"])));
            }
            panels(panel, found);
        }
    }
    let dashboard: Value = serde_json::from_str(&deployed("grafana/recoup.json")).unwrap();
    let mut found = Vec::new();
    panels(&dashboard, &mut found);
    found
}

/// What the alarms ask for: the alarm's name and the expression.
fn alarms() -> Vec<(String, String)> {
    let rules = deployed("prometheus/alerts.yml");
    let mut found: Vec<(String, String)> = Vec::new();
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            found.push((name.to_owned(), String::new()));
        } else if let Some(expression) = line.strip_prefix("expr: ") {
            let alarm = found.last_mut().unwrap();
            assert!(alarm.1.is_empty() && !expression.starts_with(['>', '|']), "{}: one line each", alarm.0);
            expression.clone_into(&mut alarm.1);
        }
    }
    assert!(found.iter().all(|(_, expression)| !expression.is_empty()));
    found
}

#[tokio::test]
async fn dashboard_and_alarms_ask_for_what_there_is() {
    let world = eventful().await;
    let scrape = world.scrape().await;
    let (dashboard, alarms) = (dashboard(), alarms());
    assert!(dashboard.len() > 30 && alarms.len() > 20, "{} and {}", dashboard.len(), alarms.len());
    let mut wrong = Vec::new();
    for (place, expression) in dashboard.iter().chain(&alarms) {
        wrong.extend(promql::unknown(expression, &scrape).into_iter().map(|what| format!("{place}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A check that finds nothing in what is wrong would pass all the same.
    for (expression, what) in [
        ("sum(rate(recoup_webhook_total[5m])) by (family)", "recoup_webhook_total"),
        ("sum by (kind) (recoup_webhooks_total)", "kind"),
        ("recoup_events_unsent{state=\"died\"} > 0", "died"),
        ("recoup_events_unsent{status=\"dead\"} > 0", "status"),
        ("recoup_webhooks_total{disposition=~\"conflict|wrong\"}", "wrong"),
        ("histogram_quantile(0.9, recoup_commit_seconds)", "recoup_commit_seconds"),
        ("1 - recoup_events_unsent / on (family) group_left recoup_checks_due", "family"),
    ] {
        let found = promql::unknown(expression, &scrape);
        assert!(found.iter().any(|said| said.contains(what)), "{expression}: {found:?}");
    }
}

#[test]
fn every_alarm_is_told_how_bad_it_is_and_what_to_do_and_is_tried() {
    let (rules, tried) = (deployed("prometheus/alerts.yml"), deployed("prometheus/alerts_test.yml"));
    let operations = include_str!("../../docs/OPERATIONS.md");
    for block in rules.split("- alert: ").skip(1) {
        let name = block.lines().next().unwrap();
        for field in ["severity: ", "summary: ", "description: ", "for: "] {
            assert!(block.contains(field), "{name} has no {field}");
        }
        let anchor = format!("docs/OPERATIONS.md#{}", name.to_lowercase());
        assert!(block.contains(&anchor), "{name} does not lead to {anchor}");
        assert!(
            operations.contains(&format!("### {name}\n")),
            "docs/OPERATIONS.md does not say what to do about {name}"
        );
        let of_it = format!("alertname=\"{name}\"");
        assert!(tried.matches(&of_it).count() >= 2, "{name} is not shown to fire and not to fire");
    }
}
