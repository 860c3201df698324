//! `Idempotency-Key`: read from requests, and what is said when one was used before.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{FieldError, Problem};
use crate::domain::id::GenerationId;
use crate::store::Repeated;

pub(super) const GENERATION: HeaderName = HeaderName::from_static("recoup-generation");
const KEYS: [&str; 2] = ["idempotency-key", "x-idempotency-key"];
const REQUEST_ID: &str = "x-request-id";
const PREFER: &str = "prefer";
pub(super) const REPEAT_OF: HeaderName = HeaderName::from_static("recoup-repeat-of");
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY_CHARS_MAX: usize = 255;

/// The caller's key, where there is one: under either of its names.
///
/// # Errors
/// 400 for one that is empty, too long, not printable, or given twice; under both names only the same may stand.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut found: Option<String> = None;
    for name in KEYS {
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else { continue };
        let key = match (printable(value), values.next()) {
            (Some(key), None) if found.as_deref().is_none_or(|other| other == key) => key.to_owned(),
            _ => {
                let detail = "must stand once and have 1 to 255 printable ASCII characters; X-Idempotency-Key is another name of it";
                return Err(invalid_header("Idempotency-Key", detail));
            }
        };
        found = Some(key);
    }
    Ok(found)
}

/// The caller's own id of its call, the same on all of its attempts; one that cannot be kept counts as none.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    printable(headers.get(REQUEST_ID)?).map(str::to_owned)
}

/// How long the caller wants to wait at most: `Prefer: wait=SECONDS` (RFC 7240).
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).filter_map(|one| one.trim().split_once('='));
    let wait = preferences.find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?.1;
    wait.trim().parse().ok().map(Duration::from_secs)
}

fn printable(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let fits = (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    fits.then_some(text)
}

/// Says which purchase a request repeats.
pub(super) fn repeat_of(problem: Problem, first: GenerationId) -> Problem {
    match HeaderValue::try_from(first.to_string()) {
        Ok(value) => problem.with_header(REPEAT_OF, value),
        Err(_) => problem,
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
