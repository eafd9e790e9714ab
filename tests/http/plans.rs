//! Each statement of the read API finds what it is asked for by an index, on a ledger that is large enough to matter.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection, Row as _};
use stock_verifier::store::postgres::queries::{DECISIONS, FOLLOWING, MOVEMENTS, STOCK, STOCK_OF};

use crate::support::TestDatabase;

/// A ledger of 50,000 orders, some with returns, of 20,000 SKUs.
const LARGE: &str = r#"
    INSERT INTO levels SELECT 'SKU-' || n, '', 10, 5, 0, null FROM generate_series(1, 20000) AS n;
    INSERT INTO levels SELECT 'SKU-1', 'PLACE-' || n, 10, 5, 0, null FROM generate_series(1, 50) AS n;
    INSERT INTO decisions (seq, decided_at, "offset", partition, kind, accepted, id, topic, digest, detail)
    SELECT n, now(), n, 0, 1, true, 'o-' || n, 'orders', '\x00', '{"lines":[]}' FROM generate_series(1, 50000) AS n;
    INSERT INTO decisions (seq, decided_at, "offset", partition, kind, accepted, id, topic, digest, detail)
    SELECT 50000 + n, now(), n, 0, 3, true, 'r-' || n, 'orders', '\x00', '{"order_id":"o-' || n || '","returned":[]}'
    FROM generate_series(1, 20000) AS n;
    INSERT INTO movements (version, quantity, balance, seq, "offset", partition, kind, sku, location, id)
    SELECT 1 + n / 20000, -1, 1, n, n, 0, 1, 'SKU-' || n % 20000, '', 'o-' || n FROM generate_series(1, 50000) AS n;
    ANALYZE;
"#;

/// The nodes of a plan that read a whole table.
fn scans(plan: &Value, found: &mut Vec<String>) {
    let kind = plan["Node Type"].as_str().unwrap_or_default();
    if let Some(table) = plan["Relation Name"].as_str()
        && !kind.contains("Index")
        && kind != "Bitmap Heap Scan"
    {
        found.push(format!("{kind} on {table}"));
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        scans(below, found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_of_the_read_api_uses_an_index_whatever_kind_of_plan_it_has() {
    let database = TestDatabase::postgres_migrated().await;
    database.ledger().await.close().await;
    database.execute(LARGE).await;
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    let statements = [
        (STOCK, "'SKU-1', 1000"),
        (STOCK_OF, "ARRAY['SKU-1', 'SKU-7', 'NONE'], ARRAY['', '', 'PLACE-1']"),
        (DECISIONS, "ARRAY['o-1', 'o-9', 'none']"),
        (FOLLOWING, "ARRAY['o-1', 'o-9'], 1000"),
        (MOVEMENTS, "'SKU-1', null, 9223372036854775807, '', 101"),
        (MOVEMENTS, "'SKU-1', 'PLACE-1', 7, 'PLACE-1', 101"),
    ];
    for mode in ["force_custom_plan", "force_generic_plan"] {
        sqlx::raw_sql(&format!("SET plan_cache_mode = {mode}")).execute(&mut connection).await.unwrap();
        for (number, (statement, arguments)) in statements.iter().enumerate() {
            let prepare = format!("PREPARE {mode}_{number} AS {statement}");
            sqlx::raw_sql(&prepare).execute(&mut connection).await.unwrap();
            let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE {mode}_{number}({arguments})");
            let rows = sqlx::raw_sql(&explain).fetch_all(&mut connection).await.unwrap();
            let plan: Value = serde_json::from_str(rows[0].try_get_unchecked::<&str, _>(0).unwrap()).unwrap();
            let mut found = Vec::new();
            scans(&plan[0]["Plan"], &mut found);
            assert!(found.is_empty(), "{mode}: {found:?} in\n{statement}\n{plan:#}");
        }
    }
    connection.close().await.unwrap();
    database.remove().await;
}
