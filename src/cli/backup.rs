//! `recoup backup FILE`: a consistent copy of the database while the service runs.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{ConfigArgument, say};
use crate::clock::{Clock, SystemClock};
use crate::store;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to write the copy; must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load()?.config;
    let made = store::backup(&config.database.url, &arguments.file, SystemClock::new().now()).await?;
    say(format!("Wrote {} ({} bytes) and checked it.", arguments.file.display(), made.bytes))?;
    Ok(ExitCode::SUCCESS)
}
