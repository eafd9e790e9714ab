//! What the nodes of a Citus cluster say of themselves to who looks for faults.

use super::ClockReading;

/// The cluster that a ledger is distributed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFacts {
    /// The version of Citus, as the coordinator's extension has it.
    pub version: String,
    /// Placements of the ledger's shards that are not active.
    pub unplaced: i64,
    /// The nodes, the coordinator among them where it has told the cluster its address.
    pub nodes: Vec<NodeFacts>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its host and port.
    pub address: String,
    /// What it says; else why it does not.
    pub said: Result<NodeReading, String>,
}

/// What a node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeReading {
    /// Transactions of this database that are prepared since longer than [`IN_DOUBT_SECONDS`].
    pub in_doubt: i64,
    /// `max_prepared_transactions`.
    pub most_prepared: i64,
    /// `max_connections`, or `citus.max_client_connections` where that is less.
    pub most_connections: i64,
    /// Connections of clients, other nodes among them.
    pub connections: i64,
    /// Its clock, between two looks at the coordinator's.
    pub clock: ClockReading,
}

/// From when on a prepared transaction is in doubt, in seconds: a batch's is prepared for milliseconds.
pub const IN_DOUBT_SECONDS: i64 = 10;
