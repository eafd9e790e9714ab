//! What became of an order.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::answer::{CauseView, RecordView, answer, id_schema, reasons_schema, time_schema};
use super::bounds::{MAX_WAIT, REQUEST_LIMIT};
use super::problem::{Asked, Kind, Named, Problem, ProblemDocument};
use super::state::ApiState;
use super::waiters::NotWaited;
use crate::ledger::{CommandKind, Decision, Id, Location, OrderTaken, Reason, Sku};
use crate::store::{AsOf, OrderLife, StoreError};

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OrderQuery {
    /// Waits so long for the verdict, where there is none yet: whole seconds, 30 at most, as `5s`.
    #[param(required = false, nullable = false, pattern = "^([0-9]|[12][0-9]|30)s$", example = "5s")]
    wait: Option<String>,
}

/// How an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderStanding {
    /// It is not decided yet; something else about it came before.
    Undecided,
    /// It took nothing.
    Rejected,
    /// It took its stock for good.
    Accepted,
    /// It holds its stock; `hold` says until when.
    Held,
    /// Its hold was made final.
    Confirmed,
    /// Its hold was given back.
    Released,
    /// Its hold's time was over, and it was given back.
    Expired,
    /// All that it had was given back.
    Cancelled,
}

/// The decision of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerdictView {
    /// Whether it took stock.
    pub(crate) accepted: bool,
    /// When it was decided.
    #[schema(schema_with = time_schema)]
    pub(crate) decided_at: String,
    /// Why it was rejected; empty where it was accepted.
    #[schema(schema_with = reasons_schema)]
    pub(crate) reasons: Vec<Reason>,
    /// Why it got less than it asked for; empty where it got all.
    #[schema(schema_with = reasons_schema)]
    pub(crate) short: Vec<Reason>,
    /// The record it came by; absent for an operator's own order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) source: Option<RecordView>,
}

/// What an order took of an item, and gave back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderLineView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    pub(crate) sku: Sku,
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    pub(crate) location: Option<Location>,
    /// Pieces taken.
    #[schema(minimum = 0)]
    pub(crate) taken: i64,
    /// Of these, pieces that came back, whatever by.
    #[schema(minimum = 0)]
    pub(crate) returned: i64,
}

/// A change of a level that the order or what followed it made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderMovementView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    pub(crate) sku: Sku,
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    pub(crate) location: Option<Location>,
    /// Pieces added (positive) or taken (negative).
    pub(crate) quantity: i64,
    /// The level after it.
    pub(crate) balance: i64,
    /// The command that caused it.
    pub(crate) cause: CauseView,
}

/// Pieces that came back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReturnLineView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    pub(crate) sku: Sku,
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    pub(crate) location: Option<Location>,
    /// Pieces.
    #[schema(minimum = 1)]
    pub(crate) quantity: i64,
}

/// A return.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReturnView {
    /// Its id.
    #[schema(schema_with = id_schema)]
    pub(crate) return_id: Id,
    /// Whether it was taken back.
    pub(crate) accepted: bool,
    /// When that was decided.
    #[schema(schema_with = time_schema)]
    pub(crate) decided_at: String,
    /// What came back.
    pub(crate) lines: Vec<ReturnLineView>,
    /// Why it was rejected.
    #[schema(schema_with = reasons_schema)]
    pub(crate) reasons: Vec<Reason>,
}

/// An open hold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HoldView {
    /// When it ends.
    #[schema(schema_with = time_schema)]
    pub(crate) expires_at: String,
    /// Whether that was over at the moment of this answer: it can be confirmed no more, and is given back soon.
    pub(crate) over: bool,
}

/// One decision about the order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionView {
    /// The command.
    pub(crate) command: CauseView,
    /// Whether it was accepted.
    pub(crate) accepted: bool,
    /// When that was decided.
    #[schema(schema_with = time_schema)]
    pub(crate) decided_at: String,
    /// Why it was rejected.
    #[schema(schema_with = reasons_schema)]
    pub(crate) reasons: Vec<Reason>,
}

/// All that is known of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderView {
    /// The order's id.
    #[schema(schema_with = id_schema)]
    pub(crate) order_id: Id,
    /// The moment this is of.
    #[schema(schema_with = time_schema)]
    pub(crate) as_of: String,
    /// How it stands.
    pub(crate) standing: OrderStanding,
    /// Its decision; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) decision: Option<VerdictView>,
    /// What it took; empty where it took nothing.
    pub(crate) lines: Vec<OrderLineView>,
    /// What moved because of it, in the ledger's order.
    pub(crate) movements: Vec<OrderMovementView>,
    /// Its returns, of which the newest 1,000 are known here.
    pub(crate) returns: Vec<ReturnView>,
    /// Its hold, while that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) hold: Option<HoldView>,
    /// Every decision about it, in the ledger's order.
    pub(crate) decisions: Vec<DecisionView>,
}

impl OrderView {
    /// What is known of an order, as it was found.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a decision's text cannot be read.
    pub(crate) fn of(order_id: Id, found: &AsOf<OrderLife>) -> Result<Self, StoreError> {
        let AsOf { value: life, at, .. } = found;
        let mut view = Self {
            as_of: at.rfc3339(),
            standing: standing(life),
            decision: None,
            lines: Vec::new(),
            movements: Vec::new(),
            returns: Vec::new(),
            hold: None,
            decisions: Vec::new(),
            order_id,
        };
        for decision in &life.decisions {
            view.add(decision).map_err(|error| StoreError::Damaged {
                what: format!("a decision for {} that is not readable: {error}", decision.key),
            })?;
        }
        if let Some(state) = &life.state {
            view.lines = state
                .lines
                .iter()
                .map(|line| OrderLineView {
                    sku: line.item.sku.clone(),
                    location: line.item.location.clone(),
                    taken: line.deducted,
                    returned: line.returned,
                })
                .collect();
            view.hold = state
                .hold
                .as_ref()
                .map(|hold| HoldView { expires_at: hold.expires_at.rfc3339(), over: hold.expires_at <= *at });
        }
        Ok(view)
    }

    /// Adds a decision, and what it moved by its own words: those are the ledger's, which the audit proves.
    fn add(&mut self, decision: &Decision) -> Result<(), serde_json::Error> {
        let Decision { key, accepted, decided_at, source, .. } = decision;
        let reasons = if *accepted { Vec::new() } else { decision.reasons()? };
        self.decisions.push(DecisionView {
            command: CauseView::from(key),
            accepted: *accepted,
            decided_at: decided_at.rfc3339(),
            reasons: reasons.clone(),
        });
        let mut moved = |sku: &Sku, location: &Option<Location>, quantity, balance| {
            self.movements.push(OrderMovementView {
                sku: sku.clone(),
                location: location.clone(),
                quantity,
                balance,
                cause: CauseView::from(key),
            });
        };
        if key.kind == CommandKind::OrderCreated {
            let mut short = Vec::new();
            if *accepted {
                let taken: OrderTaken = serde_json::from_str(&decision.detail)?;
                for line in &taken.lines {
                    moved(&line.sku, &line.location, -line.quantity, line.balance);
                }
                short = taken.short;
            }
            let source = source.as_ref().map(RecordView::from);
            self.decision = Some(VerdictView {
                accepted: *accepted,
                decided_at: decided_at.rfc3339(),
                reasons,
                short,
                source,
            });
            return Ok(());
        }
        // An extension gives nothing back, and does not say so.
        let gives_back = *accepted && key.kind != CommandKind::HoldExtended;
        let returned = if gives_back { decision.returned_lines()? } else { Vec::new() };
        for line in &returned {
            moved(&line.sku, &line.location, line.quantity, line.balance);
        }
        if key.kind == CommandKind::OrderReturned {
            let lines = returned.into_iter().map(|line| ReturnLineView {
                sku: line.sku,
                location: line.location,
                quantity: line.quantity,
            });
            self.returns.push(ReturnView {
                return_id: key.id.clone(),
                accepted: *accepted,
                decided_at: decided_at.rfc3339(),
                lines: lines.collect(),
                reasons,
            });
        }
        Ok(())
    }
}

fn standing(life: &OrderLife) -> OrderStanding {
    let is_accepted =
        |kind| life.decisions.iter().any(|decision| decision.key.kind == kind && decision.accepted);
    match life.verdict() {
        None => OrderStanding::Undecided,
        Some(verdict) if !verdict.accepted => OrderStanding::Rejected,
        Some(_) if is_accepted(CommandKind::OrderCancelled) => OrderStanding::Cancelled,
        Some(_) if is_accepted(CommandKind::OrderReleased) => OrderStanding::Released,
        Some(_) if is_accepted(CommandKind::HoldExpired) => OrderStanding::Expired,
        Some(_) if life.state.as_ref().is_some_and(|state| state.hold.is_some()) => OrderStanding::Held,
        Some(_) if is_accepted(CommandKind::OrderConfirmed) => OrderStanding::Confirmed,
        Some(_) => OrderStanding::Accepted,
    }
}

/// Reads `5s`, and nothing that is written otherwise.
pub(crate) fn wait_of(text: &str) -> Result<Duration, Problem> {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse::<u64>().ok());
    seconds
        .filter(|seconds| format!("{seconds}s") == text)
        .map(Duration::from_secs)
        .filter(|wait| *wait <= MAX_WAIT)
        .ok_or_else(|| {
            Problem::parameter("wait", format!("must be whole seconds, 0s to {}s", MAX_WAIT.as_secs()))
        })
}

fn no_decision(id: &Id) -> Problem {
    Problem::new(
        Kind::NoDecision,
        format!("nothing about the order {id} was decided yet; ?wait=5s waits for it"),
    )
}

/// All that is known of an order; with `wait`, once it has its verdict.
#[utoipa::path(get, path = "/v1/orders/{id}", tag = "ledger", operation_id = "order",
    params(("id" = String, Path, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", description = "The order's id."), OrderQuery),
    responses(
        (status = 200, description = "What is known.", body = OrderView,
         headers(("stock-as-of" = String, description = "The moment this is of."))),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn order(
    State(api): State<Arc<ApiState>>,
    Named(name): Named,
    Asked(query): Asked<OrderQuery>,
) -> Result<Response, Problem> {
    let id = Id::new(&name).map_err(|error| Problem::parameter("id", error))?;
    let wait = query.wait.as_deref().map(wait_of).transpose()?;
    let orders = Orders(api);
    let found = match wait.filter(|wait| !wait.is_zero()) {
        Some(wait) => orders.wait(&id, wait).await?,
        None => orders.find(&id).await?,
    };
    found.ok_or_else(|| no_decision(&id))?.answer(id)
}

/// What became of orders, for who answers beside the reads.
#[derive(Clone)]
pub struct Orders(pub(super) Arc<ApiState>);

/// What is known of an order.
pub(crate) struct KnownOrder(Arc<AsOf<OrderLife>>);

impl KnownOrder {
    /// The decision of the order itself.
    pub(crate) fn verdict(&self) -> Option<&Decision> {
        self.0.value.verdict().map(|decision| &**decision)
    }

    /// All of it, as the read API answers it.
    pub(crate) fn answer(&self, id: Id) -> Result<Response, Problem> {
        Ok(answer(self.0.at, &OrderView::of(id, &self.0)?))
    }
}

impl Orders {
    /// What is known once there is a verdict, or after so long.
    pub(crate) async fn wait(&self, id: &Id, limit: Duration) -> Result<Option<KnownOrder>, Problem> {
        let found = self.0.waiters.wait(id, limit).await.map_err(|why| match why {
            NotWaited::TooMany => {
                Problem::new(Kind::Busy, "too many wait for verdicts: ask again, or without wait")
            }
            NotWaited::NeverLooked => {
                Problem::new(Kind::LedgerAway, "the database did not answer all the while: ask again")
            }
        })?;
        Ok(found.map(KnownOrder))
    }

    /// What is known now.
    pub(crate) async fn find(&self, id: &Id) -> Result<Option<KnownOrder>, Problem> {
        let _admitted = self.0.admit()?;
        // The layer above lets a wait take longer.
        let read = timeout(REQUEST_LIMIT, self.0.queries.orders(std::slice::from_ref(id))).await;
        let late = |_| Problem::new(Kind::TimedOut, "the database did not answer in time: ask again");
        let AsOf { mut value, at, .. } = read.map_err(late)??;
        Ok(value.remove(id).map(|life| KnownOrder(Arc::new(AsOf::new(life, at)))))
    }

    /// Says that these orders were decided, and committed.
    pub(crate) fn decided<'a>(&self, ids: impl IntoIterator<Item = &'a Id>) {
        self.0.waiters.decided(ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_whole_seconds_within_its_bound() {
        assert_eq!(wait_of("0s").unwrap(), Duration::ZERO);
        assert_eq!(wait_of("30s").unwrap(), MAX_WAIT);
        for wrong in ["", "s", "5", "05s", "+5s", "31s", "5 s", "500ms", "-1s", "5S", "99999999999999999999s"]
        {
            assert!(wait_of(wrong).is_err(), "{wrong:?}");
        }
    }
}
