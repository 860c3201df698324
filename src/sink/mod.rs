//! The HTTP client towards the user's own systems. Signs (Standard Webhooks), refuses addresses that are not public, bounds
//! what comes back.
//!
//! Never decides when something is tried again.

pub mod egress;
pub mod signature;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use url::Url;

use crate::domain::delivery_headers::SIGNATURE;
use crate::outgoing::{ClientError, client_builder};
use crate::planted;
use crate::telemetry::traces;
use egress::{Blocked, Egress, Guarded, System};
use signature::SigningKeys;

/// Everything an attempt may take (reliability.md T16).
pub const TIMEOUT: Duration = Duration::from_secs(15);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Of an answer so much is read, in bytes; the connection is closed then.
const ANSWER_BYTES_MAX: usize = 4 * 1_024;

/// Sends to the user's systems.
#[derive(Clone, Debug)]
pub struct Sink {
    http: reqwest::Client,
    egress: Egress,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Message<'m> {
    /// The id: the same on every attempt.
    pub id: &'m str,
    /// When this attempt is made, in seconds since 1970.
    pub timestamp_s: i64,
    /// JSON, unless `content_type` says otherwise.
    pub body: Vec<u8>,
    /// The type of a body that is passed on.
    pub content_type: Option<&'m str>,
    /// The provider's signature of a body that is passed on.
    pub provider_signature: Option<&'m str>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// 2xx.
    Delivered {
        /// HTTP status.
        status: u16,
    },
    /// 410: the endpoint wants no more.
    Gone,
    /// Anything else.
    Failed {
        /// HTTP status, where there was one.
        status: Option<u16>,
        /// In a few words.
        said: String,
        /// The endpoint's wish not to be tried before.
        retry_after: Option<Duration>,
    },
}

impl Sink {
    /// A sink under that egress rule.
    ///
    /// # Errors
    /// [`ClientError`] when TLS cannot be set up.
    pub fn new(egress: Egress) -> Result<Self, ClientError> {
        Self::resolving(egress, System)
    }

    fn resolving(egress: Egress, resolver: impl Resolve + 'static) -> Result<Self, ClientError> {
        let guarded = Arc::new(Guarded { egress, resolver });
        let http = client_builder(TIMEOUT).timeout(TIMEOUT).dns_resolver(guarded).build()?;
        Ok(Self { http, egress })
    }

    /// Makes one attempt. Without keys it is not signed: a caller's own callback URL is told as the provider tells.
    pub async fn send(&self, url: &Url, keys: Option<&SigningKeys>, message: Message<'_>) -> Attempt {
        if let Err(blocked) = self.egress.check(url) {
            return failed(None, blocked.to_string());
        }
        let anew = planted::is(planted::Fault::EventIdAnew).then(|| uuid::Uuid::now_v7().simple().to_string());
        let message = Message { id: anew.as_deref().unwrap_or(message.id), ..message };
        let mut request = self
            .http
            .post(url.clone())
            .header(CONTENT_TYPE, value(message.content_type).unwrap_or(JSON))
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp_s);
        if let Some(keys) = keys {
            request = request.header("webhook-signature", keys.sign(message.id, message.timestamp_s, &message.body));
        }
        if let Some(signature) = value(message.provider_signature) {
            request = request.header(SIGNATURE, signature);
        }
        match traces::pass_on(request).body(message.body).send().await {
            Ok(response) => judge(response).await,
            Err(error) => failed(None, describe(&error)),
        }
    }
}

/// What came as a header, where it can go out as one.
fn value(text: Option<&str>) -> Option<HeaderValue> {
    text.and_then(|text| HeaderValue::from_str(text).ok())
}

async fn judge(mut response: reqwest::Response) -> Attempt {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
    // Read a little, so that a well-behaved connection can be used again; the rest is not waited for.
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > ANSWER_BYTES_MAX {
            break;
        }
    }
    match status {
        200..=299 => Attempt::Delivered { status },
        410 => Attempt::Gone,
        300..=399 => failed(Some(status), "a redirect, which is not followed".to_owned()),
        _ => Attempt::Failed {
            status: Some(status),
            said: "the endpoint did not take it".to_owned(),
            retry_after: retry_after.map(Duration::from_secs),
        },
    }
}

fn failed(status: Option<u16>, said: String) -> Attempt {
    Attempt::Failed { status, said, retry_after: None }
}

fn describe(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(known) = cause {
        // The resolver's own words; on their way through the client they lose their type.
        let said = known.to_string();
        if said == Blocked::NotPublic.to_string() {
            return said;
        }
        cause = known.source();
    }
    if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "could not connect".to_owned()
    } else {
        "the connection broke".to_owned()
    }
}
