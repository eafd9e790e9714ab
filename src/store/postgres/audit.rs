//! The audit's questions to PostgreSQL.
//!
//! Each is one pass or one hash join that PostgreSQL runs in parallel where
//! it has the cores; none asks row by row.

use sqlx::{Connection, Executor, PgConnection, Postgres, Transaction};

use super::distributed::{self, Layout, Moment, Placements};
use super::failure::failed;
use super::line_breach::line_breach;
use super::rows;
use super::session::Session;
use crate::ledger::{NextOffset, TopicPartition};
use crate::store::audit::{Audit, Check, LIMIT, unreadable_decision};
use crate::store::{Breach, ItemLevel, MOST_REPAIRED, StoreError};

/// For this transaction alone: an audit of many millions of rows takes longer than any batch may, and sorts and
/// hashes them in memory where it can.
const SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL work_mem = '128MB'; SET LOCAL jit = off;
     SET LOCAL enable_hashjoin = on";

/// Decisions read at once where they must be read one by one.
const PAGE: i64 = 10_000;

const CHECKS: &[Check] = &[
    Check {
        invariant: 1,
        sql: "SELECT json_build_object('level_below', json_build_object(
                  'item', json_build_array(sku, location), 'available', available, 'limit', backorder_limit))::text
              FROM levels WHERE available < -backorder_limit LIMIT $1",
    },
    Check {
        invariant: 3,
        sql: "SELECT json_build_object('decided_again', json_build_object(
                  'id', id, 'kind', kind, 'times', count(*)))::text
              FROM decisions GROUP BY id, kind HAVING count(*) > 1 LIMIT $1",
    },
    Check {
        invariant: 3,
        sql: "SELECT json_build_object('came_back', json_build_object(
                  'order', order_id, 'item', json_build_array(sku, location), 'returned', returned,
                  'deducted', deducted))::text
              FROM order_lines WHERE returned < 0 OR returned > deducted LIMIT $1",
    },
    Check {
        invariant: 3,
        // Whoever asks for a hold's end has it for a moment.
        // No number of microseconds is as far as PostgreSQL's times go.
        sql: "SELECT json_build_object('asked_too_long', json_build_object(
                  'order', order_id,
                  'until', (extract(epoch FROM least(asked_until, '9999-12-30 00:00:00+00'::timestamptz)) * 1000000)::bigint))::text
              FROM holds WHERE asked_until > now() + interval '1 hour' LIMIT $1",
    },
    Check {
        invariant: 3,
        // Batches that run meanwhile draw theirs first, and this is not of the snapshot.
        sql: "SELECT json_build_object('sequence_behind', json_build_object(
                  'drawn', drawn.last_value, 'seq', newest.seq))::text
              FROM ledger_seq AS drawn, (SELECT max(seq) AS seq FROM decisions) AS newest
              WHERE newest.seq >= drawn.last_value + CASE WHEN drawn.is_called THEN 100000 ELSE 0 END LIMIT $1",
    },
];

/// Items whose level and movements are not one chain, in one pass that sorts nothing.
///
/// A chain holds when the states its movements lead to, (version, balance), are the states they start from,
/// (version − 1, balance − quantity), but for the very first, (0, 0), and the level. Compared by sums of 64-bit
/// hashes: damage escapes by a chance of one in 2⁶⁴. (`hashint8extended` takes the version as its seed.)
const SUSPECTS: &str = "SELECT coalesce(l.sku, m.sku), coalesce(l.location, m.location)
     FROM levels AS l
     FULL JOIN (SELECT sku, location, count(*) AS movements, sum(quantity) AS total,
                       sum(hashint8extended(balance, version))
                           - sum(hashint8extended(balance - quantity, version - 1)) AS chain
                FROM movements GROUP BY sku, location) AS m ON m.sku = l.sku AND m.location = l.location
     WHERE l.sku IS NULL OR m.sku IS NULL OR l.version <> m.movements OR l.available <> m.total
           OR m.chain <> hashint8extended(l.available, l.version)::numeric - hashint8extended(0, 0)
     LIMIT $1";

/// What is wrong with the items found so: `$2`, at the locations `$3`.
const CHAIN_CHECKS: &[Check] = &[
    Check {
        invariant: 2,
        sql: "SELECT CASE WHEN version <> version_before + 1
                  THEN json_build_object('movements_missing', json_build_object(
                      'item', json_build_array(sku, location), 'version', version, 'before', version_before))
                  ELSE json_build_object('movement_apart', json_build_object(
                      'item', json_build_array(sku, location), 'version', version, 'quantity', quantity,
                      'balance', balance, 'before', balance_before)) END::text
              FROM (SELECT sku, location, version, quantity, balance,
                           lag(version, 1, 0::bigint) OVER chain AS version_before,
                           lag(balance, 1, 0::bigint) OVER chain AS balance_before
                    FROM movements WHERE (sku, location) IN (SELECT * FROM UNNEST($2::text[], $3::text[]))
                    WINDOW chain AS (PARTITION BY sku, location ORDER BY version)) AS chained
              WHERE version <> version_before + 1 OR balance <> balance_before + quantity
              LIMIT $1",
    },
    Check {
        invariant: 2,
        sql: "WITH l AS (SELECT * FROM levels WHERE (sku, location) IN (SELECT * FROM UNNEST($2::text[], $3::text[]))),
                   m AS (SELECT sku, location, count(*) AS movements, max(version) AS version, sum(quantity) AS total
                         FROM movements WHERE (sku, location) IN (SELECT * FROM UNNEST($2::text[], $3::text[]))
                         GROUP BY sku, location)
              SELECT CASE
                  WHEN l.sku IS NULL
                      THEN json_build_object('level_missing', json_build_object(
                          'item', json_build_array(m.sku, m.location), 'movements', m.movements))
                  WHEN m.sku IS NULL
                      THEN json_build_object('level_alone', json_build_object(
                          'item', json_build_array(l.sku, l.location), 'available', l.available))
                  WHEN l.version <> m.version
                      THEN json_build_object('level_version', json_build_object(
                          'item', json_build_array(l.sku, l.location), 'version', l.version, 'newest', m.version))
                  WHEN l.available <> m.total
                      THEN json_build_object('level_total', json_build_object(
                          'item', json_build_array(l.sku, l.location), 'available', l.available, 'total', m.total))
                  ELSE json_build_object('level_balance', json_build_object(
                      'item', json_build_array(l.sku, l.location), 'available', l.available,
                      'left', last.balance)) END::text
              FROM l FULL JOIN m ON m.sku = l.sku AND m.location = l.location
              LEFT JOIN movements AS last
                  ON last.sku = m.sku AND last.location = m.location AND last.version = m.version
              WHERE l.sku IS NULL OR m.sku IS NULL OR l.version <> m.version
                    OR l.available <> m.total OR l.available <> last.balance
              LIMIT $1",
    },
];

/// Whether accepted lines and movements are the same, one for one: as many, and the same sum of 64-bit hashes of
/// all that a line says. A healthy ledger is read once, in parallel, and nothing is joined.
const LINES_MATCH: &str = r#"SELECT lines.number = moved.number AND lines.total IS NOT DISTINCT FROM moved.total
     FROM (SELECT count(*) AS number,
                  sum(hashtextextended(line.sku, hashtextextended(coalesce(line.location, ''),
                      hashtextextended(d.id, hashint8extended(line.balance,
                      hashint8extended(line.quantity, hashint8extended(coalesce(d."offset", -1),
                      hashint8extended(coalesce(d.partition, -1), hashint8extended(d.kind, d.seq))))))))) AS total
           FROM decisions AS d
           CROSS JOIN LATERAL jsonb_to_recordset(
               d.detail::jsonb -> CASE WHEN d.kind IN (1, 10) THEN 'lines' ELSE 'returned' END)
               AS line (sku text, location text, quantity bigint, balance bigint)
           WHERE d.accepted) AS lines,
          (SELECT count(*) AS number,
                  sum(hashtextextended(sku, hashtextextended(location,
                      hashtextextended(id, hashint8extended(balance,
                      hashint8extended(CASE kind WHEN 1 THEN -quantity ELSE quantity END,
                      hashint8extended(coalesce("offset", -1),
                      hashint8extended(coalesce(partition, -1), hashint8extended(kind, seq))))))))) AS total
           FROM movements) AS moved"#;

/// Accepted lines against movements, both ways, where they are not the same.
///
/// Joined by ledger sequence, a number, and not by command id: half the time. That a sequence is one
/// command's shows in the ids.
const LINES: Check = Check {
    invariant: 3,
    // A line given twice counts twice, so that it never stands for two movements.
    sql: concat!(
        "SELECT ",
        line_breach!(),
        r#"
            FROM (SELECT l.id AS line_id, l.sku AS line_sku, l.location AS line_location,
                         l.partition AS said_partition, l."offset" AS said_offset,
                         l.times = 1 AND l.id = m.id AND l.kind = m.kind AND l.balance = m.balance
                             AND l.quantity = CASE m.kind WHEN 1 THEN -m.quantity ELSE m.quantity END AS is_as_said,
                         m.*
                  FROM (SELECT d.seq, d.id, d.kind, d.partition, d."offset", line.*
                        FROM decisions AS d
                        CROSS JOIN LATERAL (
                            SELECT sku, coalesce(location, '') COLLATE "C" AS location,
                                   min(quantity) AS quantity, min(balance) AS balance, count(*) AS times
                            FROM jsonb_to_recordset(
                                d.detail::jsonb -> CASE WHEN d.kind IN (1, 10) THEN 'lines' ELSE 'returned' END)
                                 AS x (sku text COLLATE "C", location text, quantity bigint, balance bigint)
                            GROUP BY sku, coalesce(location, '')) AS line
                        WHERE d.accepted) AS l
                  FULL JOIN movements AS m ON m.seq = l.seq AND m.sku = l.sku AND m.location = l.location
                  WHERE m.sku IS NULL OR l.sku IS NULL OR l.times <> 1 OR l.id <> m.id OR l.kind <> m.kind
                        OR l.balance IS DISTINCT FROM m.balance
                        OR l.quantity IS DISTINCT FROM CASE m.kind WHEN 1 THEN -m.quantity ELSE m.quantity END
                        OR l.partition IS DISTINCT FROM m.partition OR l."offset" IS DISTINCT FROM m."offset"
                  LIMIT $1) AS odd
            LEFT JOIN decisions AS d ON d.id = odd.id AND d.kind = odd.kind"#
    ),
};

/// What orders' lines say was given back, against the decisions that did so. Each of these is taken apart once, as those
/// that took are below.
const RETURNED: Check = Check {
    invariant: 3,
    sql: "SELECT json_build_object('noted_returned', json_build_object(
              'order', coalesce(line.order_id, given.order_id),
              'item', json_build_array(coalesce(line.sku, given.sku), coalesce(line.location, given.location)),
              'noted', coalesce(line.returned, 0), 'decided', coalesce(given.quantity, 0)))::text
          FROM order_lines AS line
          FULL JOIN (SELECT coalesce(said.order_id, d.id) AS order_id, back.sku,
                            coalesce(back.location, '') AS location, sum(back.quantity) AS quantity
                     FROM decisions AS d
                     CROSS JOIN LATERAL jsonb_to_record(d.detail::jsonb) AS said (order_id text, returned jsonb)
                     CROSS JOIN LATERAL jsonb_to_recordset(said.returned)
                         AS back (sku text, location text, quantity bigint)
                     WHERE d.accepted AND d.kind IN (2, 3, 4, 5, 7)
                     GROUP BY 1, 2, 3) AS given
              ON given.order_id = line.order_id AND given.sku = line.sku AND given.location = line.location
          WHERE line.returned IS DISTINCT FROM given.quantity LIMIT $1",
};

/// What orders' lines say was taken, against the orders' decisions. What an order took is taken apart once, and not for
/// each of its lines: a cart may have a thousand.
const TAKEN: Check = Check {
    invariant: 3,
    sql: r#"SELECT json_build_object('noted_taken', json_build_object(
                'order', line.order_id, 'item', json_build_array(line.sku, line.location), 'noted', line.deducted,
                'decided', coalesce(took.quantity, 0)))::text
            FROM order_lines AS line
            LEFT JOIN (SELECT d.id, x.sku, coalesce(x.location, '') COLLATE "C" AS location,
                              sum(x.quantity) AS quantity
                       FROM decisions AS d
                       CROSS JOIN LATERAL jsonb_to_recordset(d.detail::jsonb -> 'lines')
                           AS x (sku text COLLATE "C", location text, quantity bigint)
                       WHERE d.kind = 1 AND d.accepted AND d.id IN (SELECT order_id FROM order_lines)
                       GROUP BY 1, 2, 3) AS took
                ON took.id = line.order_id AND took.sku = line.sku AND took.location = line.location
            WHERE took.quantity IS DISTINCT FROM line.deducted LIMIT $1"#,
};

/// Open holds, against the decisions that opened and ended them.
const HOLDS: Check = Check {
    invariant: 3,
    // The text is looked for as JSON writes it, which no SKU can hold: its quotes would be escaped.
    sql: r#"SELECT json_build_object(
                CASE WHEN held.id IS NULL THEN 'hold_unasked'
                     WHEN ended.order_id IS NOT NULL THEN 'hold_ended'
                     ELSE 'hold_gone' END,
                json_build_object('order', coalesce(hold.order_id, held.id)))::text
            FROM (SELECT id FROM decisions
                  WHERE kind = 1 AND accepted AND detail LIKE '%"expires\_at":"%') AS held
            FULL JOIN holds AS hold ON hold.order_id = held.id
            LEFT JOIN (SELECT DISTINCT coalesce(detail::jsonb ->> 'order_id', id) AS order_id
                       FROM decisions WHERE accepted AND kind IN (2, 4, 5, 7)) AS ended
                ON ended.order_id = coalesce(held.id, hold.order_id)
            WHERE held.id IS NULL OR (hold.order_id IS NULL) = (ended.order_id IS NULL) LIMIT $1"#,
};

/// What reads the decisions' details, beside [`LINES`], [`RETURNED`], [`TAKEN`] and [`HOLDS`].
const DETAIL_CHECKS: &[Check] = &[
    Check {
        invariant: 1,
        // Limits may have been lower or higher before: what was once allowed for an item is not a fault of it.
        sql: "SELECT json_build_object('movement_below', json_build_object(
                  'item', json_build_array(low.sku, low.location), 'version', low.version, 'balance', low.balance,
                  'limit', coalesce(allowed.most, 0)))::text
              FROM (SELECT DISTINCT ON (sku, location) sku, location, version, balance FROM movements
                    WHERE balance < 0 ORDER BY sku, location, balance) AS low
              LEFT JOIN (SELECT line ->> 'sku' AS sku, coalesce(line ->> 'location', '') AS location,
                                max((detail::jsonb -> 'limits' ->> 'backorder_limit')::bigint) AS most
                         FROM decisions CROSS JOIN LATERAL jsonb_array_elements(detail::jsonb -> 'lines') AS line
                         WHERE kind = 10 AND accepted AND detail::jsonb ? 'limits'
                         GROUP BY 1, 2) AS allowed ON allowed.sku = low.sku AND allowed.location = low.location
              WHERE low.balance < -coalesce(allowed.most, 0) LIMIT $1",
    },
    Check {
        invariant: 3,
        // What is given back may be nothing; an order took something, and an adjustment names its one line even when it
        // changed nothing.
        sql: "SELECT json_build_object('no_line', json_build_object('id', id))::text
              FROM decisions
              WHERE accepted AND kind IN (1, 10) AND coalesce(jsonb_array_length(detail::jsonb -> 'lines'), 0) = 0
              LIMIT $1",
    },
];

/// Begins a read-only transaction of one moment.
async fn begin<'c>(
    connection: &'c mut PgConnection,
    layout: Layout,
    session: &Session,
) -> Result<(Transaction<'c, Postgres>, Option<Placements>), StoreError> {
    let doing = failed("auditing the ledger");
    let moment = match layout {
        Layout::Plain => None,
        Layout::Distributed => Some(Moment::hold(session).await?),
    };
    let mut transaction =
        connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(&doing)?;
    transaction.execute(SETTINGS).await.map_err(&doing)?;
    let placements = match moment {
        None => None,
        Some(moment) => Some(moment.seen_by(&mut transaction).await?),
    };
    Ok((transaction, placements))
}

/// Ends it, and refuses what was asked where a shard was moved meanwhile.
async fn end(
    transaction: Transaction<'_, Postgres>,
    placements: Option<Placements>,
) -> Result<(), StoreError> {
    transaction.commit().await.map_err(failed("auditing the ledger"))?;
    match placements {
        None => Ok(()),
        Some(mut placements) => placements.check().await,
    }
}

/// Asks every question in one read-only transaction, so all see the same ledger; batches go on meanwhile.
pub(super) async fn audit(
    connection: &mut PgConnection,
    layout: Layout,
    session: &Session,
) -> Result<Audit, StoreError> {
    let doing = failed("auditing the ledger");
    let (mut transaction, placements) = begin(connection, layout, session).await?;
    let mut audit = Audit::default();
    let counts = sqlx::query_as(
        "SELECT (SELECT count(*) FROM levels), (SELECT count(*) FROM movements), (SELECT count(*) FROM decisions)",
    );
    audit.count(counts.fetch_one(&mut *transaction).await.map_err(&doing)?);
    let positions: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT topic, partition, next_offset FROM positions")
            .fetch_all(&mut *transaction)
            .await
            .map_err(&doing)?;
    audit.positions = positions
        .into_iter()
        .map(|(topic, partition, next)| (TopicPartition::new(topic, partition), NextOffset(next)))
        .collect();
    for check in CHECKS {
        let found: Result<Vec<String>, _> =
            sqlx::query_scalar(check.sql).bind(LIMIT).fetch_all(&mut *transaction).await;
        audit.add(check.invariant, found.and_then(|rows| Check::read(&rows)).map_err(&doing)?);
    }
    let suspects: Vec<(String, String)> =
        sqlx::query_as(SUSPECTS).bind(LIMIT).fetch_all(&mut *transaction).await.map_err(&doing)?;
    if !suspects.is_empty() {
        let (skus, locations): (Vec<String>, Vec<String>) = suspects.into_iter().unzip();
        for check in CHAIN_CHECKS {
            let query = sqlx::query_scalar(check.sql).bind(LIMIT).bind(&skus).bind(&locations);
            let found: Result<Vec<String>, _> = query.fetch_all(&mut *transaction).await;
            audit.add(check.invariant, found.and_then(|rows| Check::read(&rows)).map_err(&doing)?);
        }
    }
    // Text that is no JSON makes this one fail, and the transaction with it.
    sqlx::query("SAVEPOINT lines").execute(&mut *transaction).await.map_err(&doing)?;
    match check_details(&mut transaction, layout).await {
        Ok(found) => found.into_iter().for_each(|(invariant, found)| audit.add(invariant, found)),
        Err(error) if is_bad_text(&error) => {
            sqlx::query("ROLLBACK TO SAVEPOINT lines").execute(&mut *transaction).await.map_err(&doing)?;
            let mut found = find_unreadable(&mut transaction).await.map_err(&doing)?;
            found.push(Breach::NotCompared);
            audit.add(LINES.invariant, found);
        }
        Err(error) => return Err(doing(error)),
    }
    end(transaction, placements).await?;
    Ok(audit)
}

/// Items whose movements are one chain by themselves, and whose level is not where it ends.
const REPAIRABLE: &str = "SELECT m.sku, m.location, m.total AS available, m.movements AS version,
            coalesce(l.backorder_limit, greatest(0, -m.total)) AS backorder_limit, l.order_limit
     FROM (SELECT sku, location, count(*) AS movements, max(version) AS newest, sum(quantity)::bigint AS total,
                  sum(hashint8extended(balance, version))
                      - sum(hashint8extended(balance - quantity, version - 1)) AS chain
           FROM movements GROUP BY sku, location) AS m
     LEFT JOIN levels AS l ON l.sku = m.sku AND l.location = m.location
     WHERE (l.version IS DISTINCT FROM m.movements OR l.available IS DISTINCT FROM m.total)
           AND m.newest = m.movements
           AND m.chain = hashint8extended(m.total, m.movements)::numeric - hashint8extended(0, 0)
     ORDER BY m.sku, m.location LIMIT $1";

/// Levels that follow from their movements and are something else: as they should be.
pub(super) async fn repairable_levels(
    connection: &mut PgConnection,
    layout: Layout,
    session: &Session,
) -> Result<Vec<ItemLevel>, StoreError> {
    let (mut transaction, placements) = begin(connection, layout, session).await?;
    let found = sqlx::query(REPAIRABLE).bind(i64::from(MOST_REPAIRED)).fetch_all(&mut *transaction).await;
    let levels = rows::levels(found)?;
    end(transaction, placements).await?;
    Ok(levels)
}

/// What is wrong between decisions, movements and orders; the costly join of lines only when something is.
async fn check_details(
    connection: &mut PgConnection,
    layout: Layout,
) -> Result<Vec<(u8, Vec<Breach>)>, sqlx::Error> {
    let (lines, returned, taken) = match layout {
        Layout::Plain => (&LINES, &RETURNED, &TAKEN),
        Layout::Distributed => (&distributed::LINES, &distributed::RETURNED, &distributed::TAKEN),
    };
    let lines =
        if sqlx::query_scalar(LINES_MATCH).fetch_one(&mut *connection).await? { None } else { Some(lines) };
    let mut found = Vec::new();
    for check in lines.into_iter().chain(DETAIL_CHECKS).chain([returned, taken, &HOLDS]) {
        let rows: Vec<String> = sqlx::query_scalar(check.sql).bind(LIMIT).fetch_all(&mut *connection).await?;
        found.push((check.invariant, Check::read(&rows)?));
    }
    Ok(found)
}

/// Whether a stored text was at fault: class 22, data exceptions, for what is no JSON, no list or no number.
fn is_bad_text(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code.starts_with("22"))
}

/// Names accepted decisions whose detail cannot be read. PostgreSQL 15 cannot ask whether a text is JSON, so they
/// are read here; a healthy ledger never comes to this.
async fn find_unreadable(connection: &mut PgConnection) -> Result<Vec<Breach>, sqlx::Error> {
    let mut found = Vec::new();
    let (mut last_id, mut last_kind) = (String::new(), 0_i16);
    loop {
        let page: Vec<(String, i16, bool, String)> = sqlx::query_as(
            "SELECT id, kind, accepted, detail FROM decisions WHERE (id, kind) > ($1, $2) ORDER BY id, kind LIMIT $3",
        )
        .bind(&last_id)
        .bind(last_kind)
        .bind(PAGE)
        .fetch_all(&mut *connection)
        .await?;
        let Some((id, kind, ..)) = page.last() else { return Ok(found) };
        (last_id, last_kind) = (id.clone(), *kind);
        for (id, kind, accepted, detail) in page {
            found.extend(unreadable_decision(&id, kind, accepted, &detail));
            if found.len() >= usize::from(crate::store::audit::MOST_FINDINGS) {
                return Ok(found);
            }
        }
    }
}
