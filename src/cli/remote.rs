//! Asks a running service over its API. Sends the API key to the address it was told of and nowhere else.
//!
//! Texts in errors come from outside and are made safe here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::{ConfigArgument, remark};
use crate::config::{Config, Scope, reached_at};
use crate::domain::spelling;
use crate::provider::http_client;
use crate::secret::Secret;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The variable that holds the key of a service elsewhere.
const KEY_VARIABLE: &str = "RECOUP_API__KEY";

/// Which service, and with which key.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RemoteArgument {
    /// The service's address [default: from the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// A file that holds the API key [default: `$RECOUP_API__KEY`, else from the configuration]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

impl RemoteArgument {
    /// The service that is meant.
    pub(super) fn remote(&self) -> anyhow::Result<Remote> {
        let config = match (&self.url, &self.key_file) {
            (Some(_), Some(_)) => None,
            (None, _) | (_, None) => Some(self.config.load()?.config),
        };
        let base = match (&self.url, &config) {
            (Some(url), _) => url.clone(),
            (None, config) => listening(config.as_ref().unwrap_or(&Config::default()))?,
        };
        let key = match (&self.key_file, &config) {
            (Some(file), _) => key_in(file)?,
            (None, config) => config.as_ref().and_then(key_to_read).unwrap_or_default(),
        };
        if base.scheme() == "http" && !key.is_empty() && !is_here(&base) {
            remark(format!("warning: the API key travels to {base} unencrypted"));
        }
        Remote::new(&base, key)
    }
}

fn key_in(file: &std::path::Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--key-file {}", file.display()))?;
    Ok(Secret::new(text.trim()))
}

/// A key of the configuration that may read.
pub(super) fn key_to_read(config: &Config) -> Option<Secret> {
    let named = || config.api.keys.iter().find(|key| key.scopes.contains(&Scope::Read)).map(|key| key.secret.clone());
    (!config.api.key.is_empty()).then(|| config.api.key.clone()).or_else(named)
}

/// Where the service of this configuration answers everything but webhooks.
pub(super) fn listening(config: &Config) -> anyhow::Result<Url> {
    address(config.server.admin_listen.unwrap_or(config.server.listen))
}

/// A service that listens on every address is asked on loopback.
pub(super) fn address(listen: SocketAddr) -> anyhow::Result<Url> {
    Ok(Url::parse(&format!("http://{}", reached_at(listen)))?)
}

/// Whether an address leads to this machine only.
pub(super) fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no answer from {base}: {cause}. Start the service with `recoup serve`, or name its address with --url")]
    Unreachable { base: String, cause: String },
    #[error(
        "{base} wants an API key. Set {KEY_VARIABLE}, name a file with --key-file, or use the service's own --config"
    )]
    NoKey { base: String },
    #[error("{base} does not know this API key. Check {KEY_VARIABLE}, --key-file or `api.key` of the configuration")]
    KeyRefused { base: String },
    /// What was asked for makes no sense: bad usage.
    #[error("{0}")]
    Refused(String),
    #[error("{detail}")]
    Problem { status: u16, code: String, detail: String },
    #[error("what answers at {base} is not recoup: {what}. Name the service's address with --url")]
    Stranger { base: String, what: String },
}

/// What of a problem matters here.
#[derive(Debug, Deserialize)]
pub(super) struct ProblemView {
    pub(super) code: String,
    detail: String,
}

/// A running service.
#[derive(Debug)]
pub(super) struct Remote {
    http: reqwest::Client,
    base: String,
    key: Secret,
}

impl Remote {
    pub(super) fn new(base: &Url, key: Secret) -> anyhow::Result<Self> {
        Ok(Self { http: http_client(TIMEOUT)?, base: base.as_str().trim_end_matches('/').to_owned(), key })
    }

    /// Its address, without a slash at the end.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The JSON at `path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(String, String)]) -> Result<T, AskError> {
        let (status, body) = self.ask(path, query, Some(&self.key)).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.stranger(format!("its answer to {path} has {error}")))
    }

    /// The JSON at `path`, whatever the status of the answer. Asked without the key: to see first who answers.
    pub(super) async fn look<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let (status, body) = self.ask(path, &[], None).await?;
        serde_json::from_slice(&body)
            .map_err(|_| self.stranger(format!("its answer to {path} is HTTP {}", status.as_u16())))
    }

    async fn ask(
        &self,
        path: &str,
        query: &[(String, String)],
        key: Option<&Secret>,
    ) -> Result<(reqwest::StatusCode, Vec<u8>), AskError> {
        let unreachable =
            |error: reqwest::Error| AskError::Unreachable { base: self.base.clone(), cause: cause(&error) };
        let pairs = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let mark = if pairs.is_empty() { "" } else { "?" };
        let mut request = self.http.get(format!("{}{path}{mark}{pairs}", self.base));
        if let Some(key) = key.filter(|key| !key.is_empty()) {
            request = request.bearer_auth(key.expose());
        }
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        Ok((status, answer.bytes().await.map_err(unreachable)?.to_vec()))
    }

    fn refusal(&self, status: reqwest::StatusCode, body: &[u8]) -> AskError {
        let base = self.base.clone();
        let Ok(problem) = serde_json::from_slice::<ProblemView>(body) else {
            return self.stranger(format!("it answers HTTP {}", status.as_u16()));
        };
        let detail = spelling::line(&problem.detail);
        match (status.as_u16(), problem.code.as_str()) {
            (401, _) if self.key.is_empty() => AskError::NoKey { base },
            (401, _) => AskError::KeyRefused { base },
            (400, "INVALID_QUERY") => AskError::Refused(detail),
            (status, code) => AskError::Problem { status, code: spelling::line(code), detail },
        }
    }

    pub(super) fn stranger(&self, what: String) -> AskError {
        AskError::Stranger { base: self.base.clone(), what }
    }
}

/// What went wrong on the way, by the innermost cause.
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    spelling::line(&innermost.to_string())
}
