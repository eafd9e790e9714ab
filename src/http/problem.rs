//! Errors as problem documents (RFC 9457), and what of a request is read in a way that ends in one.

use std::any::Any;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::bounds::{BODY_LIMIT, MAX_BODIES_KIB, MAX_BODY_BYTES};
use crate::event::Object;
use crate::store::StoreError;

/// The media type of problem documents.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, for a program and for a person.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDocument {
    /// Which kind of problem: docs/http.md lists them. `about:blank` where the status says all.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", examples("urn:stock-verifier:problem:unknown-sku"))]
    kind: String,
    /// The kind, in short.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong here, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

/// A document with what its kind has besides.
#[derive(Serialize)]
struct WithMore {
    #[serde(flatten)]
    document: ProblemDocument,
    #[serde(flatten)]
    more: Option<Box<Map<String, Value>>>,
}

/// A kind of problem that another room has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OtherKind {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The last part of its type.
    pub(crate) name: &'static str,
    /// The kind, in short.
    pub(crate) title: &'static str,
}

/// Kinds of problems that a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What its status says.
    Plain(StatusCode),
    /// One of another room's.
    Other(&'static OtherKind),
    /// A parameter that is none.
    InvalidParameter,
    /// A body that is none.
    InvalidBody(StatusCode),
    /// No stock of it was ever recorded.
    UnknownSku,
    /// No decision about the order is known.
    NoDecision,
    /// The token is missing or wrong.
    Unauthorized,
    /// Too much goes on.
    Busy,
    /// It took too long.
    TimedOut,
    /// The database is away.
    LedgerAway,
    /// What is stored cannot be read.
    LedgerUnreadable,
}

impl Kind {
    fn parts(self) -> (StatusCode, Option<(&'static str, &'static str)>) {
        match self {
            Self::Plain(status) => (status, None),
            Self::Other(other) => (other.status, Some((other.name, other.title))),
            Self::InvalidParameter => {
                (StatusCode::BAD_REQUEST, Some(("invalid-parameter", "A parameter is invalid")))
            }
            Self::InvalidBody(status) => (status, Some(("invalid-body", "The body is invalid"))),
            Self::UnknownSku => (StatusCode::NOT_FOUND, Some(("unknown-sku", "The SKU is unknown"))),
            Self::NoDecision => {
                (StatusCode::NOT_FOUND, Some(("no-decision", "No decision about the order is known")))
            }
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, Some(("unauthorized", "A bearer token is needed")))
            }
            Self::Busy => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(("busy", "Too many requests are under way")))
            }
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, Some(("timed-out", "The answer took too long"))),
            Self::LedgerAway => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(("ledger-away", "The ledger cannot be reached")))
            }
            Self::LedgerUnreadable => {
                (StatusCode::INTERNAL_SERVER_ERROR, Some(("ledger-unreadable", "The ledger cannot be read")))
            }
        }
    }
}

/// A problem, to be answered.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Option<String>,
    /// Members of the document that its kind has besides. Boxed: few have any, and a problem is part of every answer's type.
    more: Option<Box<Map<String, Value>>>,
    /// After how many seconds asking again is worth it, where the kind does not say it.
    retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: Some(detail.into()), more: None, retry_after: None }
    }

    /// With one more member of the document.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// Asking again is worth it after so many seconds.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A parameter that is wrong.
    pub(crate) fn parameter(name: &str, what: impl std::fmt::Display) -> Self {
        Self::new(Kind::InvalidParameter, format!("{name} {what}"))
    }

    /// A body that can be read, and breaks a bound.
    pub(crate) fn body(what: impl Into<String>) -> Self {
        Self::new(Kind::InvalidBody(StatusCode::UNPROCESSABLE_ENTITY), what)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, named) = self.kind.parts();
        let title = || status.canonical_reason().unwrap_or("Error").to_owned();
        let (kind, title) = match named {
            Some((name, title)) => (format!("urn:stock-verifier:problem:{name}"), title.to_owned()),
            None => ("about:blank".to_owned(), title()),
        };
        let document = ProblemDocument { kind, title, status: status.as_u16(), detail: self.detail };
        let mut response = (status, Json(WithMore { document, more: self.more })).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match self.kind {
            Kind::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Kind::Busy | Kind::LedgerAway => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            // Readiness says it, and the pipeline logs it; a line for each who asks would drown both.
            tracing::debug!(error = &error as &dyn std::error::Error, "a read failed");
            return Self::new(Kind::LedgerAway, "the database does not answer now: ask again");
        }
        tracing::error!(error = &error as &dyn std::error::Error, "a read failed");
        Self::new(Kind::LedgerUnreadable, "what is stored cannot be read; the verifier's log says why")
    }
}

/// A JSON object in the body.
pub(super) struct Body<T>(pub(super) T);

/// Room for the bodies that are coming, in KiB: memory is the process's.
static ROOM: Semaphore = Semaphore::const_new(MAX_BODIES_KIB);

/// How much room a body takes until it is read, in KiB.
fn room_of(headers: &HeaderMap) -> u32 {
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // What is longer than the longest is refused without being read.
    let bytes = stated.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    // Holds because the longest has a mebibyte.
    u32::try_from(bytes / 1024 + 1).expect("a thousand KiB")
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Ok(_room) = ROOM.try_acquire_many(room_of(request.headers())) else {
            return Err(Problem::new(Kind::Busy, "too much is being sent at once: ask again"));
        };
        // Else the time for the answer would be over, as if the database were silent.
        let read = timeout(BODY_LIMIT, Json::<Object<T>>::from_request(request, state)).await;
        let read = read.map_err(|_| {
            let late = format!("the body did not come within {} s", BODY_LIMIT.as_secs());
            Problem::new(Kind::Plain(StatusCode::REQUEST_TIMEOUT), late)
        })?;
        let Json(Object(body)) = read.map_err(|rejection: JsonRejection| match rejection.status() {
            status @ (StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE) => {
                Problem::new(Kind::Plain(status), rejection.body_text())
            }
            status => Problem::new(Kind::InvalidBody(status), rejection.body_text()),
        })?;
        Ok(Self(body))
    }
}

/// The query of a request.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        let Query(query) = read.map_err(|rejection: QueryRejection| {
            Problem::new(Kind::InvalidParameter, rejection.body_text())
        })?;
        Ok(Self(query))
    }
}

/// The one name in a request's path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = read.map_err(|rejection: PathRejection| {
            Problem::new(Kind::InvalidParameter, rejection.body_text())
        })?;
        Ok(Self(name))
    }
}

/// Makes problem documents of errors that have none: those of the router and of the layers.
pub(super) async fn as_documents(request: Request, next: Next) -> Response {
    let is_head = request.method() == axum::http::Method::HEAD;
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(&response) {
        return response;
    }
    let kind = if status == StatusCode::GATEWAY_TIMEOUT { Kind::TimedOut } else { Kind::Plain(status) };
    let detail = match status {
        StatusCode::NOT_FOUND => Some("there is nothing at this address: /openapi.json names what there is"),
        StatusCode::METHOD_NOT_ALLOWED => Some("the Allow header names the methods of this address"),
        StatusCode::GATEWAY_TIMEOUT => Some("the database did not answer in time: ask again"),
        _ => None,
    };
    let document = Problem { kind, detail: detail.map(str::to_owned), more: None, retry_after: None };
    let document = document.into_response();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    for (name, value) in document.headers() {
        parts.headers.insert(name, value.clone());
    }
    let body = if is_head { HttpBody::empty() } else { document.into_body() };
    Response::from_parts(parts, body)
}

fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json") || kind.starts_with(PROBLEM_JSON))
}

/// The answer of a handler that panicked. What it says stays in the log.
#[expect(clippy::needless_pass_by_value, reason = "tower hands it over")]
pub(super) fn panicked(why: Box<dyn Any + Send>) -> Response {
    let said =
        why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied());
    tracing::error!("a request panicked: {}", said.unwrap_or("no text"));
    let kind = Kind::Plain(StatusCode::INTERNAL_SERVER_ERROR);
    Problem::new(kind, "the verifier's log says why").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_the_room_that_it_states_and_at_most_that_of_the_longest() {
        let room = |stated: Option<&'static str>| {
            let headers = stated.map(|length| (CONTENT_LENGTH, HeaderValue::from_static(length)));
            room_of(&headers.into_iter().collect())
        };
        assert_eq!([Some("0"), Some("1023"), Some("1024"), Some("100000")].map(room), [1, 1, 2, 98]);
        assert_eq!([None, Some("1048576"), Some("99999999999999999999"), Some("-1")].map(room), [1025; 4]);
    }
}
