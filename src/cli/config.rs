//! `recoup config check`: is the configuration possible, and what is it in effect?

use std::process::ExitCode;

use clap::Subcommand;

use super::{ConfigArgument, remark, say};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Validate, and print the effective configuration with secrets masked
    Check(ConfigArgument),
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Check(arguments) = command;
    let loaded = arguments.load()?;
    let origin = loaded.file.map_or("built-in defaults".to_owned(), |file| file.display().to_string());
    say(format!("# from {origin} and the environment; secrets are masked"))?;
    say(toml::to_string_pretty(&loaded.config)?.trim_end())?;
    for warning in loaded.warnings {
        remark(format!("warning: {warning}"));
    }
    if let Err(missing) = loaded.config.require_for_serve() {
        remark("note: `recoup serve` would refuse to start:");
        for line in missing.0 {
            remark(format!("  {line}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
