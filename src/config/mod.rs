//! The configuration: sections with their defaults (contract section 3).
//!
//! `load.rs` merges defaults, file and environment; `validate.rs` refuses what cannot be. Nothing here touches the network.

mod defaults;
mod load;
mod validate;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

pub use load::{ConfigError, Loaded};

use crate::domain::event::EventKind;
use crate::domain::schedule;
use crate::secret::Secret;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listeners.
    pub server: Server,
    /// Where everything is kept.
    pub database: Database,
    /// The provider.
    pub provider: Provider,
    /// Webhooks in.
    pub webhook: Webhook,
    /// Keys of our API.
    pub api: ApiSection,
    /// The gateway.
    pub gateway: Gateway,
    /// Asking about what is open.
    pub reconcile: Reconcile,
    /// Telling the user's systems.
    pub events: Events,
    /// What is removed when.
    pub retention: RetentionSection,
    /// Expected times: family, model, seconds, from and to.
    pub expected: BTreeMap<String, BTreeMap<String, BTreeMap<String, [Span; 2]>>>,
    /// Logging.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the provider reaches us; callback URLs start with it. Without one outcomes are read.
    #[serde(with = "optional_url")]
    pub public_url: Option<Url>,
    /// When set, everything but webhooks and `/livez` is served there only.
    #[serde(with = "optional_address")]
    pub admin_listen: Option<SocketAddr>,
    /// Connections at the same time.
    pub max_connections: u32,
    /// How long requests under way may take when stopping.
    pub shutdown_timeout: Span,
}

/// `[database]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite://FILE`; created when missing.
    pub url: String,
}

/// `[provider]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// Where the provider is; its key is sent nowhere else.
    pub base_url: Url,
    /// The key of the provider's API.
    pub api_key: Secret,
    /// Time limit of one request.
    pub request_timeout: Span,
    /// Time limit of a purchase; `None`: five times as long as of another request, which is longer than the provider's own client waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purchase_timeout: Option<Span>,
    /// Our budget of status reads, for all families together.
    pub status_checks_per_minute: u32,
}

/// Of a purchase's time limit, where it is not set: so many times the one of another request.
const PURCHASE_TIMES: u32 = 5;

impl Provider {
    /// Time limit of a purchase, without the time that its upload takes.
    pub fn purchase_limit(&self) -> Duration {
        self.purchase_timeout.map_or(self.request_timeout.0 * PURCHASE_TIMES, |limit| limit.0)
    }
}

/// `[webhook]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// HMAC keys of callback URLs: the first signs, all are accepted.
    pub secrets: Vec<Secret>,
    /// What the provider signs webhooks with, where its dashboard gives one.
    pub provider_secret: Secret,
    /// Several of them during a rotation.
    pub provider_secrets: Vec<Secret>,
    /// Whether the provider is asked before a webhook is believed.
    pub confirm: Confirm,
    /// Longest body.
    pub max_body: ByteSize,
    /// Networks webhooks may come from; empty means any.
    pub allow_ips: Vec<IpNet>,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Webhook {
    /// What the provider may sign with.
    pub fn signing_secrets(&self) -> impl Iterator<Item = &str> {
        let all = self.provider_secrets.iter().chain([&self.provider_secret]);
        all.filter(|secret| !secret.is_empty()).map(Secret::expose)
    }
}

/// `[api]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSection {
    /// One key that may do everything.
    pub key: Secret,
    /// Named keys.
    pub keys: Vec<ApiKey>,
}

/// `[[api.keys]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Its name: shown in notes and logs.
    pub name: String,
    /// The key itself.
    pub secret: Secret,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look.
    Read,
    /// Register and buy.
    Submit,
    /// Check, replay, confirm.
    Operate,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Submit, Self::Operate];

    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
        }
    }
}

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// Longest purchase.
    pub max_body: ByteSize,
    /// How long a request that repeats a purchase waits for what became of the first.
    pub repeat_wait: Span,
}

/// `[reconcile]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    /// Whether anything is asked by itself.
    pub enabled: bool,
    /// After the expected time, before the first check.
    pub grace: Span,
    /// How long the provider keeps retrying a delivery.
    pub webhook_retry_window: Span,
    /// The provider fails a generation by itself after this.
    pub hard_limit: Span,
    /// How long a refund may take.
    pub refund_window: Span,
    /// After a check that says still running; the last repeats.
    pub recheck: Vec<Span>,
    /// Past the hard limit: the first for an hour, then the second.
    pub stuck_recheck: Vec<Span>,
    /// Three answers "not found" this far apart are believed.
    pub not_found_recheck: Span,
    /// When a generation is given up.
    pub give_up_after: Span,
}

/// `[events]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Pauses between the attempts of one event.
    pub retry_schedule: Vec<Span>,
    /// Whether an endpoint may be on a private or loopback address.
    pub allow_private_addresses: bool,
    /// Where outcomes are sent.
    pub endpoints: Vec<Endpoint>,
}

/// `[[events.endpoints]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Where.
    pub url: Url,
    /// Standard Webhooks secret.
    #[serde(default)]
    pub secret: Secret,
    /// Several of them during a rotation.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Which events; `generation.*` means all of them.
    #[serde(default = "Endpoint::all_types")]
    pub types: Vec<String>,
}

impl Endpoint {
    /// The events it wants.
    pub fn kinds(&self) -> Vec<EventKind> {
        let all = self.types.iter().any(|pattern| pattern == "generation.*");
        let wanted = |kind: &&EventKind| all || self.types.iter().any(|pattern| pattern == kind.as_str());
        EventKind::ALL.iter().filter(wanted).copied().collect()
    }

    fn all_types() -> Vec<String> {
        vec!["generation.*".to_owned()]
    }
}

/// `[retention]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSection {
    /// Raw bodies; rows and hashes stay.
    pub payloads: Span,
    /// Settled generations; zero keeps them for ever.
    pub generations: Span,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or directives as `RUST_LOG` knows them.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// See [`schedule::Confirm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// Every authentic webhook is believed.
    Never,
    /// Those that came by a standing URL are confirmed.
    #[default]
    Untrusted,
    /// All are confirmed.
    Always,
}

impl From<Confirm> for schedule::Confirm {
    fn from(confirm: Confirm) -> Self {
        match confirm {
            Confirm::Never => Self::Never,
            Confirm::Untrusted => Self::Untrusted,
            Confirm::Always => Self::Always,
        }
    }
}

/// A duration written as `"30s"`, `"2m30s"`, `"250ms"`, `"24h"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0).to_string().replace(' ', ""))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is not a duration; write it like \"250ms\", \"30s\", \"2m30s\", \"24h\""
            ))
        })
    }
}

/// Where this machine reaches what listens at an address: what listens on every address is reached on loopback.
pub fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
    };
    SocketAddr::new(ip, listen.port())
}

/// A URL, or an empty text for none.
mod optional_url {
    use serde::{Deserialize, Deserializer, Serializer};
    use url::Url;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(url: &Option<Url>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_ref().map_or("", Url::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        Url::parse(&text).map(Some).map_err(|error| {
            serde::de::Error::custom(format!("{text:?} is not an address like https://hooks.example.com: {error}"))
        })
    }
}

/// An address, or an empty text for none.
mod optional_address {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is not an address like 127.0.0.1:9090")))
    }
}
