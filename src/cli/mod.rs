//! One file a command.

pub mod schema;
