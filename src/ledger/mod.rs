//! The rules, pure: no I/O, no clock, no async.
//!
//! A [`Command`] asks for a change. [`decide`] takes the commands of a batch,
//! the [`View`] a store read under its locks, and says what must be written
//! and what each command's [`Outcome`] is. Everything here is a function of
//! its arguments, so that a batch can be decided again from the ledger alone.

use std::collections::{HashMap, HashSet};

mod command;
mod decide;
mod decision;
mod detail;
mod exact;
mod ids;
mod level;
mod order;
mod precheck;
mod reconstruct;
mod replay_state;
mod source;
mod stock;
mod view;

pub use command::{Action, Command, CommandKey, CommandKind, Digest, OrderLine, Policy, Terms};
pub use decide::{Changes, Outcome, Request, Sequenced, Sequences, decide};
pub use decision::{Decision, Hold, Movement, OrderState, OrderStock, Seq, Stamp, check_detail};
pub use detail::{
    AcceptedLine, Adjusted, AdjustedLine, Confirmed, ConfirmedLine, Extended, GivenBack, OrderTaken, Reason,
    Rejected, ReturnedLine,
};
pub use exact::{Exact, are_digits};
pub use ids::{
    HoldSeconds, HoldSecondsError, Id, IdError, Item, Location, MAX_HOLD_SECONDS, MAX_ID_BYTES, MAX_LINES,
    MAX_QUANTITY, Quantity, QuantityError, Sku, is_invisible, visible,
};
pub use level::{Level, Limits};
pub use precheck::{Precheck, PrecheckedLine, precheck};
pub use reconstruct::reconstruct;
pub use replay_state::{DecisionExcerpt, Difference, Differs, ReplayState, Step};
pub use source::{HeldProgram, NextOffset, Offset, Source, TopicId, TopicPartition};
pub use view::View;

/// A map by what a batch is about: items, command ids.
pub type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
/// A set of what a batch is about.
pub type Set<T> = HashSet<T, foldhash::fast::RandomState>;

#[cfg(test)]
mod tests;
