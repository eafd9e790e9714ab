//! The audit's questions to SQLite.
//!
//! Decisions and movements are both kept in the ledger's order, so every
//! look-up between them is by key and each check is one pass; those of what
//! orders gave back and of holds are a second one, over the few decisions
//! that did so. What decisions say is taken apart once for each decision, and
//! not for each of its lines: a cart may have a thousand.

use sqlx::{Connection, SqliteConnection};

use super::failure::database;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::StoreError;
use crate::store::audit::{Audit, Check, LIMIT, unreadable_decision};

/// What names an item.
macro_rules! item {
    ($table:literal) => {
        concat!("json_array(", $table, "sku, ", $table, "location)")
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

/// The item of a decision's line, as columns. Both are cast: SQLite makes an index of what it compares with a column of
/// texts only where that is text by its type, and else goes through all of it for each row.
macro_rules! line_item {
    () => {
        "CAST(line.value ->> 'sku' AS TEXT) AS sku, CAST(coalesce(line.value ->> 'location', '') AS TEXT) AS location"
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
            "SELECT json_object('level_below', json_object(
                 'item', ", item!(""), ", 'available', available, 'limit', backorder_limit))
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
                 SELECT ", line_item!(), ",
                        max(CAST(", detail!(), " ->> '$.limits.backorder_limit' AS INTEGER)) AS most
                 FROM decisions AS d, json_each(", detail!(), ", '$.lines') AS line
                 WHERE EXISTS (SELECT 1 FROM below) AND d.kind = 10 AND d.accepted AND line.type = 'object'
                 GROUP BY 1, 2)
             SELECT json_object('movement_below', json_object(
                 'item', ", item!("b."), ", 'version', b.version, 'balance', b.balance,
                 'limit', max(b.most, coalesce(s.most, 0))))
             FROM below AS b LEFT JOIN stated AS s ON s.sku = b.sku AND s.location = b.location
             WHERE b.balance < -coalesce(s.most, 0) LIMIT ?1"
        ),
    },
    Check {
        invariant: 2,
        sql: concat!(
            "SELECT CASE WHEN version <> version_before + 1
                 THEN json_object('movements_missing', json_object(
                     'item', ", item!(""), ", 'version', version, 'before', version_before))
                 ELSE json_object('movement_apart', json_object(
                     'item', ", item!(""), ", 'version', version, 'quantity', quantity, 'balance', balance,
                     'before', balance_before)) END
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
                 WHEN l.sku IS NULL
                     THEN json_object('level_missing', json_object('item', ", item!("m."), ", 'movements', m.movements))
                 WHEN l.version <> m.version
                     THEN json_object('level_version', json_object(
                         'item', ", item!("l."), ", 'version', l.version, 'newest', m.version))
                 WHEN l.available <> m.total
                     THEN json_object('level_total', json_object(
                         'item', ", item!("l."), ", 'available', l.available, 'total', m.total))
                 ELSE json_object('level_balance', json_object(
                     'item', ", item!("l."), ", 'available', l.available, 'left', m.balance)) END
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
            "SELECT json_object('level_alone', json_object('item', ", item!(""), ", 'available', available))
             FROM levels WHERE (sku, location) NOT IN (SELECT sku, location FROM movements) LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        sql: "SELECT json_object('decided_again', json_object('id', id, 'kind', kind, 'times', count(*)))
              FROM decisions GROUP BY id, kind HAVING count(*) > 1 LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: concat!(
            "WITH said AS MATERIALIZED (
                 SELECT d.seq, ", line_item!(), ", count(*) AS times,
                        max(line.value ->> 'balance') AS balance, max(line.value ->> 'quantity') AS quantity
                 FROM decisions AS d, json_each(", detail!(), ", ", moved!(), ") AS line
                 WHERE d.accepted AND line.type = 'object'
                 GROUP BY 1, 2, 3)
             SELECT CASE
                 WHEN own.id IS NULL
                     THEN json_object('movement_undecided', json_object(
                         'item', ", item!("odd."), ", 'version', odd.version, 'id', odd.id))
                 WHEN own.seq <> odd.seq
                     THEN json_object('movement_sequence', json_object(
                         'item', ", item!("odd."), ", 'version', odd.version, 'id', odd.id, 'seq', odd.seq,
                         'decided', own.seq))
                 WHEN NOT own.accepted
                     THEN json_object('rejected_moved', json_object(
                         'id', odd.id, 'version', odd.version, 'item', ", item!("odd."), "))
                 WHEN odd.is_as_said
                     THEN json_object('movement_record', json_object(
                         'id', odd.id, 'version', odd.version, 'item', ", item!("odd."), ",
                         'record', json_array(odd.partition, odd.\"offset\"),
                         'decided', json_array(odd.said_partition, odd.said_offset)))
                 ELSE json_object('movement_other', json_object(
                     'id', odd.id, 'version', odd.version, 'item', ", item!("odd."), ", 'quantity', odd.quantity,
                     'balance', odd.balance, 'detail', substr(own.detail, 1, 200))) END
             FROM (SELECT m.*, d.partition AS said_partition, d.\"offset\" AS said_offset,
                          d.id = m.id AND d.kind = m.kind AND said.times = 1 AND said.balance = m.balance
                              AND said.quantity = iif(m.kind = 1, -m.quantity, m.quantity) AS is_as_said
                   FROM movements AS m
                   LEFT JOIN decisions AS d ON d.seq = m.seq
                   LEFT JOIN said ON said.seq = m.seq AND said.sku = m.sku AND said.location = m.location) AS odd
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
            "SELECT json_object('not_moved', json_object('id', id, 'item', ", item!(""), "))
             FROM (SELECT DISTINCT d.seq, d.id, ", line_item!(), "
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
        sql: "SELECT json_object('no_line', json_object('id', d.id))
             FROM decisions AS d
             WHERE d.accepted AND d.kind IN (1, 10) AND json_valid(d.detail)
                   AND coalesce(json_array_length(d.detail, '$.lines'), 0) = 0
             LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: concat!(
            "SELECT json_object('came_back', json_object(
                 'order', order_id, 'item', ", item!(""), ", 'returned', returned, 'deducted', deducted))
             FROM order_lines WHERE returned < 0 OR returned > deducted LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        // Whoever asks for a hold's end has it for a moment.
        sql: "SELECT json_object('asked_too_long', json_object('order', order_id, 'until', asked_until))
              FROM holds WHERE asked_until > (strftime('%s', 'now') + 3600) * 1000000 LIMIT ?1",
    },
    Check {
        invariant: 3,
        sql: concat!(
            "WITH back AS MATERIALIZED (
                 SELECT d.seq, CAST(", order!(), " AS TEXT) AS order_id FROM decisions AS d
                 WHERE d.kind IN (2, 3, 4, 5, 7) AND d.accepted),
             given AS MATERIALIZED (
                 SELECT back.order_id, ", line_item!(), ", sum(line.value ->> 'quantity') AS quantity
                 FROM back CROSS JOIN decisions AS d CROSS JOIN json_each(", detail!(), ", '$.returned') AS line
                 WHERE d.seq = back.seq AND line.type = 'object'
                 GROUP BY 1, 2, 3)
             SELECT json_object('noted_returned', json_object(
                 'order', o.order_id, 'item', ", item!("o."), ", 'noted', o.returned,
                 'decided', CAST(coalesce(g.quantity, 0) AS INTEGER)))
             FROM order_lines AS o
             LEFT JOIN given AS g ON g.order_id = o.order_id AND g.sku = o.sku AND g.location = o.location
             WHERE o.returned <> coalesce(g.quantity, 0)
             UNION ALL
             SELECT json_object('noted_returned', json_object(
                 'order', g.order_id, 'item', ", item!("g."), ", 'noted', 0, 'decided', CAST(coalesce(g.quantity, 0) AS INTEGER)))
             FROM given AS g
             LEFT JOIN order_lines AS o ON o.order_id = g.order_id AND o.sku = g.sku AND o.location = g.location
             WHERE o.order_id IS NULL
             LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        sql: concat!(
            "WITH took AS MATERIALIZED (
                 SELECT d.id AS order_id, ", line_item!(), ", sum(line.value ->> 'quantity') AS quantity
                 FROM decisions AS d, json_each(", detail!(), ", '$.lines') AS line
                 WHERE d.id IN (SELECT order_id FROM order_lines) AND d.kind = 1 AND d.accepted
                       AND line.type = 'object'
                 GROUP BY 1, 2, 3)
             SELECT json_object('noted_taken', json_object(
                 'order', o.order_id, 'item', ", item!("o."), ", 'noted', o.deducted,
                 'decided', CAST(coalesce(t.quantity, 0) AS INTEGER)))
             FROM order_lines AS o
             LEFT JOIN took AS t ON t.order_id = o.order_id AND t.sku = o.sku AND t.location = o.location
             WHERE t.quantity IS NOT o.deducted LIMIT ?1"
        ),
    },
    Check {
        invariant: 3,
        // The text is looked for as JSON writes it, which no SKU can hold: its quotes would be escaped.
        sql: concat!(
            "WITH ended AS MATERIALIZED (
                 SELECT ", order!(), " AS order_id FROM decisions AS d WHERE d.kind IN (2, 4, 5, 7) AND d.accepted)
             SELECT json_object(iif(d.id IS NULL, 'hold_unasked', 'hold_ended'), json_object('order', h.order_id))
             FROM holds AS h
             LEFT JOIN decisions AS d ON d.id = h.order_id AND d.kind = 1 AND d.accepted
                                         AND instr(d.detail, '\"expires_at\":\"') > 0
             WHERE d.id IS NULL OR h.order_id IN (SELECT order_id FROM ended)
             UNION ALL
             SELECT json_object('hold_gone', json_object('order', d.id))
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
        let found: Result<Vec<String>, _> =
            sqlx::query_scalar(check.sql).bind(LIMIT).fetch_all(&mut *tx).await;
        let found = found.and_then(|rows| Check::read(&rows)).map_err(database(doing))?;
        audit.add(check.invariant, found);
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::SqliteStore;
    use super::{CHECKS, LIMIT};
    use crate::store::LedgerAdmin as _;

    #[tokio::test]
    async fn nothing_is_gone_through_again_for_each_row() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/ledger.db", folder.path().display());
        let store = SqliteStore::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        let mut conn = store.readers.acquire().await.unwrap();
        for check in CHECKS {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(&format!("EXPLAIN QUERY PLAN {}", check.sql))
                    .bind(LIMIT)
                    .fetch_all(&mut *conn)
                    .await
                    .unwrap();
            let mut of_each_row = HashSet::new();
            for (step, part_of, _, what) in plan {
                if what.starts_with("CORRELATED") || of_each_row.contains(&part_of) {
                    of_each_row.insert(step);
                }
                let is_again = what.ends_with("LEFT-JOIN") || of_each_row.contains(&part_of);
                assert!(!(what.starts_with("SCAN") && is_again), "{what}: {}", check.sql);
            }
        }
        drop(conn);
        store.close().await;
    }
}
