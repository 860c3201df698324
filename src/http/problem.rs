//! Errors as callers see them: RFC 9457 problems. The one place that maps errors to statuses.
//!
//! Public text and internal cause are different things: the cause travels with the response to the request log and is
//! written there once. Never lets a cause out.

use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::flow::adopt::AdoptError;
use crate::flow::intake::ReplayError;
use crate::flow::reconcile::AskError;
use crate::store::StoreError;

/// What is wrong with one field or parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// Name of the query parameter or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// A problem to be answered.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
    cause: Option<String>,
    is_fatal: bool,
}

/// A problem as it is answered (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'p> {
    /// Names the code once more, as a URI.
    #[schema(value_type = String, format = "uri")]
    r#type: String,
    /// The kind of problem, in words.
    title: &'p str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time, and what to do.
    detail: &'p str,
    code: Code,
    /// The same as in `X-Request-Id`; our log has the cause under it.
    request_id: &'p str,
    /// What is wrong field by field, where fields or parameters are at fault.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'p [FieldError],
    /// Only under `/gateway`: `title` once more, where the provider's clients look for a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'p str>,
    /// Only under `/gateway`: `detail` once more, where the provider's clients look for it next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<&'p str>,
}

/// Who reads a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A client of our own API.
    Ours,
    /// A client of the provider, which knows nothing of problems (provider.md 13).
    OfProvider,
}

impl Reader {
    /// Who calls a path.
    pub(super) fn of(path: &str) -> Self {
        let gateway = path.strip_prefix("/gateway").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if gateway { Self::OfProvider } else { Self::Ours }
    }
}

macro_rules! problems {
    ($($(#[doc = $doc:literal])* $name:ident $variant:ident = $status:ident, $code:literal, $title:literal;)+) => {
        /// The kind of a problem: closed, so programs can go by it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Code { $($(#[doc = $doc])* $variant,)+ }

        impl Code {
            /// All of them.
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word used outside.
            pub(super) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// In words.
            pub(super) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// What it means, in a sentence.
            pub(super) const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)*),)+ }
            }

            /// The status it is answered with.
            pub(super) const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }
        }

        impl Problem {
            $($(#[doc = $doc])*
            pub fn $name(detail: impl Into<String>) -> Self {
                Self::new(Code::$variant, detail.into())
            })+
        }
    };
}

problems! {
    /// Nothing there.
    not_found NotFound = NOT_FOUND, "NOT_FOUND", "Not found";
    /// The route exists, the method does not.
    method_not_allowed MethodNotAllowed = METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "Method not allowed";
    /// No key, or one we do not know.
    unauthorized Unauthorized = UNAUTHORIZED, "UNAUTHORIZED", "No valid API key";
    /// Who sent too many wrong keys is not listened to.
    too_many_wrong_keys TooManyWrongKeys = TOO_MANY_REQUESTS, "TOO_MANY_WRONG_KEYS", "Too many wrong API keys";
    /// The key lacks a scope.
    forbidden Forbidden = FORBIDDEN, "FORBIDDEN", "The API key may not do this";
    /// A query parameter is wrong.
    invalid_query InvalidQuery = BAD_REQUEST, "INVALID_QUERY", "Invalid query";
    /// A header is wrong.
    invalid_header InvalidHeader = BAD_REQUEST, "INVALID_HEADER", "Invalid header";
    /// An idempotency key came again with another body.
    key_reused KeyReused = UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", "The idempotency key was used for another request";
    /// The request with this idempotency key has not been answered yet.
    key_in_use KeyInUse = CONFLICT, "IDEMPOTENCY_KEY_IN_USE", "The first request with this key is under way";
    /// Nothing was sent to the provider, and nothing bought.
    provider_unreachable ProviderUnreachable = BAD_GATEWAY, "PROVIDER_UNREACHABLE", "The provider cannot be reached";
    /// Sent to the provider, and whether it was bought is not known.
    submit_unconfirmed SubmitUnconfirmed = GATEWAY_TIMEOUT, "SUBMIT_UNCONFIRMED", "It is not known whether this was bought";
    /// The provider does not know a generation that we do not know either.
    generation_not_found GenerationNotFound = NOT_FOUND, "GENERATION_NOT_FOUND", "Generation not found";
    /// The provider gave no usable answer to a read.
    provider_silent ProviderSilent = BAD_GATEWAY, "PROVIDER_SILENT", "The provider gave no usable answer";
    /// The body is no JSON.
    invalid_json InvalidJson = BAD_REQUEST, "INVALID_JSON", "Invalid JSON";
    /// A parameter is wrong, as the provider would refuse it.
    invalid_parameters InvalidParameters = UNPROCESSABLE_ENTITY, "INVALID_PARAMETERS", "Invalid parameters";
    /// The body has fields that are wrong.
    invalid_body InvalidBody = UNPROCESSABLE_ENTITY, "INVALID_BODY", "Invalid request body";
    /// The webhook cannot be read.
    unreadable_webhook UnreadableWebhook = UNPROCESSABLE_ENTITY, "UNREADABLE_WEBHOOK", "The webhook cannot be read";
    /// The body is too long.
    body_too_large BodyTooLarge = PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", "The body is too large";
    /// The body did not arrive in time.
    body_timeout BodyTimeout = REQUEST_TIMEOUT, "BODY_TIMEOUT", "The body did not arrive in time";
    /// What is asked contradicts what is known.
    conflict Conflict = CONFLICT, "CONFLICT", "Conflict";
    /// It was there and is removed.
    gone Gone = GONE, "GONE", "Gone";
    /// The budget of status reads is spent.
    budget_spent BudgetSpent = TOO_MANY_REQUESTS, "BUDGET_SPENT", "No status read is left";
    /// Not now.
    unavailable Unavailable = SERVICE_UNAVAILABLE, "UNAVAILABLE", "Temporarily unavailable";
    /// Our own fault.
    internal Internal = INTERNAL_SERVER_ERROR, "INTERNAL", "Internal error";
}

impl Code {
    /// What is answered.
    pub(super) fn body<'p>(
        self,
        reader: Reader,
        detail: &'p str,
        request_id: &'p str,
        errors: &'p [FieldError],
    ) -> Body<'p> {
        let r#type = format!("urn:recoup:problem:{}", self.as_str().to_ascii_lowercase().replace('_', "-"));
        let (title, status) = (self.title(), self.status().as_u16());
        let for_provider = reader == Reader::OfProvider;
        let (error, message) = (for_provider.then_some(title), for_provider.then_some(detail));
        Body { r#type, title, status, detail, code: self, request_id, errors, error, message }
    }
}

impl utoipa::PartialSchema for Code {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let words: Vec<_> = Self::ALL.iter().map(|code| (code.as_str(), code.meaning())).collect();
        crate::domain::schema::one_of("The kind of a problem: closed, so programs can go by it.", &words)
    }
}

impl ToSchema for Code {
    fn name() -> std::borrow::Cow<'static, str> {
        "ProblemCode".into()
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The provider comes back after 30 seconds anyway (provider.md section 4).
pub(super) const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(30);

impl Problem {
    fn new(code: Code, detail: String) -> Self {
        Self {
            code,
            detail,
            errors: Vec::new(),
            retry_after: None,
            headers: HeaderMap::new(),
            cause: None,
            is_fatal: false,
        }
    }

    /// Adds what is wrong field by field.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds the internal cause: for the log only.
    #[must_use]
    pub fn caused_by(mut self, cause: &dyn std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Whether the service cannot go on: the database is broken.
    pub fn is_fatal(&self) -> bool {
        self.is_fatal
    }

    /// The internal cause.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// What is wrong, as callers see it.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The kind of problem, in words.
    pub fn title(&self) -> &'static str {
        self.code.title()
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The code, as callers see it.
    pub fn code(&self) -> &'static str {
        self.code.as_str()
    }

    /// Adds when to come back to the headers of an answer.
    pub(super) fn tell_when(&self, headers: &mut HeaderMap) {
        if let Some(wait) = self.retry_after {
            // Rounded up: coming back a moment early would be refused again.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
    }

    /// Writes the body, once the request's id is known.
    pub(super) fn render(&self, reader: Reader, request_id: &str) -> Response {
        let body = self.code.body(reader, &self.detail, request_id, &self.errors);
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        self.tell_when(headers);
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert("www-authenticate", HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// A response whose body `log` writes, because only there the request's id is known.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let problem = match &error {
            StoreError::Unavailable(_) | StoreError::Broken(_) => {
                Self::unavailable("The database cannot take this now. Nothing was kept; send it again.")
                    .retry_after(UNAVAILABLE_RETRY_AFTER)
            }
            StoreError::Impossible(_) | StoreError::Failed(_) => {
                Self::internal("Something went wrong on our side. The log has the cause under this request id.")
            }
        };
        let is_fatal = matches!(error, StoreError::Broken(_));
        Self { is_fatal, ..problem.caused_by(&error) }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Nothing => {
                Self::conflict("The provider's id of this generation is not known, so there is nothing to ask about.")
            }
            AskError::Spent(spent) => {
                Self::budget_spent("The budget of status reads is spent, or the provider asked for rest.")
                    .retry_after(spent.wait)
            }
            AskError::Store(error) => error.into(),
            AskError::UnderWay(_) | AskError::Interrupted => {
                Self::unavailable("The answer to the read under way was not kept.").retry_after(UNAVAILABLE_RETRY_AFTER)
            }
            AskError::Stopping => Self::unavailable("The service is stopping.").retry_after(UNAVAILABLE_RETRY_AFTER),
        }
    }
}

impl From<AdoptError> for Problem {
    fn from(error: AdoptError) -> Self {
        match error {
            // As the provider itself says it (provider.md section 5).
            AdoptError::Unknown => Self::generation_not_found("Generation not found"),
            AdoptError::Spent(spent) => AskError::Spent(spent).into(),
            AdoptError::NoAnswer(said) => Self::provider_silent(
                "This generation is not on record here, and the provider could not be asked about it just now.",
            )
            .caused_by(&said),
            AdoptError::Store(error) => error.into(),
        }
    }
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Unknown => Self::not_found("There is no such delivery."),
            ReplayError::BodyGone => Self::gone("The body of this delivery was removed by retention."),
            ReplayError::Store(error) => error.into(),
        }
    }
}
