//! Does the provider take our key, and does its clock agree with ours?

use std::time::Duration;

use reqwest::header::DATE;

use super::running::Running;
use super::{Check, TIMEOUT};
use crate::cli::remote::AskError;
use crate::cli::status::Ready;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::decision::Told;
use crate::domain::family::FAMILIES;
use crate::domain::id::ProviderId;
use crate::domain::spelling::{line, rough};
use crate::domain::time::Time;
use crate::provider::{Provider, ProviderClient, http_client};

const KEY: &str = "provider key";
const CLOCK: &str = "clock";
/// An id nobody has: reading its status costs nothing and tells whether the key is taken (provider.md section 1).
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
/// Clocks this far apart are worth a word; times in events and `expected_by` are wrong by as much.
const APART: Duration = Duration::from_secs(30);
/// This far apart, receivers refuse our signed events (Standard Webhooks allows five minutes).
const FAR_APART: Duration = Duration::from_mins(5);
const REFUSED: &str =
    "make a key in the provider's dashboard and set provider.api_key; nothing can be bought or asked about until then";

/// Somebody's clock beside ours.
pub(super) struct Dated {
    pub(super) whose: &'static str,
    pub(super) theirs: Time,
    pub(super) ours: Time,
}

/// The provider's clock, asked for without the key.
pub(super) async fn hear(config: &Config) -> anyhow::Result<Option<Dated>> {
    let answer = http_client(TIMEOUT)?.get(config.provider.base_url.clone()).send().await;
    let ours = SystemClock::new().now();
    let theirs = |answer: reqwest::Response| Time::parse_http(answer.headers().get(DATE)?.to_str().ok()?).ok();
    Ok(answer.ok().and_then(theirs).map(|theirs| Dated { whose: "the provider", theirs, ours }))
}

/// Whether our clock is right.
pub(super) fn clock(dated: Option<&Dated>) -> Check {
    let Some(&Dated { whose, theirs, ours }) = dated else {
        return Check::skipped(CLOCK, "nobody outside told the time");
    };
    let (apart, way) = if ours > theirs { (ours.since(theirs), "ahead of") } else { (theirs.since(ours), "behind") };
    let seen = format!("{} {way} that of {whose}", rough(apart));
    let advice = "set the clock by NTP: expected times, refund windows and the signatures of events depend on it";
    if apart >= FAR_APART {
        Check::failed(CLOCK, seen, advice)
    } else if apart >= APART {
        Check::warning(CLOCK, seen, advice)
    } else {
        // The header has whole seconds.
        Check::ok(CLOCK, format!("agrees with that of {whose}"))
    }
}

/// Whether the provider takes our key: asked by the running service, within its budget; by us only when nobody holds the database.
pub(super) async fn key(config: &Config, running: &Running, held: Option<&str>) -> anyhow::Result<Check> {
    if config.provider.api_key.is_empty() {
        return Ok(Check::skipped(KEY, "provider.api_key is not set"));
    }
    if running.knows_key_refused() {
        return Ok(Check::failed(KEY, "the provider refuses provider.api_key, says the service", REFUSED));
    }
    if running.stats.is_ok() {
        return Ok(by_the_service(running).await);
    }
    if running.answers() || held.is_some() {
        return Ok(Check::skipped(KEY, format!("{}, and the reads of the key are its own", running.why_not())));
    }
    directly(config).await
}

async fn by_the_service(running: &Running) -> Check {
    let family = FAMILIES.first().map_or("", |family| family.path);
    let path = format!("/gateway/v1/{family}/generations/{NOBODY}");
    let asked: Result<serde_json::Value, _> = running.remote.get(&path, &[]).await;
    let taken = || Check::ok(KEY, "the provider takes provider.api_key (one status read of the service's budget)");
    match asked {
        Ok(_) => taken(),
        Err(AskError::Problem { code, .. }) if code == "GENERATION_NOT_FOUND" => taken(),
        Err(AskError::Problem { status: 429, detail, .. }) => {
            Check::skipped(KEY, format!("no status read is left now: {detail}"))
        }
        Err(AskError::Problem { code, .. }) if code == "PROVIDER_SILENT" => {
            let again: Result<Ready, _> = running.remote.look("/readyz").await;
            if again.is_ok_and(|ready| ready.key_refused()) {
                Check::failed(KEY, "the provider refuses provider.api_key", REFUSED)
            } else {
                let advice =
                    "if it stays so, look at the provider's dashboard: it is down, or the account is empty (HTTP 402)";
                Check::warning(KEY, "the provider gave no usable answer to a status read", advice)
            }
        }
        Err(error) => Check::skipped(KEY, error.to_string()),
    }
}

async fn directly(config: &Config) -> anyhow::Result<Check> {
    let (Some(family), Ok(nobody)) = (FAMILIES.first(), ProviderId::parse(NOBODY)) else {
        return Ok(Check::skipped(KEY, "there is no family to ask about"));
    };
    let timeout = config.provider.request_timeout.0.min(TIMEOUT);
    let client = ProviderClient::new(&config.provider.base_url, config.provider.api_key.clone(), timeout, timeout)?;
    Ok(judge(&client.status(family, &nobody).await, config))
}

fn judge(told: &Told, config: &Config) -> Check {
    let base = &config.provider.base_url;
    match told.http_status {
        Some(200 | 404 | 429) => {
            Check::ok(KEY, "the provider takes provider.api_key (asked directly, as no service runs: one status read)")
        }
        Some(401 | 403) => Check::failed(KEY, "the provider refuses provider.api_key", REFUSED),
        Some(402) => Check::warning(
            KEY,
            "the provider takes provider.api_key, and the account is empty",
            "pay in before you buy",
        ),
        Some(status) => {
            let advice = "check provider.base_url; if it is right, the provider has a problem";
            Check::warning(KEY, format!("{base} answers HTTP {status} to a status read"), advice)
        }
        None => {
            let advice = "check provider.base_url, the network and the firewall";
            Check::failed(KEY, format!("{base} cannot be reached: {}", line(&told.said)), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn clocks_may_be_a_little_apart() {
        let ours = Time::parse("2026-11-23T10:00:00Z").unwrap();
        let judged = |theirs| clock(Some(&Dated { whose: "the provider", theirs, ours })).verdict;
        assert_eq!(judged(ours + Duration::from_secs(29)), Verdict::Ok);
        assert_eq!(judged(ours - Duration::from_secs(30)), Verdict::Warning);
        assert_eq!(judged(ours + Duration::from_secs(299)), Verdict::Warning);
        assert_eq!(judged(ours - Duration::from_mins(5)), Verdict::Failed);
        assert_eq!(clock(None).verdict, Verdict::Skipped);
    }

    #[test]
    fn the_http_status_tells_whether_a_key_is_taken() {
        use crate::domain::decision::Answer;
        let judged = |http_status| {
            let told =
                Told { answer: Answer::Nothing, http_status, said: "could not connect".to_owned(), body: Vec::new() };
            judge(&told, &Config::default()).verdict
        };
        for (status, verdict) in
            [(404, Verdict::Ok), (429, Verdict::Ok), (402, Verdict::Warning), (500, Verdict::Warning)]
        {
            assert_eq!(judged(Some(status)), verdict, "{status}");
        }
        for status in [Some(401), Some(403), None] {
            assert_eq!(judged(status), Verdict::Failed, "{status:?}");
        }
    }
}
