//! What cannot be, and what is probably not meant. All faults are found at once, each named by its key.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};

use super::{Config, ConfigError, Endpoint, Span};
use crate::domain::event::EventKind;
use crate::domain::family::{Expected, FAMILIES, Family};
use crate::domain::schedule::{ExpectedTimes, Rules, Webhooks};

/// A shorter secret can be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// The provider's own limit of status reads a minute (provider.md section 3).
const PROVIDER_READS_PER_MINUTE: u32 = 60;

/// What is wrong with a public URL that the provider cannot call.
const UNREACHABLE: &str = "the provider cannot call there: it calls over https, and not on this machine. Set an https address that it \
                           reaches, or set it to \"\": then outcomes are read";

/// Faults found so far.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn check(&mut self, holds: bool, key: &str, fault: impl AsRef<str>) {
        if !holds {
            self.0.push(format!("{key}: {}", fault.as_ref()));
        }
    }

    fn positive(&mut self, key: &str, span: Span) {
        self.check(!span.0.is_zero(), key, "must be longer than nothing");
    }

    fn positive_list(&mut self, key: &str, spans: &[Span]) {
        self.check(!spans.is_empty(), key, "must have at least one duration");
        self.check(spans.iter().all(|span| !span.0.is_zero()), key, "every duration must be longer than nothing");
    }
}

impl Config {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`ConfigError`] lists all faults. Without one, the warnings are given back.
    pub(super) fn validate(&self) -> Result<Vec<String>, ConfigError> {
        let mut faults = Faults::default();
        self.check_server(&mut faults);
        self.check_secrets(&mut faults);
        self.check_reconcile(&mut faults);
        self.check_events(&mut faults);
        if let Err(fault) = self.expected_times() {
            faults.0.push(fault);
        }
        if faults.0.is_empty() { Ok(self.warnings()) } else { Err(ConfigError(faults.0)) }
    }

    fn check_server(&self, faults: &mut Faults) {
        faults.check(self.server.max_connections > 0, "server.max_connections", "must be at least 1");
        let public_url = self.server.public_url.iter().map(|url| ("server.public_url", url));
        for (key, url) in public_url.chain([("provider.base_url", &self.provider.base_url)]) {
            let http = matches!(url.scheme(), "http" | "https") && url.has_host();
            faults.check(http, key, "must start with https:// or http://");
            let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
            faults.check(plain, key, "must have no query, fragment or user");
        }
        let reachable = self.server.public_url.as_ref().is_none_or(|url| self.provider_can_call(url));
        faults.check(reachable, "server.public_url", UNREACHABLE);
        faults.check(self.database.url.starts_with("sqlite:"), "database.url", "must start with sqlite://");
        let budget = self.provider.status_checks_per_minute;
        faults.check((1..=6_000).contains(&budget), "provider.status_checks_per_minute", "must be from 1 to 6000");
        faults.positive("provider.request_timeout", self.provider.request_timeout);
        if let Some(limit) = self.provider.purchase_timeout {
            faults.positive("provider.purchase_timeout", limit);
        }
        faults.check(self.webhook.max_body.as_u64() > 0, "webhook.max_body", "must be larger than nothing");
        faults.check(self.webhook.max_body.as_u64() <= 16 << 20, "webhook.max_body", "must be at most 16MiB");
        faults.check(self.gateway.max_body.as_u64() > 0, "gateway.max_body", "must be larger than nothing");
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let level = levels.contains(&self.log.level.to_ascii_lowercase().as_str());
        // A single word that is no level would be taken for the name of a part of the program.
        let directives = self.log.level.contains(['=', ','])
            && self.log.level.parse::<tracing_subscriber::filter::EnvFilter>().is_ok();
        let wanted = "must be error, warn, info, debug or trace, or directives like recoup=debug";
        faults.check(level || directives, "log.level", wanted);
    }

    /// Whether the provider can call back at that address, as far as the address tells: over https and not on this machine, unless the
    /// provider is on this machine itself.
    fn provider_can_call(&self, url: &Url) -> bool {
        is_loopback(&self.provider.base_url) || (url.scheme() == "https" && !is_loopback(url))
    }

    fn check_secrets(&self, faults: &mut Faults) {
        for (index, secret) in self.webhook.secrets.iter().enumerate() {
            faults.check(!secret.is_empty(), &format!("webhook.secrets[{index}]"), "is empty");
        }
        for (index, secret) in self.webhook.provider_secrets.iter().enumerate() {
            faults.check(!secret.is_empty(), &format!("webhook.provider_secrets[{index}]"), "is empty");
        }
        let one = self.webhook.provider_secret.is_empty() || self.webhook.provider_secrets.is_empty();
        faults.check(
            one,
            "webhook.provider_secret",
            "give either provider_secret or, during a rotation, provider_secrets",
        );
        let (mut names, mut secrets) = (HashSet::new(), HashSet::from([self.api.key.expose()]));
        for (index, key) in self.api.keys.iter().enumerate() {
            let path = format!("api.keys[{index}]");
            faults.check(!key.name.trim().is_empty(), &format!("{path}.name"), "is empty");
            faults.check(names.insert(&key.name), &format!("{path}.name"), format!("{:?} is given twice", key.name));
            faults.check(!key.secret.is_empty(), &format!("{path}.secret"), "is empty");
            faults.check(
                key.secret.is_empty() || secrets.insert(key.secret.expose()),
                &format!("{path}.secret"),
                "is used twice",
            );
            faults.check(!key.scopes.is_empty(), &format!("{path}.scopes"), "is empty; name read, submit or operate");
        }
    }

    fn check_reconcile(&self, faults: &mut Faults) {
        let reconcile = &self.reconcile;
        faults.positive("reconcile.hard_limit", reconcile.hard_limit);
        faults.positive("reconcile.not_found_recheck", reconcile.not_found_recheck);
        faults.positive("reconcile.give_up_after", reconcile.give_up_after);
        faults.positive_list("reconcile.recheck", &reconcile.recheck);
        faults.positive_list("reconcile.stuck_recheck", &reconcile.stuck_recheck);
    }

    fn check_events(&self, faults: &mut Faults) {
        faults.positive_list("events.retry_schedule", &self.events.retry_schedule);
        for (index, endpoint) in self.events.endpoints.iter().enumerate() {
            check_endpoint(
                faults,
                &format!("events.endpoints[{index}]"),
                endpoint,
                self.events.allow_private_addresses,
            );
        }
    }

    /// The user's own expected times.
    fn expected_times(&self) -> Result<ExpectedTimes, String> {
        let mut times = Vec::new();
        for (path, models) in &self.expected {
            let known: Vec<_> = FAMILIES.iter().map(|family| family.path).collect();
            Family::of(path)
                .ok_or_else(|| format!("expected.{path:?}: is no family; known are {}", known.join(", ")))?;
            for (model, durations) in models {
                for (seconds, [from, to]) in durations {
                    let key = format!("expected.{path:?}.{model}.{seconds:?}");
                    let number = seconds
                        .parse()
                        .map_err(|_| format!("{key}: the duration must be whole seconds, such as \"5\""))?;
                    if from.0 > to.0 || to.0.is_zero() {
                        return Err(format!("{key}: must be [from, to], the shorter time first"));
                    }
                    times.push(((path.clone(), model.clone(), number), Expected { from: from.0, to: to.0 }));
                }
            }
        }
        Ok(ExpectedTimes::new(times))
    }

    /// Whether any secret is in it.
    pub(super) fn holds_secrets(&self) -> bool {
        let set = [&self.provider.api_key, &self.api.key, &self.webhook.provider_secret]
            .into_iter()
            .any(|secret| !secret.is_empty());
        set || !self.webhook.secrets.is_empty()
            || !self.webhook.provider_secrets.is_empty()
            || !self.api.keys.is_empty()
            || !self.events.endpoints.is_empty()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let budget = self.provider.status_checks_per_minute;
        if budget > PROVIDER_READS_PER_MINUTE {
            warnings.push(format!(
                "provider.status_checks_per_minute: {budget} is more than the provider allows ({PROVIDER_READS_PER_MINUTE})"
            ));
        }
        if self.provider.base_url.scheme() == "http" && !is_loopback(&self.provider.base_url) {
            warnings.push("provider.base_url: over http the API key can be read by everybody on the way".to_owned());
        }
        let named = self.api.keys.iter().map(|key| (format!("api.keys.{}", key.name), &key.secret));
        let keys = named.chain([("api.key".to_owned(), &self.api.key)]);
        let callback = self.webhook.secrets.iter().map(|secret| ("webhook.secrets".to_owned(), secret));
        let signing = self.webhook.provider_secrets.iter().chain([&self.webhook.provider_secret]);
        let signing = signing.map(|secret| ("webhook.provider_secrets".to_owned(), secret));
        for (key, secret) in keys.chain(callback).chain(signing) {
            if !secret.is_empty() && secret.expose().len() < SECRET_BYTES_MIN {
                warnings.push(format!(
                    "{key}: is shorter than {SECRET_BYTES_MIN} bytes and can be guessed; `recoup init` makes good ones"
                ));
            }
        }
        if self.reconcile.give_up_after.0 < self.reconcile.hard_limit.0 {
            warnings
                .push("reconcile.give_up_after: generations are given up before the provider's own limit".to_owned());
        }
        if !self.reconcile.enabled {
            let what = match self.server.public_url {
                Some(_) => "without it lost webhooks stay lost, and webhooks that want confirmation wait for ever",
                None => {
                    "without it nothing reads the outcomes, and as server.public_url is empty nothing else brings them"
                }
            };
            warnings.push(format!("reconcile.enabled: {what}"));
        }
        warnings
    }

    /// What decisions depend on.
    pub fn rules(&self) -> Rules {
        let spans = |spans: &[Span]| -> Vec<Duration> { spans.iter().map(|span| span.0).collect() };
        let reconcile = &self.reconcile;
        Rules {
            webhooks: if self.server.public_url.is_some() { Webhooks::Expected } else { Webhooks::NotExpected },
            confirm: self.webhook.confirm.into(),
            grace: reconcile.grace.0,
            webhook_retry_window: reconcile.webhook_retry_window.0,
            hard_limit: reconcile.hard_limit.0,
            refund_window: reconcile.refund_window.0,
            recheck: spans(&reconcile.recheck),
            stuck_recheck: spans(&reconcile.stuck_recheck),
            not_found_recheck: reconcile.not_found_recheck.0,
            give_up_after: reconcile.give_up_after.0,
            // Validated when it was loaded.
            expected: self.expected_times().unwrap_or_default(),
        }
    }

    /// Refuses to serve without what serving needs.
    ///
    /// # Errors
    /// [`ConfigError`] says what is missing and how to come by it.
    pub fn require_for_serve(&self) -> Result<(), ConfigError> {
        let mut missing = Vec::new();
        if self.provider.api_key.is_empty() {
            missing.push("provider.api_key is missing: set RECOUP_PROVIDER__API_KEY or RECOUP_PROVIDER__API_KEY_FILE");
        }
        if self.webhook.secrets.is_empty() {
            missing.push("webhook.secrets is missing: set RECOUP_WEBHOOK__SECRETS or RECOUP_WEBHOOK__SECRETS_FILE");
        }
        if self.api.key.is_empty() && self.api.keys.is_empty() {
            missing
                .push("api.key is missing: set RECOUP_API__KEY or RECOUP_API__KEY_FILE, or name keys in [[api.keys]]");
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.push("`recoup init` writes a config.toml with fresh secrets; only the provider's key has to be added");
        Err(ConfigError(missing.into_iter().map(str::to_owned).collect()))
    }
}

fn check_endpoint(faults: &mut Faults, path: &str, endpoint: &Endpoint, private: bool) {
    let https = endpoint.url.scheme() == "https" || (private && endpoint.url.scheme() == "http");
    faults.check(
        https,
        &format!("{path}.url"),
        "must start with https:// (http:// only with events.allow_private_addresses)",
    );
    let one = endpoint.secret.is_empty() != endpoint.secrets.is_empty();
    faults.check(one, &format!("{path}.secret"), "give either secret or, during a rotation, secrets");
    for secret in endpoint.secrets.iter().chain([&endpoint.secret]).filter(|secret| !secret.is_empty()) {
        let key = secret.expose().strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
        let good = key.is_some_and(|key| (24..=64).contains(&key.len()));
        faults.check(good, &format!("{path}.secret"), "must be whsec_ followed by 24 to 64 bytes in base64");
    }
    for kind in &endpoint.types {
        let known = kind == "generation.*" || EventKind::parse(kind).is_some();
        faults.check(known, &format!("{path}.types"), format!("{kind:?} is no event type; generation.* means all"));
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
