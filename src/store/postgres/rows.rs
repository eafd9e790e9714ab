//! Rows to the ledger's types and back.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row, Type};

use super::{StoreError, failed};
use crate::ledger::{
    CommandKey, CommandKind, Decision, Digest, Id, Level, NextOffset, Offset, Seq, Sku, Source, Stamp,
    TopicPartition,
};

/// The columns of partitions, for `UNNEST`.
pub(super) fn partition_columns<'a>(
    of: impl Iterator<Item = &'a TopicPartition>,
) -> (Vec<&'a str>, Vec<i32>) {
    of.map(|at| (at.topic.as_ref(), at.partition)).unzip()
}

/// The columns of levels, for `UNNEST`. Equal lengths by construction: `UNNEST` would pad a shorter one with nulls.
pub(super) fn level_columns<T>(of: impl Iterator<Item = (T, Level)>) -> (Vec<T>, Vec<i64>, Vec<i64>) {
    let (mut rows, mut availables, mut versions) = (Vec::new(), Vec::new(), Vec::new());
    for (row, level) in of {
        rows.push(row);
        availables.push(level.available);
        versions.push(level.version);
    }
    (rows, availables, versions)
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

pub(super) fn level(row: &PgRow) -> Result<(Sku, Level), StoreError> {
    let doing = failed("reading the levels");
    let text: &str = row.try_get("sku").map_err(&doing)?;
    let sku = Sku::new(text).map_err(|error| damaged(format!("a level whose SKU {error}")))?;
    let level = Level {
        available: row.try_get("available").map_err(&doing)?,
        version: row.try_get("version").map_err(&doing)?,
    };
    Ok((sku, level))
}

/// The columns of a decision, as [`decision`] reads them.
pub(super) fn decision(row: &PgRow) -> Result<Decision, StoreError> {
    let doing = failed("reading the decisions");
    let text: &str = row.try_get("id").map_err(&doing)?;
    let id = Id::new(text).map_err(|error| damaged(format!("a decision whose id {error}")))?;
    let number: i16 = row.try_get("kind").map_err(&doing)?;
    let kind = CommandKind::from_number(number)
        .ok_or_else(|| damaged(format!("a decision of kind {number}, which this program does not know")))?;
    let digest: &[u8] = row.try_get("digest").map_err(&doing)?;
    let digest =
        digest.try_into().map_err(|_| damaged(format!("a digest of {} bytes for {id}", digest.len())))?;
    let topic: Option<&str> = row.try_get("topic").map_err(&doing)?;
    let source = match topic {
        None => None,
        Some(topic) => Some(Source {
            at: TopicPartition::new(topic, row.try_get("partition").map_err(&doing)?),
            offset: Offset(row.try_get("offset").map_err(&doing)?),
        }),
    };
    Ok(Decision {
        key: CommandKey { id, kind },
        seq: Seq(row.try_get("seq").map_err(&doing)?),
        digest: Digest(digest),
        accepted: row.try_get("accepted").map_err(&doing)?,
        detail: row.try_get("detail").map_err(&doing)?,
        source,
        decided_at: Stamp(row.try_get("decided_at").map_err(&doing)?),
    })
}

pub(super) fn damaged(what: String) -> StoreError {
    StoreError::Damaged { what }
}
