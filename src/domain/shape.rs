//! A generation in the provider's own documented shape: what a client written to its documentation expects to read
//! (provider.md sections 3, 4 and 10).
//!
//! Every family has its own fields. The reason of a failure is added where the documentation keeps it for the webhook: a
//! client that looks for it finds it, one that does not is not disturbed.

use serde_json::{Map, Value, json};

use super::error_code::{ErrorCode, SILENT_DESCRIPTION, UNKNOWN_DESCRIPTION};
use super::generation::{Generation, State};
use super::outcome::Failure;
use super::purchase::RequestOptions;

/// The answer to a status read; `None` while the provider's id is not known. Holds every field that the provider's own client wants
/// (provider.md 13), each of the type it wants: one that is missing or null there breaks it.
pub fn status(generation: &Generation) -> Option<Map<String, Value>> {
    let family = generation.family;
    let mut body = Map::new();
    body.insert(family.id_field.to_owned(), json!(generation.provider_id.as_ref()?));
    body.insert("status".to_owned(), json!(word(&generation.state)));
    body.insert("prompt".to_owned(), json!(generation.request.prompt.as_deref().unwrap_or_default()));
    result(&mut body, family.result_field, generation.state.result_url());
    if is_kling(family.path) || family.path == "seedance" {
        body.insert("model".to_owned(), json!(model(generation)));
    }
    if is_kling(family.path) {
        body.insert("description".to_owned(), json!(description(generation.state.error())));
    }
    if family.path == "veo" {
        body.insert("seed".to_owned(), Value::Null);
    }
    if matches!(family.path, "kling" | "veo" | "sora") {
        body.insert("created_at".to_owned(), json!(generation.began_at()));
        body.insert("completed_at".to_owned(), json!(generation.state.settled_at()));
    }
    let failed = matches!(generation.state, State::Failed { .. });
    if failed || family.reason_in_status {
        body.insert(family.reason_field.to_owned(), reason(family.path, generation.state.error()));
    }
    if failed {
        // Clients of every family look here, whatever its documentation says (provider.md section 8).
        body.entry("message").or_insert_with(|| reason("", generation.state.error()));
    }
    Some(body)
}

/// Fields that webhooks do not repeat, but for those of Veo and Sora.
pub(in crate::domain) const ONLY_IN_STATUS: [&str; 3] = ["prompt", "created_at", "description"];

/// A webhook; `None` while the provider's id is not known. It always carries the reason, and never the prompt where the
/// documentation has none in it (provider.md sections 4 and 10).
pub fn webhook(generation: &Generation) -> Option<Map<String, Value>> {
    let family = generation.family;
    let mut body = status(generation)?;
    let repeats = matches!(family.path, "veo" | "sora");
    body.retain(|name, _| repeats || !ONLY_IN_STATUS.contains(&name.as_str()));
    body.insert(family.reason_field.to_owned(), reason(family.path, generation.state.error()));
    Some(body)
}

/// The answer to a purchase whose own was lost; `None` while the provider's id is not known. What the provider's clients require is
/// there (provider.md section 13): a price that is not known says so, a seed nobody told is 0.
pub fn accepted(generation: &Generation, options: &RequestOptions) -> Option<Value> {
    let family = generation.family;
    let mut body = Map::new();
    body.insert(family.id_field.to_owned(), json!(generation.provider_id.as_ref()?));
    body.insert("status".to_owned(), json!("pending"));
    let price = generation.price.map_or_else(|| "unknown".to_owned(), |price| price.to_string());
    match family.path {
        "seedance" => {
            body.insert("model".to_owned(), json!(generation.request.model));
            body.insert("output".to_owned(), Value::Null);
            body.insert("error".to_owned(), Value::Null);
        }
        "veo" => {
            body.insert(
                "seed".to_owned(),
                options.get("seed").filter(|seed| seed.is_i64()).cloned().unwrap_or(json!(0)),
            );
            body.insert("price".to_owned(), json!(price));
        }
        _ => drop(body.insert("price".to_owned(), json!(price))),
    }
    Some(Value::Object(body))
}

/// The provider has four words. What was given up may still be running; it never said otherwise.
fn word(state: &State) -> &'static str {
    match state {
        State::Completed { .. } => "completed",
        State::Failed { .. } | State::Rejected { .. } => "failed",
        State::Prepared | State::Submitting | State::Unconfirmed | State::Pending => "pending",
        State::Processing | State::Lost { .. } => "processing",
    }
}

fn result(body: &mut Map<String, Value>, field: &str, url: Option<&str>) {
    match field.split_once('.') {
        // `output.video_urls[0]`
        Some((outer, _)) => body.insert(outer.to_owned(), url.map_or(Value::Null, |url| json!({"video_urls": [url]}))),
        None => body.insert(field.to_owned(), json!(url)),
    };
}

fn reason(path: &str, error: Option<&Failure>) -> Value {
    let Some(error) = error.filter(|error| !error.is_silent()) else { return Value::Null };
    let said = error.code.as_ref().or(error.text.as_ref());
    match path {
        "veo" => json!({"message": said}),
        "seedance" => json!({"code": error.code, "message": error.text}),
        _ => json!(said),
    }
}

/// Kling in any of its families.
fn is_kling(path: &str) -> bool {
    path == "kling" || path.starts_with("kling/")
}

/// The reason of a failure as a sentence: the provider's own, else what is known of its code.
fn description(error: Option<&Failure>) -> Option<&str> {
    let error = error?;
    let known = error.code.as_deref().and_then(ErrorCode::of).map(|known| known.description);
    let general = if error.is_silent() { SILENT_DESCRIPTION } else { UNKNOWN_DESCRIPTION };
    Some(error.text.as_deref().or(known).unwrap_or(general))
}

/// For O3 video an identifier of family, seconds and tier, not the value that was sent (provider.md 9.1); for a family whose requests name
/// no model its own word.
pub(super) fn model(generation: &Generation) -> Option<String> {
    let own = match generation.family.models {
        [only] => Some(only.name),
        _ => None,
    };
    let (model, seconds) = (generation.request.model.as_deref().or(own)?, generation.request.duration_seconds);
    match (generation.family.path, seconds) {
        ("kling/o3-video", Some(seconds)) => {
            let tier = if model.ends_with("_pro") { "-pro" } else { "" };
            Some(format!("kling-o3-video-{seconds}s{tier}"))
        }
        _ => Some(model.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Request, Via};
    use crate::domain::id::{GenerationId, ProviderId};
    use crate::domain::notice::{Notice, Word};
    use crate::domain::outcome::{Learned, Outcome, Source, Verification};
    use crate::domain::time::Time;

    /// What we show in the provider's shape is what we would understand from the provider.
    #[test]
    fn what_is_shown_can_be_read_again_in_every_family() {
        let now = Time::from_ms(1_795_428_000_000);
        let learned = Learned { source: Source::Webhook, verification: Verification::Token, recovered: false };
        let url = "https://cdn.example.net/x".to_owned();
        let error = Failure { code: Some("TASK_FAILED".to_owned()), text: None };
        for family in FAMILIES {
            let provider_id = ProviderId::parse("p-1").unwrap();
            let new = Generation::new(GenerationId::fresh(now), family, Via::Gateway, now);
            for (state, word) in [
                (State::Pending, Word::Pending),
                (State::Processing, Word::Processing),
                (State::Lost { at: now }, Word::Processing),
                (
                    State::Completed { at: now, result_url: url.clone(), learned },
                    Word::Outcome(Outcome::Completed { result_url: url.clone() }),
                ),
                (
                    State::Failed { at: now, error: error.clone(), learned },
                    Word::Outcome(Outcome::Failed(error.clone())),
                ),
            ] {
                let generation = Generation { provider_id: Some(provider_id.clone()), state, ..new.clone() };
                let body = Value::Object(status(&generation).unwrap()).to_string();
                let notice = Notice::parse(body.as_bytes()).unwrap();
                assert_eq!(notice, Notice { provider_id: provider_id.clone(), word }, "{} {body}", family.path);
            }
            assert_eq!(status(&new), None);
            assert_eq!(webhook(&new), None);
        }
    }

    /// As it would be written down: fields in the order of the alphabet.
    fn written(path: &str, state: State) -> [String; 2] {
        let now = Time::from_ms(1_795_428_000_000);
        let family = crate::domain::family::Family::of(path).unwrap();
        let request =
            Request { model: Some("m_pro".to_owned()), duration_seconds: Some(5), prompt: Some("a boat".to_owned()) };
        let provider_id = ProviderId::parse("p-1").ok();
        let new = Generation::new(GenerationId::fresh(now), family, Via::Gateway, now);
        let generation = Generation { provider_id, state, request, ..new };
        [status(&generation), webhook(&generation)].map(|body| Value::Object(body.unwrap()).to_string())
    }

    #[test]
    fn a_failure_is_written_as_each_family_documents_it() {
        let at = Time::from_ms(1_795_428_060_000);
        let learned = Learned { source: Source::Webhook, verification: Verification::Token, recovered: false };
        let failed = |code: Option<&str>, text: Option<&str>| {
            let error = Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) };
            State::Failed { at, error, learned }
        };
        for (path, reason, text, silent) in [
            ("kling/o3-video", r#""message":"TIMEOUT""#, r#""message":"late""#, r#""message":null"#),
            ("kling", r#""message":"TIMEOUT""#, r#""message":"late""#, r#""message":null"#),
            ("veo", r#""error":{"message":"TIMEOUT"}"#, r#""error":{"message":"late"}"#, r#""error":null"#),
            ("sora", r#""error_message":"TIMEOUT""#, r#""error_message":"late""#, r#""error_message":null"#),
            (
                "seedance",
                r#""error":{"code":"TIMEOUT","message":"late"}"#,
                r#""error":{"code":null,"message":"late"}"#,
                r#""error":null"#,
            ),
        ] {
            for body in written(path, failed(Some("TIMEOUT"), Some("late"))) {
                assert!(body.contains(reason) && body.contains(r#""status":"failed""#), "{path}: {body}");
            }
            for body in written(path, failed(None, Some("late"))) {
                assert!(body.contains(text), "{path}: {body}");
            }
            for body in written(path, failed(None, None)) {
                assert!(body.contains(silent), "{path}: {body}");
            }
        }
    }

    #[test]
    fn every_family_has_the_fields_of_its_documentation() {
        let at = Time::from_ms(1_795_428_060_000);
        let learned = Learned { source: Source::Webhook, verification: Verification::Token, recovered: false };
        let done = State::Completed { at, result_url: "u".to_owned(), learned };
        let fields = |path, state: State| {
            written(path, state).map(|body| {
                let Value::Object(body) = serde_json::from_str(&body).unwrap() else { panic!("{body}") };
                body.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
            })
        };
        for (path, status, webhook) in [
            (
                "kling/o3-video",
                "description generation_id model prompt status video_url",
                "generation_id message model status video_url",
            ),
            (
                "kling",
                "completed_at created_at description generation_id model prompt status video_url",
                "completed_at generation_id message model status video_url",
            ),
            (
                "kling/o1-photo",
                "description generation_id image_url message model prompt status",
                "generation_id image_url message model status",
            ),
            (
                "veo",
                "completed_at created_at error generation_id prompt seed status video_url",
                "completed_at created_at error generation_id prompt seed status video_url",
            ),
            (
                "sora",
                "completed_at created_at error_message generation_id prompt status video_url",
                "completed_at created_at error_message generation_id prompt status video_url",
            ),
            ("gemini", "message prompt result_image_url status task_uuid", "message result_image_url status task_uuid"),
            ("seedance", "error model output prompt status task_uuid", "error model output status task_uuid"),
        ] {
            assert_eq!(fields(path, done.clone()), [status, webhook], "{path}");
        }
        let [body, _] = written("kling/o3-video", done.clone());
        assert!(body.contains(r#""model":"kling-o3-video-5s-pro""#), "{body}");
        let [body, _] = written("seedance", done);
        assert!(body.contains(r#""model":"m_pro""#) && body.contains(r#""output":{"video_urls":["u"]}"#), "{body}");
    }

    /// What its models require (provider.md 13): texts that are never null, and the types of what may be.
    #[test]
    fn the_providers_own_client_can_read_every_family_in_every_state() {
        let at = Time::from_ms(1_795_428_060_000);
        let learned = Learned { source: Source::Webhook, verification: Verification::Token, recovered: false };
        let failed = |code: Option<&str>, text: Option<&str>| {
            let error = Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) };
            State::Failed { at, error, learned }
        };
        let states = [
            State::Pending,
            State::Processing,
            State::Lost { at },
            State::Completed { at, result_url: "https://x/v".to_owned(), learned },
            failed(None, None),
            failed(Some("TIMEOUT"), None),
            failed(Some("NEVER_SEEN"), None),
            failed(None, Some("it is late")),
        ];
        for family in FAMILIES {
            for state in &states {
                let provider_id = ProviderId::parse("p-1").ok();
                let new = Generation::new(GenerationId::fresh(at), family, Via::Webhook, at);
                let generation = Generation { provider_id, state: state.clone(), ..new };
                let body = status(&generation).unwrap();
                let say = format!("{} {body:?}", family.path);
                for required in [family.id_field, "status", "prompt"] {
                    assert!(body[required].is_string(), "{required}: {say}");
                }
                let text = |field: &str| body.get(field).is_none_or(|value| value.is_null() || value.is_string());
                for optional in ["video_url", "image_url", "result_image_url", "model", "description", "message"] {
                    assert!(text(optional), "{optional}: {say}");
                }
                let failed = matches!(state, State::Failed { .. });
                if is_kling(family.path) {
                    assert!(body.contains_key("model") && body["description"].is_string() == failed, "{say}");
                }
                if family.path == "veo" {
                    assert!(text("created_at") && text("completed_at"), "{say}");
                    assert!(body["seed"].is_null() && (body["error"].is_null() || body["error"].is_object()), "{say}");
                }
                assert!(!failed || body.contains_key("message"), "{say}");
            }
        }
    }

    #[test]
    fn a_failure_is_described_in_the_best_words_there_are() {
        let words = |code: Option<&str>, text: Option<&str>| {
            let error = Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) };
            description(Some(&error)).unwrap().to_owned()
        };
        assert_eq!(words(Some("TIMEOUT"), Some("it is late")), "it is late", "the provider's own");
        assert_eq!(words(Some("TIMEOUT"), None), ErrorCode::of("TIMEOUT").unwrap().description);
        assert_eq!(words(Some("NEVER_SEEN"), None), UNKNOWN_DESCRIPTION);
        assert_eq!(words(None, None), SILENT_DESCRIPTION);
        assert_eq!(description(None), None);
    }

    #[test]
    fn every_state_has_one_of_the_providers_four_words() {
        let at = Time::from_ms(0);
        let error = Failure::default();
        for (state, expected) in [
            (State::Prepared, "pending"),
            (State::Submitting, "pending"),
            (State::Unconfirmed, "pending"),
            (State::Pending, "pending"),
            (State::Processing, "processing"),
            (State::Lost { at }, "processing"),
            (State::Rejected { at, error }, "failed"),
        ] {
            assert_eq!(word(&state), expected);
        }
    }
}
