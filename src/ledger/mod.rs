//! The rules, pure: no I/O, no clock, no async.
//!
//! A [`Command`] asks for a change. [`decide`] takes the commands of a batch,
//! the [`View`] a store read under its locks, and says what must be written
//! and what each command's [`Outcome`] is. Everything here is a function of
//! its arguments, so that a batch can be decided again from the ledger alone.

mod command;
mod decide;
mod decision;
mod ids;
mod source;

pub use command::{Action, Command, CommandKey, CommandKind, Digest, OrderLine};
pub use decide::{Changes, Outcome, Request, View, decide};
pub use decision::{AcceptedLine, AdjustedLine, Decision, Level, Movement, Reason, Seq, Stamp};
pub use ids::{Id, IdError, MAX_ID_BYTES, MAX_LINES, MAX_QUANTITY, Quantity, QuantityError, Sku};
pub use source::{NextOffset, Offset, Source, TopicPartition};

#[cfg(test)]
mod tests;
