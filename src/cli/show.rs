//! `recoup show ID`: what became of one generation and of its money, and why.

mod timeline;

use std::process::ExitCode;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::print::{BAD, DOUBTFUL, FAINT, GOOD, STRONG, fact, in_style, tell};
use super::remote::RemoteArgument;
use super::status::amount;
use crate::config::ConfigError;
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::spelling::{line, plain, plain_json, rough, several};
use crate::domain::time::Time;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  recoup show gen_0199d4c2b7a07f3e9b1c2a3d4e5f6071
  recoup show 7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa --json | jq .diagnosis.summary")]
pub(super) struct Arguments {
    /// Our id or the provider's
    #[arg(value_name = "ID")]
    id: String,
    /// Only what happened, in order
    #[arg(long)]
    timeline: bool,
    /// One JSON object: generation, diagnosis, timeline
    #[arg(long, conflicts_with = "timeline")]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgument,
}

/// The diagnosis; the generation it is about comes with it.
#[derive(Debug, Deserialize, Serialize)]
struct Diagnosed {
    at: Time,
    summary: String,
    answers: Vec<Box<RawValue>>,
    next_steps: Vec<String>,
    #[serde(skip_serializing)]
    generation: Box<RawValue>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Entries {
    data: Vec<Box<RawValue>>,
}

/// What programs are told.
#[derive(Debug, Serialize)]
struct Whole<'w> {
    generation: &'w RawValue,
    diagnosis: &'w Diagnosed,
    timeline: &'w [Box<RawValue>],
}

#[derive(Debug, Deserialize)]
struct Answer {
    question: String,
    text: String,
}

/// A generation, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Generation {
    id: String,
    #[serde(rename = "generation_id")]
    provider_id: Option<String>,
    family: String,
    status: String,
    attention: Option<String>,
    model: Option<String>,
    duration_seconds: Option<u32>,
    prompt: Option<String>,
    result_url: Option<String>,
    error: Option<Reason>,
    price: Option<String>,
    credits: String,
    refund_expected_by: Option<Time>,
    source: Option<String>,
    verification: Option<String>,
    submitted_via: String,
    created_at: Time,
    submitted_at: Option<Time>,
    expected_by: Option<Time>,
    settled_at: Option<Time>,
    next_check_at: Option<Time>,
    checks: u32,
    deliveries: u32,
    metadata: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    code: Option<String>,
    text: Option<String>,
    description: String,
    solution: String,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let id = &arguments.id;
    if GenerationId::parse(id).is_err() && ProviderId::parse(id).is_err() {
        let what = "is neither our id (gen_...) nor one the provider could give";
        bail!(ConfigError(vec![format!("ID: {id:?} {what}")]));
    }
    let remote = arguments.remote.remote()?;
    let diagnosed: Diagnosed = remote.get(&format!("/v1/generations/{id}/diagnosis"), &[]).await?;
    let entries: Entries = remote.get(&format!("/v1/generations/{id}/timeline"), &[]).await?;
    let generation: Generation = serde_json::from_str(diagnosed.generation.get())?;
    if arguments.json {
        let whole = Whole { generation: &diagnosed.generation, diagnosis: &diagnosed, timeline: &entries.data };
        tell(plain_json(&serde_json::to_string(&whole)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.timeline {
        generation.show(diagnosed.at)?;
        explain(&diagnosed)?;
    }
    let begin = generation.submitted_at.unwrap_or(generation.created_at);
    timeline::show(&entries.data, begin)?;
    if !arguments.timeline {
        let (base, id) = (remote.base(), line(&generation.id));
        tell(format!("\n{}", in_style(FAINT, format_args!("{base}/generations/{id}"))))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Generation {
    fn show(&self, now: Time) -> anyhow::Result<()> {
        let style = match (self.attention.is_some(), self.status.as_str()) {
            (true, _) => BAD,
            (false, "failed" | "rejected") => DOUBTFUL,
            (false, "completed") => GOOD,
            (false, _) => STRONG,
        };
        // "unconfirmed" and "lost" are a state and the reason to look at it.
        let attention = self.attention.as_deref().filter(|why| *why != self.status);
        let attention = attention.map_or(String::new(), |why| format!(", {}", line(why)));
        let state = in_style(style, format_args!("{}{attention}", line(&self.status)));
        tell(format!("{}  {state}", in_style(STRONG, line(&self.id))))?;
        optional("provider's id", self.provider_id.as_deref())?;
        let what = [Some(line(&self.family)), self.model.as_deref().map(line), self.seconds()];
        fact("what", what.into_iter().flatten().collect::<Vec<_>>().join(", "))?;
        optional("prompt", self.prompt.as_deref())?;
        optional("result", self.result_url.as_deref())?;
        let price = self.price.as_deref().map_or("price unknown".to_owned(), |price| format!("${}", amount(price)));
        let due = self.refund_expected_by.filter(|_| self.credits == "refund_expected");
        let by = due.map_or(String::new(), |by| format!(" by {by}"));
        fact("money", format!("{price}, {}{by}", line(&self.credits).replace('_', " ")))?;
        self.show_times(now)?;
        if let Some(source) = &self.source {
            let verified =
                self.verification.as_deref().map_or(String::new(), |by| format!(", vouched for by {}", line(by)));
            fact("learned from", format!("{}{verified}", line(source)))?;
        }
        let (webhooks, reads) = (several(self.deliveries.into(), "webhook"), several(self.checks.into(), "read"));
        fact("so far", format!("{webhooks}, {reads}"))?;
        for (key, value) in &self.metadata {
            fact("label", format!("{}={}", line(key), line(value)))?;
        }
        self.show_error()
    }

    fn seconds(&self) -> Option<String> {
        self.duration_seconds.map(|seconds| format!("{seconds} s"))
    }

    fn show_times(&self, now: Time) -> anyhow::Result<()> {
        let ago = |at: Time| {
            let (past, span) = if at > now { ("in ", at.since(now)) } else { ("", now.since(at)) };
            format!("{at} ({past}{}{})", rough(span), if past.is_empty() { " ago" } else { "" })
        };
        let submitted = self.submitted_at.unwrap_or(self.created_at);
        fact("submitted", format!("{} via {}", ago(submitted), line(&self.submitted_via)))?;
        let times = [
            ("expected by", self.expected_by.filter(|_| self.settled_at.is_none())),
            ("settled", self.settled_at),
            ("next check", self.next_check_at),
        ];
        times.into_iter().filter_map(|(name, at)| Some((name, at?))).try_for_each(|(name, at)| fact(name, ago(at)))
    }

    fn show_error(&self) -> anyhow::Result<()> {
        let Some(error) = &self.error else { return Ok(()) };
        let code = error.code.as_deref().map_or("(no code given)".to_owned(), line);
        fact("error", in_style(DOUBTFUL, code))?;
        optional("its words", error.text.as_deref())?;
        fact("means", line(&error.description))?;
        fact("do", line(&error.solution))
    }
}

fn optional(name: &str, value: Option<&str>) -> anyhow::Result<()> {
    value.map_or(Ok(()), |value| fact(name, line(value)))
}

/// The diagnosis in words.
fn explain(diagnosed: &Diagnosed) -> anyhow::Result<()> {
    tell(format!("\n{}", in_style(STRONG, line(&diagnosed.summary))))?;
    for answer in &diagnosed.answers {
        let Answer { question, text } = serde_json::from_str(answer.get())?;
        tell(format!("{}\n  {}", line(&question), plain(&text).replace('\n', "\n  ")))?;
    }
    if !diagnosed.next_steps.is_empty() {
        tell("What now?")?;
    }
    diagnosed.next_steps.iter().try_for_each(|step| tell(format!("  - {}", line(step))))
}
