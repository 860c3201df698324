//! One generation in a line: its row in lists, and how long it runs against what was expected of it.

use std::time::Duration;

use super::text::{When, abbreviated, clock, dollars, plain, short};
use crate::domain::credits::CreditState;
use crate::domain::generation::{Attention, Generation, State};
use crate::domain::schedule::Rules;
use crate::domain::time::Time;

/// The width that strips are drawn in.
const WIDTH: u32 = 1_000;

/// A generation in a list.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) short_id: String,
    pub(super) provider_id: Option<String>,
    pub(super) short_provider_id: String,
    pub(super) status: &'static str,
    pub(super) attention: Option<&'static str>,
    pub(super) why: Option<&'static str>,
    pub(super) what: String,
    pub(super) prompt: Option<String>,
    pub(super) credits: &'static str,
    pub(super) price: Option<String>,
    pub(super) began: When,
    pub(super) took: String,
    pub(super) source: Option<&'static str>,
    pub(super) error: Option<String>,
    pub(super) strip: Strip,
}

impl Row {
    pub(super) fn of(generation: &Generation, rules: &Rules, now: Time) -> Self {
        let error = generation.state.error().and_then(|error| error.code.as_deref().or(error.text.as_deref()));
        let end = generation.state.settled_at().unwrap_or(now);
        let status = generation.state.status().as_str();
        Self {
            id: generation.id.to_string(),
            short_id: abbreviated(&generation.id.to_string()),
            short_provider_id: generation.provider_id.as_ref().map(|id| abbreviated(id.as_str())).unwrap_or_default(),
            provider_id: generation.provider_id.as_ref().map(ToString::to_string),
            status,
            // "unconfirmed" and "lost" are a state and the reason to look at it.
            attention: generation.attention.map(Attention::as_str).filter(|word| *word != status),
            why: generation.attention.map(why),
            what: what(generation),
            prompt: generation.request.prompt.as_deref().map(short),
            credits: credits(CreditState::of(generation, now, rules.refund_window)),
            price: generation.price.map(dollars),
            began: When::of(generation.began_at(), now),
            took: clock(end.since(generation.began_at())),
            source: learned(generation),
            error: error.map(short),
            strip: Strip::of(generation, rules, now),
        }
    }
}

/// What was bought, in a few words.
pub(super) fn what(generation: &Generation) -> String {
    let model = generation.request.model.as_deref().map_or_else(|| generation.family.title.to_owned(), short);
    match generation.request.duration_seconds {
        Some(seconds) => format!("{model}, {seconds} s"),
        None => model,
    }
}

/// How the outcome was learned, in a word.
pub(super) fn learned(generation: &Generation) -> Option<&'static str> {
    match (generation.state.learned(), &generation.state) {
        (Some(learned), _) if learned.recovered => Some("read, recovered"),
        (Some(learned), _) => Some(learned.source.as_str()),
        (None, State::Rejected { .. }) => Some("gateway"),
        (None, _) => None,
    }
}

/// Why a person should look, in a sentence.
pub(super) fn why(attention: Attention) -> &'static str {
    match attention {
        Attention::Overdue => "past its expected time, and no outcome is known",
        Attention::Stuck => "past the hard limit, and the provider has said nothing",
        Attention::NoResult => "completed, but without a link to the result",
        Attention::NotFound => "the provider does not know its id",
        Attention::Unconfirmed => "sent, and the answer was lost: it may have been charged",
        Attention::Conflict => "the provider contradicts itself, or a webhook names another one",
        Attention::Lost => "given up after a day without an outcome",
    }
}

/// Where the credits are, in words.
pub(super) fn credits(state: CreditState) -> &'static str {
    match state {
        CreditState::Delivered => "delivered",
        CreditState::Charged => "in the making",
        CreditState::RefundExpected => "refund expected",
        CreditState::Refunded => "refunded",
        CreditState::AtRisk => "at risk",
        CreditState::NotCharged => "not charged",
    }
}

/// How long a generation runs or took: the elapsed time, the expected range and the hard limit on one scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    pub(super) elapsed: u32,
    pub(super) from: u32,
    pub(super) range: u32,
    pub(super) limit: u32,
    /// `fine`, `late` or `over`.
    pub(super) state: &'static str,
    pub(super) text: String,
}

impl Strip {
    pub(super) fn of(generation: &Generation, rules: &Rules, now: Time) -> Self {
        let (expected, limit) = (rules.expected_range(generation), rules.limit(generation));
        let elapsed = generation.state.settled_at().unwrap_or(now).since(generation.began_at());
        let scale = limit + rules.webhook_retry_window;
        let place = |span: Duration| place(span, scale);
        let state = if elapsed <= expected.to {
            "fine"
        } else if elapsed <= limit {
            "late"
        } else {
            "over"
        };
        let text = format!(
            "{} of an expected {} to {}; the limit is {}",
            clock(elapsed),
            clock(expected.from),
            clock(expected.to),
            clock(limit)
        );
        let (from, to) = (place(expected.from), place(expected.to));
        let range = to.saturating_sub(from);
        Self { elapsed: place(elapsed), from, range, limit: place(limit), state, text }
    }
}

/// Where a span ends on a strip.
fn place(span: Duration, scale: Duration) -> u32 {
    let place = span.as_millis() * u128::from(WIDTH) / scale.as_millis().max(1);
    u32::try_from(place).unwrap_or(WIDTH).min(WIDTH)
}

/// Labels as they are shown.
pub(super) fn labels(generation: &Generation) -> Vec<(String, String)> {
    generation.metadata.iter().map(|(key, value)| (plain(key), plain(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Request, Via};
    use crate::domain::id::GenerationId;

    #[test]
    fn a_strip_never_leaves_its_frame_and_says_when_it_is_late() {
        let (rules, bought) = (Config::default().rules(), Time::from_ms(1_795_428_000_000));
        let generation = Generation {
            state: State::Processing,
            submitted_at: Some(bought),
            request: Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: None },
            ..Generation::new(GenerationId::fresh(bought), &FAMILIES[0], Via::Api, bought)
        };
        let at = |minutes| Strip::of(&generation, &rules, bought + Duration::from_mins(minutes));
        assert_eq!(
            [at(0).state, at(3).state, at(4).state, at(15).state, at(16).state],
            ["fine", "fine", "late", "late", "over"]
        );
        assert_eq!((at(0).elapsed, at(60 * 24 * 365).elapsed), (0, WIDTH));
        let strip = at(2);
        assert_eq!((strip.elapsed, strip.from, strip.range), (strip.from, strip.from, strip.from / 2));
        assert!(strip.limit > strip.from + strip.range && strip.limit < WIDTH);
        assert_eq!(strip.text, "2:00 min of an expected 2:00 min to 3:00 min; the limit is 15:00 min");
    }
}
