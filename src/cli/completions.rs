//! `recoup completions SHELL`: what a shell needs to complete our commands.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  recoup completions bash > ~/.local/share/bash-completion/completions/recoup
  recoup completions zsh > ~/.zfunc/_recoup
  recoup completions fish > ~/.config/fish/completions/recoup.fish")]
pub(super) struct Arguments {
    /// For which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "recoup", &mut script);
    say(String::from_utf8(script)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
