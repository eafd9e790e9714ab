//! A distributed ledger. What the tests here do not say, the suites for every store do (`conformance::citus` and others).

mod cluster;
mod refused;
