//! A generation as the world sees it: the JSON of the API and of events (contract section 5).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::credits::CreditState;
use super::error_code::{
    Category, ErrorCode, SILENT_DESCRIPTION, SILENT_SOLUTION, UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION,
};
use super::generation::{Attention, Generation, State, Status, Via};
use super::id::{GenerationId, ProviderId};
use super::money::Usd;
use super::outcome::{Failure, Source, Verification};
use super::pass_through::ResultLink;
use super::time::Time;

/// A generation, to be shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Generation)]
pub struct Shown {
    id: GenerationId,
    /// The provider's id, once it is known.
    generation_id: Option<ProviderId>,
    /// The provider's path segment.
    #[schema(examples("kling/o3-video"))]
    family: &'static str,
    status: Status,
    attention: Option<Attention>,
    /// The value of the purchase's `model` field.
    model: Option<String>,
    duration_seconds: Option<u32>,
    prompt: Option<String>,
    /// Where the result is; a completed one always has it.
    result_url: Option<String>,
    /// Every link of the result, `result_url` first. Only of a completed one that is read by itself: not in lists and events.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    results: Option<Vec<ResultLink>>,
    /// Why it failed or was refused.
    error: Option<ErrorView>,
    /// What it costs; null while nobody told. Never zero for unknown.
    price: Option<Usd>,
    credits: CreditState,
    /// The provider's promise, for one that failed.
    refund_expected_by: Option<Time>,
    /// How the outcome was learned; `gateway`: refused at submission.
    #[schema(value_type = Option<ShownSource>)]
    source: Option<&'static str>,
    verification: Option<Verification>,
    /// A check found the outcome while no webhook had come: it would have been lost.
    recovered: bool,
    submitted_via: Via,
    /// When it came to be known here.
    created_at: Time,
    submitted_at: Option<Time>,
    /// The outcome is expected by then.
    expected_by: Option<Time>,
    /// When the outcome was learned, or it was refused or given up.
    settled_at: Option<Time>,
    /// When the reconciler looks at it next.
    next_check_at: Option<Time>,
    /// Reads of the provider's status spent on it.
    checks: u32,
    /// Webhooks that came for it.
    deliveries: u32,
    /// The user's own labels.
    metadata: BTreeMap<String, String>,
}

/// Why it failed or was refused, with what the catalogue knows about it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GenerationError)]
struct ErrorView {
    /// The provider's `ALL_CAPS` word, where it gave one.
    code: Option<String>,
    category: Option<Category>,
    /// What else the provider said.
    text: Option<String>,
    description: &'static str,
    solution: &'static str,
    /// Whether the same request may succeed when it is sent again.
    retryable: bool,
    /// Whether the code is in the catalogue.
    known: bool,
}

/// How an outcome was learned, as it is shown.
struct ShownSource;

impl utoipa::PartialSchema for ShownSource {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let words = [
            (Source::Webhook.as_str(), "A webhook told it."),
            (Source::Check.as_str(), "We asked."),
            (REFUSED_AT_SUBMISSION, "It was refused at submission."),
        ];
        super::schema::one_of("How the outcome was learned.", &words)
    }
}

impl ToSchema for ShownSource {
    fn name() -> std::borrow::Cow<'static, str> {
        "Source".into()
    }
}

/// The source of a refusal.
const REFUSED_AT_SUBMISSION: &str = "gateway";

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
            category: known.map(|known| known.category),
            text: failure.text.clone(),
            description,
            solution,
            retryable: known.is_some_and(|known| known.retryable),
            known: known.is_some(),
        }
    }
}

impl Shown {
    /// The same with every link of the result.
    #[must_use]
    pub fn with_results(self, results: Vec<ResultLink>) -> Self {
        Self { results: Some(results), ..self }
    }

    /// As it is at `now`.
    pub fn of(generation: Generation, now: Time, refund_window: Duration) -> Self {
        let credits = CreditState::of(&generation, now, refund_window);
        let refund_expected_by = generation.refund_expected_by(refund_window);
        let (state, learned) = (&generation.state, generation.state.learned());
        let source = match (learned, state) {
            (Some(learned), _) => Some(learned.source.as_str()),
            (None, State::Rejected { .. }) => Some(REFUSED_AT_SUBMISSION),
            (None, _) => None,
        };
        let result_url = state.result_url().map(str::to_owned);
        Self {
            id: generation.id,
            status: state.status(),
            attention: generation.attention,
            result_url,
            results: None,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::family::FAMILIES;
    use crate::domain::outcome::Learned;

    const AT: Time = Time::from_ms(1_795_428_000_000);

    fn shown(state: State) -> Value {
        let id = GenerationId::from_bytes(&[7; 16]).unwrap();
        let generation = Generation { state, ..Generation::new(id, &FAMILIES[0], Via::Gateway, AT) };
        serde_json::to_value(Shown::of(generation, AT, Duration::from_mins(5))).unwrap()
    }

    #[test]
    fn a_failure_is_shown_with_what_is_known_about_it() {
        let timeout = ErrorCode::of("TIMEOUT").unwrap();
        for (code, text, description, solution, known) in [
            (Some("TIMEOUT"), None, timeout.description, timeout.solution, true),
            (Some("NEVER_SEEN"), None, UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION, false),
            (None, Some("sorry"), UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION, false),
            (None, None, SILENT_DESCRIPTION, SILENT_SOLUTION, false),
        ] {
            let error = Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) };
            let learned = Learned { source: Source::Check, verification: Verification::Status, recovered: true };
            let shown = shown(State::Failed { at: AT, error, learned });
            assert_eq!(
                shown["error"],
                json!({
                    "code": code, "category": known.then_some("system"), "text": text, "description": description,
                    "solution": solution, "retryable": known, "known": known,
                })
            );
            assert_eq!((&shown["source"], &shown["recovered"]), (&json!("check"), &json!(true)));
            assert_eq!((&shown["verification"], &shown["credits"]), (&json!("status"), &json!("refund_expected")));
            assert_eq!(shown["refund_expected_by"], json!("2026-11-23T10:05:00Z"));
        }
    }

    #[test]
    fn what_was_refused_at_submission_says_so() {
        let refused = shown(State::Rejected { at: AT, error: Failure::default() });
        assert_eq!((&refused["source"], &refused["verification"]), (&json!("gateway"), &Value::Null));
        let running = shown(State::Pending);
        assert_eq!(
            (&running["source"], &running["error"], &running["recovered"]),
            (&Value::Null, &Value::Null, &json!(false))
        );
        assert_eq!(<ShownSource as ToSchema>::name(), "Source");
    }
}
