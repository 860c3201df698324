//! `recoup generations`: the list, filtered as the API filters it.

use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::print::{BAD, DOUBTFUL, Pages, remark, say, tell};
use super::remote::{Remote, RemoteArgument};
use super::status::amount;
use crate::clock::{Clock, SystemClock};
use crate::domain::credits::CreditState;
use crate::domain::family::FAMILIES;
use crate::domain::generation::{Attention, Status};
use crate::domain::spelling::{plain_json, rough, short};
use crate::domain::time::Time;

/// Most rows of one answer (contract section 5).
const PAGE: usize = 200;
/// Longest reason in the table, in characters.
const REASON_CHARS: usize = 48;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Filters of the same kind are alternatives; different ones have to hold together.

Examples:
  recoup generations --attention any
  recoup generations --status failed --created-after 24h --metadata user=42
  recoup generations --credits refunded --all --json | jq -r .price")]
pub(super) struct Arguments {
    #[command(flatten)]
    filters: Filters,
    /// Oldest or newest first
    #[arg(long, value_name = "ORDER", value_parser = ["asc", "desc"], default_value = "desc")]
    order: String,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgument,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
struct Filters {
    /// What became of it; may repeat
    #[arg(long, value_parser = words(Status::ALL.iter().map(|word| word.as_str())))]
    status: Vec<String>,
    /// Why a person should look; may repeat
    #[arg(long, value_parser = words(Attention::ALL.iter().map(|word| word.as_str()).chain(["any"])))]
    attention: Vec<String>,
    /// Where its money is; may repeat
    #[arg(long, value_parser = words(CreditState::ALL.iter().map(|word| word.as_str())))]
    credits: Vec<String>,
    /// Why it failed or was refused; may repeat
    #[arg(long, value_name = "CODE")]
    error_code: Vec<String>,
    /// The provider's path segment; may repeat
    #[arg(long, value_parser = words(FAMILIES.iter().map(|family| family.path)))]
    family: Vec<String>,
    /// The provider's name of the model; may repeat
    #[arg(long)]
    model: Vec<String>,
    /// How the outcome was learned; may repeat
    #[arg(long, value_parser = ["webhook", "check", "gateway"])]
    source: Vec<String>,
    /// Only those of which an equal purchase was made within ten minutes
    #[arg(long)]
    doubled: bool,
    /// A time like 2026-11-23T10:00:00Z, or how long ago, like 24h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    created_after: Option<Time>,
    /// The same, the time itself not included
    #[arg(long, value_name = "TIME", value_parser = moment)]
    created_before: Option<Time>,
    /// A label it must have; may repeat
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    metadata: Vec<(String, String)>,
}

fn words(words: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(words)
}

/// A point in time, or how long ago it was.
fn moment(text: &str) -> Result<Time, String> {
    if let Ok(span) = humantime::parse_duration(text) {
        return Ok(SystemClock::new().now() - span);
    }
    Time::parse(text).map_err(|error| format!("{error}, or how long ago, such as 90m or 7d"))
}

fn label(text: &str) -> Result<(String, String), String> {
    let label = text.split_once('=').filter(|(key, _)| !key.is_empty());
    label.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "must be written KEY=VALUE".to_owned())
}

impl Filters {
    fn query(&self) -> Vec<(String, String)> {
        let lists = [
            ("status", &self.status),
            ("attention", &self.attention),
            ("credits", &self.credits),
            ("error_code", &self.error_code),
            ("family", &self.family),
            ("model", &self.model),
            ("source", &self.source),
        ];
        let bounds = [("created_after", self.created_after), ("created_before", self.created_before)];
        let listed =
            lists.iter().flat_map(|(name, values)| values.iter().map(|value| ((*name).to_owned(), value.clone())));
        let timed = bounds.iter().filter_map(|(name, time)| Some(((*name).to_owned(), time.as_ref()?.to_string())));
        let labels = self.metadata.iter().map(|(key, value)| (format!("metadata[{key}]"), value.clone()));
        let doubled = self.doubled.then(|| ("doubled".to_owned(), "true".to_owned()));
        listed.chain(timed).chain(labels).chain(doubled).collect()
    }
}

/// A page of the list, rows as they came.
#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// A generation, as far as the table shows it.
#[derive(Debug, Deserialize)]
struct Row {
    id: String,
    status: String,
    attention: Option<String>,
    model: Option<String>,
    duration_seconds: Option<u32>,
    price: Option<String>,
    credits: String,
    created_at: Time,
    error: Option<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    code: Option<String>,
    text: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let remote = arguments.remote.remote()?;
    let mut query = arguments.filters.query();
    query.push(("order".to_owned(), arguments.order.clone()));
    let wanted = if arguments.all { usize::MAX } else { usize::try_from(arguments.limit)? };
    let mut table = Pages::new(["id", "status", "attention", "model", "s", "price", "credits", "age", "error"]);
    let (mut shown, mut cursor) = (0, None);
    loop {
        let page = page(&remote, &query, cursor, (wanted - shown).min(PAGE)).await?;
        shown += page.data.len();
        if arguments.json {
            page.data.iter().try_for_each(|row| tell(plain_json(row.get())))?;
        } else if shown > 0 {
            let now = SystemClock::new().now();
            let rows: Result<Vec<Row>, _> = page.data.iter().map(|row| serde_json::from_str(row.get())).collect();
            table.print(rows?.iter().map(|row| (row.cells(now), row.style())).collect())?;
        }
        cursor = page.next_cursor;
        if cursor.is_none() || shown >= wanted {
            break;
        }
    }
    if cursor.is_some() {
        remark(format!("There are more than these {shown}: --limit N or --all."));
    } else if shown == 0 && !arguments.json {
        say("There is no such generation.")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn page(
    remote: &Remote,
    query: &[(String, String)],
    cursor: Option<String>,
    limit: usize,
) -> anyhow::Result<Page> {
    let mut query = query.to_vec();
    query.push(("limit".to_owned(), limit.to_string()));
    query.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor)));
    Ok(remote.get("/v1/generations", &query).await?)
}

impl Row {
    fn cells(&self, now: Time) -> [String; 9] {
        let text = |text: &Option<String>| text.as_deref().map_or_else(dash, |text| short(text, REASON_CHARS));
        let reason = self.error.as_ref().and_then(|error| error.code.as_ref().or(error.text.as_ref()));
        let reason = match (&self.error, reason) {
            (None, _) => String::new(),
            (Some(_), Some(reason)) => short(reason, REASON_CHARS),
            (Some(_), None) => "(no reason given)".to_owned(),
        };
        [
            short(&self.id, REASON_CHARS),
            short(&self.status, REASON_CHARS),
            text(&self.attention),
            text(&self.model),
            self.duration_seconds.map_or_else(dash, |seconds| seconds.to_string()),
            self.price.as_deref().map_or_else(dash, amount),
            short(&self.credits, REASON_CHARS),
            rough(now.since(self.created_at).max(Duration::ZERO)),
            reason,
        ]
    }

    fn style(&self) -> Style {
        match (self.attention.is_some(), self.status.as_str()) {
            (true, _) => BAD,
            (false, "failed" | "rejected") => DOUBTFUL,
            (false, _) => Style::new(),
        }
    }
}

fn dash() -> String {
    "-".to_owned()
}
