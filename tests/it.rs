mod bad_input;
mod conformance;
mod support;
