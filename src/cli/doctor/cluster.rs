//! What is wrong with the cluster that a ledger is distributed over.

use super::database::unknown;
use super::diagnosis::Diagnosis;
use crate::store::{Answer, ClusterFacts, IN_DOUBT_SECONDS, NodeFacts, NodeReading};

/// How far a node's clock may be from the coordinator's, in microseconds. No node's clock decides anything; but whoever
/// reads their logs side by side goes by them.
const SKEW: i64 = 1_000_000;

/// All of it; nothing of a ledger that is not distributed. `needed` is how many connections a `run` with these settings opens
/// to the coordinator; each opens one to every node.
pub(super) fn judge(found: &Answer<Option<ClusterFacts>>, needed: u32) -> Vec<Diagnosis> {
    let cluster = match found {
        Ok(None) => return Vec::new(),
        Ok(Some(cluster)) => cluster,
        Err(error) => return vec![unknown("cluster.nodes", "the nodes of the cluster", error)],
    };
    let version = Diagnosis::ok("cluster.version", format!("Citus {}", cluster.version));
    let placements = if cluster.unplaced == 0 {
        Diagnosis::ok("cluster.placements", "every shard is where it should be")
    } else {
        Diagnosis::error(
            "cluster.placements",
            format!(
                "{} placements of shards are not active: what is in them cannot be decided",
                cluster.unplaced
            ),
            "SELECT * FROM pg_dist_placement WHERE shardstate <> 1 on the coordinator; let a move of shards that was broken \
             off end (citus_cleanup_orphaned_resources), or bring their node back",
        )
    };
    let mut diagnoses = vec![version, placements];
    let mut bad: Vec<Diagnosis> = cluster.nodes.iter().flat_map(|found| node(found, needed)).collect();
    if bad.is_empty() {
        let count = cluster.nodes.len();
        bad.push(Diagnosis::ok(
            "cluster.nodes",
            format!("{count} nodes answer, and nothing is in doubt on any"),
        ));
    }
    diagnoses.extend(bad);
    diagnoses
}

fn node(NodeFacts { address, said }: &NodeFacts, needed: u32) -> Vec<Diagnosis> {
    let said = match said {
        Ok(said) => said,
        Err(why) => {
            return vec![Diagnosis::error(
                "cluster.nodes",
                format!("node {address} does not answer: {}", why.trim()),
                "No batch is decided until it is back: start it, or see to the network between it and the coordinator",
            )];
        }
    };
    let NodeReading { in_doubt, most_prepared, most_connections, connections, clock } = *said;
    let mut diagnoses = Vec::new();
    if in_doubt > 0 {
        diagnoses.push(Diagnosis::error(
            "cluster.in_doubt",
            format!(
                "{in_doubt} transactions on node {address} are prepared since more than {IN_DOUBT_SECONDS} s: no batch is \
                 decided until they end"
            ),
            "SELECT recover_prepared_transactions() on the coordinator; what stays after that was prepared by another \
             program: COMMIT or ROLLBACK PREPARED there",
        ));
    }
    if most_prepared < i64::from(needed) {
        diagnoses.push(Diagnosis::warning(
            "cluster.prepared",
            format!("max_prepared_transactions is {most_prepared} on node {address}, and `run` opens {needed} connections"),
            "Set it to max_connections in postgresql.conf of the node, and restart it",
        ));
    }
    if most_connections - connections < i64::from(needed) {
        diagnoses.push(Diagnosis::warning(
            "cluster.connections",
            format!(
                "{connections} of {most_connections} connections are in use on node {address}, and `run` opens up to {needed}"
            ),
            "Raise max_connections, or citus.max_client_connections, on the node",
        ));
    }
    if clock.ahead().abs() > SKEW {
        diagnoses.push(Diagnosis::note(
            "cluster.clocks",
            format!("the clock of node {address} is {} s from the coordinator's", clock.ahead() / 1_000_000),
            "Keep the clocks of all nodes by NTP; nothing is decided by this one's",
        ));
    }
    diagnoses
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Severity;
    use super::*;
    use crate::ledger::Stamp;
    use crate::store::ClockReading;

    fn cluster(said: Result<NodeReading, String>) -> ClusterFacts {
        let nodes = vec![NodeFacts { address: "node:5432".to_owned(), said }];
        ClusterFacts { version: "13.2-1".to_owned(), unplaced: 0, nodes }
    }

    #[test]
    fn nodes_are_judged_by_what_they_say_and_whether_they_do() {
        let well = NodeReading {
            in_doubt: 0,
            most_prepared: 100,
            most_connections: 100,
            connections: 20,
            clock: ClockReading { before: Stamp(0), answered: Stamp(1), after: Stamp(2) },
        };
        let late = ClockReading { before: Stamp(9_000_000), answered: Stamp(1), after: Stamp(9_000_001) };
        let table = [
            (Ok(well), "cluster.nodes", Severity::Ok),
            (Err("connection refused".to_owned()), "cluster.nodes", Severity::Error),
            (Ok(NodeReading { in_doubt: 1, ..well }), "cluster.in_doubt", Severity::Error),
            (Ok(NodeReading { most_prepared: 0, ..well }), "cluster.prepared", Severity::Warning),
            (Ok(NodeReading { connections: 95, ..well }), "cluster.connections", Severity::Warning),
            (Ok(NodeReading { clock: late, ..well }), "cluster.clocks", Severity::Note),
        ];
        for (said, check, severity) in table {
            let diagnoses = judge(&Ok(Some(cluster(said.clone()))), 12);
            let of_nodes = &diagnoses[2..];
            assert!(of_nodes.len() == 1 && of_nodes[0].check == check, "{said:?}: {of_nodes:?}");
            assert_eq!(of_nodes[0].severity, severity, "{said:?}");
        }
        assert!(judge(&Ok(None), 12).is_empty(), "nothing is said of a plain ledger");
    }
}
