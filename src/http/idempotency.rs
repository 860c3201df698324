//! `Idempotency-Key`: read from requests, and what is said when one was used before.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{FieldError, Problem};
use crate::domain::id::GenerationId;
use crate::store::Repeated;

pub(super) const GENERATION: HeaderName = HeaderName::from_static("recoup-generation");
const KEY: &str = "idempotency-key";
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY_CHARS_MAX: usize = 255;

/// The caller's key, where there is one.
///
/// # Errors
/// 400 for one that is empty, too long, not printable, or given twice.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let printable = |text: &&str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let usable = value.to_str().ok().filter(printable).filter(|text| (1..=KEY_CHARS_MAX).contains(&text.len()));
    match (usable, values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(invalid_header("Idempotency-Key", "must stand once and have 1 to 255 printable ASCII characters")),
    }
}

/// A problem of one request header.
pub(super) fn invalid_header(name: &str, detail: &str) -> Problem {
    Problem::invalid_header(format!("{name}: {detail}")).with_errors(vec![FieldError {
        pointer: None,
        parameter: Some(name.to_owned()),
        detail: detail.to_owned(),
    }])
}

/// What was answered before.
///
/// # Errors
/// 422 for another body, 409 while the first request is under way.
pub(super) fn answered<T>(repeated: Repeated<T>) -> Result<(GenerationId, T), Problem> {
    match repeated {
        Repeated::Answered(generation, answer) => Ok((generation, answer)),
        Repeated::UnderWay(generation) => Err(in_use(generation)),
        Repeated::OtherBody(generation) => Err(reused(generation)),
    }
}

pub(super) fn in_use(generation: GenerationId) -> Problem {
    named(
        Problem::key_in_use("The first request with this Idempotency-Key has not been answered yet. Ask again later."),
        generation,
    )
}

pub(super) fn reused(generation: GenerationId) -> Problem {
    let detail = "This Idempotency-Key was used within a day for a request with another body. Take another key.";
    named(Problem::key_reused(detail), generation)
}

/// Says which generation it is about.
pub(super) fn named(problem: Problem, generation: GenerationId) -> Problem {
    match HeaderValue::try_from(generation.to_string()) {
        Ok(value) => problem.with_header(GENERATION, value),
        Err(_) => problem,
    }
}

/// Marks a recorded answer.
pub(super) fn mark_replayed(headers: &mut HeaderMap) {
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
}
