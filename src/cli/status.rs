//! `recoup status`: how a running service is, in ten lines.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Signals;
use super::print::{BAD, DOUBTFUL, GOOD, STRONG, fact, in_style, redraw, remark, tell};
use super::remote::{AskError, Remote, RemoteArgument};
use crate::clock::{Clock, SystemClock};
use crate::domain::money::Usd;
use crate::domain::reading;
use crate::domain::spelling::{self, count, dollars, rough, several};
use crate::domain::time::Time;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 when all is well, 1 when it is not ready, does not answer, or something needs a person.

Examples:
  recoup status --watch
  recoup status --url https://recoup.example.com --key-file key.txt --json")]
pub(super) struct Arguments {
    /// Look again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
    /// One JSON object for each look
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgument,
}

/// `/readyz`.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {
    pub(super) status: String,
    pub(super) parts: Vec<Part>,
}

impl Ready {
    /// Whether the provider is known to refuse our key.
    pub(super) fn key_refused(&self) -> bool {
        self.parts.iter().any(|part| part.name == "provider_key" && part.status != "ok")
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) status: String,
    pub(super) detail: Option<String>,
}

/// `/v1/stats`, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Stats {
    at: Time,
    version: String,
    generations: Generations,
    /// An older service does not tell.
    #[serde(default)]
    outcomes: Outcomes,
    pub(super) last_webhook_at: Option<Time>,
    pub(super) webhooks: Vec<Webhooks>,
    reads: Reads,
    pub(super) events: Events,
}

impl Stats {
    /// How far behind the provider the outcomes are that are read; `None` where webhooks bring them.
    pub(super) fn behind(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.outcomes.behind_seconds?).ok()
    }
}

#[derive(Debug, Default, Deserialize)]
struct Outcomes {
    behind_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Generations {
    open: u64,
    overdue: u64,
    needing_attention: u64,
    at_risk: Sum,
    at_risk_by: BTreeMap<String, Sum>,
}

#[derive(Debug, Deserialize)]
struct Sum {
    count: u64,
    amount: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Webhooks {
    pub(super) family: String,
    pub(super) told: u64,
    pub(super) missed: u64,
    pub(super) late: u64,
    pub(super) silent: bool,
    pub(super) loss: Option<f64>,
    pub(super) of_last: u64,
}

#[derive(Debug, Deserialize)]
struct Reads {
    per_minute: u32,
    in_last_minute: u64,
    due: u64,
    worked_off_at: Option<Time>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Events {
    pub(super) pending: u64,
    pub(super) dead: u64,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let remote = arguments.remote.remote()?;
    if !arguments.watch {
        return if arguments.json { json(&remote).await } else { show(&remote, false).await };
    }
    let mut signals = Signals::listen()?;
    tokio::select! {
        ended = watch(&remote, arguments.json) => ended,
        () = signals.told_to_stop() => Ok(ExitCode::SUCCESS),
    }
}

/// Looks again and again; ends only when something goes wrong that does not pass.
async fn watch(remote: &Remote, as_json: bool) -> anyhow::Result<ExitCode> {
    let clock = SystemClock::new();
    loop {
        let looked = if as_json { json(remote).await } else { show(remote, true).await };
        match looked {
            // It may be starting: whoever watches wants to see it come back.
            Err(error) if matches!(error.downcast_ref(), Some(AskError::Unreachable { .. })) => remark(error),
            looked => drop(looked?),
        }
        clock.sleep(PAUSE).await;
    }
}

async fn json(remote: &Remote) -> anyhow::Result<ExitCode> {
    let ready: Box<RawValue> = remote.look("/readyz").await?;
    let stats: Box<RawValue> = remote.get("/v1/stats", &[]).await?;
    let reasons = reasons(&serde_json::from_str(ready.get())?, &serde_json::from_str(stats.get())?);
    let shown = Shown { url: remote.base(), well: reasons.is_empty(), reasons: &reasons, ready: &ready, stats: &stats };
    tell(spelling::plain_json(&serde_json::to_string(&shown)?))?;
    Ok(exit_code(&reasons))
}

/// What programs are told.
#[derive(Debug, serde::Serialize)]
struct Shown<'s> {
    url: &'s str,
    well: bool,
    reasons: &'s [String],
    ready: &'s RawValue,
    stats: &'s RawValue,
}

async fn show(remote: &Remote, again: bool) -> anyhow::Result<ExitCode> {
    let ready: Ready = remote.look("/readyz").await?;
    let stats: Stats = remote.get("/v1/stats", &[]).await?;
    if again {
        redraw()?;
    }
    let reasons = reasons(&ready, &stats);
    let word = if ready.status == "ready" { in_style(GOOD, "ready") } else { in_style(BAD, "not ready") };
    let name = in_style(STRONG, format_args!("recoup {}", spelling::line(&stats.version)));
    tell(format!("{name} at {}: {word}", remote.base()))?;
    fact("at risk", at_risk(&stats.generations))?;
    let overdue = stats.generations.overdue;
    let style = if overdue > 0 { DOUBTFUL } else { anstyle::Style::new() };
    fact("open", in_style(style, format_args!("{}, {} overdue", count(stats.generations.open), count(overdue))))?;
    outcomes(&stats)?;
    fact("reads", reads(&stats.reads, stats.at))?;
    let events = format!("{} pending, {} dead", count(stats.events.pending), count(stats.events.dead));
    fact("events", if stats.events.dead > 0 { in_style(BAD, events) } else { events })?;
    for reason in &reasons {
        tell(in_style(DOUBTFUL, format_args!("! {reason}")))?;
    }
    Ok(exit_code(&reasons))
}

/// Whether webhooks arrive; where none can, how outcomes are learned.
fn outcomes(stats: &Stats) -> anyhow::Result<()> {
    if let Some(behind) = stats.behind() {
        return fact("outcomes", reading::explain(behind));
    }
    for webhooks in &stats.webhooks {
        fact("webhooks", arrivals(webhooks))?;
    }
    fact(
        "last webhook",
        stats.last_webhook_at.map_or("none yet".to_owned(), |at| format!("{} ago", rough(stats.at.since(at)))),
    )
}

fn exit_code(reasons: &[String]) -> ExitCode {
    if reasons.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Why a person should look.
fn reasons(ready: &Ready, stats: &Stats) -> Vec<String> {
    let faulty = ready.parts.iter().filter(|part| part.status != "ok");
    let part = |part: &Part| {
        let detail = part.detail.as_deref().unwrap_or(&part.status);
        format!("{}: {}", spelling::line(&part.name).replace('_', " "), spelling::line(detail))
    };
    let mut reasons: Vec<String> = faulty.map(part).collect();
    if ready.status != "ready" && reasons.is_empty() {
        reasons.push("it is not ready".to_owned());
    }
    let silent = stats.webhooks.iter().filter(|webhooks| webhooks.silent);
    reasons.extend(silent.map(|webhooks| {
        let family = spelling::line(&webhooks.family);
        format!("webhooks of {family} do not arrive; `recoup doctor` looks for the cause")
    }));
    let waiting = stats.generations.needing_attention;
    if waiting > 0 {
        let verb = if waiting == 1 { "needs" } else { "need" };
        let what = several(waiting, "generation");
        reasons.push(format!("{what} {verb} a person: recoup generations --attention any"));
    }
    if stats.events.dead > 0 {
        let what = several(stats.events.dead, "event");
        reasons.push(format!("{what} given up, not delivered: mend the endpoint, then send them again"));
    }
    reasons
}

fn at_risk(generations: &Generations) -> String {
    let sum = |sum: &Sum| format!("${}", amount(&sum.amount));
    if generations.at_risk.count == 0 {
        return in_style(GOOD, "nothing");
    }
    let reason = |(why, part): (&String, &Sum)| format!("{} {} {}", count(part.count), spelling::line(why), sum(part));
    let reasons: Vec<_> = generations.at_risk_by.iter().map(reason).collect();
    let what = several(generations.at_risk.count, "generation");
    in_style(BAD, format_args!("{} in {what}: {}", sum(&generations.at_risk), reasons.join(", ")))
}

/// An amount of the API for people.
pub(super) fn amount(text: &str) -> String {
    Usd::parse(text).map_or_else(|_| spelling::line(text), dollars)
}

pub(super) fn arrivals(webhooks: &Webhooks) -> String {
    let Webhooks { family, told, missed, late, silent, loss, of_last } = webhooks;
    let lately = loss.map_or(String::new(), |loss| format!("; {:.0} % of the last {of_last} missed", loss * 100.0));
    let (told, missed, late) = (count(*told), count(*missed), count(*late));
    let text = format!("{}: {told} arrived, {missed} missed, {late} late{lately}", spelling::line(family));
    if *silent { in_style(BAD, text) } else { text }
}

fn reads(reads: &Reads, at: Time) -> String {
    let forecast = match (reads.due, reads.worked_off_at) {
        (0, _) => "nothing waits".to_owned(),
        (due, Some(end)) => format!("{} due, worked off in about {}", count(due), rough(end.since(at))),
        (due, None) => format!("{} due, and more falls due than the budget allows", count(due)),
    };
    format!("{} of {} in the last minute; {forecast}", count(reads.in_last_minute), reads.per_minute)
}
