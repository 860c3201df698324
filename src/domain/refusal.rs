//! Why a purchase was refused, out of whatever the provider says.
//!
//! Only the HTTP status is dependable; codes stand in `detail`, `message` or `error`, or nowhere, and a gateway may answer
//! HTML (provider.md sections 5, 6 and 9.5). A code that is said is kept as it came; one that is only described in words is
//! recognised by them; else the status speaks.

use serde_json::Value;

use super::notice;
use super::outcome::Failure;

/// Longest text kept of a refusal, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// The reason of an answer with this HTTP status (400 or higher) and body, under its normalised code.
pub fn refusal(http_status: u16, body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<Value>(body).ok().map(|answer| said(&answer)).unwrap_or_default();
    let code = said.code.clone().filter(|code| notice::is_code(code));
    let code = code.or_else(|| described(http_status, said.text.as_deref()).map(str::to_owned));
    Failure { code, text: said.text }
}

/// What the answer says itself: a code, a text, or both.
fn said(answer: &Value) -> Failure {
    let mut said = match answer.get("detail") {
        Some(Value::Array(items)) => text(&items.iter().map(item).collect::<Vec<_>>().join("; ")),
        Some(detail) => notice::failure(detail),
        None => Failure::default(),
    };
    said.fill_from(&notice::reason(answer));
    said
}

fn text(text: &str) -> Failure {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    Failure { code: None, text: (!text.is_empty()).then(|| text.to_owned()) }
}

/// One entry of a list as `FastAPI` makes them: `{"type", "loc", "msg"}`.
fn item(item: &Value) -> String {
    let steps = item.get("loc").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), str::to_owned);
    let path: Vec<String> = steps.iter().map(step).filter(|step| step != "body").collect();
    match (item.get("msg").and_then(Value::as_str), path.is_empty()) {
        (Some(message), false) => format!("{}: {message}", path.join(".")),
        (Some(message), true) => message.to_owned(),
        (None, _) => item.to_string(),
    }
}

/// The catalogue's code for what is only described.
fn described(http_status: u16, text: Option<&str>) -> Option<&'static str> {
    match http_status {
        401 | 403 => Some("UNAUTHORIZED"),
        402 => Some("INSUFFICIENT_CREDITS"),
        429 => Some("RATE_LIMITED"),
        400 | 413 | 422 => Some(text.map_or("INVALID_PARAMETERS", invalid)),
        500 => Some("INTERNAL_ERROR"),
        503 => Some("SERVICE_UNAVAILABLE"),
        _ => None,
    }
}

/// Which rule a text about a bad request speaks of (provider.md section 5: the texts name the fields and the limits).
fn invalid(text: &str) -> &'static str {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["images_url"]) && has(&["images_base64"]) {
        "MIXED_IMAGE_INPUTS"
    } else if has(&["image"]) && has(&["too many", "at most", "maximum", "max ", "up to", "no more than"]) {
        "TOO_MANY_IMAGES"
    } else if has(&["duration"]) {
        "INVALID_DURATION"
    } else if has(&["resolution"]) {
        "INVALID_RESOLUTION"
    } else if has(&["model"]) {
        "INVALID_MODEL"
    } else {
        "INVALID_PARAMETERS"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::error_code::ErrorCode;

    #[test]
    fn every_shape_of_a_refusal_is_understood() {
        for (status, body, code, text) in [
            (402, r#"{"detail":"INSUFFICIENT_CREDITS"}"#, Some("INSUFFICIENT_CREDITS"), None),
            (402, r#"{"success":false,"message":"INSUFFICIENT_CREDITS"}"#, Some("INSUFFICIENT_CREDITS"), None),
            (402, "", Some("INSUFFICIENT_CREDITS"), None),
            (
                422,
                r#"{"detail":"prompt: must not be empty"}"#,
                Some("INVALID_PARAMETERS"),
                Some("prompt: must not be empty"),
            ),
            (
                422,
                r#"{"detail":[{"type":"missing","loc":["body","prompt"],"msg":"Field required"}]}"#,
                Some("INVALID_PARAMETERS"),
                Some("prompt: Field required"),
            ),
            (
                422,
                r#"{"detail":[{"loc":["body","duration"],"msg":"bad"},{"loc":["body","x",0],"msg":"worse"}]}"#,
                Some("INVALID_DURATION"),
                Some("duration: bad; x.0: worse"),
            ),
            (
                422,
                r#"{"detail":{"code":"INVALID_MODEL","message":"no such model"}}"#,
                Some("INVALID_MODEL"),
                Some("no such model"),
            ),
            (
                400,
                r#"{"detail":"images_url and images_base64 cannot be used together"}"#,
                Some("MIXED_IMAGE_INPUTS"),
                Some("images_url and images_base64 cannot be used together"),
            ),
            (
                400,
                r#"{"detail":"at most 5 images are allowed, got 6"}"#,
                Some("TOO_MANY_IMAGES"),
                Some("at most 5 images are allowed, got 6"),
            ),
            (
                422,
                r#"{"detail":"duration must be one of 5, 10, 15"}"#,
                Some("INVALID_DURATION"),
                Some("duration must be one of 5, 10, 15"),
            ),
            (
                422,
                r#"{"detail":"model must be kling_o3 or kling_o3_pro"}"#,
                Some("INVALID_MODEL"),
                Some("model must be kling_o3 or kling_o3_pro"),
            ),
            (400, r#"{"message":"NEVER_SEEN_BEFORE"}"#, Some("NEVER_SEEN_BEFORE"), None),
        ] {
            let expected = Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) };
            assert_eq!(refusal(status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn without_a_word_the_status_speaks() {
        for (status, body, code, text) in [
            (
                401,
                r#"{"error":"Unauthorized","message":"Invalid API key"}"#,
                Some("UNAUTHORIZED"),
                Some("Invalid API key"),
            ),
            (401, r#"{"detail":"Missing credentials"}"#, Some("UNAUTHORIZED"), Some("Missing credentials")),
            (404, r#"{"detail":"Not Found"}"#, None, Some("Not Found")),
            (429, "slow down", Some("RATE_LIMITED"), None),
            (500, r#"{"detail":"OPENAI_DECLINED"}"#, Some("OPENAI_DECLINED"), None),
            (503, "<html>", Some("SERVICE_UNAVAILABLE"), None),
            (502, "<html>", None, None),
            (403, "", Some("UNAUTHORIZED"), None),
            (500, "<html>", Some("INTERNAL_ERROR"), None),
            (413, "<html>", Some("INVALID_PARAMETERS"), None),
            (418, r#"{"detail":null}"#, None, None),
        ] {
            let expected = Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) };
            assert_eq!(refusal(status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_rule_is_recognised_by_the_words_it_is_told_in() {
        for (text, code) in [
            ("use images_url or images_base64", "MIXED_IMAGE_INPUTS"),
            ("images_url is no list", "INVALID_PARAMETERS"),
            ("Too many images", "TOO_MANY_IMAGES"),
            ("an image is broken", "INVALID_PARAMETERS"),
            ("up to 2500 characters", "INVALID_PARAMETERS"),
            ("DURATION is odd", "INVALID_DURATION"),
            ("no such resolution", "INVALID_RESOLUTION"),
            ("no such model", "INVALID_MODEL"),
        ] {
            assert_eq!(invalid(text), code, "{text}");
        }
    }

    #[test]
    fn an_entry_of_a_list_is_told_with_its_place() {
        for (entry, told) in [
            (r#"{"loc":["body","images",0],"msg":"bad"}"#, "images.0: bad"),
            (r#"{"loc":["body"],"msg":"bad"}"#, "bad"),
            (r#"{"msg":"bad"}"#, "bad"),
            (r#"{"loc":["body","x"]}"#, r#"{"loc":["body","x"]}"#),
            ("7", "7"),
        ] {
            assert_eq!(item(&serde_json::from_str(entry).unwrap()), told);
        }
        assert_eq!(text(""), Failure::default());
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(text(&format!("x{long}")).text.unwrap().len(), TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn every_described_code_is_in_the_catalogue() {
        for status in 400..600 {
            for text in [None, Some("x"), Some("duration"), Some("model"), Some("resolution"), Some("max 5 image")] {
                if let Some(code) = described(status, text) {
                    assert!(ErrorCode::of(code).is_some(), "{code}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(status in 400_u16..600, bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _failure = refusal(status, &bytes);
        }
    }
}
