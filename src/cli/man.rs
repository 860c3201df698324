//! `recoup man [DIR]`: the manual, written from what `--help` says.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  recoup man | man -l -
  recoup man ~/.local/share/man/man1")]
pub(super) struct Arguments {
    /// A folder for the pages of all commands; without one the first page is printed
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let command = super::Arguments::command();
    let Some(folder) = &arguments.folder else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        say(String::from_utf8(page)?.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    };
    let cannot = || format!("cannot write the manual into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    clap_mangen::generate_to(command, folder).with_context(cannot)?;
    say(format!("Wrote the manual into {}. Look at it with `man {}/recoup.1`.", folder.display(), folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
