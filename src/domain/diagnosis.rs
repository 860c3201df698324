//! What a person asks about one generation, answered in plain words from the facts on record.
//!
//! Why did it fail, and by which rule? Is it slow? Where is the money? What now? Each answer names the facts it rests on;
//! nothing is guessed, and what is not known is said to be unknown.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::credits::CreditState;
use super::error_code::{
    Category, ErrorCode, SILENT_DESCRIPTION, SILENT_SOLUTION, UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION,
};
use super::generation::{Attention, Generation, State};
use super::outcome::{Failure, Outcome};
use super::schedule::{Rules, Webhooks};
use super::time::Time;

/// A fact an answer rests on.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Cited {
    /// The field it stands in, as the API shows it.
    pub fact: &'static str,
    /// What stands there.
    pub value: Value,
}

/// One question answered.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Answer {
    /// What was asked.
    pub question: &'static str,
    /// The answer, in sentences.
    pub text: String,
    /// What it rests on.
    pub facts: Vec<Cited>,
}

/// Everything there is to say about one generation at one time.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Diagnosis {
    /// In one sentence.
    pub summary: String,
    /// Question by question.
    pub answers: Vec<Answer>,
    /// What to do, most useful first.
    pub next_steps: Vec<String>,
}

/// A failure this soon after the purchase is one at once: before the provider starts to work on it (provider.md section 3).
const AT_ONCE: Duration = Duration::from_mins(1);

impl Rules {
    /// What there is to say about `generation` at `now`.
    pub fn diagnose(&self, generation: &Generation, now: Time) -> Diagnosis {
        let look = Look { rules: self, generation, now };
        let answers = [look.failure(), look.purchase(), look.time(), look.doubt(), Some(look.credits())];
        Diagnosis {
            summary: look.summary(),
            answers: answers.into_iter().flatten().collect(),
            next_steps: look.next_steps(),
        }
    }
}

struct Look<'a> {
    rules: &'a Rules,
    generation: &'a Generation,
    now: Time,
}

impl Look<'_> {
    fn summary(&self) -> String {
        let elapsed = spell(self.now.since(self.generation.began_at()));
        match &self.generation.state {
            State::Prepared if self.reads() => "It was prepared; no purchase is known of yet.".to_owned(),
            State::Prepared => "A callback URL was handed out; no purchase is known of yet.".to_owned(),
            State::Submitting => "The purchase is on its way to the provider; it has not answered yet.".to_owned(),
            State::Unconfirmed => {
                "The purchase was sent and its answer was lost: it may have been charged. It is not sent again."
                    .to_owned()
            }
            State::Rejected { error, .. } => {
                format!("The provider did not sell it{}. Nothing was charged.", because(error))
            }
            State::Pending | State::Processing => match self.generation.attention {
                None => format!("It is running normally, for {elapsed} so far."),
                Some(attention) => {
                    format!("It is still running after {elapsed}, and somebody should look: {}.", attention.as_str())
                }
            },
            State::Completed { learned, .. } if learned.recovered => {
                "It completed. Its webhook never came; the result was found by asking the provider.".to_owned()
            }
            State::Completed { .. } => "It completed, and its result is there.".to_owned(),
            State::Failed { error, .. } => format!("The provider failed it{}.", because(error)),
            State::Lost { .. } => "No outcome was ever learned, and it was given up.".to_owned(),
        }
    }

    /// Whether no webhook is to come, and outcomes are read.
    fn reads(&self) -> bool {
        self.rules.webhooks == Webhooks::NotExpected
    }

    /// Why it failed or was refused.
    fn failure(&self) -> Option<Answer> {
        let error = self.generation.state.error()?;
        let known = error.code.as_deref().and_then(ErrorCode::of);
        let description = match known {
            Some(known) => known.description,
            None if error.is_silent() => SILENT_DESCRIPTION,
            None => UNKNOWN_DESCRIPTION,
        };
        let mut text = description.to_owned();
        let fields = error.code.as_deref().map_or([].as_slice(), fields);
        if !fields.is_empty() {
            text = format!("{text} Look at {}.", fields.join(" and "));
        }
        if let Some(said) = &error.text {
            text = format!("{text} The provider's own words: \"{said}\".");
        }
        if self.failed_at_once() && known.is_none() {
            text.push_str(
                " It failed at once. The provider names four usual causes: a prompt that is not allowed, an image that is damaged \
                 or of another type than its name says, an image address that is not public, or both images_url and images_base64.",
            );
        }
        let mut facts = self.cite(&["status", "settled_at"]);
        facts.push(Cited { fact: "error.code", value: json!(error.code) });
        facts.push(Cited { fact: "error.text", value: json!(error.text) });
        if !fields.is_empty() {
            facts.push(Cited { fact: "request.fields", value: json!(fields) });
        }
        Some(Answer { question: "Why did it fail?", text, facts })
    }

    fn failed_at_once(&self) -> bool {
        let Some(at) = self.generation.state.settled_at() else { return false };
        matches!(self.generation.state, State::Failed { .. }) && at.since(self.generation.began_at()) <= AT_ONCE
    }

    /// What became of a purchase that never got an id.
    fn purchase(&self) -> Option<Answer> {
        let lost_answer = matches!(self.generation.state, State::Unconfirmed);
        let text = if lost_answer && self.reads() {
            "The provider got the request, or part of it, and no readable answer came back. No webhook will bring the id, as \
             server.public_url is empty; it is looked for in the provider's lists, as far as there are any. The same request again is \
             not sent: it waits for what became of this one."
        } else if lost_answer {
            "The provider got the request, or part of it, and no readable answer came back. If it was sold, its webhook brings \
             the id by itself, and it is looked for in the provider's lists, as far as there are any. The same request again is not \
             sent: it waits for what became of this one."
        } else if self.generation.state == State::Prepared && self.reads() {
            "Buy it, then tell its generation_id with PATCH."
        } else if self.generation.state == State::Prepared {
            "Buy it with the callback URL that was handed out, then tell its generation_id with PATCH."
        } else {
            return None;
        };
        let facts = self.cite(&["status", "generation_id", "submitted_at", "next_check_at"]);
        Some(Answer { question: "Was it bought?", text: text.to_owned(), facts })
    }

    /// Whether it is slow or normal for what it is.
    fn time(&self) -> Option<Answer> {
        let generation = self.generation;
        generation.provider_id.as_ref()?;
        let request = &generation.request;
        let expected = self.rules.expected_range(generation);
        let end = generation.state.settled_at().unwrap_or(self.now);
        let elapsed = end.since(generation.began_at());
        let what = match (&request.model, request.duration_seconds) {
            (Some(model), Some(seconds)) => format!("{seconds} seconds of {model}"),
            (Some(model), None) => model.clone(),
            (None, _) => format!("the slowest of {}", generation.family.title),
        };
        let range = match (spell(expected.from), spell(expected.to)) {
            (from, to) if from == to => to,
            (from, to) => format!("{from} to {to}"),
        };
        let settled = generation.state.settled_at().is_some();
        let verb = if settled { "It took" } else { "It has been running for" };
        let judgement = if elapsed <= expected.to {
            "That is normal."
        } else if settled {
            "That was slower than usual."
        } else if generation.attention == Some(Attention::Stuck) {
            "That is past the limit at which the provider fails a generation by itself, yet it has said nothing."
        } else {
            "That is slower than usual; the provider is asked again and again until it answers."
        };
        let text = format!("{verb} {}; {what} usually takes {range}. {judgement}", spell(elapsed));
        let mut facts =
            self.cite(&["model", "duration_seconds", "submitted_at", "expected_by", "settled_at", "next_check_at"]);
        facts.push(Cited { fact: "expected_seconds", value: json!([expected.from.as_secs(), expected.to.as_secs()]) });
        facts.push(Cited { fact: "elapsed_seconds", value: json!(elapsed.as_secs()) });
        Some(Answer { question: "Is it slow?", text, facts })
    }

    /// What contradicts what.
    fn doubt(&self) -> Option<Answer> {
        let text = match self.generation.attention? {
            Attention::Conflict => {
                let claimed = match &self.generation.claim {
                    Some(Outcome::Completed { .. }) => " A webhook said it completed.",
                    Some(Outcome::Failed(_)) => " A webhook said it failed.",
                    None => "",
                };
                format!("The provider contradicted itself, or a webhook named another generation.{claimed} Its own status answer settles it.")
            }
            Attention::NoResult => {
                "The provider says it completed and gives no link. That is charged and no case for a refund; the status is read \
                 again until the link is there."
                    .to_owned()
            }
            Attention::NotFound => {
                "The provider does not know this id: it belongs to another account or family, or was forgotten.".to_owned()
            }
            Attention::Overdue | Attention::Stuck | Attention::Unconfirmed | Attention::Lost => return None,
        };
        Some(Answer { question: "What is wrong?", text, facts: self.cite(&["attention", "deliveries", "checks"]) })
    }

    /// Where the money is.
    fn credits(&self) -> Answer {
        let window = self.rules.refund_window;
        let credits = CreditState::of(self.generation, self.now, window);
        let price = self.generation.price.map_or("An unknown amount".to_owned(), |price| format!("{price} USD"));
        let until = self.generation.refund_expected_by(window).map(|at| at.to_string()).unwrap_or_default();
        let text = match credits {
            CreditState::NotCharged => "Nothing was charged.".to_owned(),
            CreditState::Charged => format!("{price} was charged; the result is being made."),
            CreditState::Delivered => format!("{price} was charged, and the result was delivered."),
            CreditState::RefundExpected => {
                format!("{price} was charged. The provider refunds failed generations by itself; this one by {until}.")
            }
            CreditState::Refunded if self.generation.refunded_at.is_some() => {
                format!("{price} was charged; a person saw the credits come back.")
            }
            CreditState::Refunded => format!(
                "{price} was charged. By the provider's promise it came back by {until}; the provider sends no notice, only the \
                 balance shows it."
            ),
            CreditState::AtRisk => {
                format!("{price} was charged, or may have been, and there is no result: it is at risk.")
            }
        };
        let mut facts = self.cite(&["price", "status", "attention", "refund_expected_by"]);
        facts.push(Cited { fact: "credits", value: json!(credits) });
        Answer { question: "Where is the money?", text, facts }
    }

    fn next_steps(&self) -> Vec<String> {
        let support = "If that does not help, send the evidence of this generation to the provider's support.";
        let steps: &[&str] = match (&self.generation.state, self.generation.attention) {
            (State::Rejected { error, .. } | State::Failed { error, .. }, _) => return self.after_failure(error),
            (_, Some(Attention::NotFound)) => &["Compare id and family with the answer to the purchase.", support],
            (_, Some(Attention::Conflict)) => &["Read the timeline: it holds what each side said.", support],
            (State::Prepared, _) => &["Send the purchase, or leave it: it costs nothing."],
            (State::Submitting, _) => &["Wait for the answer."],
            (State::Unconfirmed, _) => &[
                if self.reads() {
                    "Its outcome is read once its id is known."
                } else {
                    "Wait: if it was sold, its webhook or a list settles it."
                },
                "Look into the provider's dashboard. If it is there, name its generation_id with PATCH; if it is not, or the credits \
                 came back, confirm that with a refund.",
                "Do not buy it again under another key before that is clear.",
            ],
            (State::Lost { .. }, _) => &["Ask the provider once more with a check.", support],
            (State::Completed { .. }, _) => &["Fetch the result soon: how long its link lives is not promised."],
            (State::Pending | State::Processing, None) => &["Wait; nothing is wrong."],
            (State::Pending | State::Processing, Some(_)) => &["Wait for the next check, or ask now.", support],
        };
        steps.iter().map(|step| (*step).to_owned()).collect()
    }

    fn after_failure(&self, error: &Failure) -> Vec<String> {
        let known = error.code.as_deref().and_then(ErrorCode::of);
        let solution = match known {
            Some(known) => known.solution,
            None if error.is_silent() => SILENT_SOLUTION,
            None => UNKNOWN_SOLUTION,
        };
        let again = match known {
            Some(known) if known.retryable => "The same request may work later.",
            Some(known) if known.category == Category::Content => "The same request will fail again: change it first.",
            Some(_) | None => "Change the request before you send it again.",
        };
        let mut steps = vec![solution.to_owned(), again.to_owned()];
        if matches!(self.generation.state, State::Failed { .. }) {
            steps.push(
                "If the balance does not show the refund after that time, send the evidence to the provider's support."
                    .to_owned(),
            );
        }
        steps
    }

    fn cite(&self, facts: &[&'static str]) -> Vec<Cited> {
        facts.iter().map(|fact| Cited { fact, value: self.value(fact) }).collect()
    }

    fn value(&self, fact: &str) -> Value {
        let generation = self.generation;
        match fact {
            "status" => json!(generation.state.status()),
            "attention" => json!(generation.attention),
            "generation_id" => json!(generation.provider_id),
            "model" => json!(generation.request.model),
            "duration_seconds" => json!(generation.request.duration_seconds),
            "price" => json!(generation.price),
            "submitted_at" => json!(generation.submitted_at),
            "expected_by" => json!(generation.expected_by),
            "settled_at" => json!(generation.state.settled_at()),
            "next_check_at" => json!(generation.next_look_at()),
            "refund_expected_by" => json!(generation.refund_expected_by(self.rules.refund_window)),
            "deliveries" => json!(generation.deliveries),
            "checks" => json!(generation.watch.checks),
            _ => Value::Null,
        }
    }
}

/// The request's fields a code is about.
fn fields(code: &str) -> &'static [&'static str] {
    match code {
        "INVALID_DURATION" => &["duration"],
        "INVALID_MODEL" => &["model"],
        "INVALID_RESOLUTION" => &["img_resolution"],
        "MIXED_IMAGE_INPUTS" | "TOO_MANY_IMAGES" | "INVALID_IMAGE" | "IMAGE_TOO_LARGE" | "UNSUPPORTED_IMAGE_FORMAT" => {
            &["images_url", "images_base64"]
        }
        "IMAGE_INACCESSIBLE" => &["images_url"],
        "CONTENT_POLICY_VIOLATION" | "MODERATION_FAILED" | "UNSAFE_CONTENT" => &["prompt", "the images"],
        "NON_ENGLISH_PROMPT" => &["prompt"],
        "PROMINENT_PEOPLE_UPLOAD" | "PHOTOREAL_UPLOAD" => &["the images"],
        _ => &[],
    }
}

fn because(error: &Failure) -> String {
    match (&error.code, &error.text) {
        (Some(code), _) => format!(": {code}"),
        (None, Some(text)) => format!(": {text}"),
        (None, None) => " and gave no reason".to_owned(),
    }
}

/// `3 min 20 s`.
fn spell(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes, rest) = (seconds / 3_600, seconds % 3_600 / 60, seconds % 60);
    let parts = [(hours, "h"), (minutes, "min"), (rest, "s")];
    let said: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

#[cfg(test)]
mod tests;
