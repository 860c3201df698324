//! Deliveries and lists as JSON: the shapes of contract sections 4 and 5.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::decision::Disposition;
use crate::domain::delivery_headers::{DeliveryHeaders, Signature};
use crate::domain::id::{DeliveryId, GenerationId};
use crate::domain::time::Time;
use crate::store::{Delivery, Page, Received};

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    id: DeliveryId,
    /// What it is about, where that is known.
    generation: Option<GenerationId>,
    /// The family of the URL it came by.
    family: &'static str,
    reference: Reference,
    received_at: Time,
    disposition: Disposition,
    /// Why it could not be read.
    reason: Option<String>,
    body_bytes: u64,
    /// SHA-256 of the body, hexadecimal.
    body_sha256: String,
    /// The delivery whose body was run again.
    replay_of: Option<DeliveryId>,
    /// What is known of its `X-RunBlob-Signature`; null for one without.
    signature: Option<Signature>,
}

/// By which kind of callback URL a webhook came.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Reference {
    /// The one URL of a family.
    Standing,
    /// A URL minted for one generation.
    Generation,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id,
            generation: delivery.generation,
            family: delivery.family.path,
            reference: if delivery.standing { Reference::Standing } else { Reference::Generation },
            received_at: delivery.received_at,
            disposition: delivery.disposition,
            reason: delivery.reason,
            body_bytes: delivery.body_bytes,
            body_sha256: hex::encode(delivery.body_sha256),
            replay_of: delivery.replay_of,
            signature: delivery.signature,
        }
    }
}

/// A delivery with its raw body: as text where it is text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryWithBody)]
pub(super) struct ReceivedView {
    #[serde(flatten)]
    delivery: DeliveryView,
    /// The body, where it is text and still kept.
    body: Option<String>,
    /// The body, where it is no text.
    body_base64: Option<String>,
    /// The headers that are kept of it, names in lower case: no credentials, and nothing that holds its token. Removed with the body.
    headers: DeliveryHeaders,
}

impl From<Received> for ReceivedView {
    fn from(received: Received) -> Self {
        let (body, body_base64) = match received.body.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(bytes)) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        Self { delivery: received.delivery.into(), body, body_base64, headers: received.headers }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = List)]
pub(super) struct ListView<T> {
    data: Vec<T>,
    /// Whether there is more behind `next_cursor`.
    has_more: bool,
    /// To be sent as `cursor`, with the same filters and order.
    next_cursor: Option<String>,
}

impl<T> ListView<T> {
    /// Shows each row by `view`.
    pub(super) fn of<R>(page: Page<R>, view: impl Fn(R) -> T) -> Self {
        Self {
            data: page.rows.into_iter().map(view).collect(),
            has_more: page.next_cursor.is_some(),
            next_cursor: page.next_cursor,
        }
    }

    /// All there is.
    pub(super) fn whole(data: Vec<T>) -> Self {
        Self { data, has_more: false, next_cursor: None }
    }
}
