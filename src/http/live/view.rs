//! A snapshot as it is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::answer::{CauseView, RecordView, id_schema, reasons_schema, time_schema};
use super::super::health::{Readiness, written_ms};
use super::Member;
use super::history::History;
use crate::ledger::{CommandKind, Decision, Item, Location, Map, Reason, Sku};
use crate::live::{DeadLetter, Ends, Glance, HotItem, PartitionLag, Stages};
use crate::store::{AsOf, ItemLevel};

/// Reasons of one rejection that are shown; the order's own page has all.
const SHOWN_REASONS: usize = 3;

/// Which process this is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct About {
    /// The instance.
    instance: String,
    /// The consumer group that it is in.
    group: String,
    /// Its version.
    version: &'static str,
    /// When it began, by its machine's clock.
    #[schema(schema_with = time_schema)]
    since: String,
}

impl About {
    pub(super) fn new(instance: String, group: String, since: &str) -> Self {
        Self { instance, group, version: env!("CARGO_PKG_VERSION"), since: since.to_owned() }
    }
}

/// What a process does now.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct LiveView {
    /// When this was seen, by the machine's clock.
    #[schema(schema_with = time_schema)]
    at: String,
    /// Which process this is. All but `consumer_group` and the levels is of it alone.
    about: About,
    /// Orders decided in each of the last seconds, newest last; 120 at most.
    #[schema(max_items = 120)]
    orders_per_second: Vec<f64>,
    /// Of these, the rejected ones.
    #[schema(max_items = 120)]
    rejected_per_second: Vec<f64>,
    /// What became of records since the process began.
    ends: EndsView,
    /// Rejections since then, by their first reason, most first.
    rejected_by: Vec<ReasonCount>,
    /// Decisions since then, by what they are about.
    decided: Vec<KindCount>,
    /// Time through the stages since the snapshot before; absent where nothing was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stages: Option<StagesView>,
    /// The partitions of this process.
    partitions: Vec<PartitionView>,
    /// The items that most is asked for, most first.
    hot: Vec<HotView>,
    /// The moment that the levels of these are of; absent where the database did not say in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = time_schema, required = false)]
    levels_as_of: Option<String>,
    /// The latest rejections, newest first.
    rejections: Vec<RejectionView>,
    /// The latest dead letters, newest first.
    dead_letters: Vec<DeadLetterView>,
    /// The consumer group, by what Kafka says.
    consumer_group: GroupView,
    /// Whether the process is ready.
    readiness: Readiness,
}

/// What became of records.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EndsView {
    /// Accept events published.
    accepted: u64,
    /// Reject events published.
    rejected: u64,
    /// Results republished from the ledger.
    republished: u64,
    /// Dead letters.
    dead_letters: u64,
    /// Repetitions absorbed.
    absorbed: u64,
    /// Records that their mapping gave nothing for.
    ignored: u64,
}

impl From<Ends> for EndsView {
    fn from(ends: Ends) -> Self {
        let Ends { accepted, rejected, republished, dead_letters, absorbed, ignored } = ends;
        Self { accepted, rejected, republished, dead_letters, absorbed, ignored }
    }
}

/// How many commands were rejected for a reason.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReasonCount {
    /// The reason's name.
    reason: &'static str,
    /// How many.
    count: u64,
}

/// How many commands of a kind were decided.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KindCount {
    /// What they are about.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Accepted.
    accepted: u64,
    /// Rejected.
    rejected: u64,
}

/// Time through the stages, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StagesView {
    /// Records that were published.
    records: u64,
    /// In Kafka, and until a batch was closed: what is left of the mean.
    waiting_ms: f64,
    /// Applying a batch to the database, in the mean.
    deciding_ms: f64,
    /// A Kafka transaction, in the mean.
    publishing_ms: f64,
    /// From produced to published: half of the records took no longer.
    p50_ms: f64,
    /// 95 of 100 took no longer.
    p95_ms: f64,
    /// 99 of 100 took no longer.
    p99_ms: f64,
}

/// Milliseconds, with one decimal.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

impl StagesView {
    fn of(stages: &Stages) -> Option<Self> {
        let mean = |(count, sum): (u64, Duration)| {
            u32::try_from(count).ok().and_then(|count| sum.checked_div(count)).unwrap_or_default()
        };
        let latency = &stages.latency;
        let (deciding, publishing) = (mean(stages.applied), mean(stages.published));
        (latency.records > 0).then(|| Self {
            records: latency.records,
            waiting_ms: ms(latency.mean.saturating_sub(deciding + publishing)),
            deciding_ms: ms(deciding),
            publishing_ms: ms(publishing),
            p50_ms: ms(latency.p50),
            p95_ms: ms(latency.p95),
            p99_ms: ms(latency.p99),
        })
    }
}

/// A partition of this process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartitionView {
    topic: String,
    partition: i32,
    /// Records whose result is not published yet.
    #[schema(minimum = 0)]
    lag: i64,
    /// The age of the oldest of them, in seconds.
    lag_seconds: f64,
}

impl From<&PartitionLag> for PartitionView {
    fn from(lag: &PartitionLag) -> Self {
        Self {
            topic: lag.at.topic.to_string(),
            partition: lag.at.partition,
            lag: lag.records,
            lag_seconds: lag.seconds,
        }
    }
}

/// An item that much is asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HotView {
    /// The stock keeping unit.
    #[schema(schema_with = id_schema)]
    sku: Sku,
    /// Where; absent for the default location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    location: Option<Location>,
    /// Pieces that the orders of this process ask for in a second: an estimate of the last half minute.
    wanted_per_second: f64,
    /// Pieces that are left, by the ledger; absent for an item without a level, and where the database did not say in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    available: Option<i64>,
}

impl HotView {
    fn of(hot: &HotItem, levels: &Map<&Item, i64>) -> Self {
        Self {
            sku: hot.item.sku.clone(),
            location: hot.item.location.clone(),
            wanted_per_second: (hot.wanted_per_second * 100.0).round() / 100.0,
            available: levels.get(&hot.item).copied(),
        }
    }
}

/// A rejection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RejectionView {
    /// The command.
    command: CauseView,
    /// The order that it is about; absent where it is about none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema, required = false)]
    order_id: Option<crate::ledger::Id>,
    /// When it was decided.
    #[schema(schema_with = time_schema)]
    decided_at: String,
    /// The first reasons.
    #[schema(schema_with = reasons_schema)]
    reasons: Vec<Reason>,
    /// How many more there are.
    more_reasons: usize,
    /// The record it came by; absent for an operator's own command.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    source: Option<RecordView>,
}

impl From<&Decision> for RejectionView {
    fn from(decision: &Decision) -> Self {
        // What cannot be read is for the audit to find.
        let mut reasons = decision.reasons().unwrap_or_default();
        let more_reasons = reasons.len().saturating_sub(SHOWN_REASONS);
        reasons.truncate(SHOWN_REASONS);
        let is_order = decision.key.kind == CommandKind::OrderCreated;
        Self {
            command: CauseView::from(&decision.key),
            order_id: if is_order { Some(decision.key.id.clone()) } else { decision.follows() },
            decided_at: decision.decided_at.rfc3339(),
            reasons,
            more_reasons,
            source: decision.source.as_ref().map(RecordView::from),
        }
    }
}

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterView {
    /// When it was published, by the machine's clock.
    #[schema(schema_with = time_schema)]
    at: String,
    /// The class of its fault.
    error: &'static str,
    /// What is wrong with it.
    detail: String,
    /// The record it is of.
    source: RecordView,
}

impl From<&DeadLetter> for DeadLetterView {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            at: written_ms(letter.at_ms),
            error: letter.error,
            detail: letter.detail.clone(),
            source: RecordView::from(&letter.source),
        }
    }
}

/// A consumer group, by what Kafka says.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct GroupView {
    /// When Kafka was asked last; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = time_schema, required = false)]
    asked_at: Option<String>,
    /// Why its members are not known; absent where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unknown: Option<String>,
    /// Who is in it, sorted by name.
    members: Vec<MemberView>,
}

/// Who is in a consumer group.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct MemberView {
    /// What it calls itself: `stock-verifier-`, the instance, and which topics it reads.
    client_id: String,
    /// Where it comes from.
    host: String,
    /// Its partitions, by topic.
    partitions: BTreeMap<String, Vec<i32>>,
}

impl GroupView {
    /// Nobody looked yet.
    pub(super) fn not_asked() -> Self {
        Self { asked_at: None, unknown: Some("Kafka is being asked".to_owned()), members: Vec::new() }
    }

    /// This Kafka cannot say.
    pub(super) fn never_asked() -> Self {
        Self {
            asked_at: None,
            unknown: Some("this broker cannot say who is in a group".to_owned()),
            members: Vec::new(),
        }
    }

    pub(super) fn unknown(asked_at: String, why: &str) -> Self {
        Self { asked_at: Some(asked_at), unknown: Some(why.to_owned()), members: Vec::new() }
    }

    pub(super) fn known(asked_at: String, mut members: Vec<Member>) -> Self {
        members
            .sort_unstable_by(|one, other| (&one.client_id, &one.host).cmp(&(&other.client_id, &other.host)));
        let view = |member: Member| MemberView {
            client_id: member.client_id,
            host: member.host,
            partitions: member.partitions.into_iter().collect(),
        };
        Self { asked_at: Some(asked_at), unknown: None, members: members.into_iter().map(view).collect() }
    }
}

impl LiveView {
    pub(super) fn of(
        about: &About,
        at: String,
        glance: &Glance,
        levels: Option<&AsOf<Vec<ItemLevel>>>,
        history: &History,
        consumer_group: GroupView,
        readiness: Readiness,
    ) -> Self {
        let left: Map<&Item, i64> = levels
            .iter()
            .flat_map(|levels| levels.value.iter().map(|level| (&level.item, level.level.available)))
            .collect();
        let mut rejected_by: Vec<ReasonCount> = Vec::new();
        let mut decided: Vec<KindCount> = Vec::new();
        for counted in &glance.decisions {
            let kind = counted.kind.name();
            let index = decided.iter().position(|known| known.kind == kind).unwrap_or_else(|| {
                decided.push(KindCount { kind, accepted: 0, rejected: 0 });
                decided.len() - 1
            });
            let Some(reason) = counted.reason else {
                decided[index].accepted += counted.count;
                continue;
            };
            decided[index].rejected += counted.count;
            match rejected_by.iter_mut().find(|known| known.reason == reason) {
                Some(known) => known.count += counted.count,
                None => rejected_by.push(ReasonCount { reason, count: counted.count }),
            }
        }
        rejected_by.sort_by_key(|known| std::cmp::Reverse(known.count));
        Self {
            at,
            about: about.clone(),
            orders_per_second: history.all().map(|rates| rates.orders).collect(),
            rejected_per_second: history.all().map(|rates| rates.rejected).collect(),
            ends: glance.ends.into(),
            rejected_by,
            decided,
            stages: StagesView::of(&glance.stages),
            partitions: glance.lags.iter().map(PartitionView::from).collect(),
            hot: glance.hot.iter().map(|hot| HotView::of(hot, &left)).collect(),
            levels_as_of: levels.map(|levels| levels.at.rfc3339()),
            rejections: glance.rejections.iter().map(|decision| RejectionView::from(&**decision)).collect(),
            dead_letters: glance.dead_letters.iter().map(DeadLetterView::from).collect(),
            consumer_group,
            readiness,
        }
    }
}
