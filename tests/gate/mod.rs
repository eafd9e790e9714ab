//! The gate: its scripts against the rule, and itself on real servers.

mod faults;
mod healing;
mod running;
pub mod sale;
mod scripts;
