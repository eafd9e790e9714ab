//! The integration tests, one binary with a room for each subject.

// An unwrap that fails in a test names its line, which is what the test has to say.
#![allow(clippy::unwrap_used)]
// The rooms are modules of one binary: nothing is public further than that.
#![allow(unreachable_pub)]

mod audit;
mod bad_input;
mod conformance;
mod stock;
mod support;
