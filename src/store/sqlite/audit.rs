//! The audit's questions to SQLite.
//!
//! Decisions and movements are both kept in the ledger's order, so every
//! look-up between them is by key and each check is one pass; those of what
//! orders gave back and of holds are a second one, over the few decisions
//! that did so.

use sqlx::{Connection, SqliteConnection};

use super::failure::database;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::StoreError;
use crate::store::audit::{Audit, Check, LIMIT, unreadable_decision};

/// How an item is named: its SKU, and its location where that is not the default one.
macro_rules! item {
    ($table:literal) => {
        concat!($table, "sku || iif(", $table, "location = '', '', ' at ' || ", $table, "location)")
    };
}

/// A decision's detail; an empty one where it is not JSON at all, which a check of its own names.
macro_rules! detail {
    () => {
        "CASE WHEN json_valid(d.detail) THEN d.detail ELSE '{}' END"
    };
}

/// Where in its detail a decision says what it moved. One that extended a hold has nothing there.
macro_rules! moved {
    () => {
        "CASE WHEN d.kind IN (1, 10) THEN '$.lines' ELSE '$.returned' END"
    };
}

/// The order a decision gave back for or ended the hold of.
macro_rules! order {
    () => {
        concat!("iif(d.kind IN (3, 4), coalesce(", detail!(), " ->> 'order_id', d.id), d.id)")
    };
}

const CHECKS: &[Check] = &[
    Check {
        invariant: 1,
        sql: concat!(
            "SELECT format('SKU %s: its level is %d, below %s', ", item!(""), ", available,
                           iif(backorder_limit = 0, 'zero', -backorder_limit))
             FROM levels WHERE available < -backorder_limit LIMIT ?1"
        ),
    },
    Check {
        invariant: 1,
        // The limit may have been higher before. All limits ever stated are looked up only where today's does not do.
        // Of each item its lowest: `version` beside one min() is that row's.
        sql: concat!(
            "WITH below AS MATERIALIZED (
                 SELECT m.sku, m.location, m.version, min(m.balance) AS balance,
                        coalesce(l.backorder_limit, 0) AS most
                 FROM movements AS m LEFT JOIN levels AS l ON l.sku = m.sku AND l.location = m.location
                 WHERE m.balance < 0 AND m.balance < -coalesce(l.backorder_limit, 0)
                 GROUP BY m.sku, m.location),
             stated AS MATERIALIZED (
                 SELECT line.value ->> 'sku' AS sku, coalesce(line.value ->> 'location', '') AS location,
                        max(CAST(", detail!(), " ->> '$.limits.backorder_limit' AS INTEGER)) AS most
                 FROM decisions AS d, json_each(", detail!(), ", '$.lines') AS line
                 WHERE EXISTS (SELECT 1 FROM below) AND d.kind = 10 AND d.accepted AND line.type = 'object'
                 GROUP BY 1, 2)
             SELECT format('SKU %s: movement %d left %d, below %s', ", item!("b."), ", b.version, b.balance,
                           iif(max(b.most, coalesce(s.most, 0)) = 0, 'zero', -max(b.most, coalesce(s.most, 0))))
             FROM below AS b LEFT JOIN stated AS s ON s.sku = b.sku AND s.location = b.location
             WHERE b.balance < -coalesce(s.most, 0) LIMIT ?1"
        ),
    },
    Check {
        invariant: 2,
        sql: concat!(
            "SELECT CASE WHEN version <> version_before + 1
                 THEN format('SKU %s: movement %d comes after movement %d', ", item!(""), ", version, version_before)
                 ELSE format('SKU %s: movement %d moved %d and left %d, but %d was there before', ", item!(""), ",
                             version, quantity, balance, balance_before) END
             FROM (SELECT sku, location, version, quantity, balance,
                          lag(version, 1, 0) OVER chain AS version_before,
                          lag(balance, 1, 0) OVER chain AS balance_before
                   FROM movements WINDOW chain AS (PARTITION BY sku, location ORDER BY version))
             WHERE version <> version_before + 1 OR balance <> balance_before + quantity
             LIMIT ?1"
        ),
    },
    Check {
        invariant: 2,
        // `balance` beside one max() is that of the row with the maximum: SQLite's documented bare column.
        sql: concat!(
            "SELECT CASE
                 WHEN l.sku IS NULL THEN format('SKU %s: %d movements, but no level', ", item!("m."), ", m.movements)
                 WHEN l.version <> m.version
                     THEN format('SKU %s: its level has version %d, its newest movement %d', ", item!("l."), ",
                                 l.version, m.version)
                 WHEN l.available <> m.total
                     THEN format('SKU %s: its level is %d, its movements add up to %d', ", item!("l."), ",
                                 l.available, m.total)
                 ELSE format('SKU %s: its level is %d, its newest movement left %d', ", item!("l."), ",
                             l.available, m.balance) END
             FROM (SELECT sku, location, count(*) AS movements, max(version) AS version, sum(quantity) AS total, balance
                   FROM movements GROUP BY sku, location) AS m
             LEFT JOIN levels AS l ON l.sku = m.sku AND l.location = m.location
             WHERE l.sku IS NULL OR l.version <> m.version OR l.available <> m.total OR l.available <> m.balance
             LIMIT ?1"
        ),
    },
    Check {
        invariant: 2,
        // Apart from the check above: as one FULL JOIN, SQLite would compare every level with every item moved.
        sql: concat!(
            "SELECT format('SKU %s: a level of %d, but no movements', ", item!(""), ", available)
             FROM levels WHERE (sku, location) NOT IN (SELECT sku, location FROM movements) LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        sql: "SELECT format('command %s (kind %d): %d decisions', id, kind, count(*))
              FROM decisions GROUP BY id, kind HAVING count(*) > 1 LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: concat!(
            "SELECT CASE
                 WHEN own.id IS NULL
                     THEN format('SKU %s: movement %d is of command %s, which has no decision', ", item!("odd."), ",
                                 odd.version, odd.id)
                 WHEN own.seq <> odd.seq
                     THEN format('SKU %s: movement %d of command %s has ledger sequence %d, its decision %d',
                                 ", item!("odd."), ", odd.version, odd.id, odd.seq, own.seq)
                 WHEN NOT own.accepted
                     THEN format('command %s was rejected, yet movement %d of SKU %s took effect', odd.id, odd.version,
                                 ", item!("odd."), ")
                 WHEN odd.is_as_said
                     THEN format('command %s: movement %d of SKU %s says that it came by record %s, its decision %s', odd.id,
                                 odd.version, ", item!("odd."), ",
                                 coalesce(odd.partition || '@' || odd.\"offset\", 'none'),
                                 coalesce(odd.said_partition || '@' || odd.said_offset, 'none'))
                 ELSE format('command %s: movement %d of SKU %s (%d, leaving %d) is not what its decision says: %s',
                             odd.id, odd.version, ", item!("odd."), ", odd.quantity, odd.balance,
                             substr(own.detail, 1, 200)) END
             FROM (SELECT m.*, d.partition AS said_partition, d.\"offset\" AS said_offset,
                          d.accepted AND d.id = m.id AND d.kind = m.kind AND (
                              SELECT count(*) = 1 AND max(line.value ->> 'balance') = m.balance
                                     AND max(line.value ->> 'quantity') = iif(m.kind = 1, -m.quantity, m.quantity)
                              FROM json_each(", detail!(), ", ", moved!(), ") AS line
                              WHERE CASE line.type WHEN 'object' THEN
                                        line.value ->> 'sku' = m.sku
                                        AND coalesce(line.value ->> 'location', '') = m.location END) AS is_as_said
                   FROM movements AS m LEFT JOIN decisions AS d ON d.seq = m.seq) AS odd
             LEFT JOIN decisions AS own ON own.id = odd.id AND own.kind = odd.kind
             WHERE odd.is_as_said IS NOT 1 OR odd.partition IS NOT odd.said_partition
                   OR odd.\"offset\" IS NOT odd.said_offset
             LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        // With the check above, lines and movements match one to one.
        sql: concat!(
            "SELECT format('command %s: it was accepted for SKU %s, but no movement took effect', id, ", item!(""), ")
             FROM (SELECT DISTINCT d.seq, d.id, line.value ->> 'sku' AS sku,
                          coalesce(line.value ->> 'location', '') AS location
                   FROM decisions AS d, json_each(", detail!(), ", ", moved!(), ") AS line
                   WHERE d.accepted AND line.type = 'object') AS said
             WHERE NOT EXISTS (SELECT 1 FROM movements AS m
                               WHERE m.seq = said.seq AND m.sku = said.sku AND m.location = said.location)
             LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        // What is given back may be nothing; an order took something, and an adjustment names its one line even when it
        // changed nothing.
        sql: "SELECT format('command %s: it was accepted, and names no line', d.id)
             FROM decisions AS d
             WHERE d.accepted AND d.kind IN (1, 10) AND json_valid(d.detail)
                   AND coalesce(json_array_length(d.detail, '$.lines'), 0) = 0
             LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: concat!(
            "SELECT format('order %s: %d of %d pieces of SKU %s came back', order_id, returned, deducted, ", item!(""), ")
             FROM order_lines WHERE returned < 0 OR returned > deducted LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        // Whoever asks for a hold's end has it for a moment.
        sql: "SELECT format('order %s: the end of its hold is somebody''s to ask for until %s, longer than anybody has it', order_id,
                            datetime(asked_until / 1000000, 'unixepoch'))
              FROM holds WHERE asked_until > (strftime('%s', 'now') + 3600) * 1000000 LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: concat!(
            "WITH given AS MATERIALIZED (
                 SELECT ", order!(), " AS order_id, line.value ->> 'sku' AS sku,
                        coalesce(line.value ->> 'location', '') AS location,
                        sum(line.value ->> 'quantity') AS quantity
                 FROM decisions AS d, json_each(", detail!(), ", '$.returned') AS line
                 WHERE d.kind IN (2, 3, 4, 5, 7) AND d.accepted AND line.type = 'object'
                 GROUP BY 1, 2, 3)
             SELECT format('order %s, SKU %s: %d pieces are noted as given back, its decisions gave back %d',
                           o.order_id, ", item!("o."), ", o.returned, coalesce(g.quantity, 0))
             FROM order_lines AS o
             LEFT JOIN given AS g ON g.order_id = o.order_id AND g.sku = o.sku AND g.location = o.location
             WHERE o.returned <> coalesce(g.quantity, 0)
             UNION ALL
             SELECT format('order %s, SKU %s: 0 pieces are noted as given back, its decisions gave back %d',
                           g.order_id, ", item!("g."), ", g.quantity)
             FROM given AS g
             LEFT JOIN order_lines AS o ON o.order_id = g.order_id AND o.sku = g.sku AND o.location = g.location
             WHERE o.order_id IS NULL
             LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        sql: concat!(
            "SELECT format('order %s, SKU %s: %d pieces are noted as taken, its decision took %d',
                           order_id, ", item!(""), ", deducted, took)
             FROM (SELECT o.*, (SELECT sum(line.value ->> 'quantity')
                                FROM decisions AS d, json_each(", detail!(), ", '$.lines') AS line
                                WHERE d.id = o.order_id AND d.kind = 1 AND d.accepted
                                      AND CASE line.type WHEN 'object' THEN
                                              line.value ->> 'sku' = o.sku
                                              AND coalesce(line.value ->> 'location', '') = o.location END) AS took
                   FROM order_lines AS o)
             WHERE took IS NOT deducted LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        // The text is looked for as JSON writes it, which no SKU can hold: its quotes would be escaped.
        sql: concat!(
            "WITH ended AS MATERIALIZED (
                 SELECT ", order!(), " AS order_id FROM decisions AS d WHERE d.kind IN (2, 4, 5, 7) AND d.accepted)
             SELECT CASE WHEN d.id IS NULL THEN format('order %s: a hold is open that no order asked for', h.order_id)
                    ELSE format('order %s: its hold is open, yet it was confirmed or given back', h.order_id) END
             FROM holds AS h
             LEFT JOIN decisions AS d ON d.id = h.order_id AND d.kind = 1 AND d.accepted
                                         AND instr(d.detail, '\"expires_at\":\"') > 0
             WHERE d.id IS NULL OR h.order_id IN (SELECT order_id FROM ended)
             UNION ALL
             SELECT format('order %s: its hold is neither open, nor confirmed, nor given back', d.id)
             FROM decisions AS d
             WHERE d.kind = 1 AND d.accepted AND instr(d.detail, '\"expires_at\":\"') > 0
                   AND d.id NOT IN (SELECT order_id FROM holds) AND d.id NOT IN (SELECT order_id FROM ended)
             LIMIT ?1"
        ),
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
    let unreadable: Vec<(String, i16, bool, String)> = sqlx::query_as(
        "SELECT id, kind, accepted, detail FROM decisions WHERE NOT json_valid(detail) LIMIT ?1",
    )
    .bind(LIMIT)
    .fetch_all(&mut *tx)
    .await
    .map_err(database(doing))?;
    let named = unreadable
        .iter()
        .filter_map(|(id, kind, accepted, detail)| unreadable_decision(id, *kind, *accepted, detail));
    audit.add(3, named.collect());
    tx.commit().await.map_err(database(doing))?;
    Ok(audit)
}
