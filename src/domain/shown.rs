//! A generation as the world sees it: the JSON of the API and of events (contract section 5).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::credits::CreditState;
use super::error_code::{ErrorCode, SILENT_DESCRIPTION, SILENT_SOLUTION, UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION};
use super::generation::{Attention, Generation, State, Status, Via};
use super::id::{GenerationId, ProviderId};
use super::money::Usd;
use super::outcome::{Failure, Verification};
use super::time::Time;

/// A generation, to be shown.
#[derive(Debug, Serialize)]
pub struct Shown {
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
struct ErrorView {
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

impl Shown {
    /// As it is at `now`.
    pub fn of(generation: Generation, now: Time, refund_window: Duration) -> Self {
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
