//! Bodies and queries, read strictly: what is wrong is said field by field.

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Path as UrlPath, Request};
use axum::http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::problem::{FieldError, Problem};
use crate::domain::time::Time;
use crate::planted;

/// Longest body of our own API, in bytes (reliability.md 5.1).
pub(super) const API_BODY_BYTES_MAX: usize = 256 * 1_024;
/// Time for a whole body to arrive; the provider gives the whole request 30 seconds.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Slowest sender that is waited for beyond that, in bytes a second.
const BODY_BYTES_PER_SECOND: u64 = 64 * 1_024;

/// Reads a body of at most `bytes_max` bytes.
///
/// # Errors
/// 413 when it is longer, 408 when it does not arrive in time, 400 when the connection breaks.
pub(super) async fn body(body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let announced = usize::try_from(body.size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
    let too_large = || Problem::body_too_large(format!("The body may have at most {bytes_max} bytes."));
    if announced > bytes_max && !planted::is(planted::Fault::BodiesUnbounded) {
        return Err(too_large());
    }
    let bytes_max = if planted::is(planted::Fault::BodiesUnbounded) { usize::MAX } else { bytes_max };
    let mut limited = Limited::new(body, bytes_max);
    // Once, where the length is known: a body of images is not copied while it grows.
    let mut bytes = Vec::with_capacity(announced);
    let mut patience = pin!(tokio::time::sleep(BODY_TIMEOUT));
    let start = patience.deadline();
    loop {
        let frame = tokio::select! {
            // What is there already needs no timer.
            biased;
            frame = limited.frame() => frame,
            () = &mut patience, if !planted::is(planted::Fault::BodiesUntimed) => {
                let detail = format!(
                    "The body has to arrive within {} seconds, and at {BODY_BYTES_PER_SECOND} bytes a second after that.",
                    BODY_TIMEOUT.as_secs()
                );
                return Err(Problem::body_timeout(detail));
            }
        };
        match frame {
            None => return Ok(bytes),
            Some(Ok(frame)) => {
                bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
                let arrived = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                patience.as_mut().reset(start + Duration::from_secs(arrived / BODY_BYTES_PER_SECOND));
            }
            Some(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Some(Err(error)) => return Err(Problem::invalid_json("The body broke off.").caused_by(&error)),
        }
    }
}

/// A JSON body of our own API; unknown fields are errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct ApiJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        parse(&body(request.into_body(), API_BODY_BYTES_MAX).await?).map(Self)
    }
}

/// Reads JSON strictly.
///
/// # Errors
/// 400 when it is no JSON, 422 naming the field that is wrong.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        if error.inner().is_data() {
            let detail = plain(error.inner());
            let pointer = pointer(error.path());
            let summary = if pointer.is_empty() { detail.clone() } else { format!("{pointer}: {detail}") };
            Problem::invalid_body(summary).with_errors(vec![FieldError {
                pointer: Some(pointer),
                parameter: None,
                detail,
            }])
        } else {
            Problem::invalid_json(format!("The body is not valid JSON: {}.", error.inner()))
        }
    })?;
    json.end().map_err(|_| Problem::invalid_json("There is something after the JSON value."))?;
    Ok(value)
}

/// The message without serde's position: the pointer says it better.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}

fn pointer(path: &Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { variant } => Some(format!("/{variant}")),
            Segment::Unknown => None,
        })
        .collect()
}

/// A problem of one field of the body.
pub(super) fn invalid_field(pointer: &str, detail: impl Into<String>) -> Problem {
    let detail = detail.into();
    Problem::invalid_body(format!("{pointer}: {detail}")).with_errors(vec![FieldError {
        pointer: Some(pointer.to_owned()),
        parameter: None,
        detail,
    }])
}

/// What a path names. Text that cannot be read names nothing.
#[derive(Clone, Debug)]
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = UrlPath::<String>::from_request_parts(parts, state).await;
        named.map(|UrlPath(name)| Self(name)).map_err(|_| Problem::not_found("There is nothing here."))
    }
}

/// The query parameters. Each has to be taken; what is left over in the end is an error.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    /// Parameters that were read already.
    pub(super) fn of(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The names of what is left.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Every value of a parameter that may repeat.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(key, _)| key == name);
        self.0 = left;
        Vec::into_iter(taken).map(|(_, value): (String, String)| value).collect()
    }

    /// The value of a parameter that may stand once.
    ///
    /// # Errors
    /// 400 when it stands more often.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(invalid_parameter(name, "may be given only once"));
        }
        Ok(values.pop())
    }

    /// Every value of a parameter that may repeat, each read by `read`.
    ///
    /// # Errors
    /// 400 naming the parameter, the value and what is `allowed`.
    pub(super) fn words<T>(
        &mut self,
        name: &str,
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Problem> {
        let value = |value: String| {
            read(&value)
                .ok_or_else(|| invalid_parameter(name, format!("{value:?} is not allowed; it must be {allowed}")))
        };
        self.all(name).into_iter().map(value).collect()
    }

    /// A time.
    ///
    /// # Errors
    /// 400 naming the parameter.
    pub(super) fn time(&mut self, name: &str) -> Result<Option<Time>, Problem> {
        let text = self.one(name)?;
        text.map(|text| Time::parse(&text).map_err(|error| invalid_parameter(name, error.to_string()))).transpose()
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// 400 naming the parameter and the bounds.
    pub(super) fn number(&mut self, name: &str, bounds: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, Problem> {
        let text = self.one(name)?;
        let number = |text: String| {
            text.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
                invalid_parameter(name, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()))
            })
        };
        text.map(number).transpose()
    }

    /// The parameters `name[key]`.
    pub(super) fn keyed(&mut self, name: &str) -> Vec<(String, String)> {
        let key_of = |key: &str| Some(key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?.to_owned());
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for (key, value) in std::mem::take(&mut self.0) {
            match key_of(&key) {
                Some(key) => taken.push((key, value)),
                None => left.push((key, value)),
            }
        }
        self.0 = left;
        taken
    }

    /// Nothing may be left over.
    ///
    /// # Errors
    /// 400 naming the parameter nobody knows.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(invalid_parameter(&name, "is not a parameter of this route")),
            None => Ok(()),
        }
    }
}

/// A problem of one query parameter.
pub(super) fn invalid_parameter(name: &str, detail: impl Into<String>) -> Problem {
    let detail = detail.into();
    Problem::invalid_query(format!("{name}: {detail}")).with_errors(vec![FieldError {
        pointer: None,
        parameter: Some(name.to_owned()),
        detail,
    }])
}
