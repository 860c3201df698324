//! The only HTTP client towards the provider. Asks, bounds what comes back, and says what it means.
//!
//! The key is sent to `provider.base_url` and nowhere else: redirects are not followed, and an id can only be one that
//! fits into a path. Never decides anything about a generation, never retries.

pub mod budget;
pub(crate) mod list;
mod submit;

use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use url::Url;

use crate::clock::Stopwatch;
use crate::domain::decision::{Answer, Told};
use crate::domain::family::Family;
use crate::domain::id::ProviderId;
use crate::domain::notice::Notice;
use crate::domain::schedule::RATE_LIMITED_PAUSE_MAX;
use crate::outgoing::client_builder;
use crate::planted;
use crate::secret::Secret;
use crate::telemetry::meters::{self, Operation};

pub use list::{ListAnswer, Listing};

pub use crate::outgoing::{ClientError, http_client};
pub use submit::{HttpAnswer, Purchase, Submitted};

/// Longest status answer that is read, in bytes (reliability.md 5.3).
const ANSWER_BYTES_MAX: usize = 256 * 1_024;
/// Pause after a 429 without a readable `Retry-After` (contract section 9).
const RATE_LIMITED_PAUSE: Duration = Duration::from_secs(30);
/// Pause after our key was refused: long enough to be no knocking, short enough to notice that it works again.
pub const KEY_REFUSED_PAUSE: Duration = Duration::from_mins(5);

/// Who is asked and bought from: the provider over HTTP, or the simulator's world.
pub trait Provider: std::fmt::Debug + Send + Sync {
    /// Reads the status of one generation. Never fails: an answer that tells nothing is an answer too.
    fn status<'a>(&'a self, family: &'static Family, provider_id: &'a ProviderId) -> BoxFuture<'a, Told>;
    /// Reads the list of a family's latest generations. Never fails: that there is none is an answer too.
    fn list<'a>(&'a self, family: &'static Family) -> BoxFuture<'a, Listing>;
    /// Sends a purchase. Never fails, never repeats.
    fn submit<'a>(&'a self, purchase: &'a Purchase) -> BoxFuture<'a, Submitted>;
    /// Asks what is left on the account. Gives the answer whatever its status; the error says in a few words why there is none.
    fn balance(&self) -> BoxFuture<'_, Result<HttpAnswer, String>>;
}

impl Provider for ProviderClient {
    fn status<'a>(&'a self, family: &'static Family, provider_id: &'a ProviderId) -> BoxFuture<'a, Told> {
        Box::pin(async move {
            let watch = Stopwatch::start();
            let told = self.read_status(family, provider_id).await;
            meters::provider_answer(Operation::Status, told.http_status, watch.elapsed());
            told
        })
    }

    fn list<'a>(&'a self, family: &'static Family) -> BoxFuture<'a, Listing> {
        Box::pin(async move {
            let watch = Stopwatch::start();
            let listing = self.read_list(family).await;
            meters::provider_answer(Operation::List, listing.http_status, watch.elapsed());
            listing
        })
    }

    fn submit<'a>(&'a self, purchase: &'a Purchase) -> BoxFuture<'a, Submitted> {
        Box::pin(async move {
            let watch = Stopwatch::start();
            let submitted = self.send_purchase(purchase).await;
            meters::provider_answer(Operation::Submit, submitted.http_status(), watch.elapsed());
            submitted
        })
    }

    fn balance(&self) -> BoxFuture<'_, Result<HttpAnswer, String>> {
        Box::pin(async move {
            let watch = Stopwatch::start();
            let answer = self.read_balance().await;
            let status = answer.as_ref().ok().map(|answer| answer.status);
            meters::provider_answer(Operation::Balance, status, watch.elapsed());
            answer
        })
    }
}

/// Asks the provider.
#[derive(Clone, Debug)]
pub struct ProviderClient {
    http: reqwest::Client,
    /// For purchases: a fresh connection for each, so that nothing is ever sent twice.
    purchases: reqwest::Client,
    purchase_timeout: Duration,
    base_url: String,
    api_key: Secret,
}

impl ProviderClient {
    /// A client for the provider at `base_url`. `timeout`: of a read, `purchase_timeout`: of a purchase, without the time its upload
    /// takes.
    ///
    /// # Errors
    /// [`ClientError`] when TLS cannot be set up.
    pub fn new(
        base_url: &Url,
        api_key: Secret,
        timeout: Duration,
        purchase_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let base_url = base_url.as_str().trim_end_matches('/').to_owned();
        let purchases = client_builder(timeout).pool_max_idle_per_host(0).build()?;
        Ok(Self { http: http_client(timeout)?, purchases, purchase_timeout, base_url, api_key })
    }

    /// `GET /v1/{family}/generations/{id}` (provider.md section 3)
    async fn read_status(&self, family: &Family, provider_id: &ProviderId) -> Told {
        let url = format!("{}/v1/{}/generations/{provider_id}", self.base_url, family.path);
        let sent = self.http.get(url).bearer_auth(self.api_key.expose()).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return nothing(None, describe(&error)),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        if planted::is(planted::Fault::KeyGoesAlong) && status.is_redirection() {
            let elsewhere = headers.get("location").and_then(|location| location.to_str().ok()).unwrap_or_default();
            drop(self.http.get(elsewhere).bearer_auth(self.api_key.expose()).send().await);
        }
        match read_bounded(response, ANSWER_BYTES_MAX).await {
            Ok(body) => understand(status, &headers, provider_id, self.without_key(body)),
            Err(said) => nothing(Some(status), said),
        }
    }
}

impl ProviderClient {
    /// `GET /v1/data/balance` (provider.md section 1)
    async fn read_balance(&self) -> Result<HttpAnswer, String> {
        let url = format!("{}/v1/data/balance", self.base_url);
        let sent = self.http.get(url).bearer_auth(self.api_key.expose()).send().await;
        let response = sent.map_err(|error| describe(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = self.without_key(read_bounded(response, ANSWER_BYTES_MAX).await?);
        Ok(HttpAnswer {
            status,
            content_type: text(&headers, &CONTENT_TYPE),
            retry_after: text(&headers, &RETRY_AFTER),
            body,
        })
    }

    /// A body in which our key does not stand: somebody in between may have echoed the request's headers.
    fn without_key(&self, body: Vec<u8>) -> Vec<u8> {
        let key = self.api_key.expose().as_bytes();
        if key.is_empty() || !body.windows(key.len()).any(|window| window == key) {
            return body;
        }
        String::from_utf8_lossy(&body).replace(self.api_key.expose(), "***").into_bytes()
    }
}

/// What a complete answer means. Only the HTTP status of a refusal is dependable (provider.md sections 5 and 6).
pub(crate) fn understand(status: StatusCode, headers: &HeaderMap, asked: &ProviderId, body: Vec<u8>) -> Told {
    let http_status = Some(status.as_u16());
    let told = |answer, said: &str, body| Told { answer, http_status, said: said.to_owned(), body };
    match status.as_u16() {
        200 => match Notice::parse(&body) {
            Ok(notice) if notice.provider_id == *asked || planted::is(planted::Fault::AnyIdTaken) => {
                let said = word(&body);
                told(Answer::Known(notice), &said, body)
            }
            Ok(_) => told(Answer::Nothing, "the answer is about another generation", body),
            Err(unreadable) => told(Answer::Nothing, &unreadable.to_string(), body),
        },
        404 => told(Answer::NotFound, "not found", body),
        401 | 403 => told(Answer::Paused { pause: KEY_REFUSED_PAUSE }, "the API key is refused", body),
        429 => told(Answer::Paused { pause: retry_after(headers) }, "too many reads", body),
        300..=399 => told(Answer::Nothing, "a redirect, which is not followed", body),
        _ => told(Answer::Nothing, "no answer to the question", body),
    }
}

/// The provider's own status word, for people.
fn word(body: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let word = value.as_ref().and_then(|value| value.get("status")).and_then(serde_json::Value::as_str);
    word.unwrap_or_default().chars().take(64).collect()
}

/// `Retry-After` in seconds; dates and nonsense count as absent.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(RATE_LIMITED_PAUSE, Duration::from_secs).min(RATE_LIMITED_PAUSE_MAX)
}

fn nothing(status: Option<StatusCode>, said: String) -> Told {
    let http_status = status.map(|status| status.as_u16());
    Told { answer: Answer::Nothing, http_status, said, body: Vec::new() }
}

/// A header, where it is text.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Reads a body that nobody promised to be short.
async fn read_bounded(mut response: reqwest::Response, longest: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let bytes_max = if planted::is(planted::Fault::AnswersUnbounded) { usize::MAX } else { longest };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > bytes_max => {
                return Err(format!("the answer is longer than {longest} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(describe(&error)),
        }
    }
}

/// What went wrong, without the address (the id is in the log's own field, the key is in neither).
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "could not connect".to_owned()
    } else {
        "the connection broke".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(retry_after: &str) -> HeaderMap {
        [(RETRY_AFTER, retry_after.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        assert_eq!(retry_after(&headers("7")), Duration::from_secs(7));
        assert_eq!(retry_after(&HeaderMap::new()), RATE_LIMITED_PAUSE);
        assert_eq!(retry_after(&headers("soon")), RATE_LIMITED_PAUSE);
        assert_eq!(retry_after(&headers("99999999999")), RATE_LIMITED_PAUSE_MAX);
    }

    #[test]
    fn only_the_asked_generations_answer_counts() {
        let asked = ProviderId::parse("a").unwrap();
        let read = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            understand(status, &HeaderMap::new(), &asked, body.as_bytes().to_vec()).answer
        };
        assert!(matches!(read(200, r#"{"generation_id":"a","status":"pending"}"#), Answer::Known(_)));
        assert_eq!(read(200, r#"{"generation_id":"b","status":"pending"}"#), Answer::Nothing);
        assert_eq!(read(200, "<html>"), Answer::Nothing);
        assert_eq!(read(404, ""), Answer::NotFound);
        assert_eq!(read(307, ""), Answer::Nothing);
        assert_eq!(read(402, ""), Answer::Nothing);
        assert_eq!(read(503, r#"{"generation_id":"a","status":"completed"}"#), Answer::Nothing);
        assert_eq!(read(401, ""), Answer::Paused { pause: KEY_REFUSED_PAUSE });
    }
}
