//! The one integration test binary: it links librdkafka once.

// The helpers are public to the binary's own modules; nothing outside can reach them.
#![allow(unreachable_pub)]

mod audit;
mod bad_input;
mod conformance;
mod demo;
mod faults;
mod pipeline;
mod stock;
mod support;
