//! The audit's questions to SQLite.
//!
//! Decisions and movements are both kept in the ledger's order, so every
//! look-up between them is by key and each check is one pass.

use sqlx::{Connection, SqliteConnection};

use super::database;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::StoreError;
use crate::store::audit::{Audit, Check, LIMIT};

const CHECKS: &[Check] = &[
    Check {
        invariant: 1,
        sql: "SELECT format('SKU %s: its level is %d, below zero', sku, available)
              FROM levels WHERE available < 0 LIMIT ?1",
    },
    Check {
        invariant: 1,
        sql: "SELECT format('SKU %s: movement %d left %d, below zero', sku, version, balance)
              FROM movements WHERE balance < 0 LIMIT ?1",
    },
    Check {
        invariant: 2,
        sql: "SELECT CASE WHEN version <> version_before + 1
                  THEN format('SKU %s: movement %d comes after movement %d', sku, version, version_before)
                  ELSE format('SKU %s: movement %d moved %d and left %d, but %d was there before', sku, version,
                              quantity, balance, balance_before) END
              FROM (SELECT sku, version, quantity, balance,
                           lag(version, 1, 0) OVER chain AS version_before,
                           lag(balance, 1, 0) OVER chain AS balance_before
                    FROM movements WINDOW chain AS (PARTITION BY sku ORDER BY version))
              WHERE version <> version_before + 1 OR balance <> balance_before + quantity
              LIMIT ?1",
    },
    Check {
        invariant: 2,
        // `balance` beside one max() is that of the row with the maximum: SQLite's documented bare column.
        sql: "SELECT CASE
                  WHEN l.sku IS NULL THEN format('SKU %s: %d movements, but no level', m.sku, m.movements)
                  WHEN l.version <> m.version
                      THEN format('SKU %s: its level has version %d, its newest movement %d', l.sku, l.version, m.version)
                  WHEN l.available <> m.total
                      THEN format('SKU %s: its level is %d, its movements add up to %d', l.sku, l.available, m.total)
                  ELSE format('SKU %s: its level is %d, its newest movement left %d', l.sku, l.available, m.balance) END
              FROM (SELECT sku, count(*) AS movements, max(version) AS version, sum(quantity) AS total, balance
                    FROM movements GROUP BY sku) AS m
              LEFT JOIN levels AS l ON l.sku = m.sku
              WHERE l.sku IS NULL OR l.version <> m.version OR l.available <> m.total OR l.available <> m.balance
              LIMIT ?1",
    },
    Check {
        invariant: 2,
        // Apart from the check above: as one FULL JOIN, SQLite would compare every level with every SKU moved.
        sql: "SELECT format('SKU %s: a level of %d, but no movements', sku, available)
              FROM levels WHERE sku NOT IN (SELECT sku FROM movements) LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: "SELECT format('command %s (kind %d): %d decisions', id, kind, count(*))
              FROM decisions GROUP BY id, kind HAVING count(*) > 1 LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: "SELECT CASE
                  WHEN d.seq IS NULL
                      THEN format('SKU %s: movement %d is of command %s, which has no decision at place %d',
                                  m.sku, m.version, m.id, m.seq)
                  WHEN d.id <> m.id OR d.kind <> m.kind
                      THEN format('SKU %s: movement %d is of command %s, but place %d decided command %s',
                                  m.sku, m.version, m.id, m.seq, d.id)
                  WHEN NOT d.accepted
                      THEN format('command %s was rejected, yet movement %d of SKU %s took effect', m.id, m.version, m.sku)
                  ELSE format('command %s: movement %d of SKU %s (%d, leaving %d) is not what its decision tells: %s',
                              m.id, m.version, m.sku, m.quantity, m.balance, substr(d.detail, 1, 200)) END
              FROM movements AS m
              LEFT JOIN decisions AS d ON d.seq = m.seq
              WHERE d.seq IS NULL OR d.id <> m.id OR d.kind <> m.kind OR NOT d.accepted
                    OR NOT EXISTS (
                        SELECT 1 FROM json_each(CASE WHEN json_valid(d.detail) THEN d.detail ELSE '[]' END) AS line
                        WHERE line.value ->> 'sku' = m.sku AND line.value ->> 'balance' = m.balance
                              AND line.value ->> 'quantity' = iif(m.kind = 1, -m.quantity, m.quantity))
              LIMIT ?1",
    },
    Check {
        invariant: 3,
        // With the check above, equal numbers mean that lines and movements match one to one.
        sql: "SELECT CASE WHEN lines IS NULL THEN format('command %s: its decision is not readable JSON', id)
                  ELSE format('command %s: %d lines accepted, %d movements', id, lines, movements) END
              FROM (SELECT d.id, d.accepted,
                           CASE WHEN json_valid(d.detail) THEN json_array_length(d.detail) END AS lines,
                           (SELECT count(*) FROM movements AS m WHERE m.seq = d.seq) AS movements
                    FROM decisions AS d)
              WHERE lines IS NULL OR accepted AND (lines = 0 OR lines <> movements)
              LIMIT ?1",
    },
];

/// Asks every question in one read transaction, so all see the same ledger; batches go on meanwhile.
pub(super) async fn audit(conn: &mut SqliteConnection) -> Result<Audit, StoreError> {
    let doing = "auditing the ledger";
    let mut tx = conn.begin().await.map_err(database(doing))?;
    let mut audit = Audit::default();
    let counts = sqlx::query_as(
        "SELECT (SELECT count(*) FROM levels), (SELECT count(*) FROM movements), (SELECT count(*) FROM decisions)",
    );
    audit.count(counts.fetch_one(&mut *tx).await.map_err(database(doing))?);
    let positions: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT topic, partition, next_offset FROM positions")
            .fetch_all(&mut *tx)
            .await
            .map_err(database(doing))?;
    audit.positions = positions
        .into_iter()
        .map(|(topic, partition, next)| (TopicPartition::new(topic, partition), NextOffset(next)))
        .collect();
    for check in CHECKS {
        let found = sqlx::query_scalar(check.sql).bind(LIMIT).fetch_all(&mut *tx).await;
        audit.add(check.invariant, found.map_err(database(doing))?);
    }
    tx.commit().await.map_err(database(doing))?;
    Ok(audit)
}
