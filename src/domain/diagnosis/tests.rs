//! What is said about generations in every state, word for word.

use super::*;
use crate::domain::decision::tests::{reading, rules};
use crate::domain::family::FAMILIES;
use crate::domain::generation::{Request, Via, Watch};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::money::Usd;
use crate::domain::outcome::{Learned, Source, Verification};
use crate::domain::schedule::Confirm;

const T0: Time = Time::from_ms(1_795_428_000_000);

fn after(seconds: u64) -> Time {
    T0 + Duration::from_secs(seconds)
}

fn bought(state: State) -> Generation {
    let request =
        Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: Some("a boat".to_owned()) };
    Generation {
        provider_id: Some(ProviderId::parse("p-1").unwrap()),
        state,
        request,
        price: Some(Usd::from_micros(150_000)),
        submitted_at: Some(T0),
        expected_by: Some(after(180)),
        watch: Watch { checks: 3, check_at: Some(after(240)), ..Watch::default() },
        deliveries: 2,
        ..Generation::new(GenerationId::fresh(T0), &FAMILIES[0], Via::Gateway, T0)
    }
}

fn failure(code: Option<&str>, text: Option<&str>) -> Failure {
    Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) }
}

fn learned(recovered: bool) -> Learned {
    Learned { source: Source::Webhook, verification: Verification::Token, recovered }
}

fn failed(seconds: u64, error: Failure) -> Generation {
    bought(State::Failed { at: after(seconds), error, learned: learned(false) })
}

fn completed(seconds: u64, recovered: bool) -> Generation {
    let result_url = "https://cdn.example.net/v.mp4".to_owned();
    bought(State::Completed { at: after(seconds), result_url, learned: learned(recovered) })
}

fn doubtful(state: State, attention: Attention) -> Generation {
    Generation { attention: Some(attention), ..bought(state) }
}

/// A name, what is looked at, and how many seconds after the purchase.
fn cases() -> Vec<(&'static str, Generation, u64)> {
    let unasked = |state| Generation { provider_id: None, ..bought(state) };
    let rejected = |error| unasked(State::Rejected { at: after(1), error });
    let conflict = doubtful(State::Processing, Attention::Conflict);
    let claimed = |claim| Generation { claim: Some(claim), ..conflict.clone() };
    let url = "https://cdn.example.net/v.mp4".to_owned();
    let running = |request: Request| Generation { request, ..bought(State::Processing) };
    let model_only = Request { model: Some("kling_o3".to_owned()), ..Request::default() };
    let nothing_said = failed(60, failure(None, None));
    vec![
        ("prepared", Generation { price: None, ..unasked(State::Prepared) }, 5),
        ("submitting", unasked(State::Submitting), 5),
        ("unconfirmed", unasked(State::Unconfirmed), 5),
        ("unconfirmed, and a person", doubtful(State::Unconfirmed, Attention::Unconfirmed), 86_400),
        ("rejected", rejected(failure(Some("MIXED_IMAGE_INPUTS"), Some("cannot be used together"))), 5),
        ("rejected without a code", rejected(failure(None, Some("no"))), 5),
        ("pending", bought(State::Pending), 0),
        ("processing to the last usual second", bought(State::Processing), 180),
        ("processing too long", bought(State::Processing), 181),
        ("overdue", doubtful(State::Processing, Attention::Overdue), 3_600),
        ("stuck", doubtful(State::Pending, Attention::Stuck), 3_725),
        ("without a result", doubtful(State::Processing, Attention::NoResult), 200),
        ("not found", doubtful(State::Processing, Attention::NotFound), 200),
        ("conflict", conflict.clone(), 200),
        ("conflict, said to be completed", claimed(Outcome::Completed { result_url: url }), 200),
        ("conflict, said to have failed", claimed(Outcome::Failed(failure(None, None))), 200),
        ("of a model alone", running(model_only), 100),
        ("of nothing known", running(Request::default()), 100),
        ("completed", completed(180, false), 500),
        ("completed late and recovered", completed(181, true), 500),
        ("failed by the rules", failed(100, failure(Some("CONTENT_POLICY_VIOLATION"), None)), 100),
        ("failed by the system", failed(100, failure(Some("TIMEOUT"), None)), 399),
        ("failed for a reason nobody knows", failed(61, failure(Some("NEVER_SEEN"), Some("sorry"))), 400),
        ("failed at once without a reason", nothing_said.clone(), 360),
        ("failed, and the credits were seen", Generation { refunded_at: Some(after(90)), ..nothing_said }, 100),
        ("failed at once for a known reason", failed(2, failure(Some("INVALID_IMAGE"), None)), 100),
        ("lost", doubtful(State::Lost { at: after(86_400) }, Attention::Lost), 90_000),
    ]
}

/// As it would be read aloud, with the facts behind each answer.
fn told() -> String {
    let mut lines = Vec::new();
    for (name, generation, seconds) in cases() {
        let diagnosis = rules(Confirm::Untrusted).diagnose(&generation, after(seconds));
        lines.extend([format!("# {name}, after {seconds} s"), diagnosis.summary]);
        for answer in diagnosis.answers {
            let facts: Vec<_> = answer.facts.iter().map(|cited| format!("{}={}", cited.fact, cited.value)).collect();
            lines.extend([format!("{} {}", answer.question, answer.text), format!("    {}", facts.join(" "))]);
        }
        lines.extend(diagnosis.next_steps.iter().map(|step| format!("- {step}")));
        lines.push(String::new());
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_state_is_told_word_for_word() {
    let told = told();
    assert!(told == include_str!("told.txt"), "src/domain/diagnosis/told.txt differs from this:\n{told}");
}

#[test]
fn where_no_webhook_is_to_come_none_is_waited_for() {
    for (name, generation, seconds) in cases().into_iter().filter(|(name, ..)| !name.contains("conflict")) {
        let diagnosis = reading().diagnose(&generation, after(seconds));
        let told = serde_json::to_string(&diagnosis).unwrap();
        let told = told.replace("No webhook will bring the id", "");
        // True all the same: the reason may stand in a webhook only.
        let told = told.replace(SILENT_DESCRIPTION, "").replace(SILENT_SOLUTION, "");
        let recovered_before = name.contains("recovered");
        assert!(
            recovered_before || !told.to_lowercase().contains("webhook") && !told.contains("callback"),
            "{name}: {told}"
        );
    }
}

#[test]
fn the_fields_that_a_code_is_about_are_named() {
    for (code, named) in [
        ("INVALID_DURATION", "duration"),
        ("INVALID_MODEL", "model"),
        ("INVALID_RESOLUTION", "img_resolution"),
        ("MIXED_IMAGE_INPUTS", "images_url images_base64"),
        ("UNSUPPORTED_IMAGE_FORMAT", "images_url images_base64"),
        ("IMAGE_INACCESSIBLE", "images_url"),
        ("CONTENT_POLICY_VIOLATION", "prompt the images"),
        ("NON_ENGLISH_PROMPT", "prompt"),
        ("PHOTOREAL_UPLOAD", "the images"),
        ("TIMEOUT", ""),
    ] {
        assert_eq!(fields(code).join(" "), named, "{code}");
    }
}

#[test]
fn spans_are_told_in_hours_minutes_and_seconds() {
    for (seconds, told) in
        [(0, "0 s"), (1, "1 s"), (60, "1 min"), (200, "3 min 20 s"), (3_600, "1 h"), (7_384, "2 h 3 min 4 s")]
    {
        assert_eq!(spell(Duration::from_secs(seconds)), told);
    }
}
