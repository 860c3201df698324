//! Tolerant reading of what the provider says: webhook and status bodies of every family become one typed notice.
//!
//! Knows the spellings that were seen (contract section 4, provider.md sections 8 and 9) and never fails on any bytes but
//! by saying what is missing. Unknown words are kept, never guessed at.

use serde_json::Value;

use super::error_code::ErrorCode;
use super::id::ProviderId;
use super::link::is_link;
use super::outcome::{Failure, Outcome};
use crate::planted;

/// What the provider says about one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which one.
    pub provider_id: ProviderId,
    /// What.
    pub word: Word,
}

/// The provider's word, as far as we understand it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Bought, not started.
    Pending,
    /// Being made.
    Processing,
    /// Final.
    Outcome(Outcome),
    /// Completed, and no link to a result to be found: not an outcome yet.
    CompletedWithoutResult,
    /// A status word we do not know: taken as still running.
    Unknown(String),
}

/// Why a body told us nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unreadable {
    /// Not JSON at all, or nested too deeply.
    #[error("the body is not JSON")]
    NotJson,
    /// JSON, but no object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// No id in any of the known places.
    #[error("there is no generation id (looked in generation_id, task_uuid, task_id, id)")]
    NoId,
    /// An id of characters that no id has.
    #[error("the generation id must be 1 to 128 characters of A-Z, a-z, 0-9, _ and -")]
    BadId,
    /// No status.
    #[error("there is no status")]
    NoStatus,
}

const ID_FIELDS: [&str; 4] = ["generation_id", "task_uuid", "task_id", "id"];
const RESULT_FIELDS: [&str; 3] = ["video_url", "image_url", "result_image_url"];
const REASON_FIELDS: [&str; 3] = ["message", "error_message", "error"];

/// Longest text kept from a reason, in bytes; the raw body is kept whole elsewhere.
const TEXT_BYTES_MAX: usize = 4_096;

impl Notice {
    /// Reads a webhook or status body.
    ///
    /// # Errors
    /// [`Unreadable`] says what is missing.
    pub fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let value: Value = serde_json::from_slice(body).map_err(|_| Unreadable::NotJson)?;
        fail_if_planted(&value);
        Self::read(&value)
    }

    /// Reads a body whose JSON was read already.
    ///
    /// # Errors
    /// [`Unreadable`] says what is missing.
    pub fn read(value: &Value) -> Result<Self, Unreadable> {
        if !value.is_object() {
            return Err(Unreadable::NotAnObject);
        }
        let provider_id = provider_id(value)?;
        let status = value.get("status").and_then(Value::as_str).map(str::trim).filter(|word| !word.is_empty());
        Ok(Self { provider_id, word: word(status.ok_or(Unreadable::NoStatus)?, value) })
    }
}

fn fail_if_planted(value: &Value) {
    assert!(!planted::is(planted::Fault::ParserPanics) || value.get("status").is_none_or(Value::is_string), "planted");
}

/// The id, in whichever of the known fields it is. A number is read as its digits.
pub(in crate::domain) fn provider_id(value: &Value) -> Result<ProviderId, Unreadable> {
    let found = ID_FIELDS.iter().filter_map(|field| value.get(field)).find_map(|id| match id {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    });
    ProviderId::parse(&found.ok_or(Unreadable::NoId)?).map_err(|_| Unreadable::BadId)
}

fn word(status: &str, value: &Value) -> Word {
    match status.to_ascii_lowercase().as_str() {
        "pending" => Word::Pending,
        "processing" => Word::Processing,
        "completed" => match result_url(value) {
            Some(result_url) => Word::Outcome(Outcome::Completed { result_url }),
            None => Word::CompletedWithoutResult,
        },
        "failed" => Word::Outcome(Outcome::Failed(reason(value))),
        _ => Word::Unknown(cut(status)),
    }
}

/// The result's address, in whichever of the known places it is. A word in its place, as `None` or `pending`, is no result.
fn result_url(value: &Value) -> Option<String> {
    let plain = RESULT_FIELDS.iter().filter_map(|field| value.get(field));
    let nested = value.pointer("/output/video_urls").and_then(Value::as_array);
    let mut urls = plain.chain(nested.into_iter().flatten()).filter_map(Value::as_str).map(str::trim);
    urls.find(|url| is_link(url)).map(str::to_owned)
}

/// The reason of a failure: the first of the known fields that says anything.
pub fn reason(value: &Value) -> Failure {
    let said = REASON_FIELDS.iter().filter_map(|field| value.get(field)).map(failure);
    said.into_iter().find(|failure| !failure.is_silent()).unwrap_or_default()
}

/// Reads null, a string, or an object `{code, message}`.
pub(in crate::domain) fn failure(value: &Value) -> Failure {
    match value {
        Value::Null => Failure::default(),
        Value::String(text) => from_text(text),
        Value::Object(fields) => {
            let mut failure = fields.get("code").map(failure).unwrap_or_default();
            let message = fields.get("message").map(failure_of_message).unwrap_or_default();
            failure.fill_from(&message);
            failure
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => from_text(&value.to_string()),
    }
}

/// One level further down an object is kept as text, so that nesting ends somewhere.
fn failure_of_message(value: &Value) -> Failure {
    match value {
        Value::Null => Failure::default(),
        Value::String(text) => from_text(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => from_text(&value.to_string()),
    }
}

fn from_text(text: &str) -> Failure {
    let text = text.trim();
    if text.is_empty() {
        Failure::default()
    } else if is_code(text) {
        Failure { code: Some(text.to_owned()), text: None }
    } else {
        Failure { code: None, text: Some(cut(text)) }
    }
}

/// An `ALL_CAPS` word with underscores is a code (contract section 4); so is any word of the catalogue, as `TIMEOUT` is.
pub fn is_code(text: &str) -> bool {
    let shaped = text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    shaped && (text.contains('_') || ErrorCode::of(text).is_some())
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::link::tests::NO_LINKS;

    fn read(json: &str) -> Result<Word, Unreadable> {
        Notice::parse(json.as_bytes()).map(|notice| notice.word)
    }

    fn failed(code: Option<&str>, text: Option<&str>) -> Word {
        Word::Outcome(Outcome::Failed(Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) }))
    }

    fn completed(url: &str) -> Word {
        Word::Outcome(Outcome::Completed { result_url: url.to_owned() })
    }

    #[test]
    fn finds_the_id_in_each_of_its_places() {
        for field in ID_FIELDS {
            let notice = Notice::parse(format!(r#"{{"{field}":"a-1","status":"pending"}}"#).as_bytes()).unwrap();
            assert_eq!(notice.provider_id.as_str(), "a-1", "{field}");
        }
        let both = br#"{"id":"x","generation_id":"first","status":"pending"}"#;
        assert_eq!(Notice::parse(both).unwrap().provider_id.as_str(), "first");
        let number = br#"{"task_id":1303,"status":"pending"}"#;
        assert_eq!(Notice::parse(number).unwrap().provider_id.as_str(), "1303");
    }

    #[test]
    fn finds_the_result_in_each_of_its_places() {
        for body in [
            r#""video_url":"https://x/v""#,
            r#""image_url":"https://x/v""#,
            r#""result_image_url":"https://x/v""#,
            r#""output":{"video_urls":["https://x/v"]}"#,
            r#""video_url":null,"image_url":"https://x/v""#,
        ] {
            let json = format!(r#"{{"generation_id":"a","status":"completed",{body}}}"#);
            assert_eq!(read(&json), Ok(completed("https://x/v")), "{json}");
        }
    }

    #[test]
    fn completed_without_a_result_is_no_outcome() {
        for url in ["null", "7", "[]", "true", "{}"] {
            let json = format!(r#"{{"generation_id":"a","status":"completed","video_url":{url}}}"#);
            assert_eq!(read(&json), Ok(Word::CompletedWithoutResult), "{json}");
        }
    }

    #[test]
    fn a_word_for_a_link_is_no_result() {
        for word in NO_LINKS {
            for body in [
                json!({"video_url": word}),
                json!({"result_image_url": word}),
                json!({"output": {"video_urls": [word]}}),
            ] {
                let mut body = body;
                body["generation_id"] = json!("a");
                body["status"] = json!("completed");
                assert_eq!(read(&body.to_string()), Ok(Word::CompletedWithoutResult), "{body}");
            }
        }
        let beside = json!({"id": "a", "status": "completed", "video_url": "None", "image_url": "https://x/v",
                            "output": {"video_urls": ["https://x/w"]}});
        assert_eq!(read(&beside.to_string()), Ok(completed("https://x/v")), "the link beside it is one");
        let listed =
            json!({"id": "a", "status": "completed", "output": {"video_urls": ["", "pending", " https://x/w "]}});
        assert_eq!(read(&listed.to_string()), Ok(completed("https://x/w")));
    }

    #[test]
    fn reads_the_reason_in_every_shape() {
        for (body, word) in [
            (r#""message":"CONTENT_POLICY_VIOLATION""#, failed(Some("CONTENT_POLICY_VIOLATION"), None)),
            (r#""message":"TIMEOUT""#, failed(Some("TIMEOUT"), None)),
            (r#""message":"NEVER_SEEN_BEFORE_2""#, failed(Some("NEVER_SEEN_BEFORE_2"), None)),
            (r#""message":"BUSY""#, failed(None, Some("BUSY"))),
            (r#""message":"the sky fell""#, failed(None, Some("the sky fell"))),
            (r#""message":null"#, failed(None, None)),
            (r#""message":null,"error":"TASK_FAILED""#, failed(Some("TASK_FAILED"), None)),
            (r#""error_message":"a sentence""#, failed(None, Some("a sentence"))),
            (r#""error":{"code":"GENERATION_FAILED","message":"why"}"#, failed(Some("GENERATION_FAILED"), Some("why"))),
            (r#""error":{"message":"UNSAFE_CONTENT"}"#, failed(Some("UNSAFE_CONTENT"), None)),
            (r#""error":{"code":1303,"message":"parallel limit"}"#, failed(None, Some("1303"))),
            (r#""error":{}"#, failed(None, None)),
            (r#""message":["a"]"#, failed(None, Some("[\"a\"]"))),
        ] {
            let json = format!(r#"{{"generation_id":"a","status":"failed",{body}}}"#);
            assert_eq!(read(&json), Ok(word), "{json}");
        }
    }

    #[test]
    fn unknown_words_are_kept_as_they_came() {
        assert_eq!(read(r#"{"id":"a","status":"Paused"}"#), Ok(Word::Unknown("Paused".into())));
        assert_eq!(read(r#"{"id":"a","status":"COMPLETED","video_url":"https://x/v"}"#), Ok(completed("https://x/v")));
    }

    #[test]
    fn says_what_is_missing() {
        for (body, why) in [
            ("", Unreadable::NotJson),
            ("<html>", Unreadable::NotJson),
            (r#"{"generation_id":"a","status":"comp"#, Unreadable::NotJson),
            ("[]", Unreadable::NotAnObject),
            (r#"{"status":"completed"}"#, Unreadable::NoId),
            (r#"{"generation_id":"","status":"completed"}"#, Unreadable::NoId),
            (r#"{"generation_id":"a b","status":"completed"}"#, Unreadable::BadId),
            (r#"{"generation_id":"a"}"#, Unreadable::NoStatus),
            (r#"{"generation_id":"a","status":null}"#, Unreadable::NoStatus),
            (r#"{"generation_id":"a","status":7}"#, Unreadable::NoStatus),
        ] {
            assert_eq!(read(body), Err(why), "{body}");
        }
    }

    #[test]
    fn a_code_is_a_word_of_capitals_with_an_underscore_or_of_the_catalogue() {
        let long = |letters: usize| format!("A_{}", "B".repeat(letters));
        for (text, code) in [
            ("TASK_FAILED", true),
            ("CODE_2", true),
            ("A_", true),
            ("TIMEOUT", true),
            ("BUSY", false),
            ("_TASK_FAILED", false),
            ("2_TASKS", false),
            ("TASK_failed", false),
            ("TASK_FAILED!", false),
            ("TASK FAILED_TWICE", false),
            ("task_failed", false),
            ("", false),
            (long(126).as_str(), true),
            (long(127).as_str(), false),
        ] {
            assert_eq!(is_code(text), code, "{text}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let text = format!("x{}", "é".repeat(TEXT_BYTES_MAX));
        let json = serde_json::json!({"id": "a", "status": "failed", "message": text}).to_string();
        assert_eq!(read(&json), Ok(failed(None, Some(&text[..TEXT_BYTES_MAX - 1]))));
    }

    #[test]
    fn the_planted_parser_panics_where_the_status_is_no_text() {
        let panics = |body: &'static str| {
            let parse = move || {
                planted::plant(Some(planted::Fault::ParserPanics));
                Notice::parse(body.as_bytes())
            };
            // In a thread of its own: what is planted is the thread's.
            std::thread::spawn(parse).join().is_err()
        };
        let bodies = [r#"{"id":"a","status":7}"#, r#"{"id":"a","status":"failed"}"#, r#"{"id":"a"}"#];
        assert_eq!(bodies.map(panics), [true, false, false]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _read = Notice::parse(&bytes);
        }

        #[test]
        fn no_values_in_the_known_fields_make_it_panic(
            id in value(), status in value(), url in value(), message in value(), error in value(),
        ) {
            let body = serde_json::json!({
                "generation_id": id, "status": status, "video_url": url, "message": message, "error": error,
                "output": {"video_urls": [url]},
            });
            let _read = Notice::parse(body.to_string().as_bytes());
            let _read = Notice::parse(body.to_string().replace(r#""status":"#, r#""status":"failed","x":"#).as_bytes());
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            Just(Value::from("failed")),
            Just(Value::from("completed")),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("code|message|x", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
