//! The audit's questions that Citus wants in other words. What each finds is what its namesake finds.

use super::super::line_breach::line_breach;
use crate::store::audit::Check;

/// Accepted lines against movements: both are brought to the coordinator, since they are on different nodes. Asked only
/// where they are known not to match.
pub(in super::super) const LINES: Check = Check {
    invariant: 3,
    sql: concat!(
        r#"WITH said AS MATERIALIZED (
                SELECT d.seq, d.id, d.kind, d.partition, d."offset", line.sku,
                       coalesce(line.location, '') AS location, min(line.quantity) AS quantity,
                       min(line.balance) AS balance, count(*) AS times
                FROM decisions AS d
                CROSS JOIN LATERAL jsonb_to_recordset(
                    d.detail::jsonb -> CASE WHEN d.kind IN (1, 10) THEN 'lines' ELSE 'returned' END)
                    AS line (sku text, location text, quantity bigint, balance bigint)
                WHERE d.accepted
                GROUP BY d.id, d.kind, d.seq, d.partition, d."offset", line.sku, coalesce(line.location, '')
            ), moved AS MATERIALIZED (SELECT * FROM movements
            ), odd AS MATERIALIZED (
                SELECT l.id AS line_id, l.sku AS line_sku, l.location AS line_location,
                       l.partition AS said_partition, l."offset" AS said_offset,
                       l.times = 1 AND l.id = m.id AND l.kind = m.kind AND l.balance = m.balance
                           AND l.quantity = CASE m.kind WHEN 1 THEN -m.quantity ELSE m.quantity END AS is_as_said,
                       m.*
                FROM said AS l
                FULL JOIN moved AS m ON m.seq = l.seq AND m.sku = l.sku AND m.location = l.location
                WHERE m.sku IS NULL OR l.sku IS NULL OR l.times <> 1 OR l.id <> m.id OR l.kind <> m.kind
                      OR l.balance IS DISTINCT FROM m.balance
                      OR l.quantity IS DISTINCT FROM CASE m.kind WHEN 1 THEN -m.quantity ELSE m.quantity END
                      OR l.partition IS DISTINCT FROM m.partition OR l."offset" IS DISTINCT FROM m."offset"
                LIMIT $1
            ), decided AS MATERIALIZED (
                SELECT id, kind, seq, accepted, left(detail, 200) AS detail FROM decisions
                WHERE id IN (SELECT id FROM odd)
            )
            SELECT "#,
        line_breach!(),
        r#"
            FROM odd LEFT JOIN decided AS d ON d.id = odd.id AND d.kind = odd.kind"#
    ),
};

/// What orders' lines say was given back, against the decisions that did so.
pub(in super::super) const RETURNED: Check = Check {
    invariant: 3,
    sql: "SELECT json_build_object('noted_returned', json_build_object(
              'order', coalesce(line.order_id, given.order_id),
              'item', json_build_array(coalesce(line.sku, given.sku), coalesce(line.location, given.location)),
              'noted', coalesce(line.returned, 0), 'decided', coalesce(given.quantity, 0)))::text
          FROM order_lines AS line
          FULL JOIN (SELECT coalesce(d.detail::jsonb ->> 'order_id', d.id) AS order_id, back.sku,
                            coalesce(back.location, '') AS location, sum(back.quantity) AS quantity
                     FROM decisions AS d
                     CROSS JOIN LATERAL jsonb_to_recordset(d.detail::jsonb -> 'returned')
                         AS back (sku text, location text, quantity bigint)
                     WHERE d.accepted AND d.kind IN (2, 3, 4, 5, 7)
                     GROUP BY 1, 2, 3) AS given
              ON given.order_id = line.order_id AND given.sku = line.sku AND given.location = line.location
          WHERE line.returned IS DISTINCT FROM given.quantity LIMIT $1",
};

/// What orders' lines say was taken, against the orders' decisions, which are on the same nodes.
pub(in super::super) const TAKEN: Check = Check {
    invariant: 3,
    sql:
        "SELECT json_build_object('noted_taken', json_build_object(
              'order', line.order_id, 'item', json_build_array(line.sku, line.location), 'noted', line.deducted,
              'decided', coalesce(took.quantity, 0)))::text
          FROM order_lines AS line
          LEFT JOIN (SELECT d.id, x.sku, coalesce(x.location, '') AS location, sum(x.quantity) AS quantity
                     FROM decisions AS d
                     CROSS JOIN LATERAL jsonb_to_recordset(d.detail::jsonb -> 'lines')
                         AS x (sku text, location text, quantity bigint)
                     WHERE d.kind = 1 AND d.accepted
                     GROUP BY d.id, x.sku, coalesce(x.location, '')) AS took
              ON took.id = line.order_id AND took.sku = line.sku AND took.location = line.location
          WHERE took.quantity IS DISTINCT FROM line.deducted LIMIT $1",
};
