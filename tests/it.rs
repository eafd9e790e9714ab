//! The one integration test binary: it links librdkafka once.

mod bad_input;
mod faults;
mod pipeline;
mod support;
