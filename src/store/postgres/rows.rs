//! Rows to the ledger's types and back.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row, Type};

use super::failure::failed;
use crate::ledger::{
    CommandKey, CommandKind, Decision, Digest, Id, Item, Level, Limits, Location, NextOffset, Offset, Seq,
    Sku, Source, Stamp, TopicId, TopicPartition,
};
use crate::store::{ItemLevel, MAX_BATCH, Position, StoreError, StoredMovement};

/// Sequences between the first one of a batch and that of the next, as `ledger_seq` draws them.
pub(super) const BATCH_SEQUENCES: i64 = 100_000;
const _: () = assert!(MAX_BATCH == 100_000, "ledger_seq is incremented by MAX_BATCH");

/// So many rows at most.
pub(super) fn limit_column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The columns of partitions, for `UNNEST`.
pub(super) fn partition_columns<'a>(
    of: impl Iterator<Item = &'a TopicPartition>,
) -> (Vec<&'a str>, Vec<i32>) {
    of.map(|at| (at.topic.as_ref(), at.partition)).unzip()
}

/// The columns of items, for `UNNEST`.
pub(super) fn item_columns<'a>(of: impl Iterator<Item = &'a Item>) -> (Vec<&'a str>, Vec<&'a str>) {
    of.map(|item| (item.sku.as_str(), location_column(item))).unzip()
}

/// An item's location as its column keeps it: empty for the default one.
pub(super) fn location_column(item: &Item) -> &str {
    item.location.as_ref().map_or("", Location::as_str)
}

/// The columns of levels, for `UNNEST`. Equal lengths by construction: `UNNEST` would pad a shorter one with nulls.
#[derive(Default)]
pub(super) struct LevelColumns {
    pub(super) availables: Vec<i64>,
    pub(super) versions: Vec<i64>,
    pub(super) backorder_limits: Vec<i64>,
    pub(super) order_limits: Vec<Option<i64>>,
}

impl LevelColumns {
    pub(super) fn push(&mut self, level: Level) {
        self.availables.push(level.available);
        self.versions.push(level.version);
        self.backorder_limits.push(level.limits.backorder);
        self.order_limits.push(level.limits.order);
    }
}

/// Where a row is in its table (`ctid`): as long as the row is locked, the shortest way back to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ctid([u8; 6]);

impl Type<Postgres> for Ctid {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(27)) // tid, in pg_type.dat
    }
}

impl PgHasArrayType for Ctid {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1010)) // tid[]
    }
}

impl Decode<'_, Postgres> for Ctid {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Self(value.as_bytes()?.try_into()?)),
            PgValueFormat::Text => Err("a ctid is only read from answers in binary".into()),
        }
    }
}

impl Encode<'_, Postgres> for Ctid {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
}

pub(super) fn position(row: &PgRow) -> Result<(TopicPartition, NextOffset), sqlx::Error> {
    let topic: &str = row.try_get("topic")?;
    let at = TopicPartition::new(topic, row.try_get("partition")?);
    Ok((at, NextOffset(row.try_get("next_offset")?)))
}

/// All that is kept of a position.
pub(super) fn full_position(row: &PgRow) -> Result<(TopicPartition, Position), sqlx::Error> {
    let (at, next) = position(row)?;
    let published: Option<i64> = row.try_get("published_offset")?;
    let topic_id: Option<&str> = row.try_get("topic_id")?;
    let position =
        Position { next, published: published.map(NextOffset), topic_id: topic_id.map(TopicId::new) };
    Ok((at, position))
}

/// The columns of a level, as [`level`] reads them.
pub(super) fn level(row: &PgRow) -> Result<(Item, Level), StoreError> {
    let doing = failed("reading the levels");
    let level = Level {
        available: row.try_get("available").map_err(&doing)?,
        version: row.try_get("version").map_err(&doing)?,
        limits: Limits {
            backorder: row.try_get("backorder_limit").map_err(&doing)?,
            order: row.try_get("order_limit").map_err(&doing)?,
        },
    };
    Ok((item(row)?, level))
}

/// The levels that were read.
pub(super) fn levels(found: Result<Vec<PgRow>, sqlx::Error>) -> Result<Vec<ItemLevel>, StoreError> {
    let found = found.map_err(failed("reading the levels"))?;
    found.iter().map(|row| level(row).map(|(item, level)| ItemLevel { item, level })).collect()
}

/// The item of a row's `sku` and `location`.
pub(super) fn item(row: &PgRow) -> Result<Item, StoreError> {
    let doing = failed("reading an item");
    item_of(row.try_get("sku").map_err(&doing)?, row.try_get("location").map_err(&doing)?)
}

/// The item of these columns.
pub(super) fn item_of(sku: &str, location: &str) -> Result<Item, StoreError> {
    let sku = Sku::new(sku).map_err(|error| damaged(format!("a row whose SKU {error}")))?;
    let location = match location {
        "" => None,
        location => Some(
            Location::new(location)
                .map_err(|error| damaged(format!("a row of {sku} whose location {error}")))?,
        ),
    };
    Ok(Item { sku, location })
}

/// A decision of a row whose columns are, from `first` on: id, kind, seq, digest, accepted, detail, topic, partition,
/// offset, `decided_at`. By number, since finding a name takes as long as reading what it names.
pub(super) fn decision(row: &PgRow, first: usize) -> Result<Decision, StoreError> {
    let doing = failed("reading the decisions");
    let text: &str = row.try_get(first).map_err(&doing)?;
    let id = Id::new(text).map_err(|error| damaged(format!("a decision whose id {error}")))?;
    let number: i16 = row.try_get(first + 1).map_err(&doing)?;
    let kind = CommandKind::from_number(number)
        .ok_or_else(|| damaged(format!("a decision of kind {number}, which this program does not know")))?;
    let digest: &[u8] = row.try_get(first + 3).map_err(&doing)?;
    let digest =
        digest.try_into().map_err(|_| damaged(format!("a digest of {} bytes for {id}", digest.len())))?;
    let topic: Option<&str> = row.try_get(first + 6).map_err(&doing)?;
    let source = match topic {
        None => None,
        Some(topic) => Some(Source {
            at: TopicPartition::new(topic, row.try_get(first + 7).map_err(&doing)?),
            offset: Offset(row.try_get(first + 8).map_err(&doing)?),
        }),
    };
    Ok(Decision {
        key: CommandKey { id, kind },
        seq: Seq(row.try_get(first + 2).map_err(&doing)?),
        digest: Digest(digest),
        accepted: row.try_get(first + 4).map_err(&doing)?,
        detail: row.try_get(first + 5).map_err(&doing)?,
        source,
        decided_at: row.try_get::<PgStamp, _>(first + 9).map_err(&doing)?.0,
    })
}

/// A movement of a row whose columns are, from `first` on: seq, sku, location, version, quantity, balance, kind, id,
/// partition, offset.
pub(super) fn movement(row: &PgRow, first: usize) -> Result<StoredMovement, StoreError> {
    let doing = failed("reading the movements");
    let item = item_of(row.try_get(first + 1).map_err(&doing)?, row.try_get(first + 2).map_err(&doing)?)?;
    let id: &str = row.try_get(first + 7).map_err(&doing)?;
    let id =
        Id::new(id).map_err(|error| damaged(format!("a movement of {item} whose command id {error}")))?;
    let number: i16 = row.try_get(first + 6).map_err(&doing)?;
    let kind = CommandKind::from_number(number)
        .ok_or_else(|| damaged(format!("a movement of {item} by a command of kind {number}")))?;
    let partition: Option<i32> = row.try_get(first + 8).map_err(&doing)?;
    let offset: Option<i64> = row.try_get(first + 9).map_err(&doing)?;
    Ok(StoredMovement {
        item,
        version: row.try_get(first + 3).map_err(&doing)?,
        quantity: row.try_get(first + 4).map_err(&doing)?,
        balance: row.try_get(first + 5).map_err(&doing)?,
        cause: CommandKey { id, kind },
        seq: Seq(row.try_get(first).map_err(&doing)?),
        record: partition.zip(offset.map(Offset)),
    })
}

/// A time as the database keeps it. To be a number of microseconds in SQL it would go through a decimal.
#[derive(Debug, Clone, Copy)]
pub(super) struct PgStamp(pub(super) Stamp);

/// PostgreSQL counts from 2000-01-01 UTC.
const MICROS_BEFORE_2000: i64 = 946_684_800_000_000;

impl Type<Postgres> for PgStamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184)) // timestamptz, in pg_type.dat
    }
}

impl Decode<'_, Postgres> for PgStamp {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
                Ok(Self(Stamp(micros.saturating_add(MICROS_BEFORE_2000))))
            }
            PgValueFormat::Text => Err("a time is only read from answers in binary".into()),
        }
    }
}

pub(super) fn damaged(what: String) -> StoreError {
    StoreError::Damaged { what }
}
