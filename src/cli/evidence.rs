//! `recoup evidence ID`: what is on record about one generation, to be sent to the provider's support.

use std::process::ExitCode;

use anyhow::bail;

use super::{ConfigArgument, say};
use crate::clock::{Clock, SystemClock};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::spelling::{plain, plain_json};
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Our id or the provider's
    #[arg(value_name = "ID")]
    id: String,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Md)]
    format: Format,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// A Markdown page
    Md,
    /// One JSON document
    Json,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load()?.config;
    // Beside a running service: reads only, takes no lock.
    let store = Store::open_to_read(&config.database.url).await?;
    let mut found = None;
    if let Ok(id) = GenerationId::parse(&arguments.id) {
        found = store.generation(id).await?;
    }
    if let (None, Ok(id)) = (&found, ProviderId::parse(&arguments.id)) {
        found = store.generation_of(&id).await?;
    }
    let Some(generation) = found else {
        bail!("there is no generation {}, neither ours nor the provider's", arguments.id)
    };
    let (rules, now) = (config.rules(), SystemClock::new().now());
    let summary = rules.diagnose(&generation, now).summary;
    let evidence = store.evidence(&generation, summary, now, rules.refund_window).await?;
    match arguments.format {
        Format::Md => say(plain(evidence.to_markdown().trim_end()))?,
        Format::Json => say(plain_json(&serde_json::to_string_pretty(&evidence)?))?,
    }
    Ok(ExitCode::SUCCESS)
}
