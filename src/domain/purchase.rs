//! A purchase as it passes through: what its request asks for, where its callback URL stands, what the answer says.
//!
//! Never rewrites a request: it tells which bytes are kept and what is written between them, so numbers, escapes and the
//! order of fields survive.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::family::Family;
use super::generation::Request;
use super::id::ProviderId;
use super::link::is_link;
use super::money::Usd;
use super::notice;
use super::words::words;

words! {
    /// What came of sending a purchase.
    SubmitResult {
        /// It was sold.
        Accepted = "accepted",
        /// The provider refused.
        Refused = "refused",
        /// Nothing was sent: there was no connection.
        NotSent = "not_sent",
        /// It was sent, and whether it was sold is not known.
        Unclear = "unclear",
    }
}

/// What came of a purchase, as it is kept and given to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// In a word.
    pub result: SubmitResult,
    /// The HTTP status of the provider's complete answer; `None` when there was none.
    pub http_status: Option<u16>,
    /// The answer's `Content-Type`.
    pub content_type: Option<String>,
    /// The answer's `Retry-After`.
    pub retry_after: Option<String>,
    /// The normalised code, where the provider did not sell.
    pub error_code: Option<String>,
    /// In a few words, for people.
    pub said: String,
    /// The answer's body.
    pub body: Vec<u8>,
}

/// HTTP statuses with which the provider says for certain that it has not sold: the key, the account or the rate is refused, not this
/// request. The same may succeed later.
const UNSOLD: [u16; 4] = [401, 402, 403, 429];

impl Reply {
    /// Whether nothing was sold for certain, so that the same may be sent again under the same key.
    pub fn is_certainly_unsold(&self) -> bool {
        match self.result {
            SubmitResult::NotSent => true,
            SubmitResult::Refused => self.http_status.is_some_and(|status| UNSOLD.contains(&status)),
            SubmitResult::Accepted | SubmitResult::Unclear => false,
        }
    }
}

/// What a request asks for beside prompt, model and length: its own short fields (seed, aspect ratio ...). No texts, images or addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestOptions(BTreeMap<String, Value>);

/// Fields kept of one request, and the length of a name or a text among them in bytes.
const OPTIONS_MAX: usize = 24;
const OPTION_BYTES_MAX: usize = 64;

impl RequestOptions {
    /// What was asked for under that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// A JSON object; `None` when there are none.
    pub fn to_json(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::to_string(&self.0).ok()).flatten()
    }

    /// Takes a field in where it is short and holds no address.
    fn take(&mut self, name: String, raw: &RawValue) {
        let short = name.len() <= OPTION_BYTES_MAX && raw.get().len() <= OPTION_BYTES_MAX;
        if !short || self.0.len() >= OPTIONS_MAX || raw.get().starts_with(['{', '[']) || raw.get().contains("://") {
            return;
        }
        if let Ok(value) = serde_json::from_str::<Value>(raw.get())
            && !value.is_null()
        {
            self.0.insert(name, value);
        }
    }
}

/// Why a body cannot be passed on as a purchase.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAPurchase {
    /// No JSON object: there is no place for a callback URL.
    #[error("the body must be a JSON object: {0}")]
    NotAnObject(String),
    /// The caller's own callback URL is no web address.
    #[error("must be an http or https address, or null")]
    CallbackUrl,
}

/// A part of the request that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes as they came.
    Kept(Range<usize>),
    /// This instead of, or between, them.
    Written(String),
}

/// What a purchase asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Model, duration and prompt; where the request names none, what the family documents as its default.
    pub request: Request,
    /// What else it asks for.
    pub options: RequestOptions,
    /// Where the caller wants to be called itself.
    pub callback_url: Option<String>,
    /// Where values of `callback_url` stand in the body.
    values: Vec<Range<usize>>,
    /// What to leave out of the body so that no `callback_url` is left.
    cuts: Vec<Range<usize>>,
    /// Right behind the opening brace.
    start: usize,
    /// Whether the object has no fields.
    is_empty: bool,
    /// Length of the body.
    bytes: usize,
}

impl Order {
    /// Reads the body of `POST /v1/{family}/generate`. Everything but the four fields it needs is only stepped over.
    ///
    /// # Errors
    /// [`NotAPurchase`] says why it cannot be passed on.
    pub fn read(family: &Family, body: &[u8]) -> Result<Self, NotAPurchase> {
        let fields: Fields<'_> =
            serde_json::from_slice(body).map_err(|error| NotAPurchase::NotAnObject(error.to_string()))?;
        let place = |raw: &RawValue| {
            let start = raw.get().as_ptr().addr() - body.as_ptr().addr();
            start..start + raw.get().len()
        };
        let model = fields.model.and_then(text).or_else(|| family.default_model.map(str::to_owned));
        let duration_seconds = match fields.duration {
            Some(duration) => seconds(duration),
            None => family.default_duration,
        };
        let callback_url = match fields.callback_urls.last() {
            Some(raw) => callback_url(raw)?,
            None => None,
        };
        let values: Vec<_> = fields.callback_urls.into_iter().map(place).collect();
        Ok(Self {
            cuts: cuts(body, &values),
            request: Request { model, duration_seconds, prompt: fields.prompt.and_then(text) },
            options: fields.options,
            callback_url,
            values,
            start: body.iter().position(|byte| *byte == b'{').map_or(0, |brace| brace + 1),
            is_empty: fields.is_empty,
            bytes: body.len(),
        })
    }

    /// The request as it is sent: with this `callback_url` in it, or with none at all, and nothing else changed.
    pub fn pieces(&self, callback_url: Option<&str>) -> Vec<Piece> {
        callback_url.map_or_else(|| self.without_callback_url(), |url| self.with_callback_url(url))
    }

    fn without_callback_url(&self) -> Vec<Piece> {
        let mut kept = 0;
        let mut pieces: Vec<_> = Vec::new();
        for cut in &self.cuts {
            pieces.push(Piece::Kept(kept..cut.start));
            kept = cut.end;
        }
        pieces.push(Piece::Kept(kept..self.bytes));
        pieces
    }

    fn with_callback_url(&self, callback_url: &str) -> Vec<Piece> {
        let value = Value::from(callback_url).to_string();
        if self.values.is_empty() {
            let comma = if self.is_empty { "" } else { "," };
            let field = format!(r#""callback_url":{value}{comma}"#);
            return vec![Piece::Kept(0..self.start), Piece::Written(field), Piece::Kept(self.start..self.bytes)];
        }
        let mut pieces = Vec::new();
        let mut kept = 0;
        for place in &self.values {
            pieces.push(Piece::Kept(kept..place.start));
            pieces.push(Piece::Written(value.clone()));
            kept = place.end;
        }
        pieces.push(Piece::Kept(kept..self.bytes));
        pieces
    }
}

/// What to leave out of an object so that the fields with these values are gone: each with its name and one of the commas around it.
/// Fields side by side go together, or the comma between them would be left out twice.
fn cuts(body: &[u8], values: &[Range<usize>]) -> Vec<Range<usize>> {
    let before = |end: usize| body[..end].iter().rposition(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let behind = |start: usize| {
        let rest = body[start..].iter().position(|byte| !byte.is_ascii_whitespace());
        start + rest.unwrap_or_default()
    };
    // Before the value stands the colon, before that the name's last quote. The name is ours, so there is no quote within it.
    let name = |value: &Range<usize>| {
        let last_quote = before(before(value.start));
        body[..last_quote].iter().rposition(|byte| *byte == b'"').unwrap_or(0)
    };
    let mut fields: Vec<Range<usize>> = Vec::new();
    for field in values.iter().map(|value| name(value)..value.end) {
        match fields.last_mut() {
            Some(last) if behind(last.end) == before(field.start) => last.end = field.end,
            _ => fields.push(field),
        }
    }
    let with_comma = |field: Range<usize>| match (body.get(before(field.start)), behind(field.end)) {
        (_, end) if body.get(end) == Some(&b',') => field.start..end + 1,
        (Some(b','), _) => before(field.start)..field.end,
        _ => field,
    };
    fields.into_iter().map(with_comma).collect()
}

/// The fields that matter, as they stand in the body.
struct Fields<'b> {
    callback_urls: Vec<&'b RawValue>,
    model: Option<&'b RawValue>,
    duration: Option<&'b RawValue>,
    prompt: Option<&'b RawValue>,
    options: RequestOptions,
    is_empty: bool,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields {
            callback_urls: Vec::new(),
            model: None,
            duration: None,
            prompt: None,
            options: RequestOptions::default(),
            is_empty: true,
        };
        while let Some(key) = map.next_key::<String>()? {
            fields.is_empty = false;
            match key.as_str() {
                "callback_url" => fields.callback_urls.push(map.next_value()?),
                "model" => fields.model = Some(map.next_value()?),
                "duration" => fields.duration = Some(map.next_value()?),
                "prompt" => fields.prompt = Some(map.next_value()?),
                _ => fields.options.take(key, map.next_value()?),
            }
        }
        Ok(fields)
    }
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<String>(raw.get()).ok().filter(|text| !text.is_empty())
}

/// A string or a number, as families differ (provider.md sections 2 and 10).
fn seconds(raw: &RawValue) -> Option<u32> {
    let seconds = text(raw).unwrap_or_else(|| raw.get().to_owned()).trim().parse().ok();
    seconds.filter(|seconds| *seconds > 0)
}

fn callback_url(raw: &RawValue) -> Result<Option<String>, NotAPurchase> {
    match serde_json::from_str::<Value>(raw.get()) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::String(url)) if is_link(&url) => Ok(Some(url)),
        Ok(_) | Err(_) => Err(NotAPurchase::CallbackUrl),
    }
}

/// The id and the price of an answer that sold something; `None` when there is no id to be found.
///
/// A price that is no positive decimal (`calculating`, null, a zero) is unknown, never zero (provider.md section 2).
pub fn accepted(body: &[u8]) -> Option<(ProviderId, Option<Usd>)> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let provider_id = notice::provider_id(&answer).ok()?;
    Some((provider_id, price(answer.get("price"))))
}

/// A price as the provider tells it; `None` for anything that is no positive decimal.
pub fn price(told: Option<&Value>) -> Option<Usd> {
    let price = match told? {
        Value::String(text) => Usd::parse(text.trim()).ok(),
        Value::Number(number) => Usd::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    price.filter(|price| price.as_micros() > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::family::FAMILIES;

    const OURS: &str = "https://recoup.example/webhooks/x";

    fn sent(body: &str) -> String {
        sent_with(body, Some(OURS))
    }

    fn sent_with(body: &str, callback_url: Option<&str>) -> String {
        let order = Order::read(&FAMILIES[0], body.as_bytes()).unwrap();
        let piece = |piece| match piece {
            Piece::Kept(range) => body[range].to_owned(),
            Piece::Written(text) => text,
        };
        order.pieces(callback_url).into_iter().map(piece).collect()
    }

    #[test]
    fn nothing_but_the_callback_url_changes() {
        for (body, expected) in [
            (
                r#"{"a":1.0e400,"b":"\u00e9\ud800"}"#,
                format!(r#"{{"callback_url":"{OURS}","a":1.0e400,"b":"\u00e9\ud800"}}"#),
            ),
            (
                r#"{"callback_url" : "https://me/x?a=\u0026" , "z":1}"#,
                format!(r#"{{"callback_url" : "{OURS}" , "z":1}}"#),
            ),
            (r#"{"z":1,"callback_url":null}"#, format!(r#"{{"z":1,"callback_url":"{OURS}"}}"#)),
            (r#"{"callback\u005furl":null}"#, format!(r#"{{"callback\u005furl":"{OURS}"}}"#)),
            (
                r#"{"callback_url":null,"x":[{"callback_url":7}],"callback_url":"http://me"}"#,
                format!(r#"{{"callback_url":"{OURS}","x":[{{"callback_url":7}}],"callback_url":"{OURS}"}}"#),
            ),
            (" \n{ } ", format!(" \n{{\"callback_url\":\"{OURS}\" }} ")),
            (
                r#"{"n":123456789012345678901234567890.10}"#,
                format!(r#"{{"callback_url":"{OURS}","n":123456789012345678901234567890.10}}"#),
            ),
        ] {
            assert_eq!(sent(body), expected);
        }
    }

    #[test]
    fn nothing_but_the_callback_url_is_left_out() {
        for (body, expected) in [
            (r#"{"a":1.0e400,"b":"\u00e9\ud800"}"#, r#"{"a":1.0e400,"b":"\u00e9\ud800"}"#),
            (r#"{"callback_url" : "https://me/x?a=,\"" , "z":1}"#, r#"{ "z":1}"#),
            (r#"{"z":1 , "callback_url":null }"#, r#"{"z":1  }"#),
            (r#"{"a":1, "callback\u005furl": "http://me", "z":2}"#, r#"{"a":1,  "z":2}"#),
            (
                r#"{"callback_url":null,"x":[{"callback_url":7}],"callback_url":"http://me"}"#,
                r#"{"x":[{"callback_url":7}]}"#,
            ),
            (r#"{"a":1,"callback_url":null , "callback_url":"http://me"}"#, r#"{"a":1}"#),
            (r#"{"callback_url":null,"callback_url":"http://me","a":1}"#, r#"{"a":1}"#),
            (" \n{ \"callback_url\" : \"http://me\"\n} ", " \n{ \n} "),
            (" {} ", " {} "),
        ] {
            assert_eq!(sent_with(body, None), expected);
        }
        let order = Order::read(&FAMILIES[0], br#"{"callback_url":"https://me/hook"}"#).unwrap();
        assert_eq!(order.callback_url.as_deref(), Some("https://me/hook"), "kept, to be served by us");
    }

    #[test]
    fn what_was_asked_for_is_read_and_documented_defaults_are_filled_in() {
        let read = |body: &str| Order::read(&FAMILIES[0], body.as_bytes()).unwrap();
        let order = read(r#"{"prompt":"x","model":"kling_o3_pro","duration":"10","callback_url":"https://me/hook"}"#);
        assert_eq!(order.request.model.as_deref(), Some("kling_o3_pro"));
        assert_eq!(order.request.duration_seconds, Some(10));
        assert_eq!(order.callback_url.as_deref(), Some("https://me/hook"));
        let order = read(r#"{"prompt":"x"}"#);
        assert_eq!((order.request.model.as_deref(), order.request.duration_seconds), (Some("kling_o3"), Some(5)));
        assert_eq!(read(r#"{"duration":7}"#).request.duration_seconds, Some(7));
        assert_eq!(read(r#"{"duration":"long"}"#).request.duration_seconds, None);
        assert_eq!(read(r#"{"prompt":7,"model":{}}"#).request.prompt, None);
        let odd = [r#""""#, r#""0""#, "0", "-1", "5.5", "null"].map(|duration| format!(r#"{{"duration":{duration}}}"#));
        assert_eq!(odd.map(|body| read(&body).request.duration_seconds), [None; 6]);
        assert_eq!(read(r#"{"duration":" 10 "}"#).request.duration_seconds, Some(10));
        assert_eq!(
            read(r#"{"model":"","prompt":"x"}"#).request.model.as_deref(),
            Some("kling_o3"),
            "an empty one is none"
        );
        assert_eq!(read(r#"{"callback_url":null}"#).callback_url, None);
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused() {
        let read = |body: &str| Order::read(&FAMILIES[0], body.as_bytes()).unwrap_err();
        for body in ["", "[]", "null", "{", "{\"a\":1} x", "{'a':1}"] {
            assert!(matches!(read(body), NotAPurchase::NotAnObject(_)), "{body}");
            assert_eq!(read(body).to_string().contains("expected an object"), matches!(body, "[]" | "null"), "{body}");
        }
        for url in ["7", "\"\"", "\"me\"", "\"ftp://me\"", "\"javascript:1\"", "[]"] {
            assert_eq!(read(&format!(r#"{{"callback_url":{url}}}"#)), NotAPurchase::CallbackUrl, "{url}");
        }
    }

    #[test]
    fn an_odd_price_is_unknown_and_never_zero() {
        let read = |price: &str| {
            accepted(format!(r#"{{"generation_id":"a","status":"pending","price":{price}}}"#).as_bytes()).unwrap().1
        };
        assert_eq!(read("\"0.4500\""), Some(Usd::from_micros(450_000)));
        assert_eq!(read("0.45"), Some(Usd::from_micros(450_000)));
        for odd in ["\"calculating\"", "null", "\"\"", "0", "\"0.00\"", "-1", "\"-1\"", "[]", "{}", "1e99"] {
            assert_eq!(read(odd), None, "{odd}");
        }
        assert_eq!(accepted(br#"{"task_uuid":"a","status":"pending"}"#).unwrap().1, None);
        for none in ["", "<html>", "{}", "[]", r#"{"generation_id":null}"#, r#"{"generation_id":"a/b"}"#] {
            assert_eq!(accepted(none.as_bytes()), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _read = Order::read(&FAMILIES[0], &bytes);
            let _accepted = accepted(&bytes);
        }

        #[test]
        fn a_request_means_the_same_but_for_the_callback_url(
            fields in proptest::collection::btree_map("[a-z_]{1,12}", any::<i64>().prop_map(Value::from), 0..6),
            url in proptest::option::of(Just("https://me.example/a")),
        ) {
            let mut fields: serde_json::Map<String, Value> = fields.into_iter().collect();
            fields.remove("callback_url");
            if let Some(url) = url {
                fields.insert("callback_url".to_owned(), Value::from(url));
            }
            let body = Value::Object(fields.clone()).to_string();
            fields.remove("callback_url");
            let left: Value = serde_json::from_str(&sent_with(&body, None)).unwrap();
            prop_assert_eq!(left, Value::Object(fields.clone()));
            fields.insert("callback_url".to_owned(), Value::from(OURS));
            let passed: Value = serde_json::from_str(&sent(&body)).unwrap();
            prop_assert_eq!(passed, Value::Object(fields));
        }
    }
}
