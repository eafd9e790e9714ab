//! What the nodes of the cluster say of themselves.

use sqlx::{PgConnection, Row as _};

use super::super::failure::failed;
use crate::ledger::Stamp;
use crate::store::cluster::{ClusterFacts, IN_DOUBT_SECONDS, NodeFacts, NodeReading};
use crate::store::{Answer, ClockReading};

/// Numbers with spaces between, as [`reading`] reads them. The one `%s` is [`IN_DOUBT_SECONDS`].
const ASK_NODE: &str = "SELECT concat_ws(' ',
     (SELECT count(*) FROM pg_prepared_xacts
      WHERE database = current_database() AND prepared < clock_timestamp() - %s * interval '1 second'),
     current_setting('max_prepared_transactions'),
     CASE WHEN current_setting('citus.max_client_connections')::int > 0
          THEN least(current_setting('citus.max_client_connections')::int, current_setting('max_connections')::int)
          ELSE current_setting('max_connections')::int END,
     (SELECT count(*) FROM pg_stat_activity WHERE usesysid IS NOT NULL AND datid IS NOT NULL),
     (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)";

/// Asks all nodes; one that does not answer hides no other.
pub(in super::super) async fn examine(connection: &mut PgConnection) -> Answer<ClusterFacts> {
    let doing = failed("asking the nodes of the cluster");
    let version = sqlx::query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
        .fetch_one(&mut *connection)
        .await
        .map_err(&doing)?;
    let unplaced = sqlx::query_scalar("SELECT count(*) FROM pg_dist_placement WHERE shardstate <> 1")
        .fetch_one(&mut *connection)
        .await
        .map_err(&doing)?;
    let before = now(connection).await?;
    let rows = sqlx::query(
        "SELECT nodename || ':' || nodeport AS address, success, result
         FROM run_command_on_all_nodes($1) JOIN pg_dist_node USING (nodeid) ORDER BY groupid",
    )
    .bind(ASK_NODE.replace("%s", &IN_DOUBT_SECONDS.to_string()))
    .fetch_all(&mut *connection)
    .await
    .map_err(&doing)?;
    let after = now(connection).await?;
    let node = |row: &sqlx::postgres::PgRow| {
        let result: String = row.try_get("result")?;
        let said = if row.try_get("success")? {
            reading(&result, before, after).ok_or_else(|| format!("it says {result:?}"))
        } else {
            Err(result)
        };
        Ok::<_, sqlx::Error>(NodeFacts { address: row.try_get("address")?, said })
    };
    let nodes = rows.iter().map(node).collect::<Result<_, sqlx::Error>>().map_err(&doing)?;
    Ok(ClusterFacts { version, unplaced, nodes })
}

async fn now(connection: &mut PgConnection) -> Answer<Stamp> {
    sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        .fetch_one(connection)
        .await
        .map(Stamp)
        .map_err(failed("asking for the time"))
}

fn reading(text: &str, before: Stamp, after: Stamp) -> Option<NodeReading> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    Some(NodeReading {
        in_doubt: next()?,
        most_prepared: next()?,
        most_connections: next()?,
        connections: next()?,
        clock: ClockReading { before, answered: Stamp(next()?), after },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_read_or_nothing_is() {
        let said = reading("0 400 300 12 99", Stamp(10), Stamp(20)).unwrap();
        assert_eq!(
            (said.in_doubt, said.most_prepared, said.most_connections, said.connections),
            (0, 400, 300, 12)
        );
        assert_eq!(said.clock.ahead(), 79);
        assert_eq!(reading("0 400 300 12", Stamp(10), Stamp(20)), None);
        assert_eq!(reading("0 400 300 x 99", Stamp(10), Stamp(20)), None);
    }
}
