//! The ledger on Citus: its tables distributed over the nodes of a cluster, all instances connected to the coordinator.
//!
//! | where | what |
//! |---|---|
//! | by SKU | `levels`, `movements`: a level and its movements are on one node |
//! | by id | `decisions`, `order_lines`, `holds`: what is kept of an order under its own id is on one node |
//! | on every node | `node_barrier`, one row |
//! | on the coordinator alone | positions, and what is of the whole ledger: its sequence, its group, mappings, levels to announce |
//!
//! # Why it is exact
//!
//! * A batch is one transaction of the cluster (two-phase commit), and one transaction on each node: sessions of ours have
//!   one connection to each (`session.rs`). It is committed when the coordinator has committed it.
//! * Batches have the gate for themselves, one after the other ([`turn`]). PostgreSQL gives the gate on only when a
//!   transaction is over on all nodes, as far as these could be told. So none waits for a lock on a node, none can
//!   deadlock, and each sees all that those before it did. What is parallel is a batch's own work: its statements run on all
//!   nodes at once.
//! * A node that could not be told has the batch *in doubt*: prepared, and neither seen nor undone. Each batch writes the
//!   node's row of `node_barrier`, which a prepared transaction keeps locked. So nobody decides while a batch is in doubt
//!   anywhere; Citus settles that by itself (`citus.recover_2pc_interval`), and we ask it to (`recover_prepared_transactions`).
//! * Levels are written by item and version, so what was changed past the gate would refuse the batch.
//!
//! What is read by key beside the batches passes no gate, and may lack what was decided in the last moment.

mod audit;
mod examine;
mod migrate;
mod moment;
mod reading;
mod turn;
mod tx;

use sqlx::PgConnection;

pub(super) use audit::{LINES, RETURNED, TAKEN};
pub(super) use examine::examine;
pub(super) use migrate::{check_cluster, distribute};
pub(super) use moment::{Moment, Placements};
pub(super) use reading::{SUMMARISE, followers, following, movements, take_due_holds, take_unannounced};
pub(super) use turn::settle;
pub(super) use tx::DistributedTx;

use super::failure::failed;
use crate::store::StoreError;

/// Where the ledger's tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In one database.
    Plain,
    /// On the nodes of a Citus cluster.
    Distributed,
}

/// The distributed tables, each with the column it is distributed by. The first of each kind has the others beside it.
const TABLES: [(&str, &str); 5] = [
    ("levels", "sku"),
    ("movements", "sku"),
    ("decisions", "id"),
    ("order_lines", "order_id"),
    ("holds", "order_id"),
];

/// Where this database has the ledger's tables; `None` where it has none.
///
/// # Errors
/// [`StoreError::Unsuitable`] when some are distributed, or otherwise than `migrate --citus` does it.
pub(super) async fn layout(connection: &mut PgConnection) -> Result<Option<Layout>, StoreError> {
    let doing = failed("looking where the ledger's tables are");
    let (tables, citus): (bool, bool) = sqlx::query_as(
        "SELECT to_regclass('levels') IS NOT NULL, to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(&doing)?;
    if !tables {
        return Ok(None);
    }
    if !citus {
        return Ok(Some(Layout::Plain));
    }
    let (names, columns): (Vec<&str>, Vec<&str>) = TABLES.into_iter().unzip();
    let (any, right): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE found.partmethod <> 'n'),
                count(*) FILTER (WHERE found.partmethod = 'h'
                                 AND column_to_column_name(found.logicalrelid, found.partkey) = wanted.by)
         FROM UNNEST($1::text[], $2::text[]) AS wanted (name, by)
         JOIN pg_dist_partition AS found ON found.logicalrelid = to_regclass(wanted.name)",
    )
    .bind(names)
    .bind(columns)
    .fetch_one(connection)
    .await
    .map_err(&doing)?;
    match (any, usize::try_from(right) == Ok(TABLES.len())) {
        (0, _) => Ok(Some(Layout::Plain)),
        (_, true) => Ok(Some(Layout::Distributed)),
        _ => Err(StoreError::Unsuitable {
            setting: "the distribution of the ledger's tables in Citus",
            found: format!("right for {right} of {} tables", TABLES.len()),
            needed: "levels and movements by sku, decisions by id, order_lines and holds by order_id; or none",
            why: "a batch's statements are written for all of them on their nodes, or none",
            repair: "SELECT undistribute_table(…) for those that are distributed, then `stock-verifier migrate --citus` \
                     on an empty ledger",
        }),
    }
}
