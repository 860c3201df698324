//! Answers that misbehave, by order of a test or by a prompt. Never decides whether anything is sold.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, LOCATION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::Sandbox;
use super::plan::Fault;
use super::script::{Script, ScriptedAnswer};

impl Sandbox {
    /// The misbehaving answer about a purchase; `usual` is what it would be.
    pub(super) async fn misbehave(&self, fault: &Fault, id: &str, usual: Response) -> Response {
        match fault {
            Fault::Answer { status, body } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, Json(body.clone())).into_response()
            }
            Fault::Unauthorized { shape } => unauthorized(*shape),
            Fault::NoCredits { form } => no_credits(*form),
            Fault::RateLimited { retry_after } => with_retry_after(*retry_after, too_many_requests()),
            Fault::DetailText => text(StatusCode::UNPROCESSABLE_ENTITY, "prompt: must not be empty"),
            Fault::DetailList => unprocessable(&json!([
                {"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"},
            ])),
            Fault::DetailObject => {
                unprocessable(&json!({"code": "INVALID_PARAMETERS", "message": "prompt is missing"}))
            }
            Fault::ServerError => text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
            Fault::Html => (StatusCode::BAD_GATEWAY, "<html><body>502 Bad Gateway</body></html>").into_response(),
            Fault::Empty => StatusCode::OK.into_response(),
            Fault::Garbage => (StatusCode::OK, r#"{"generation_id": "half a docu"#).into_response(),
            Fault::WrongId => Json(json!({
                "generation_id": "another-one", "status": "completed", "video_url": "https://cdn.example.net/wrong.mp4",
            }))
            .into_response(),
            Fault::Redirect { location } => {
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location.clone())]).into_response()
            }
            Fault::Huge { bytes } => huge(*bytes),
            Fault::Cut => cut(StatusCode::OK, id),
            Fault::Bought(fault) => Box::pin(self.misbehave(fault, id, usual)).await,
            Fault::Hang => self.hang().await,
            Fault::Slow { ms } => {
                self.take_time(Duration::from_millis(*ms)).await;
                usual
            }
        }
    }

    /// The answer to a purchase as its prompt asked for.
    pub(super) async fn follow(&self, script: Script, id: &str, usual: Response) -> Response {
        self.take_time(script.after).await;
        let answer = match script.answer {
            ScriptedAnswer::Documented => usual,
            ScriptedAnswer::Lost => self.hang().await,
            ScriptedAnswer::Cut => cut(StatusCode::CREATED, id),
            ScriptedAnswer::Status(429) => too_many_requests(),
            ScriptedAnswer::Status(status) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                text(status, status.canonical_reason().unwrap_or("Error"))
            }
        };
        with_retry_after(script.retry_after, answer)
    }

    async fn hang(&self) -> Response {
        self.stop.cancelled().await;
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }

    async fn take_time(&self, span: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.clock.sleep(span) => {}
        }
    }
}

/// `{"detail": ...}`.
pub(super) fn text(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

pub(super) fn too_many_requests() -> Response {
    text(StatusCode::TOO_MANY_REQUESTS, "Too many requests")
}

fn with_retry_after(seconds: Option<u64>, mut answer: Response) -> Response {
    if let Some(seconds) = seconds {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// A body that promises more than it sends, and then breaks the connection.
fn cut(status: StatusCode, id: &str) -> Response {
    let begun = Bytes::from(format!(r#"{{"generation_id": "{id}", "sta"#));
    let breaks = async {
        // What there is goes out first.
        tokio::task::yield_now().await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    };
    let body = Body::from_stream(stream::once(async { Ok(begun) }).chain(stream::once(breaks)));
    (status, [(CONTENT_LENGTH, "4096")], body).into_response()
}

fn huge(bytes: u64) -> Response {
    const PIECE: &[u8] = &[b' '; 4_096];
    let pieces = bytes / 4_096;
    let body = stream::iter((0..pieces).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(PIECE))));
    (StatusCode::OK, Body::from_stream(body)).into_response()
}

fn unprocessable(detail: &Value) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": detail }))).into_response()
}

fn unauthorized(shape: u8) -> Response {
    let body = match shape {
        1 => json!({"error": "Unauthorized", "message": "Invalid API key"}),
        2 => json!({"detail": "Missing credentials"}),
        _ => json!({"detail": "Invalid API key"}),
    };
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

pub(super) fn no_credits(form: u8) -> Response {
    let body = match form {
        2 => json!({"success": false, "message": "INSUFFICIENT_CREDITS"}),
        _ => json!({"detail": "INSUFFICIENT_CREDITS"}),
    };
    (StatusCode::PAYMENT_REQUIRED, Json(body)).into_response()
}
