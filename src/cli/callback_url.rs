//! `recoup callback-url FAMILY`: the one URL to put into your own code.

use std::process::ExitCode;

use super::{ConfigArgument, say};
use crate::config::ConfigError;
use crate::domain::callback::{CallbackKeys, Reference, callback_url};
use crate::domain::family::{FAMILIES, Family};
use crate::secret::Secret;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The provider's path segment, for example kling/o3-video
    #[arg(value_name = "FAMILY")]
    family: String,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load()?.config;
    let family = Family::of(&arguments.family).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.path).collect();
        ConfigError(vec![format!("FAMILY: {:?} is not a family; known are {}", arguments.family, known.join(", "))])
    })?;
    let public_url = config.server.public_url.ok_or_else(|| {
        ConfigError(vec![
            "there is no callback URL: server.public_url is empty, so the provider is given none and outcomes are read"
                .to_owned(),
        ])
    })?;
    let keys = CallbackKeys::new(config.webhook.secrets.iter().map(Secret::expose));
    let token = keys.mint(family, Reference::Standing).ok_or_else(|| {
        ConfigError(vec![
            "webhook.secrets is missing: callback URLs are signed with it. Run `recoup init`, or set RECOUP_WEBHOOK__SECRETS"
                .to_owned(),
        ])
    })?;
    say(callback_url(public_url.as_str(), family, &token))?;
    Ok(ExitCode::SUCCESS)
}
