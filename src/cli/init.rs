//! `recoup init`: a config file with fresh random secrets.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::say;
use crate::config::Config;

/// The complete example; its empty secrets are filled in.
const EXAMPLE: &str = include_str!("../../config.example.toml");
/// Bytes of chance in one secret.
const SECRET_BYTES: usize = 32;

pub(super) fn run(file: Option<&Path>, public_url: Option<&str>) -> anyhow::Result<ExitCode> {
    let file = match (file, std::env::var_os("RECOUP_CONFIG")) {
        (Some(file), _) => file.to_owned(),
        (None, Some(named)) if !named.is_empty() => PathBuf::from(named),
        (None, _) => PathBuf::from("config.toml"),
    };
    let text = with_secrets(public_url)?;
    // An address that `recoup serve` would refuse is refused now.
    Config::of_text(&text)?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let mut opened = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists already and is left as it is; move it away or name another with --config", file.display())
        }
        opened => opened.with_context(|| format!("cannot write {}", file.display()))?,
    };
    opened.write_all(text.as_bytes())?;
    opened.sync_all()?;
    say(format!("Wrote {} with fresh secrets, readable by you only. Next:", file.display()))?;
    say("  1. set provider.api_key in it (or RECOUP_PROVIDER__API_KEY)")?;
    say(format!("  2. recoup serve --config {}", file.display()))?;
    say("api.key in it is the key for your own calls.")?;
    match public_url.filter(|url| !url.is_empty()) {
        Some(url) => say(format!(
            "Lead {url} here, without a redirect: the provider calls POST {}/webhooks/...",
            url.trim_end_matches('/')
        ))?,
        None => say(
            "Outcomes are read from the provider. For webhooks, set server.public_url to an https address that it reaches.",
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

fn with_secrets(public_url: Option<&str>) -> anyhow::Result<String> {
    let public_url = toml::Value::from(public_url.unwrap_or_default());
    let example = EXAMPLE.replacen("\npublic_url = \"\"", &format!("\npublic_url = {public_url}"), 1);
    let secrets = example.replacen("secrets = []", &format!("secrets = [\"{}\"]", secret()?), 1);
    Ok(secrets.replacen("\nkey = \"\"", &format!("\nkey = \"rk_{}\"", secret()?), 1))
}

fn secret() -> anyhow::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no source of chance: {error}"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_needs_only_the_providers_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        run(Some(&file), None).unwrap();
        let key = ("RECOUP_PROVIDER__API_KEY".to_owned(), "the-providers-key".to_owned());
        let config = Config::load(Some(&file), [key]).unwrap().config;
        config.require_for_serve().unwrap();
        assert_eq!(config.server.public_url, None);
        assert!(run(Some(&file), None).is_err(), "a second init must not overwrite");
        assert_ne!(with_secrets(None).unwrap(), with_secrets(None).unwrap());
    }

    #[test]
    fn init_takes_the_public_address() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        run(Some(&file), Some("https://hooks.example.com")).unwrap();
        let config = Config::load(Some(&file), []).unwrap().config;
        assert_eq!(config.server.public_url.unwrap().as_str(), "https://hooks.example.com/");
        for wrong in ["hooks.example.com", "http://hooks.example.com", "https://127.0.0.1", "\"\nlisten = 7"] {
            let file = folder.path().join("wrong.toml");
            let error = run(Some(&file), Some(wrong)).unwrap_err();
            assert!(error.to_string().contains("server.public_url") && !file.exists(), "{wrong}: {error}");
        }
    }
}
