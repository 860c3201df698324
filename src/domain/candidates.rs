//! Generations in the provider's lists that may be a purchase whose answer was lost: what a person is told of them.
//!
//! Never chooses among them: who knows which it is names it.

use serde_json::{Value, json};

use super::diagnosis::{Cited, Diagnosis};
use super::id::ProviderId;
use super::time::Time;

/// A generation that may be the purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub provider_id: ProviderId,
    /// The list's word for how it stands; `None` where it has none.
    pub status: Option<String>,
    /// When it was seen first.
    pub seen_at: Time,
}

impl Candidate {
    /// One as a list told of it, in its own words.
    pub fn read(provider_id: &str, entry: &str, seen_at: Time) -> Option<Self> {
        let fields: Value = serde_json::from_str(entry).unwrap_or_default();
        let status = fields.get("status").and_then(Value::as_str).map(|word| word.chars().take(64).collect());
        Some(Self { provider_id: ProviderId::parse(provider_id).ok()?, status, seen_at })
    }
}

impl Diagnosis {
    /// The same, with the generations that may be the purchase.
    #[must_use]
    pub fn and_candidates(mut self, candidates: &[Candidate]) -> Self {
        if candidates.is_empty() {
            return self;
        }
        let named: Vec<_> = candidates.iter().map(named).collect();
        let them = if candidates.len() == 1 { "one generation" } else { "generations" };
        let text = format!(
            " The provider's list has {them} that may be this purchase or an equal one: {}. Nothing on record tells which, so none was taken.",
            named.join(", ")
        );
        let ids: Vec<_> = candidates.iter().map(|candidate| candidate.provider_id.as_str()).collect();
        if let Some(answer) = self.answers.iter_mut().find(|answer| answer.question == "Was it bought?") {
            answer.text.push_str(&text);
            answer.facts.push(Cited { fact: "candidates", value: json!(ids) });
        }
        let step = "Look at the candidates in the provider's dashboard. If one of them is this purchase, name it: PATCH its generation_id.";
        self.next_steps.insert(0, step.to_owned());
        self
    }
}

/// `p-1 (completed, seen 2026-11-23T10:00:00Z)`.
fn named(candidate: &Candidate) -> String {
    let status = candidate.status.as_deref().unwrap_or("status unknown");
    format!("{} ({status}, seen {})", candidate.provider_id, candidate.seen_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::diagnosis::Answer;

    #[test]
    fn all_that_may_be_it_are_named_and_none_is_taken() {
        let diagnosis = || Diagnosis {
            summary: String::new(),
            answers: vec![Answer { question: "Was it bought?", text: "Maybe.".to_owned(), facts: Vec::new() }],
            next_steps: vec!["Wait.".to_owned()],
        };
        assert_eq!(diagnosis().and_candidates(&[]), diagnosis());
        let at = Time::from_ms(1_795_428_000_000);
        let candidate = |id, entry| Candidate::read(id, entry, at).unwrap();
        let both = [candidate("p-1", r#"{"status":"completed"}"#), candidate("p-2", "{}")];
        let told = diagnosis().and_candidates(&both);
        assert_eq!(
            told.answers[0].text,
            "Maybe. The provider's list has generations that may be this purchase or an equal one: p-1 (completed, seen \
             2026-11-23T10:00:00Z), p-2 (status unknown, seen 2026-11-23T10:00:00Z). Nothing on record tells which, so none was taken."
        );
        assert_eq!(told.answers[0].facts[0].value, json!(["p-1", "p-2"]));
        assert!(told.next_steps[0].contains("PATCH") && told.next_steps[1] == "Wait.");
        assert_eq!(Candidate::read("no id", "{}", at), None);
    }
}
