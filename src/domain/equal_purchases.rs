//! Whether the same was bought more than once, and what that came to.
//!
//! Sums are exact and hold what is known: an unknown price is said to be unknown, never taken for zero, and what may have been
//! sold is never added to what was.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::credits::CreditState;
use super::diagnosis::{Answer, Cited, Diagnosis};
use super::generation::{Generation, State, Status};
use super::id::{GenerationId, ProviderId};
use super::money::Usd;
use super::time::Time;

/// Equal purchases named in a sentence; the facts hold all.
const NAMED_MAX: usize = 5;
/// Equal purchases that are counted; where there are more the answer says so.
pub const COUNTED_MAX: usize = 1_000;

/// Another purchase of the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EqualPurchase {
    /// Our id.
    pub id: GenerationId,
    /// The provider's id.
    pub generation_id: Option<ProviderId>,
    /// Where it stands.
    pub status: Status,
    /// What it cost.
    pub price: Option<Usd>,
    /// Where its credits are.
    pub credits: CreditState,
    /// When it was bought, or first known.
    pub bought_at: Time,
}

/// Whether it was sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sale {
    /// Certainly.
    Certain,
    /// Maybe: nobody has said so yet.
    Unclear,
}

/// `None`: it was not.
fn sale(generation: &Generation) -> Option<Sale> {
    match &generation.state {
        State::Prepared | State::Rejected { .. } => None,
        State::Submitting | State::Unconfirmed => Some(Sale::Unclear),
        State::Lost { .. } if generation.provider_id.is_none() => Some(Sale::Unclear),
        State::Pending | State::Processing | State::Completed { .. } | State::Failed { .. } | State::Lost { .. } => {
            Some(Sale::Certain)
        }
    }
}

/// A generation and the purchases that are equal to it.
#[derive(Clone, Debug)]
pub struct EqualPurchases<'g> {
    generation: &'g Generation,
    /// Those that were or may have been sold.
    others: Vec<(Sale, &'g Generation)>,
    /// There may be more than were looked at.
    is_cut: bool,
    now: Time,
    refund_window: Duration,
}

/// Some amounts, of which some are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    purchases: usize,
    unknown: usize,
    known: Usd,
    dearest: Usd,
}

impl Sum {
    fn of<'g>(generations: impl Iterator<Item = &'g Generation>) -> Self {
        let mut sum = Self::default();
        for generation in generations {
            sum.purchases += 1;
            match generation.price {
                None => sum.unknown += 1,
                Some(price) => {
                    sum.known += price;
                    sum.dearest = sum.dearest.max(price);
                }
            }
        }
        sum
    }

    /// What is known, or that nothing is.
    fn amount(self) -> Option<Usd> {
        (self.purchases > self.unknown).then_some(self.known)
    }

    /// `0.30 USD and an unknown amount`.
    fn text(self) -> String {
        match (self.amount(), self.unknown) {
            (None, _) => "an unknown amount".to_owned(),
            (Some(known), 0) => format!("{known} USD"),
            (Some(known), unknown) => format!("{known} USD, and for {unknown} of them an unknown amount"),
        }
    }

    /// What it is more than one of them.
    fn beyond_one(self) -> Option<Usd> {
        let mut beyond = self.amount().filter(|_| self.purchases > 1)?;
        // Where a price is not known it may be the dearest: then all that is known is beyond one.
        if self.unknown == 0 {
            beyond -= self.dearest;
        }
        Some(beyond)
    }
}

impl<'g> EqualPurchases<'g> {
    /// `equal`: generations of the same prompt, family, model and length, made within ten minutes.
    pub fn of(generation: &'g Generation, equal: &'g [Generation], now: Time, refund_window: Duration) -> Self {
        let others = equal.iter().filter_map(|other| Some((sale(other)?, other))).collect();
        Self { generation, others, is_cut: equal.len() >= COUNTED_MAX, now, refund_window }
    }

    /// Those that were or may have been sold, oldest first.
    pub fn purchases(&self) -> Vec<EqualPurchase> {
        self.others.iter().map(|(_, other)| self.shown(other)).collect()
    }

    /// The same as generations.
    pub fn generations(&self) -> impl Iterator<Item = &'g Generation> {
        self.others.iter().map(|(_, other)| *other)
    }

    fn shown(&self, other: &Generation) -> EqualPurchase {
        EqualPurchase {
            id: other.id,
            generation_id: other.provider_id.clone(),
            status: other.state.status(),
            price: other.price,
            credits: CreditState::of(other, self.now, self.refund_window),
            bought_at: other.began_at(),
        }
    }

    fn sum(&self, wanted: Sale) -> Sum {
        let own = sale(self.generation).map(|sale| (sale, self.generation));
        Sum::of(
            own.into_iter().chain(self.others.iter().copied()).filter(|(sale, _)| *sale == wanted).map(|(_, of)| of),
        )
    }

    /// What of the certain ones came back, or is promised to.
    fn returned(&self) -> Sum {
        let own = std::iter::once(self.generation);
        let all = own.chain(self.others.iter().map(|(_, other)| *other));
        let returns = |of: &&Generation| {
            let credits = CreditState::of(of, self.now, self.refund_window);
            sale(of) == Some(Sale::Certain) && matches!(credits, CreditState::Refunded | CreditState::RefundExpected)
        };
        Sum::of(all.filter(returns))
    }

    /// The answer, and the facts it rests on.
    pub fn answer(&self) -> Answer {
        let (certain, unclear) = (self.sum(Sale::Certain), self.sum(Sale::Unclear));
        let facts = vec![
            Cited { fact: "equal_purchases", value: json!(self.purchases()) },
            Cited { fact: "charged_together", value: json!(certain.amount()) },
            Cited { fact: "charged_beyond_one", value: json!(certain.beyond_one()) },
            Cited { fact: "prices_unknown", value: json!(certain.unknown) },
            Cited { fact: "maybe_charged", value: json!(unclear.purchases) },
        ];
        Answer { question: "Was it charged twice?", text: self.text(certain, unclear), facts }
    }

    fn text(&self, certain: Sum, unclear: Sum) -> String {
        if sale(self.generation).is_none() {
            return "It was not bought, so nothing was charged for it.".to_owned();
        }
        if self.generation.request.prompt.is_none() {
            return "Its prompt is not on record, so it cannot be told whether the same was bought again. One purchase is on record \
                    under this id; however often its webhook comes, it is charged once."
                .to_owned();
        }
        if self.others.is_empty() {
            return "No. Of the purchases made within ten minutes of it none has the same prompt, family, model and length. However \
                    often its webhook comes, it is charged once."
                .to_owned();
        }
        let sentences = [Some(self.bought_again()), together(certain), self.came_back(), maybe(unclear)];
        sentences.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// What was bought again, by name.
    fn bought_again(&self) -> String {
        let how_often = match self.others.len() {
            1 => "once more".to_owned(),
            more => format!("{more} more times"),
        };
        let named: Vec<_> = self.others.iter().take(NAMED_MAX).map(|(_, other)| named(other)).collect();
        let rest = match self.others.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let cut = if self.is_cut { format!(" Only {COUNTED_MAX} of them are counted.") } else { String::new() };
        let named = named.join(", ");
        format!(
            "The same prompt, family, model and length was bought {how_often} within ten minutes: {named}{rest}.{cut}"
        )
    }

    fn came_back(&self) -> Option<String> {
        let returned = self.returned();
        (returned.purchases > 0).then(|| format!("Of that {} came back or is to come back.", returned.text()))
    }
}

/// What was charged for certain.
fn together(certain: Sum) -> Option<String> {
    let charged = certain.text();
    match (certain.purchases, certain.beyond_one()) {
        (0, _) => None,
        (1, _) => Some(format!("One of them was charged for certain: {charged}.")),
        (count, None) => Some(format!("Together {count} of them were charged {charged}.")),
        (count, Some(beyond)) => {
            let at_least = if certain.unknown > 0 { "at least " } else { "" };
            Some(format!(
                "Together {count} of them were charged {charged}; that is {at_least}{beyond} USD more than one purchase."
            ))
        }
    }
}

/// What may have been.
fn maybe(unclear: Sum) -> Option<String> {
    let subject = match unclear.purchases {
        0 => return None,
        1 => "One was maybe sold".to_owned(),
        count => format!("{count} were maybe sold"),
    };
    Some(format!("{subject}, and charged {} then; nobody has said so yet.", unclear.text()))
}

/// `gen_... (completed, 0.1500 USD)`.
fn named(other: &Generation) -> String {
    let price = other.price.map_or("price unknown".to_owned(), |price| format!("{price} USD"));
    format!("{} ({}, {price})", other.id, other.state.status().as_str())
}

impl Diagnosis {
    /// The same, with what there is to say about equal purchases.
    #[must_use]
    pub fn and_equal(mut self, equal: &EqualPurchases<'_>) -> Self {
        self.answers.push(equal.answer());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Request, Via};
    use crate::domain::outcome::{Failure, Learned, Source, Verification};

    const T0: Time = Time::from_ms(1_795_428_000_000);
    const WINDOW: Duration = Duration::from_mins(5);
    const LEARNED: Learned = Learned { source: Source::Webhook, verification: Verification::Token, recovered: false };

    fn one(n: u8, state: State, micros: Option<i64>) -> Generation {
        let request = Request { prompt: Some("a boat".to_owned()), ..Request::default() };
        Generation {
            state,
            request,
            provider_id: ProviderId::parse(&format!("p-{n}")).ok(),
            price: micros.map(Usd::from_micros),
            ..Generation::new(GenerationId::from_bytes(&[n; 16]).unwrap(), &FAMILIES[0], Via::Gateway, T0)
        }
    }

    fn completed(n: u8, micros: Option<i64>) -> Generation {
        one(n, State::Completed { at: T0, result_url: "u".to_owned(), learned: LEARNED }, micros)
    }

    fn unclear(n: u8) -> Generation {
        Generation { provider_id: None, ..one(n, State::Unconfirmed, None) }
    }

    /// The answer without the ids, and what it cites: together, beyond one, unknown, maybe.
    fn said(generation: &Generation, equal: &[Generation]) -> (String, [String; 4]) {
        let answer = EqualPurchases::of(generation, equal, T0, WINDOW).answer();
        assert_eq!((answer.question, answer.facts[0].fact), ("Was it charged twice?", "equal_purchases"));
        let cited = |n: usize| answer.facts[n].value.to_string();
        let text = equal.iter().fold(answer.text.clone(), |text, other| text.replace(&other.id.to_string(), "gen"));
        (text, [cited(1), cited(2), cited(3), cited(4)])
    }

    #[track_caller]
    fn check(generation: &Generation, equal: &[Generation], text: &str, cited: [&str; 4]) {
        let (told, facts) = said(generation, equal);
        assert_eq!((told.as_str(), facts.each_ref().map(String::as_str)), (text, cited));
    }

    #[test]
    fn what_equal_purchases_came_to_is_told_to_the_cent() {
        let failed = |n| one(n, State::Failed { at: T0, error: Failure::default(), learned: LEARNED }, Some(150_000));
        check(
            &completed(1, Some(150_000)),
            &[completed(2, Some(150_000)), failed(3), one(4, State::Prepared, None)],
            "The same prompt, family, model and length was bought 2 more times within ten minutes: gen (completed, 0.1500 USD), \
             gen (failed, 0.1500 USD). Together 3 of them were charged 0.4500 USD; that is 0.3000 USD more than one purchase. Of \
             that 0.1500 USD came back or is to come back.",
            ["\"0.4500\"", "\"0.3000\"", "0", "0"],
        );
    }

    #[test]
    fn an_unknown_price_is_not_zero_and_what_may_have_been_sold_is_not_added() {
        check(
            &completed(1, Some(150_000)),
            &[completed(2, None), unclear(3)],
            "The same prompt, family, model and length was bought 2 more times within ten minutes: gen (completed, price unknown), \
             gen (unconfirmed, price unknown). Together 2 of them were charged 0.1500 USD, and for 1 of them an unknown amount; \
             that is at least 0.1500 USD more than one purchase. One was maybe sold, and charged an \
             unknown amount then; nobody has said so yet.",
            ["\"0.1500\"", "\"0.1500\"", "1", "1"],
        );
        check(
            &unclear(1),
            &[unclear(2)],
            "The same prompt, family, model and length was bought once more within ten minutes: gen (unconfirmed, price unknown). 2 \
             were maybe sold, and charged an unknown amount then; nobody has said so yet.",
            ["null", "null", "0", "2"],
        );
        check(
            &completed(1, None),
            &[completed(2, None)],
            "The same prompt, family, model and length was bought once more within ten minutes: gen (completed, price unknown). \
             Together 2 of them were charged an unknown amount.",
            ["null", "null", "2", "0"],
        );
    }

    #[test]
    fn what_was_refused_or_never_sent_is_no_purchase() {
        let rejected = one(2, State::Rejected { at: T0, error: Failure::default() }, None);
        let (text, cited) = said(&completed(1, Some(150_000)), &[rejected.clone(), one(3, State::Prepared, None)]);
        assert!(text.starts_with("No. "), "{text}");
        assert_eq!(cited, ["\"0.1500\"", "null", "0", "0"]);
        let (text, cited) = said(&rejected, &[completed(1, Some(150_000))]);
        assert!(text.starts_with("It was not bought"), "{text}");
        assert_eq!(cited[0], "\"0.1500\"");
        // Lost without an id: whether it was ever sold nobody knows.
        let lost = Generation { provider_id: None, ..one(4, State::Lost { at: T0 }, None) };
        assert_eq!(said(&completed(1, Some(150_000)), &[lost]).1[3], "1");
    }

    #[test]
    fn where_the_prompt_is_not_known_nothing_can_be_told() {
        let mut unknown = completed(1, Some(150_000));
        unknown.request.prompt = None;
        let (text, _) = said(&unknown, &[]);
        assert!(text.starts_with("Its prompt is not on record"), "{text}");
    }

    #[test]
    fn many_are_counted_and_a_few_named() {
        let equal: Vec<_> = (2..10).map(|n| completed(n, Some(150_000))).collect();
        let (text, cited) = said(&completed(1, Some(150_000)), &equal);
        assert!(text.contains(", and 3 more.") && text.contains("8 more times"), "{text}");
        assert_eq!(cited[..2], ["\"1.3500\"", "\"1.2000\""]);
        let answer = EqualPurchases::of(&equal[0], &equal[1..], T0, WINDOW).answer();
        assert_eq!(answer.facts[0].value.as_array().unwrap().len(), 7);
    }
}
