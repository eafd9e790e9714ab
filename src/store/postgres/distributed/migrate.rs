//! Distributing a ledger's tables, while they are empty.

use sqlx::{Connection as _, PgConnection};

use super::super::failure::failed;
use super::{Layout, TABLES, layout};
use crate::store::StoreError;

/// The oldest Citus whose answers to our statements were tried: major and minor.
const OLDEST: (u32, u32) = (13, 0);

/// Shards for each node that there is now, where nobody says how many: one node can become four without a shard being
/// split. Each costs every batch: its items are looked for in all.
const SHARDS_OF_NODE: i64 = 4;

/// Distributes the tables of an empty ledger over the nodes of a cluster. Nothing where they are distributed already.
///
/// # Errors
/// [`StoreError::Unsuitable`] when the cluster, or what is in the ledger, will not do.
pub(in super::super) async fn distribute(
    connection: &mut PgConnection,
    shards: Option<u16>,
) -> Result<(), StoreError> {
    if layout(connection).await? == Some(Layout::Distributed) {
        return Ok(());
    }
    check_empty(connection).await?;
    let nodes = check_nodes(connection).await?;
    let shards = shards.map_or(nodes * SHARDS_OF_NODE, i64::from);
    let doing = failed("distributing the ledger's tables");
    let mut transaction = connection.begin().await.map_err(&doing)?;
    for statement in [
        // Left by one that was undistributed.
        "DROP TABLE IF EXISTS node_barrier",
        "CREATE TABLE node_barrier (only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), batches bigint NOT NULL)",
        "COMMENT ON TABLE node_barrier IS
             'One row, on each node, which every batch writes: none decides while another is in doubt on a node.'",
        "COMMENT ON COLUMN node_barrier.only_one IS 'There is one row.'",
        "COMMENT ON COLUMN node_barrier.batches IS 'How many batches wrote it.'",
        "SELECT create_reference_table('node_barrier')",
        "INSERT INTO node_barrier (batches) VALUES (0)",
    ] {
        sqlx::query(statement).execute(&mut *transaction).await.map_err(&doing)?;
    }
    let mut beside: Option<(&str, &str)> = None;
    for (table, by) in TABLES {
        let first = beside.filter(|(_, of)| is_same_kind(of, by)).map(|(table, _)| table);
        let query = match first {
            Some(first) => {
                sqlx::query("SELECT create_distributed_table($1::regclass, $2, colocate_with => $3)")
                    .bind(table)
                    .bind(by)
                    .bind(first)
            }
            None => sqlx::query(
                "SELECT create_distributed_table($1::regclass, $2, colocate_with => 'none', shard_count => $3::int)",
            )
            .bind(table)
            .bind(by)
            .bind(shards),
        };
        query.execute(&mut *transaction).await.map_err(&doing)?;
        if first.is_none() {
            beside = Some((table, by));
        }
    }
    transaction.commit().await.map_err(doing)
}

/// Whether tables distributed by these columns have the same rows' neighbours on one node: by SKU, or by an order's id.
fn is_same_kind(one: &str, other: &str) -> bool {
    (one == "sku") == (other == "sku")
}

/// Refuses what is no coordinator of a Citus that will do.
pub(in super::super) async fn check_cluster(connection: &mut PgConnection) -> Result<(), StoreError> {
    let doing = failed("asking for the version of Citus");
    let found: Option<String> =
        sqlx::query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
            .fetch_optional(&mut *connection)
            .await
            .map_err(&doing)?;
    if found.as_deref().and_then(version).is_none_or(|found| found < OLDEST) {
        return Err(StoreError::Unsuitable {
            setting: "the extension citus",
            found: found.unwrap_or_else(|| "not there".to_owned()),
            needed: "13.0 or newer",
            why: "its coordinator distributes the tables, and the ledger's statements were tried with nothing older",
            repair: "On every node: shared_preload_libraries = 'citus', a restart, and in this database CREATE EXTENSION \
                     citus, or ALTER EXTENSION citus UPDATE; then citus_set_coordinator_host and citus_add_node on the \
                     coordinator",
        });
    }
    let group: i32 = sqlx::query_scalar("SELECT groupid FROM pg_dist_local_group")
        .fetch_one(connection)
        .await
        .map_err(doing)?;
    if group != 0 {
        return Err(StoreError::Unsuitable {
            setting: "the node that --database-url names",
            found: format!("a worker, of group {group},"),
            needed: "the coordinator",
            why: "positions and the gate of the batches are there alone",
            repair: "Let the URL name the coordinator",
        });
    }
    Ok(())
}

/// Major and minor of a version such as `13.2-1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(['.', '-']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Refuses tables that have rows: distributing them would stop whoever writes to them, for as long as it takes.
async fn check_empty(connection: &mut PgConnection) -> Result<(), StoreError> {
    let tables = TABLES.map(|(table, _)| table);
    for table in tables.into_iter().chain(["positions"]) {
        // A name of ours, not of a user's.
        let has_rows: bool = sqlx::query_scalar(&format!("SELECT EXISTS (SELECT FROM {table})"))
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("looking whether the ledger is empty"))?;
        if has_rows {
            return Err(StoreError::Unsuitable {
                setting: "the ledger to be distributed",
                found: format!("not empty: {table} has rows,"),
                needed: "empty",
                why: "the rows would be copied while nobody can write",
                repair: "Make another database on the cluster, `stock-verifier migrate --citus` there, and fill it from this \
                         ledger by `stock-verifier replay rebuild --into` (docs/scaling.md)",
            });
        }
    }
    Ok(())
}

/// The number of nodes that take shards, each of which can prepare a transaction.
async fn check_nodes(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let doing = failed("asking the nodes of the cluster");
    let nodes: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_dist_node WHERE shouldhaveshards AND isactive AND noderole = 'primary'",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(&doing)?;
    if nodes == 0 {
        return Err(StoreError::Unsuitable {
            setting: "the number of nodes that take shards",
            found: "0".to_owned(),
            needed: "1 or more",
            why: "the tables would have no place",
            repair: "SELECT citus_add_node('HOST', 5432) on the coordinator for each worker",
        });
    }
    let unable: Option<String> = sqlx::query_scalar(
        "SELECT format('%s on %s:%s', CASE WHEN success THEN result ELSE 'unknown: ' || result END, nodename, nodeport)
         FROM run_command_on_all_nodes('SHOW max_prepared_transactions') AS said JOIN pg_dist_node USING (nodeid)
         WHERE NOT success OR result = '0' ORDER BY 1 LIMIT 1",
    )
    .fetch_optional(connection)
    .await
    .map_err(doing)?;
    if let Some(found) = unable {
        return Err(StoreError::Unsuitable {
            setting: "max_prepared_transactions",
            found,
            needed: "as many as max_connections, on every node",
            why: "a batch is a prepared transaction on each node before it is committed",
            repair: "Set it in postgresql.conf of every node, and restart it",
        });
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        assert_eq!(version("13.2-1"), Some((13, 2)));
        assert_eq!(version("9.5-3"), Some((9, 5)));
        assert!(version("12.1-1").unwrap() < OLDEST && version("14.0-1").unwrap() > OLDEST);
        assert_eq!(version("dev"), None);
    }

    #[test]
    fn a_table_is_beside_those_of_its_kind() {
        assert!(is_same_kind("sku", "sku") && is_same_kind("id", "order_id"));
        assert!(!is_same_kind("sku", "id"));
    }
}
