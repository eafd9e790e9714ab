//! The one integration test binary: it links librdkafka once.

// The helpers are public to the binary's own modules; nothing outside can reach them.
#![allow(unreachable_pub)]
// A test that cannot go on has failed; the backtrace says where.
#![allow(clippy::unwrap_used)]
// Counts of a few thousand records, compared with offsets.
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation
)]

mod audit;
mod bad_input;
mod browser;
mod citus;
mod clients;
mod conformance;
mod console;
mod demo;
mod deploy;
mod docs;
mod doctor;
mod examples;
mod faults;
mod gate;
mod house;
mod http;
mod mappings;
mod orders;
mod permissions;
mod pipeline;
mod registry;
mod replay;
mod simulation;
mod stock;
mod support;
mod traces;
