//! `recoup doctor`: what is wrong with the set-up, and what to do about it. Changes nothing.
//!
//! Talks to the address we listen on, to `server.public_url` and to `provider.base_url`, and to nobody else. The provider's key goes
//! to the provider only.

mod local;
mod provider;
mod public;
mod running;

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::ConfigArgument;
use super::print::{BAD, DOUBTFUL, FAINT, GOOD, in_style, tell};
use crate::config::{ConfigError, Loaded};
use crate::domain::spelling::{line, plain_json};

/// Longest wait for one answer from outside.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line says ok, warning, failed, or skipped for what cannot be known now. Exit code: 0 when nothing failed, 1 otherwise.
The provider's key is tried with one status read, out of the budget of a running service.

Examples:
  recoup doctor --config config.toml
  recoup doctor --json | jq '.checks[] | select(.verdict == \"failed\")'")]
pub(super) struct Arguments {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// How a check went, the better the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Skipped,
    Ok,
    Warning,
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    seen: String,
    /// What to do.
    advice: Option<String>,
}

impl Check {
    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Skipped, seen: why.into(), advice: None }
    }

    fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, seen: seen.into(), advice: None }
    }

    fn warning(name: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, seen: seen.into(), advice: Some(advice.into()) }
    }

    fn failed(name: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Failed, seen: seen.into(), advice: Some(advice.into()) }
    }

    fn print(&self) -> anyhow::Result<()> {
        let (style, word) = match self.verdict {
            Verdict::Ok => (GOOD, "ok"),
            Verdict::Warning => (DOUBTFUL, "warning"),
            Verdict::Failed => (BAD, "failed"),
            Verdict::Skipped => (FAINT, "skipped"),
        };
        tell(format!("{} {:<14} {}", in_style(style, format_args!("{word:<8}")), self.name, line(&self.seen)))?;
        self.advice.as_deref().map_or(Ok(()), |advice| tell(format!("{:<24}-> {}", "", line(advice))))
    }
}

/// What programs are told.
#[derive(Debug, Serialize)]
struct Report<'r> {
    verdict: Verdict,
    checks: &'r [Check],
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let checks = match arguments.config.load() {
        Ok(loaded) => examine(&loaded).await?,
        Err(ConfigError(faults)) => {
            let fault = |fault: String| Check::failed("configuration", fault, "mend it; nothing else can be looked at");
            faults.into_iter().map(fault).collect()
        }
    };
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    if arguments.json {
        let report = Report { verdict: worst, checks: &checks };
        tell(plain_json(&serde_json::to_string(&report)?))?;
    } else {
        checks.iter().try_for_each(Check::print)?;
    }
    Ok(if worst == Verdict::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(loaded: &Loaded) -> anyhow::Result<Vec<Check>> {
    let config = &loaded.config;
    let running = running::look(config).await?;
    let mut checks = local::configuration(loaded);
    let held = local::holder(config, running.answers());
    checks.push(local::database(config, running.answers(), held.as_deref()));
    checks.push(local::disk(config));
    checks.push(running.check());
    let mut seen = None;
    if let Some(base) = &config.server.public_url {
        let looked = public::look(base).await?;
        checks.extend(public::checks(base, config, &looked, &running).await?);
        seen = looked.date;
    }
    let heard = provider::hear(config).await?;
    checks.push(provider::key(config, &running, held.as_deref()).await?);
    checks.push(provider::clock(heard.as_ref().or(seen.as_ref())));
    checks.push(running.outcomes(config));
    checks.push(running.events(config));
    checks.push(local::retention(config));
    checks.push(local::backup(config));
    Ok(checks)
}
