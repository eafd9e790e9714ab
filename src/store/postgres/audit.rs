//! The audit's questions to PostgreSQL.
//!
//! Each is one pass or one hash join that PostgreSQL runs in parallel where
//! it has the cores; none asks row by row.

use sqlx::{Connection, PgConnection};

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
        invariant: 2,
        sql: "SELECT CASE WHEN version <> version_before + 1
                  THEN format('SKU %s: movement %s comes after movement %s', sku, version, version_before)
                  ELSE format('SKU %s: movement %s moved %s and left %s, but %s was there before', sku, version,
                              quantity, balance, balance_before) END
              FROM (SELECT sku, version, quantity, balance,
                           lag(version, 1, 0::bigint) OVER chain AS version_before,
                           lag(balance, 1, 0::bigint) OVER chain AS balance_before
                    FROM movements WINDOW chain AS (PARTITION BY sku ORDER BY version)) AS chained
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
              FROM levels AS l
              FULL JOIN (SELECT sku, count(*) AS movements, max(version) AS version, sum(quantity) AS total
                         FROM movements GROUP BY sku) AS m ON m.sku = l.sku
              LEFT JOIN movements AS last ON last.sku = m.sku AND last.version = m.version
              WHERE l.sku IS NULL OR m.sku IS NULL OR l.version <> m.version
                    OR l.available <> m.total OR l.available <> last.balance
              LIMIT $1",
    },
    Check {
        invariant: 3,
        sql: "SELECT format('command %s (kind %s): %s decisions', id, kind, count(*))
              FROM decisions GROUP BY id, kind HAVING count(*) > 1 LIMIT $1",
    },
    Check {
        invariant: 3,
        sql: "SELECT format('place %s in the ledger''s order: %s decisions', seq, count(*))
              FROM decisions GROUP BY seq HAVING count(*) > 1 LIMIT $1",
    },
    Check {
        invariant: 3,
        sql: "SELECT CASE
                  WHEN d.id IS NULL THEN format('SKU %s: movement %s is of command %s, which has no decision',
                                                m.sku, m.version, m.id)
                  WHEN d.seq <> m.seq THEN format('SKU %s: movement %s of command %s is at place %s, its decision at %s',
                                                  m.sku, m.version, m.id, m.seq, d.seq)
                  ELSE format('command %s was rejected, yet movement %s of SKU %s took effect', m.id, m.version, m.sku) END
              FROM movements AS m
              LEFT JOIN decisions AS d ON d.id = m.id AND d.kind = m.kind
              WHERE d.id IS NULL OR d.seq <> m.seq OR NOT d.accepted
              LIMIT $1",
    },
];

/// Accepted lines against movements, both ways. Apart from the others, since text that is no JSON makes it fail.
const LINES: Check = Check {
    invariant: 3,
    // A line given twice counts twice, so that it never stands for two movements.
    sql: r#"SELECT CASE
                WHEN m.sku IS NULL THEN format('command %s: it was accepted for SKU %s, but no movement took effect',
                                               l.id, l.sku)
                WHEN l.sku IS NULL THEN format('command %s: movement %s of SKU %s (%s, leaving %s) is not in its decision',
                                               m.id, m.version, m.sku, m.quantity, m.balance)
                ELSE format('command %s: movement %s of SKU %s (%s, leaving %s) is not what its decision tells: %s, leaving %s, %s times',
                            m.id, m.version, m.sku, m.quantity, m.balance, l.quantity, l.balance, l.times) END
            FROM (SELECT d.seq, d.id, line.*
                  FROM decisions AS d
                  CROSS JOIN LATERAL (
                      SELECT sku, min(quantity) AS quantity, min(balance) AS balance, count(*) AS times
                      FROM jsonb_to_recordset(d.detail::jsonb)
                           AS x (sku text COLLATE "C", quantity bigint, balance bigint)
                      GROUP BY sku) AS line
                  WHERE d.accepted) AS l
            FULL JOIN movements AS m ON m.seq = l.seq AND m.sku = l.sku
            WHERE m.sku IS NULL OR l.sku IS NULL OR l.times <> 1 OR l.balance IS DISTINCT FROM m.balance
                  OR l.quantity IS DISTINCT FROM CASE m.kind WHEN 1 THEN -m.quantity ELSE abs(m.quantity) END
            LIMIT $1"#,
};

/// Asks every question in one read-only transaction, so all see the same ledger; batches go on meanwhile.
pub(super) async fn audit(connection: &mut PgConnection) -> Result<Audit, StoreError> {
    let doing = failed("auditing the ledger");
    let mut transaction =
        connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(&doing)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *transaction).await.map_err(&doing)?;
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
    sqlx::query("SAVEPOINT lines").execute(&mut *transaction).await.map_err(&doing)?;
    match sqlx::query_scalar(LINES.sql).bind(LIMIT).fetch_all(&mut *transaction).await {
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
