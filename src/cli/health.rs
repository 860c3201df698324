//! `recoup health`: exit 0 when the service is ready.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use url::Url;

use super::remote::listening;
use super::{ConfigArgument, say};
use crate::provider::http_client;

/// Container health checks usually give up after as long.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The service's address [default: from the configuration]
    #[arg(long)]
    url: Option<Url>,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let base = match arguments.url {
        Some(url) => url,
        None => listening(&arguments.config.load()?.config)?,
    };
    let url = format!("{}/readyz", base.as_str().trim_end_matches('/'));
    let answer = http_client(TIMEOUT)?.get(&url).send().await.with_context(|| format!("no answer from {url}"))?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    say(body.trim())?;
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
