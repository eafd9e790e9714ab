//! `POST /v1/orders`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest as _, FromRequestParts, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower_http::timeout::TimeoutLayer;
use utoipa::{IntoParams, ToSchema};

use super::door::{Door, Entrance, Order};
use super::figures::{self, Shown};
use super::rule::{Asked, LineRefusal, Millis, stamp};
use crate::event::types::ORDER_CREATED;
use crate::event::{Header, Object, Record, TRACEPARENT, TRACESTATE, TraceContext, read_command, submitted};
use crate::http::bounds::MAX_WAIT;
use crate::http::{
    self, Kind, KnownOrder, OrderView, Orders, OtherKind, Problem, ProblemDocument, id_schema, wait_of,
};
use crate::kafka::order_producer::DELIVERY_LIMIT;
use crate::ledger::{
    Action, Digest, Id, MAX_ID_BYTES, Offset, OrderLine, Policy, Reason, Source, TopicPartition,
};

/// Largest order. With its key and headers below what librdkafka sends at most, a million bytes.
const MAX_ORDER_BYTES: usize = 950_000;
/// Up to this length an order needs no room of its own: it is longer than the usual one of some hundred bytes, and as many as
/// there are connections take 32 MiB.
const SMALL_BYTES: usize = 8 << 10;
/// Bytes of larger orders at once. Each order is there up to three times: as it came, as it is read, and as it is sent. So all
/// take 150 MiB at most, and with the 64 MiB that wait to be sent less than the 256 MiB of the chart and of the systemd unit.
const LARGE_BYTES: usize = 16 << 20;
/// Longest time for an order to come in. It takes no place at the door before, so that who sends slowly keeps out nobody.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a decision that the cache knows of, and a replica of the database does not yet: longer than one may be
/// behind where nothing else is said (`--read-max-lag`).
const DECIDED_LIMIT: Duration = Duration::from_secs(6);
/// Longest time for an answer once an order is there, waiting on purpose aside: what Redis and Kafka may take, and room.
const ANSWER_LIMIT: Duration = Duration::from_secs(DELIVERY_LIMIT.as_secs() + 5);
/// After how many seconds to ask again, where nothing better is known.
const SOON: u64 = 1;
/// Longest pause that is asked for: who waits for a sale asks again before, and hears of a change.
const LONGEST_PAUSE: u64 = 3_600;
/// Longest request id that is made a trace of.
const MAX_REQUEST_ID: usize = 256;
/// Longest trace context passed on, as with records.
const MAX_TRACEPARENT: usize = 256;
const MAX_TRACESTATE: usize = 512;

/// How much goes on at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Orders at the door.
    pub(super) orders: usize,
}

/// What an order over the bound is counted as.
pub(super) const TOO_MANY: &str = "too_many";
/// What an order that is none is counted as.
pub(super) const INVALID: &str = "invalid";

const NOT_ENOUGH: OtherKind = OtherKind {
    status: StatusCode::CONFLICT,
    name: "not-enough",
    title: "There is not enough, by an estimate",
};
const NOT_OPEN: OtherKind =
    OtherKind { status: StatusCode::CONFLICT, name: "not-open", title: "A SKU is not sold now" };
const BUYER_LIMIT: OtherKind = OtherKind {
    status: StatusCode::CONFLICT,
    name: "buyer-limit",
    title: "A buyer can have no more of a SKU for now",
};
const BUYER_MISSING: OtherKind = OtherKind {
    status: StatusCode::UNPROCESSABLE_ENTITY,
    name: "buyer-missing",
    title: "A buyer must be named",
};
const ORDER_CONFLICT: OtherKind = OtherKind {
    status: StatusCode::UNPROCESSABLE_ENTITY,
    name: "order-conflict",
    title: "The id is taken by other content",
};
const INVALID_ORDER: OtherKind = OtherKind {
    status: StatusCode::UNPROCESSABLE_ENTITY,
    name: "invalid-order",
    title: "The order is invalid",
};
const OVER_BOUND: OtherKind = OtherKind {
    status: StatusCode::TOO_MANY_REQUESTS,
    name: "too-many-orders",
    title: "Too many orders are at the door",
};
const NOT_KNOWN: OtherKind = OtherKind {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "maybe-sent",
    title: "Nobody knows yet whether the order was sent",
};
const KAFKA_AWAY: OtherKind = OtherKind {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "kafka-away",
    title: "The order could not be sent",
};
const CACHE_AWAY: OtherKind = OtherKind {
    status: StatusCode::SERVICE_UNAVAILABLE,
    name: "cache-away",
    title: "Nothing can be said now",
};

/// What the addresses work with.
pub(super) struct ApiState {
    door: Arc<Door>,
    orders: Orders,
    at_the_door: Arc<Semaphore>,
    large: Arc<Semaphore>,
    bounds: Bounds,
}

impl ApiState {
    /// The answer where there is no place.
    fn too_many(&self, why: String) -> Problem {
        self.door.observer.answered(TOO_MANY, None);
        Problem::new(Kind::Other(&OVER_BOUND), why).retry_after(SOON)
    }
}

/// Room in memory for an order, until dropped.
#[derive(Debug)]
pub(super) struct Room {
    _of_large: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for the order of these headers, where there is any. Where they do not say how long it is, it may be as long as
    /// any.
    fn take(large: &Arc<Semaphore>, headers: &HeaderMap) -> Option<Self> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes = length.unwrap_or(MAX_ORDER_BYTES).min(MAX_ORDER_BYTES);
        if bytes <= SMALL_BYTES {
            return Some(Self { _of_large: None });
        }
        let room = Arc::clone(large).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()?;
        Some(Self { _of_large: Some(room) })
    }
}

impl FromRequestParts<Arc<ApiState>> for Room {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<ApiState>) -> Result<Self, Problem> {
        let none =
            || api.too_many("there is no room now for one more order of this length: ask again".to_owned());
        Self::take(&api.large, &parts.headers).ok_or_else(none)
    }
}

/// The gate's addresses.
pub(super) fn routes(door: Arc<Door>, orders: Orders, bounds: Bounds, shown: Shown) -> Router {
    let [at_the_door, large] = [bounds.orders, LARGE_BYTES].map(|most| Arc::new(Semaphore::new(most)));
    let state = ApiState { door, orders, at_the_door, large, bounds };
    let limit = BODY_LIMIT + MAX_WAIT + ANSWER_LIMIT;
    let within = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, limit);
    Router::new()
        .route("/v1/orders", post(submit))
        .layer(DefaultBodyLimit::max(MAX_ORDER_BYTES))
        .layer(within)
        .with_state(Arc::new(state))
        .merge(Router::new().route("/v1/gate", get(figures::serve)).with_state(shown))
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubmitQuery {
    /// Waits so long for the verdict: whole seconds, 30 at most, as `5s`.
    #[param(required = false, nullable = false, pattern = "^([0-9]|[12][0-9]|30)s$", example = "5s")]
    wait: Option<String>,
}

/// That an order was let in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LetIn {
    /// The order's id.
    #[schema(schema_with = id_schema)]
    order_id: Id,
    /// `enough`, or `undecided` where nothing was judged.
    estimate: &'static str,
    /// Where its verdict can be asked for.
    verdict: String,
}

/// Sends an order, where it is let in: an estimate, and never a decision. The same order again is answered the same.
#[utoipa::path(post, path = "/v1/orders", tag = "orders", operation_id = "submit",
    params(SubmitQuery),
    request_body(content = ref("#/components/schemas/OrderCreated"), content_type = "application/json"),
    responses(
        (status = 202, description = "It is in Kafka.", body = LetIn,
         headers(("location" = String, description = "Where its verdict can be asked for."))),
        (status = 200, description = "It is decided.", body = OrderView,
         headers(("stock-as-of" = String, description = "The moment this is of."))),
        (status = 409, description = "Not let in: not enough, not sold now, or more than a buyer can have. Nothing was sent.",
         body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "The id is taken by another order, the order breaks the contract, or names no buyer.",
         body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many orders are at the door.", body = ProblemDocument,
         content_type = "application/problem+json"),
        (status = 503, description = "Kafka or the cache is away, or it is not known whether the order was sent: send the same \
                                      again.",
         body = ProblemDocument, content_type = "application/problem+json"),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn submit(
    State(api): State<Arc<ApiState>>,
    http::Asked(query): http::Asked<SubmitQuery>,
    // Before the body is read.
    room: Room,
    request: Request,
) -> Result<Response, Problem> {
    let wait = query.wait.as_deref().map(wait_of).transpose()?.unwrap_or_default();
    let (order, place) = {
        let headers = request.headers().clone();
        let body = body_of(request).await?;
        let Ok(place) = Arc::clone(&api.at_the_door).try_acquire_owned() else {
            return Err(api.too_many(format!("{} orders are at the door: ask again", api.bounds.orders)));
        };
        let order = read(&headers, &body).inspect_err(|_| api.door.observer.answered(INVALID, None))?;
        (order, place)
    };
    let (id, digest, lines) = (order.asked.id.clone(), order.asked.digest, order.asked.lines.clone());
    match api.door.enter(order, (place, room)).await {
        Entrance::LetIn { undecided, .. } => {
            let known = if wait.is_zero() { None } else { api.orders.wait(&id, wait).await.ok().flatten() };
            Ok(verdict_of(known, &id, digest)?.unwrap_or_else(|| let_in(id, undecided)))
        }
        // Its result is out, so it is in the ledger; a replica of it may be behind.
        Entrance::Decided => {
            let known = api.orders.wait(&id, wait.max(DECIDED_LIMIT)).await?;
            verdict_of(known, &id, digest)?.ok_or_else(not_seen)
        }
        refused => Err(refusal(refused, &id, &lines)),
    }
}

/// The body of a request, within its bounds.
async fn body_of(request: Request) -> Result<Bytes, Problem> {
    let read = timeout(BODY_LIMIT, Bytes::from_request(request, &())).await.map_err(|_| {
        let kind = Kind::Plain(StatusCode::REQUEST_TIMEOUT);
        Problem::new(kind, format!("the order did not come in within {BODY_LIMIT:?}"))
    })?;
    read.map_err(|rejection| Problem::new(Kind::Plain(rejection.status()), rejection.body_text()))
}

/// The verdict on this very order; `None` where there is none yet.
fn verdict_of(known: Option<KnownOrder>, id: &Id, digest: Digest) -> Result<Option<Response>, Problem> {
    let decided = known.and_then(|known| Some((known.verdict()?.digest, known)));
    match decided {
        Some((of, known)) if of == digest => known.answer(id.clone()).map(Some),
        // Decided before the cache knew of it.
        Some(_) => Err(conflict(id)),
        None => Ok(None),
    }
}

/// The answer about an order that is decided, where the database does not show it: to call it let in would also tell so who
/// sent other content.
fn not_seen() -> Problem {
    let detail = "the order is decided, and the database that is read does not show it yet: ask again";
    Problem::new(Kind::LedgerAway, detail)
}

fn let_in(order_id: Id, undecided: bool) -> Response {
    let name: String = url::form_urlencoded::byte_serialize(order_id.as_str().as_bytes()).collect();
    // In a path a space is no plus.
    let verdict = format!("/v1/orders/{}", name.replace('+', "%20"));
    let location = HeaderValue::from_str(&verdict);
    let estimate = if undecided { "undecided" } else { "enough" };
    let mut response = (StatusCode::ACCEPTED, Json(LetIn { order_id, estimate, verdict })).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(location) = location {
        headers.insert(LOCATION, location);
    }
    response
}

fn conflict(id: &Id) -> Problem {
    let detail = format!(
        "the order {id} was sent with other lines, or on other terms: give this one an id of its own"
    );
    Problem::new(Kind::Other(&ORDER_CONFLICT), detail)
}

/// The answer to an order that is not let in.
fn refusal(entrance: Entrance, id: &Id, lines: &[OrderLine]) -> Problem {
    let other = |kind: &'static OtherKind, detail: String| Problem::new(Kind::Other(kind), detail);
    match entrance {
        Entrance::Short(refusals) => {
            let reasons: Vec<Reason> = refusals.iter().filter_map(|refusal| reason(refusal, lines)).collect();
            let detail = "an estimate, not a decision: the order was not sent, and may be asked for again";
            // Holds because reasons are text and numbers.
            let reasons = serde_json::to_value(reasons).expect("reasons are always JSON");
            other(&NOT_ENOUGH, detail.to_owned()).with("reasons", reasons)
        }
        Entrance::Conflict => conflict(id),
        Entrance::NotOpen { sku, opens_at } => {
            let problem = |detail| other(&NOT_OPEN, detail).with("sku", sku.as_str());
            match opens_at {
                None => problem(format!("{sku} is not sold at present")),
                Some(at) => {
                    let opens = stamp(at).rfc3339();
                    problem(format!("{sku} is sold from {opens} on"))
                        .with("opens_at", opens)
                        .retry_after(seconds_until(at))
                }
            }
        }
        Entrance::BuyerLimit { sku, left } => {
            let detail = format!("this buyer can have {left} more pieces of {sku} for now");
            other(&BUYER_LIMIT, detail).with("sku", sku.as_str()).with("left", left)
        }
        Entrance::BuyerMissing { sku } => {
            let detail = format!("{sku} is limited for each buyer: name the buyer (\"buyer_id\")");
            other(&BUYER_MISSING, detail).with("sku", sku.as_str())
        }
        Entrance::Sending | Entrance::MaybeSent => {
            let detail = "the order may be on its way: send the same again, or ask for its verdict";
            other(&NOT_KNOWN, detail.to_owned()).retry_after(SOON)
        }
        Entrance::TooLarge => Problem::new(
            Kind::Plain(StatusCode::PAYLOAD_TOO_LARGE),
            "the order is larger than its topic takes",
        ),
        Entrance::NotSent => {
            other(&KAFKA_AWAY, "the order was not sent: send it again".to_owned()).retry_after(SOON)
        }
        Entrance::CacheAway | Entrance::LetIn { .. } | Entrance::Decided => {
            other(&CACHE_AWAY, "what there is is not known now: send the order again".to_owned())
                .retry_after(SOON)
        }
    }
}

fn reason(refusal: &LineRefusal, lines: &[OrderLine]) -> Option<Reason> {
    let of = |line: usize| {
        let OrderLine { item, quantity } = lines.get(line)?;
        Some((item.sku.clone(), item.location.clone(), *quantity))
    };
    Some(match *refusal {
        LineRefusal::Short { line, available } => {
            let (sku, location, requested) = of(line)?;
            Reason::InsufficientStock { sku, location, requested, available }
        }
        LineRefusal::OverLimit { line, limit } => {
            let (sku, location, requested) = of(line)?;
            Reason::LimitExceeded { sku, location, requested, limit }
        }
    })
}

fn seconds_until(at: Millis) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_millis(at).saturating_sub(now);
    // Rounded up: who comes a moment too early has to come again.
    (left.as_secs() + 1).min(LONGEST_PAUSE)
}

/// Reads an order.
fn read(headers: &HeaderMap, body: &[u8]) -> Result<Order, Problem> {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let kind = Kind::Plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        return Err(Problem::new(kind, "send the order as application/json"));
    }
    let record = Record {
        source: Source { at: TopicPartition::new("", 0), offset: Offset(0) },
        key: None,
        value: Some(body.to_vec()),
        // Says what it is where the order itself does not.
        headers: vec![Header { name: "ce_type".to_owned(), value: Some(ORDER_CREATED.as_bytes().to_vec()) }],
        timestamp_ms: None,
        decoded: None,
    };
    let command = read_command(&record)
        .map_err(|fault| Problem::new(Kind::InvalidBody(StatusCode::BAD_REQUEST), fault.detail))?;
    let (lines, terms) = match command.action {
        Action::Take { lines, terms } => (lines, terms),
        Action::Refuse(reasons) => {
            // Holds because reasons are text and numbers.
            let reasons = serde_json::to_value(reasons).expect("reasons are always JSON");
            let problem =
                Problem::new(Kind::Other(&INVALID_ORDER), "the order breaks the contract; it was not sent");
            return Err(problem.with("reasons", reasons));
        }
        _ => return Err(Problem::body("only orders are taken here")),
    };
    let traceparent = traceparent(headers);
    // Of another trace it says nothing.
    let tracestate = headers.get(TRACESTATE).filter(|_| headers.contains_key(TRACEPARENT));
    let trace = TraceContext {
        traceparent: traceparent.as_deref().map(str::as_bytes),
        tracestate: tracestate.map(HeaderValue::as_bytes).filter(|value| value.len() <= MAX_TRACESTATE),
    };
    let event = submitted(&command.key.id, body, trace);
    let asked = Asked {
        id: command.key.id,
        digest: command.digest,
        lines,
        all_or_none: terms.policy == Policy::AllOrNone,
        buyer: buyer(body)?,
    };
    Ok(Order { asked, event })
}

/// Who buys, where that is said.
fn buyer(body: &[u8]) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        buyer_id: Option<Cow<'a, str>>,
    }
    let invalid = || {
        let detail =
            format!("\"buyer_id\" must be text of 1 to {MAX_ID_BYTES} bytes without control characters");
        Problem::new(Kind::Other(&INVALID_ORDER), detail)
    };
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let Object(Named { buyer_id }) = serde_json::from_slice(text).map_err(|_| invalid())?;
    let Some(buyer) = buyer_id else { return Ok(None) };
    Id::new(&buyer).map_err(|_| invalid())?;
    Ok(Some(buyer.into_owned()))
}

/// The trace that the order's events belong to: the one that was sent, else one made of the request's id.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str, most: usize| {
        let value = headers.get(name)?.to_str().ok()?;
        (1..=most).contains(&value.len()).then_some(value)
    };
    if let Some(sent) = text(TRACEPARENT, MAX_TRACEPARENT) {
        return Some(sent.to_owned());
    }
    let id = text("x-request-id", MAX_REQUEST_ID)?;
    let plain: String = id.chars().filter(|letter| *letter != '-').collect();
    // A UUID is a trace's id as it is.
    let is_trace = plain.len() == 32
        && plain.bytes().all(|byte| byte.is_ascii_hexdigit())
        && plain.bytes().any(|byte| byte != b'0');
    let digest = blake3::hash(id.as_bytes()).to_hex();
    let trace = if is_trace { plain.to_ascii_lowercase() } else { digest[..32].to_owned() };
    // Its span is the request itself; whether it is sampled nobody said.
    Some(format!("00-{trace}-{}-00", &digest[32..48]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_request_id_becomes_the_id_of_a_trace_and_a_trace_is_passed_on() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let both = headers(&[("traceparent", sent), ("x-request-id", "r-1")]);
        assert_eq!(traceparent(&both).as_deref(), Some(sent));
        let uuid =
            traceparent(&headers(&[("x-request-id", "7C1E0F3A-9B59-4D52-8B8E-2C0F6D5A1B2C")])).unwrap();
        assert!(uuid.starts_with("00-7c1e0f3a9b594d528b8e2c0f6d5a1b2c-"), "{uuid}");
        let other = traceparent(&headers(&[("x-request-id", "r-1")])).unwrap();
        let parts: Vec<usize> = other.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{other}");
        assert_eq!(
            other,
            traceparent(&headers(&[("x-request-id", "r-1")])).unwrap(),
            "the same again is the same"
        );
        assert_eq!(traceparent(&headers(&[])), None);
    }

    fn length(bytes: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, bytes.into());
        headers
    }

    #[test]
    fn there_is_room_for_so_many_bytes_of_large_orders_and_always_for_small_ones() {
        let large = Arc::new(Semaphore::new(LARGE_BYTES));
        let take = |headers: &HeaderMap| Room::take(&large, headers);
        // Who does not say how long an order is may send the longest; who says too much is told so when it is read.
        let longest = [length(MAX_ORDER_BYTES), HeaderMap::new(), length(usize::MAX)];
        let taken: Vec<Room> = longest.iter().cycle().map_while(take).collect();
        assert_eq!(taken.len(), LARGE_BYTES / MAX_ORDER_BYTES);
        let small: Vec<Room> = (0..10_000).map_while(|_| take(&length(SMALL_BYTES))).collect();
        assert_eq!(small.len(), 10_000);
        assert!(take(&length(MAX_ORDER_BYTES)).is_none());
        drop(taken);
        assert!(take(&length(MAX_ORDER_BYTES)).is_some(), "the room of those that are let in is free again");
    }

    #[test]
    fn a_decision_that_the_database_does_not_show_yet_is_asked_for_again() {
        let seen = verdict_of(None, &Id::new("o-1").unwrap(), Digest([0; 16])).unwrap();
        let answer = seen.ok_or_else(not_seen).unwrap_err().into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[axum::http::header::RETRY_AFTER], "1");
    }

    #[test]
    fn a_buyer_is_text_and_may_be_left_out() {
        assert_eq!(buyer(br#"{"order_id":"o-1","buyer_id":"ann"}"#).unwrap().as_deref(), Some("ann"));
        assert_eq!(buyer(br#"{"order_id":"o-1"}"#).unwrap(), None);
        assert_eq!(buyer(br#"{"order_id":"o-1","buyer_id":null}"#).unwrap(), None);
        for wrong in [r#"{"buyer_id":7}"#, r#"{"buyer_id":""}"#, r#"{"buyer_id":"a\u0007"}"#] {
            buyer(wrong.as_bytes()).unwrap_err();
        }
    }
}
