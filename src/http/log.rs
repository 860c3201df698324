//! Around every request: an id in and out, one log line, problems rendered, panics caught.
//!
//! Logs the matched route, never the path (it may hold a token), never a body, a key or a query.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::page::{self, ForEyes};
use super::problem::{Problem, Reader};
use crate::clock::Clock;
use crate::planted;
use crate::telemetry::{meters, traces};
use crate::worker::Tasks;

const REQUEST_ID: &str = "x-request-id";
/// Longest id taken over from the caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What is needed around a request.
#[derive(Clone, Debug)]
pub(super) struct Around {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
}

/// Wraps a request.
pub(super) async fn request(State(around): State<Around>, request: Request, next: Next) -> Response {
    let span = span(&request);
    answer(around, request, next).instrument(span).await
}

/// The request as a trace shows it: part of the caller's, where it names one.
fn span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let method = request.method();
    let span = tracing::info_span!(
        "request", otel.name = format_args!("{method} {route}"), otel.kind = "server", otel.status_code = Empty,
        "http.request.method" = %method, "http.route" = route, "http.response.status_code" = Empty, request_id = Empty
    );
    traces::adopt(&span, |name| request.headers().get(name)?.to_str().ok());
    span
}

async fn answer(around: Around, request: Request, next: Next) -> Response {
    let Around { clock, tasks } = around;
    let id = request_id(&request);
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let path = planted::is(planted::Fault::PathLogged).then(|| request.uri().path().to_owned());
    let route = path.as_deref().unwrap_or(route);
    let reader = Reader::of(request.uri().path());
    let started = clock.monotonic();
    let response = if is_text(request.uri().path()) {
        next.run(request).await
    } else {
        // As everywhere else where nothing is: axum would refuse it in a shape of its own.
        Problem::not_found("There is nothing here.").into_response()
    };
    let duration = clock.monotonic().saturating_sub(started);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let problem = response.extensions().get::<Problem>().cloned();
    if let Some(cause) = problem.as_ref().filter(|problem| problem.is_fatal()).and_then(Problem::cause) {
        // Also what only reads stops the service: what cannot be read may be acknowledged no more.
        tasks.fail(cause.to_owned());
    }
    let mut response = match &problem {
        Some(problem) if response.extensions().get::<ForEyes>().is_some() => page::problem(problem, &id, clock.now()),
        Some(problem) => problem.render(reader, &id),
        None => response,
    };
    let status = response.status();
    let (code, cause) = (problem.as_ref().map(Problem::code), problem.as_ref().and_then(Problem::cause));
    meters::request(route, status.as_str());
    let span = Span::current();
    span.record("http.response.status_code", status.as_u16()).record("request_id", &id);
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    if status.is_server_error() {
        tracing::error!(%method, route, status = status.as_u16(), duration_ms, request_id = id, code, cause, "request");
    } else if route == "/livez" || route == "/readyz" {
        tracing::debug!(%method, route, status = status.as_u16(), duration_ms, request_id = id, "request");
    } else {
        tracing::info!(%method, route, status = status.as_u16(), duration_ms, request_id = id, code, "request");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The caller's own id where it is short and printable, else a fresh one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let usable =
        given.filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
    usable.map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned)
}

/// Whether a path stands for text once its `%XX` are read.
fn is_text(path: &str) -> bool {
    if !path.contains('%') {
        return true;
    }
    let bytes = path.as_bytes();
    let hex = |at: usize| {
        bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    let (mut read, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                read.push(high << 4 | low);
                at += 3;
            }
            (byte, ..) => {
                read.push(byte);
                at += 1;
            }
        }
    }
    std::str::from_utf8(&read).is_ok()
}

/// What a panic is answered with. Its text stays inside: it may hold anything.
pub(super) fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal("Something went wrong on our side. The log has the cause under this request id.")
        .caused_by(&"a handler panicked")
        .into_response()
}

/// What is answered outside of everything else, should the log itself panic.
pub(super) fn panicked_outside(_panic: Box<dyn Any + Send + 'static>) -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_text_or_nothing() {
        for path in ["/", "/%", "/%f", "/%zz", "/%c3%a4", "/%E2%82%ac", "/a%2fb"] {
            assert!(is_text(path), "{path}");
        }
        for path in ["/%ff", "/%c3", "/%c3%28", "/%ed%a0%80"] {
            assert!(!is_text(path), "{path}");
        }
    }
}
