//! Stock verifier: orders in from Kafka, batches deducted in the database,
//! one accept or reject event out for each order.
//!
//! The rooms; a table in `tests/house` says which may use which:
//!
//! * [`cli`]: arguments to commands, one file each.
//! * [`console`]: what is printed; nothing else prints.
//! * [`causes`]: why something failed, in one line.
//! * [`config`]: settings, parsed once into typed parts.
//! * [`event`]: the wire. Records become commands, decisions become events; the published shapes of both.
//! * [`feed`]: stock feeds, files of levels or deliveries.
//! * [`gate`]: admission in front of Kafka, by amounts cached in Redis.
//! * [`http`]: the read API, probes and metrics; it writes nothing.
//! * [`kafka`]: its clients, the only room that knows librdkafka.
//! * [`ledger`]: the rules, pure.
//! * [`mapping`]: jq programs that make commands of what shops really send, pure.
//! * [`live`]: what a verifier does now, for people who look: noted by `observe`, shown by `http`.
//! * [`store`]: the ledger's databases, all SQL.
//! * [`pipeline`]: gather, decide, publish, and the loop that joins them.
//! * [`observe`]: what that does, measured: metrics for machines, totals for people.
//! * [`background`]: what goes out beside the transactions: levels, and the asking for the end of holds.
//! * [`registry`]: values that are written by a schema registry's schemas, made JSON of.
//! * [`replay`]: what was decided, looked at again.
//! * [`demo`]: all of it at work with nothing installed, and the proof that it worked.

// But for the files that `tests/house` lists, which each say why.
#![deny(unsafe_code)]
// A closed pipe must end nothing badly: `console` prints.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod background;
pub mod causes;
pub mod cli;
pub mod config;
pub mod console;
pub mod demo;
pub mod event;
pub mod feed;
pub mod gate;
pub mod http;
pub mod kafka;
pub mod ledger;
pub mod live;
pub mod mapping;
pub mod observe;
pub mod pipeline;
pub mod registry;
pub mod replay;
pub mod store;
