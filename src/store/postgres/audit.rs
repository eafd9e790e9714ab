//! The audit's questions to PostgreSQL.
//!
//! Each is one pass or one hash join that PostgreSQL runs in parallel where
//! it has the cores; none asks row by row.

use sqlx::{Connection, Executor, PgConnection};

use super::failed;
use crate::ledger::{AcceptedLine, NextOffset, Reason, TopicPartition};
use crate::store::StoreError;
use crate::store::audit::{Audit, Check, LIMIT};

/// For this transaction alone: an audit of many millions of rows takes longer than any batch may, and sorts and
/// hashes them in memory where it can.
const SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL work_mem = '128MB'; SET LOCAL jit = off";

/// Decisions read at once where they must be read one by one.
const PAGE: i64 = 10_000;

const CHECKS: &[Check] = &[
    Check {
        invariant: 1,
        sql: "SELECT format('SKU %s: its level is %s, below zero', sku, available)
              FROM levels WHERE available < 0 LIMIT $1",
    },
    Check {
        invariant: 1,
        sql: "SELECT format('SKU %s: movement %s left %s, below zero', sku, version, balance)
              FROM movements WHERE balance < 0 LIMIT $1",
    },
    Check {
        invariant: 3,
        sql: "SELECT format('command %s (kind %s): %s decisions', id, kind, count(*))
              FROM decisions GROUP BY id, kind HAVING count(*) > 1 LIMIT $1",
    },
];

/// SKUs whose level and movements are not one chain, in one pass that sorts nothing.
///
/// A chain holds when the states its movements lead to, (version, balance), are the states they start from,
/// (version − 1, balance − quantity), but for the very first, (0, 0), and the level. Compared by sums of 64-bit
/// hashes: damage escapes by a chance of one in 2⁶⁴. (`hashint8extended` takes the version as its seed.)
const SUSPECTS: &str = "SELECT coalesce(l.sku, m.sku)
     FROM levels AS l
     FULL JOIN (SELECT sku, count(*) AS movements, sum(quantity) AS total,
                       sum(hashint8extended(balance, version))
                           - sum(hashint8extended(balance - quantity, version - 1)) AS chain
                FROM movements GROUP BY sku) AS m ON m.sku = l.sku
     WHERE l.sku IS NULL OR m.sku IS NULL OR l.version <> m.movements OR l.available <> m.total
           OR m.chain <> hashint8extended(l.available, l.version)::numeric - hashint8extended(0, 0)
     LIMIT $1";

/// What is wrong with the SKUs found so, `$2`.
const CHAIN_CHECKS: &[Check] = &[
    Check {
        invariant: 2,
        sql: "SELECT CASE WHEN version <> version_before + 1
                  THEN format('SKU %s: movement %s comes after movement %s', sku, version, version_before)
                  ELSE format('SKU %s: movement %s moved %s and left %s, but %s was there before', sku, version,
                              quantity, balance, balance_before) END
              FROM (SELECT sku, version, quantity, balance,
                           lag(version, 1, 0::bigint) OVER chain AS version_before,
                           lag(balance, 1, 0::bigint) OVER chain AS balance_before
                    FROM movements WHERE sku = ANY($2) WINDOW chain AS (PARTITION BY sku ORDER BY version)) AS chained
              WHERE version <> version_before + 1 OR balance <> balance_before + quantity
              LIMIT $1",
    },
    Check {
        invariant: 2,
        sql: "SELECT CASE
                  WHEN l.sku IS NULL THEN format('SKU %s: %s movements, but no level', m.sku, m.movements)
                  WHEN m.sku IS NULL THEN format('SKU %s: a level of %s, but no movements', l.sku, l.available)
                  WHEN l.version <> m.version
                      THEN format('SKU %s: its level has version %s, its newest movement %s', l.sku, l.version, m.version)
                  WHEN l.available <> m.total
                      THEN format('SKU %s: its level is %s, its movements add up to %s', l.sku, l.available, m.total)
                  ELSE format('SKU %s: its level is %s, its newest movement left %s', l.sku, l.available, last.balance) END
              FROM (SELECT * FROM levels WHERE sku = ANY($2)) AS l
              FULL JOIN (SELECT sku, count(*) AS movements, max(version) AS version, sum(quantity) AS total
                         FROM movements WHERE sku = ANY($2) GROUP BY sku) AS m ON m.sku = l.sku
              LEFT JOIN movements AS last ON last.sku = m.sku AND last.version = m.version
              WHERE l.sku IS NULL OR m.sku IS NULL OR l.version <> m.version
                    OR l.available <> m.total OR l.available <> last.balance
              LIMIT $1",
    },
];

/// Whether accepted lines and movements are the same, one for one: as many, and the same sum of 64-bit hashes of
/// all that a line tells. A healthy ledger is read once, in parallel, and nothing is joined.
const LINES_MATCH: &str =
    "SELECT lines.number = moved.number AND lines.total IS NOT DISTINCT FROM moved.total
     FROM (SELECT count(*) AS number,
                  sum(hashtextextended(line.sku, hashtextextended(d.id, hashint8extended(line.balance,
                      hashint8extended(line.quantity, hashint8extended(d.kind, d.seq)))))) AS total
           FROM decisions AS d
           CROSS JOIN LATERAL jsonb_to_recordset(d.detail::jsonb)
               AS line (sku text, quantity bigint, balance bigint)
           WHERE d.accepted) AS lines,
          (SELECT count(*) AS number,
                  sum(hashtextextended(sku, hashtextextended(id, hashint8extended(balance,
                      hashint8extended(CASE kind WHEN 1 THEN -quantity ELSE quantity END,
                                       hashint8extended(kind, seq)))))) AS total
           FROM movements) AS moved";

/// Accepted lines against movements, both ways, where they are not the same.
///
/// Joined by place in the ledger's order, a number, and not by command id: half the time. That a place is one
/// command's shows in the ids.
const LINES: Check = Check {
    invariant: 3,
    // A line given twice counts twice, so that it never stands for two movements.
    sql: r#"SELECT CASE
                WHEN odd.sku IS NULL
                    THEN format('command %s: it was accepted for SKU %s, but no movement took effect', odd.line_id, odd.line_sku)
                WHEN d.id IS NULL THEN format('SKU %s: movement %s is of command %s, which has no decision',
                                              odd.sku, odd.version, odd.id)
                WHEN d.seq <> odd.seq THEN format('SKU %s: movement %s of command %s is at place %s, its decision at %s',
                                                  odd.sku, odd.version, odd.id, odd.seq, d.seq)
                WHEN NOT d.accepted THEN format('command %s was rejected, yet movement %s of SKU %s took effect',
                                                odd.id, odd.version, odd.sku)
                ELSE format('command %s: movement %s of SKU %s (%s, leaving %s) is not what its decision tells: %s',
                            odd.id, odd.version, odd.sku, odd.quantity, odd.balance, left(d.detail, 200)) END
            FROM (SELECT l.id AS line_id, l.sku AS line_sku, m.*
                  FROM (SELECT d.seq, d.id, d.kind, line.*
                        FROM decisions AS d
                        CROSS JOIN LATERAL (
                            SELECT sku, min(quantity) AS quantity, min(balance) AS balance, count(*) AS times
                            FROM jsonb_to_recordset(d.detail::jsonb)
                                 AS x (sku text COLLATE "C", quantity bigint, balance bigint)
                            GROUP BY sku) AS line
                        WHERE d.accepted) AS l
                  FULL JOIN movements AS m ON m.seq = l.seq AND m.sku = l.sku
                  WHERE m.sku IS NULL OR l.sku IS NULL OR l.times <> 1 OR l.id <> m.id OR l.kind <> m.kind
                        OR l.balance IS DISTINCT FROM m.balance
                        OR l.quantity IS DISTINCT FROM CASE m.kind WHEN 1 THEN -m.quantity ELSE m.quantity END
                  LIMIT $1) AS odd
            LEFT JOIN decisions AS d ON d.id = odd.id AND d.kind = odd.kind"#,
};

/// Asks every question in one read-only transaction, so all see the same ledger; batches go on meanwhile.
pub(super) async fn audit(connection: &mut PgConnection) -> Result<Audit, StoreError> {
    let doing = failed("auditing the ledger");
    let mut transaction =
        connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(&doing)?;
    transaction.execute(SETTINGS).await.map_err(&doing)?;
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
        let found = sqlx::query_scalar(check.sql).bind(LIMIT).fetch_all(&mut *transaction).await;
        audit.add(check.invariant, found.map_err(&doing)?);
    }
    let suspects: Vec<String> =
        sqlx::query_scalar(SUSPECTS).bind(LIMIT).fetch_all(&mut *transaction).await.map_err(&doing)?;
    if !suspects.is_empty() {
        for check in CHAIN_CHECKS {
            let found =
                sqlx::query_scalar(check.sql).bind(LIMIT).bind(&suspects).fetch_all(&mut *transaction).await;
            audit.add(check.invariant, found.map_err(&doing)?);
        }
    }
    // Text that is no JSON makes this one fail, and the transaction with it.
    sqlx::query("SAVEPOINT lines").execute(&mut *transaction).await.map_err(&doing)?;
    match compare_lines(&mut transaction).await {
        Ok(found) => audit.add(LINES.invariant, found),
        Err(error) if is_bad_text(&error) => {
            sqlx::query("ROLLBACK TO SAVEPOINT lines").execute(&mut *transaction).await.map_err(&doing)?;
            let mut found = find_unreadable(&mut transaction).await.map_err(&doing)?;
            found.push(
                "lines and movements were not compared, since not all decisions are readable".to_owned(),
            );
            audit.add(LINES.invariant, found);
        }
        Err(error) => return Err(doing(error)),
    }
    transaction.commit().await.map_err(&doing)?;
    Ok(audit)
}

/// What is wrong between accepted lines and movements; the costly join only when something is.
async fn compare_lines(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    if sqlx::query_scalar(LINES_MATCH).fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(LINES.sql).bind(LIMIT).fetch_all(connection).await
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
async fn find_unreadable(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
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
        for (id, _, accepted, detail) in page {
            let readable = if accepted {
                serde_json::from_str::<Vec<AcceptedLine>>(&detail).map(drop)
            } else {
                serde_json::from_str::<Vec<Reason>>(&detail).map(drop)
            };
            if let Err(error) = readable {
                found.push(format!("command {id}: its decision is not readable JSON: {error}"));
            }
            if found.len() >= usize::from(crate::store::audit::MOST_FINDINGS) {
                return Ok(found);
            }
        }
    }
}
