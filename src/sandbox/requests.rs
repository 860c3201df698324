//! What each family asks of a purchase: fields, types, ranges, and which of them go together.
//!
//! From provider.md sections 2, 10 and 13 (the types of the provider's own client); where they disagree, what that client can
//! send is taken. Fields that nobody documents are let through, as `FastAPI` does. Never decides what is sold.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use url::{Host, Url};

use super::families::{Bounds, DetailForm, Field, Form, Rule, form};
use crate::domain::family::Family;

/// A request's fields.
pub(super) type Fields = Map<String, Value>;

/// Why a purchase is refused: for people, and in the list form for programs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The field, where it is one alone.
    field: Option<&'static str>,
    /// `FastAPI`'s word for it.
    kind: &'static str,
    message: String,
    status: StatusCode,
}

impl Wrong {
    /// A value of the wrong type, or one that is not on offer.
    pub(super) fn value(field: &'static str, kind: &'static str, message: String) -> Self {
        Self { field: Some(field), kind, message, status: StatusCode::UNPROCESSABLE_ENTITY }
    }

    /// Fields that do not go together.
    pub(super) fn together(message: impl Into<String>) -> Self {
        Self { field: None, kind: "value_error", message: message.into(), status: StatusCode::UNPROCESSABLE_ENTITY }
    }

    /// The same with 400.
    pub(super) fn bad_request(self) -> Self {
        Self { status: StatusCode::BAD_REQUEST, ..self }
    }

    /// As the family answers it (provider.md 9.11). FastAPI's list repeats what was sent, callback URL and all.
    fn answer(&self, detail: DetailForm, fields: &Fields) -> Response {
        let detail = match detail {
            DetailForm::List if self.status == StatusCode::UNPROCESSABLE_ENTITY => {
                let place: Vec<_> = ["body"].into_iter().chain(self.field).collect();
                let input = self.field.and_then(|name| fields.get(name)).cloned();
                let input = input.unwrap_or_else(|| Value::Object(fields.clone()));
                json!([{"type": self.kind, "loc": place, "msg": self.message, "input": input}])
            }
            DetailForm::Object => json!({"code": "INVALID_PARAMETERS", "message": self.message}),
            DetailForm::Text | DetailForm::List => json!(self.message),
        };
        (self.status, Json(json!({ "detail": detail }))).into_response()
    }
}

const WANTED: &str = "Input should be a valid dictionary or object to extract fields from";

/// Reads the body of a purchase as `FastAPI` does: another content type is no JSON, whatever stands in it (cases.md M).
///
/// # Errors
/// The refusal.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Fields, Box<Response>> {
    let refuse = |kind: &str, message: &str, input: Value| {
        let detail = json!([{"type": kind, "loc": ["body"], "msg": message, "input": input}]);
        Box::new((StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": detail }))).into_response())
    };
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence.strip_prefix("application/").is_some_and(|sub| sub == "json" || sub.ends_with("+json"));
    if !is_json {
        return Err(refuse("model_attributes_type", WANTED, Value::from(String::from_utf8_lossy(body))));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(refuse("model_attributes_type", WANTED, other)),
        Err(error) => Err(refuse("json_invalid", &format!("JSON decode error: {error}"), json!({}))),
    }
}

/// Holds a request to what its family asks.
///
/// # Errors
/// The refusal in the family's own form.
pub(super) fn check(family: &Family, fields: &Fields, https_only: bool) -> Result<(), Box<Response>> {
    let Some(form) = form(family.path) else { return Ok(()) };
    let held = form.fields.iter().try_for_each(|field| hold(family, form, field, fields, https_only));
    held.and_then(|()| (form.together)(fields)).map_err(|wrong| Box::new(wrong.answer(form.detail, fields)))
}

fn hold(family: &Family, form: &Form, field: &Field, fields: &Fields, https_only: bool) -> Result<(), Wrong> {
    let name = field.name;
    let value = match (fields.get(name), field.bounds) {
        (None, Bounds::Required) => return Err(missing(field)),
        (None, Bounds::Defaulted | Bounds::Optional) | (Some(Value::Null), Bounds::Optional) => return Ok(()),
        (Some(value), _) => value,
    };
    let held = match field.rule {
        Rule::Text { min, max } => text(name, value, min, max),
        Rule::OneOf(words) => one_of(name, value, words.iter().copied()),
        Rule::Model => one_of(name, value, family.models.iter().map(|model| model.name)),
        Rule::Integer { from, to } => match value.as_i64() {
            Some(number) if (from..=to).contains(&number) => Ok(()),
            Some(_) => Err(Wrong::value(name, "value_error", format!("{name} must be from {from} to {to}"))),
            None => Err(Wrong::value(name, "int_type", format!("{name} must be an integer"))),
        },
        Rule::Number { from, to } => match value.as_f64() {
            Some(number) if (from..=to).contains(&number) => Ok(()),
            Some(_) => Err(Wrong::value(name, "value_error", format!("{name} must be from {from} to {to}"))),
            None => Err(Wrong::value(name, "float_type", format!("{name} must be a number"))),
        },
        Rule::Flag if value.is_boolean() => Ok(()),
        Rule::Flag => Err(Wrong::value(name, "bool_type", format!("{name} must be a boolean"))),
        Rule::Images { max } => images(name, value, max, form.image_bytes_max),
        Rule::Callback => callback(name, value, https_only),
    };
    held.map_err(|wrong| if field.is_bad_request { wrong.bad_request() } else { wrong })
}

fn missing(field: &Field) -> Wrong {
    let name = field.name;
    let message = if let Rule::Text { min, max } = field.rule {
        format!("{name}: must be {min} to {max} characters")
    } else {
        format!("{name}: Field required")
    };
    let wrong = Wrong::value(name, "missing", message);
    if field.is_bad_request { wrong.bad_request() } else { wrong }
}

fn text(name: &'static str, value: &Value, min: usize, max: usize) -> Result<(), Wrong> {
    let Some(text) = value.as_str() else {
        return Err(Wrong::value(name, "string_type", format!("{name} must be a string")));
    };
    match text.chars().count() {
        count if count < min => {
            Err(Wrong::value(name, "string_too_short", format!("{name}: must be {min} to {max} characters")))
        }
        count if count > max => {
            Err(Wrong::value(name, "string_too_long", format!("{name}: must be {min} to {max} characters")))
        }
        _ => Ok(()),
    }
}

fn one_of<'w>(name: &'static str, value: &Value, words: impl Iterator<Item = &'w str> + Clone) -> Result<(), Wrong> {
    if value.as_str().is_some_and(|text| words.clone().any(|word| word == text)) {
        return Ok(());
    }
    let words = words.collect::<Vec<_>>().join(", ");
    Err(Wrong::value(name, "enum", format!("{name} must be one of {words}")))
}

/// A list of pictures, each an address or base64.
fn images(name: &'static str, value: &Value, max: usize, bytes_max: usize) -> Result<(), Wrong> {
    let listed = value.as_array().filter(|images| images.iter().all(Value::is_string));
    let Some(images) = listed else {
        return Err(Wrong::value(name, "list_type", format!("{name} must be a list of strings")));
    };
    if images.len() > max {
        return Err(Wrong::value(name, "too_long", format!("at most {max} images are allowed, got {}", images.len())));
    }
    let large = images.iter().position(|image| image.as_str().unwrap_or_default().len() / 4 * 3 > bytes_max);
    large.map_or(Ok(()), |nth| {
        let megabytes = bytes_max / 1_000_000;
        let message = format!("Image {} exceeds the maximum size of {megabytes} MB", nth + 1);
        Err(Wrong::value(name, "value_error", message))
    })
}

/// HTTPS (provider.md section 4), or where nobody else can listen: tests have no certificates.
fn callback(name: &'static str, value: &Value, https_only: bool) -> Result<(), Wrong> {
    let url = value.as_str().and_then(|text| Url::parse(text).ok());
    let fits = url.is_some_and(|url| match url.scheme() {
        "https" => true,
        "http" if !https_only => is_loopback(&url),
        _ => false,
    });
    if fits { Ok(()) } else { Err(Wrong::value(name, "value_error", format!("{name} must be an HTTPS URL"))) }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
