mod audit;
mod bad_input;
mod conformance;
mod stock;
mod support;
