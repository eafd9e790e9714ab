//! Stock verifier: orders in from Kafka, batches deducted in the database,
//! one accept or reject event out for each order.
//!
//! The rooms, in the order an order walks through them:
//!
//! * [`event`]: the wire. Records become commands, decisions become events.
//! * [`intake`]: Kafka to batches.
//! * [`ledger`]: the rules, pure.
//! * [`store`]: the ledger's databases, all SQL.
//! * [`publish`]: results to Kafka, transactionally.
//! * [`verifier`]: the loop that joins them.

pub mod cli;
pub mod event;
pub mod ledger;
pub mod store;
