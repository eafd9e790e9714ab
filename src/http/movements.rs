//! The lines of the ledger about a SKU, page by page.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{CauseView, RecordView, answer, id_schema, location, sku, time_schema};
use super::bounds::{DEFAULT_PAGE, MAX_PAGE};
use super::problem::{Asked, Problem, ProblemDocument};
use super::state::{Admitted, ApiState};
use crate::ledger::{Location, Seq, Sku};
use crate::store::{DatedMovement, MovementCursor};

/// Which movements.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MovementsQuery {
    /// The stock keeping unit.
    #[param(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    sku: String,
    /// One location; empty for the default one. All of them where it is left out.
    #[param(max_length = 128, required = false, nullable = false, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    location: Option<String>,
    /// Most movements of the page; 100 where it is left out.
    #[param(minimum = 1, maximum = 500, required = false, nullable = false)]
    limit: Option<usize>,
    /// Where the page before ended: its `next`, as it is.
    #[param(
        required = false,
        nullable = false,
        max_length = 168,
        pattern = r"^[0-9]{1,18}-[0-9]{1,18}(-[^\x00-\x1f\x7f-\x9f]{1,128})?$"
    )]
    before: Option<String>,
}

/// One change of a level.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MovementView {
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    location: Option<Location>,
    /// The version it gave the level: 1, 2, 3 … at each location.
    #[schema(minimum = 1)]
    version: i64,
    /// Pieces added (positive) or taken (negative).
    quantity: i64,
    /// The level after it.
    balance: i64,
    /// The command that caused it.
    cause: CauseView,
    /// When that was decided; absent where the ledger lost the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = time_schema, required = false)]
    decided_at: Option<String>,
    /// The record it came by; absent for an operator's own command.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    source: Option<RecordView>,
}

impl From<DatedMovement> for MovementView {
    fn from(dated: DatedMovement) -> Self {
        let source = dated.source();
        let movement = dated.movement;
        Self {
            location: movement.item.location,
            version: movement.version,
            quantity: movement.quantity,
            balance: movement.balance,
            cause: CauseView::from(&movement.cause),
            decided_at: dated.decided_at.map(crate::ledger::Stamp::rfc3339),
            source: source.as_ref().map(RecordView::from),
        }
    }
}

/// A page of movements.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MovementsView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// The moment this is of.
    #[schema(schema_with = time_schema)]
    as_of: String,
    /// Those of each location newest first. How those of several locations are mixed is the database's own.
    #[schema(max_items = 500)]
    movements: Vec<MovementView>,
    /// What the next page is asked for with, as `before`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// A cursor as text: version, ledger sequence, and the location where there is one.
fn written(cursor: &MovementCursor) -> String {
    let MovementCursor { version, seq, location } = cursor;
    // As it is: what is shown to people is another text where there are signs that they would not see.
    let location = location.as_ref().map_or_else(String::new, |location| format!("-{}", location.as_str()));
    format!("{version}-{seq}{location}")
}

/// Reads what [`written`] wrote.
fn read(text: &str) -> Option<MovementCursor> {
    /// Digits of a number, as the document says.
    const DIGITS: usize = 18;
    let number = |text: &str| {
        let is_one = (1..=DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        is_one.then(|| text.parse().ok()).flatten()
    };
    let mut parts = text.splitn(3, '-');
    let (version, seq) = (number(parts.next()?)?, number(parts.next()?)?);
    let location = parts.next().map(Location::new).transpose().ok()?;
    Some(MovementCursor { version, seq: Seq(seq), location })
}

/// The movements of a SKU, newest first, page by page. On SQLite a page of a SKU that seldom moves takes as long as the
/// ledger is: there is no index by SKU.
#[utoipa::path(get, path = "/v1/movements", tag = "ledger", operation_id = "movements",
    params(MovementsQuery),
    responses(
        (status = 200, description = "A page; empty for an unknown SKU.", body = MovementsView,
         headers(("stock-as-of" = String, description = "The moment this is of."))),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn movements(
    State(api): State<Arc<ApiState>>,
    _admitted: Admitted,
    Asked(query): Asked<MovementsQuery>,
) -> Result<Response, Problem> {
    let sku = sku(&query.sku)?;
    let location = query.location.as_deref().map(location).transpose()?;
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::parameter("limit", format!("must be between 1 and {MAX_PAGE}, is {limit}")));
    }
    let before = query
        .before
        .map(|text| read(&text).ok_or_else(|| Problem::parameter("before", "is not the next of a page")))
        .transpose()?;
    let at_location = location.as_ref().map(Option::as_ref);
    // One more than is shown, to know whether there are more.
    let found = api.queries.movements(&sku, at_location, before.as_ref(), limit + 1).await?;
    let more = found.value.len() > limit;
    let last = found.value.get(limit - 1).filter(|_| more);
    let next = last.map(|last| written(&MovementCursor::after(&last.movement)));
    let movements = found.value.into_iter().take(limit).map(MovementView::from).collect();
    Ok(answer(found.at, &MovementsView { sku, as_of: found.at.rfc3339(), movements, next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written_and_nothing_else_reads() {
        for location in [None, Some("BERLIN"), Some("-"), Some("a-b-c"), Some("1-2"), Some(" a\u{2028}")] {
            let location = location.map(|name| Location::new(name).unwrap());
            let cursor = MovementCursor { version: 7, seq: Seq(300_000), location };
            assert_eq!(read(&written(&cursor)), Some(cursor));
        }
        for wrong in ["", "7", "7-", "-7", "7-x", "+7-1", "7-1-", "7-1-\n", "1234567890123456789-1", " 7-1"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
