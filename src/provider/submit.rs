//! Sending a purchase: once, on a connection of its own, never again. Says whether it is certain that nothing was sent.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};

use super::{ANSWER_BYTES_MAX, ProviderClient, describe, read_bounded, text};
use crate::domain::family::Family;
use crate::domain::id::GenerationId;
use crate::domain::purchase::Piece;
use crate::planted;
use crate::telemetry::traces;

/// Slowest upload that is waited for, in bytes a second: 67 MB of images need more than the usual time limit.
const UPLOAD_BYTES_PER_SECOND: u64 = 256 * 1_024;
const JSON: &str = "application/json";
/// As the provider's own client names it.
const IDEMPOTENCY_KEY: &str = "x-idempotency-key";

/// A request for a purchase.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// Our id of it: the idempotency key towards the provider, for the case that it heeds one (provider.md section 13).
    pub generation: GenerationId,
    /// What is bought from.
    pub family: &'static Family,
    /// The caller's body.
    pub body: Bytes,
    /// What of it is sent.
    pub pieces: Vec<Piece>,
    /// The caller's `Content-Type`.
    pub content_type: Option<String>,
    /// The provider is told which trace this is part of.
    pub pass_trace: bool,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// The body, without our key in it.
    pub body: Vec<u8>,
}

/// What sending a purchase brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// An answer, whole.
    Answered(HttpAnswer),
    /// An answer whose body broke off or was too long; the status is certain.
    BrokenOff {
        /// HTTP status.
        status: u16,
        /// What went wrong.
        said: String,
    },
    /// There was no connection: nothing was sent.
    NotSent(String),
    /// Something was sent, and no answer came.
    NoAnswer(String),
}

impl Submitted {
    /// The HTTP status, where there was one.
    pub(super) fn http_status(&self) -> Option<u16> {
        match self {
            Self::Answered(HttpAnswer { status, .. }) | Self::BrokenOff { status, .. } => Some(*status),
            Self::NotSent(_) | Self::NoAnswer(_) => None,
        }
    }
}

impl ProviderClient {
    /// `POST /v1/{family}/generate` (provider.md section 2)
    pub(super) async fn send_purchase(&self, purchase: &Purchase) -> Submitted {
        let url = format!("{}/v1/{}/generate", self.base_url, purchase.family.path);
        let pieces: Vec<Bytes> = purchase.pieces.iter().map(|piece| bytes(&purchase.body, piece)).collect();
        let length: u64 = pieces.iter().map(|piece| u64::try_from(piece.len()).unwrap_or(0)).sum();
        let body = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
        let request = self
            .purchases
            .post(url)
            .bearer_auth(self.api_key.expose())
            .header(CONTENT_TYPE, json_type(purchase.content_type.as_deref()))
            .header(CONTENT_LENGTH, length)
            .header(IDEMPOTENCY_KEY, idempotency_key(purchase.generation))
            .timeout(self.purchase_timeout + Duration::from_secs(length / UPLOAD_BYTES_PER_SECOND))
            .body(reqwest::Body::wrap_stream(body));
        let request = if purchase.pass_trace { traces::pass_on(request) } else { request };
        let response = match request.send().await {
            Ok(response) => response,
            // Resolving, connecting and the handshake come before the first byte of a request.
            Err(error) if error.is_connect() => return Submitted::NotSent(why(&error)),
            Err(error) => return Submitted::NoAnswer(describe(&error)),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        match read_bounded(response, ANSWER_BYTES_MAX).await {
            Ok(body) => Submitted::Answered(HttpAnswer {
                status,
                content_type: text(&headers, &CONTENT_TYPE),
                retry_after: text(&headers, &RETRY_AFTER),
                body: self.without_key(body),
            }),
            Err(said) => Submitted::BrokenOff { status, said },
        }
    }
}

/// What a purchase is called towards the provider: our id, which it keeps for ever.
fn idempotency_key(id: GenerationId) -> String {
    if planted::is(planted::Fault::OtherKeySent) { uuid::Uuid::now_v7().simple().to_string() } else { id.to_string() }
}

/// A part of what is sent, without copying the caller's bytes.
fn bytes(body: &Bytes, piece: &Piece) -> Bytes {
    match piece {
        Piece::Kept(range) => body.slice(range.clone()),
        Piece::Written(text) => Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// The caller's own type where that is one of JSON: what was read as JSON is sent as JSON, whatever it was called (curl calls it a form).
fn json_type(given: Option<&str>) -> &str {
    given.filter(|given| is_json(given)).unwrap_or(JSON)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == JSON || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Why there was no connection: the innermost cause says it best (refused, unknown host, certificate).
fn why(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("could not connect: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_as_json_is_sent_as_json() {
        for json in
            ["application/json", "Application/JSON; charset=utf-8", "application/problem+json", " application/json "]
        {
            assert_eq!(json_type(Some(json)), json);
        }
        let others = ["application/x-www-form-urlencoded", "text/plain", "text/json", "application/jsonp", "+json", ""];
        for other in others.map(Some).into_iter().chain([None]) {
            assert_eq!(json_type(other), JSON, "{other:?}");
        }
    }
}
