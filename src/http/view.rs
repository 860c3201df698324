//! Generations and deliveries as JSON: the shapes of contract sections 4 and 5.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::domain::credits::CreditState;
use crate::domain::error_code::{
    ErrorCode, SILENT_DESCRIPTION, SILENT_SOLUTION, UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION,
};
use crate::domain::generation::{Attention, Generation, State, Status, Via};
use crate::domain::id::{DeliveryId, GenerationId, ProviderId};
use crate::domain::money::Usd;
use crate::domain::outcome::{Failure, Verification};
use crate::domain::time::Time;
use crate::store::{Delivery, Page, Received};

/// A generation.
#[derive(Debug, Serialize)]
pub(super) struct GenerationView {
    id: GenerationId,
    generation_id: Option<ProviderId>,
    family: &'static str,
    status: Status,
    attention: Option<Attention>,
    model: Option<String>,
    duration_seconds: Option<u32>,
    prompt: Option<String>,
    result_url: Option<String>,
    error: Option<ErrorView>,
    price: Option<Usd>,
    credits: CreditState,
    refund_expected_by: Option<Time>,
    source: Option<&'static str>,
    verification: Option<Verification>,
    recovered: bool,
    submitted_via: Via,
    created_at: Time,
    submitted_at: Option<Time>,
    expected_by: Option<Time>,
    settled_at: Option<Time>,
    next_check_at: Option<Time>,
    checks: u32,
    deliveries: u32,
    metadata: BTreeMap<String, String>,
}

/// Why it failed or was refused, with what the catalogue knows about it.
#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    code: Option<String>,
    category: Option<&'static str>,
    text: Option<String>,
    description: &'static str,
    solution: &'static str,
    retryable: bool,
    known: bool,
}

impl ErrorView {
    fn of(failure: &Failure) -> Self {
        let known = failure.code.as_deref().and_then(ErrorCode::of);
        let (description, solution) = match known {
            Some(known) => (known.description, known.solution),
            None if failure.is_silent() => (SILENT_DESCRIPTION, SILENT_SOLUTION),
            None => (UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION),
        };
        Self {
            code: failure.code.clone(),
            category: known.map(|known| known.category.as_str()),
            text: failure.text.clone(),
            description,
            solution,
            retryable: known.is_some_and(|known| known.retryable),
            known: known.is_some(),
        }
    }
}

impl GenerationView {
    /// As it is at `now`.
    pub(super) fn of(generation: Generation, now: Time, refund_window: Duration) -> Self {
        let credits = CreditState::of(&generation, now, refund_window);
        let refund_expected_by = generation.refund_expected_by(refund_window);
        let (state, learned) = (&generation.state, generation.state.learned());
        let source = match (learned, state) {
            (Some(learned), _) => Some(learned.source.as_str()),
            (None, State::Rejected { .. }) => Some("gateway"),
            (None, _) => None,
        };
        let result_url = state.result_url().map(str::to_owned);
        Self {
            id: generation.id,
            status: state.status(),
            attention: generation.attention,
            result_url,
            error: state.error().map(ErrorView::of),
            price: generation.price,
            credits,
            refund_expected_by,
            source,
            verification: learned.map(|learned| learned.verification),
            recovered: learned.is_some_and(|learned| learned.recovered),
            submitted_via: generation.via,
            created_at: generation.created_at,
            submitted_at: generation.submitted_at,
            expected_by: generation.expected_by,
            settled_at: state.settled_at(),
            next_check_at: generation.next_look_at(),
            checks: generation.watch.checks,
            deliveries: generation.deliveries,
            family: generation.family.path,
            generation_id: generation.provider_id,
            model: generation.request.model,
            duration_seconds: generation.request.duration_seconds,
            prompt: generation.request.prompt,
            metadata: generation.metadata,
        }
    }
}

/// A delivery.
#[derive(Debug, Serialize)]
pub(super) struct DeliveryView {
    id: DeliveryId,
    generation: Option<GenerationId>,
    family: String,
    reference: &'static str,
    received_at: Time,
    disposition: &'static str,
    reason: Option<String>,
    body_bytes: u64,
    body_sha256: String,
    replay_of: Option<DeliveryId>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id,
            generation: delivery.generation,
            family: delivery.family,
            reference: if delivery.standing { "standing" } else { "generation" },
            received_at: delivery.received_at,
            disposition: delivery.disposition.as_str(),
            reason: delivery.reason,
            body_bytes: delivery.body_bytes,
            body_sha256: hex::encode(delivery.body_sha256),
            replay_of: delivery.replay_of,
        }
    }
}

/// A delivery with its raw body: as text where it is text.
#[derive(Debug, Serialize)]
pub(super) struct ReceivedView {
    #[serde(flatten)]
    delivery: DeliveryView,
    body: Option<String>,
    body_base64: Option<String>,
}

impl From<Received> for ReceivedView {
    fn from(received: Received) -> Self {
        let (body, body_base64) = match received.body.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(bytes)) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        Self { delivery: received.delivery.into(), body, body_base64 }
    }
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct ListView<T> {
    data: Vec<T>,
    has_more: bool,
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
