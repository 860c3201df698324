//! What the running service says about itself: ready, webhooks, events.

use super::Check;
use crate::cli::remote::{AskError, Remote, key_to_read, listening};
use crate::cli::status::{Ready, Stats, arrivals};
use crate::config::Config;
use crate::domain::reading;
use crate::domain::spelling::{line, several};

const SERVICE: &str = "service";
const WEBHOOKS: &str = "webhooks";
const OUTCOMES: &str = "outcomes";
const EVENTS: &str = "events";
/// From this share of missed webhooks on somebody should look.
const LOSS_MAX: f64 = 0.2;

/// The service of this configuration, as far as it answers.
pub(super) struct Running {
    pub(super) remote: Remote,
    pub(super) ready: Result<Ready, AskError>,
    pub(super) stats: Result<Stats, AskError>,
}

/// Asks the service at the address of the configuration.
pub(super) async fn look(config: &Config) -> anyhow::Result<Running> {
    let remote = Remote::new(&listening(config)?, key_to_read(config).unwrap_or_default())?;
    let ready = remote.look("/readyz").await;
    // The key is not for whoever happens to listen there.
    let stats = match &ready {
        Ok(_) => remote.get("/v1/stats", &[]).await,
        Err(_) => Err(remote.stranger("it was not asked".to_owned())),
    };
    Ok(Running { remote, ready, stats })
}

impl Running {
    /// Whether a recoup answers at all.
    pub(super) fn answers(&self) -> bool {
        self.ready.is_ok()
    }

    /// Why there is nothing to be had from the API.
    pub(super) fn why_not(&self) -> String {
        match (&self.ready, &self.stats) {
            (Err(AskError::Unreachable { .. }), _) => "the service does not run".to_owned(),
            (Err(error), _) => error.to_string(),
            (_, Err(AskError::NoKey { .. } | AskError::KeyRefused { .. })) => {
                "the service does not take the API key of this configuration".to_owned()
            }
            (_, Err(error)) => error.to_string(),
            (Ok(_), Ok(_)) => "the service did not say".to_owned(),
        }
    }

    /// Whether it runs and is ready.
    pub(super) fn check(&self) -> Check {
        let base = self.remote.base();
        let ready = match &self.ready {
            Ok(ready) => ready,
            Err(AskError::Unreachable { cause, .. }) => {
                let advice = "start it with `recoup serve`, or correct server.listen; what only it can tell is skipped";
                return Check::failed(SERVICE, format!("nothing answers at {base}: {cause}"), advice);
            }
            Err(error) => {
                let advice = "free that address for recoup, or correct server.listen";
                return Check::failed(SERVICE, format!("what answers at {base} is not recoup: {error}"), advice);
            }
        };
        let bad = ready.parts.iter().filter(|part| part.status != "ok");
        let faults: Vec<_> = bad
            .map(|part| format!("{}: {}", line(&part.name), line(part.detail.as_deref().unwrap_or(&part.status))))
            .collect();
        if ready.status != "ready" {
            return Check::failed(
                SERVICE,
                format!("not ready at {base}: {}", faults.join(", ")),
                "read its log: the cause is there",
            );
        }
        if let Err(error @ (AskError::NoKey { .. } | AskError::KeyRefused { .. })) = &self.stats {
            let advice = "set `api.key` to the one the service was started with; what needs it is skipped";
            return Check::warning(SERVICE, format!("ready at {base}, but {error}"), advice);
        }
        Check::ok(SERVICE, format!("ready at {base}"))
    }

    /// Whether the provider is known to refuse our key.
    pub(super) fn knows_key_refused(&self) -> bool {
        self.ready.as_ref().is_ok_and(Ready::key_refused)
    }

    /// Whether outcomes come: by webhooks that arrive, or by reads where none can.
    pub(super) fn outcomes(&self, config: &Config) -> Check {
        match &self.stats {
            Ok(stats) => match stats.behind() {
                Some(behind) => Check::ok(OUTCOMES, reading::explain(behind)),
                None => self.webhooks(),
            },
            Err(_) if config.server.public_url.is_none() => {
                Check::skipped(OUTCOMES, format!("they are read, as server.public_url is empty; {}", self.why_not()))
            }
            Err(_) => self.webhooks(),
        }
    }

    /// Whether webhooks arrive.
    fn webhooks(&self) -> Check {
        let Ok(stats) = &self.stats else { return Check::skipped(WEBHOOKS, self.why_not()) };
        let of_last: u64 = stats.webhooks.iter().map(|webhooks| webhooks.of_last).sum();
        if of_last == 0 {
            let last = stats.last_webhook_at.map(|at| at.to_string());
            let last = last.map_or("no webhook yet either".to_owned(), |at| format!("the last webhook came at {at}"));
            return Check::skipped(WEBHOOKS, format!("no outcome is known yet, so nothing can be said; {last}"));
        }
        let seen = stats.webhooks.iter().map(told).collect::<Vec<_>>().join("; ");
        if stats.webhooks.iter().any(|webhooks| webhooks.silent) {
            let advice = "reads find the outcomes, webhooks do not arrive: the likely cause is server.public_url (see the lines above), \
                          or a purchase without our callback_url";
            Check::failed(WEBHOOKS, seen, advice)
        } else if stats.webhooks.iter().any(|webhooks| webhooks.loss.is_some_and(|loss| loss >= LOSS_MAX)) {
            Check::warning(
                WEBHOOKS,
                seen,
                "many get lost: look for 4xx and 5xx on /webhooks in the log of what stands in front",
            )
        } else {
            Check::ok(WEBHOOKS, seen)
        }
    }

    /// Whether the user's systems take what they are told. They are not asked: recoup does that by itself.
    pub(super) fn events(&self, config: &Config) -> Check {
        let Ok(stats) = &self.stats else { return Check::skipped(EVENTS, self.why_not()) };
        let to = several(u64::try_from(config.events.endpoints.len()).unwrap_or(u64::MAX), "endpoint");
        let seen = format!("{to}; {} pending, {} dead", stats.events.pending, stats.events.dead);
        if stats.events.dead > 0 {
            let advice = "mend the endpoint, then send them again: POST /v1/events/redeliveries, or the page's Events";
            return Check::warning(EVENTS, seen, advice);
        }
        Check::ok(EVENTS, seen)
    }
}

fn told(webhooks: &crate::cli::status::Webhooks) -> String {
    anstream::adapter::strip_str(&arrivals(webhooks)).to_string()
}
