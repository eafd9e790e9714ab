//! Mappings: what the built-in ones make of samples, and a verifier at work with them.

mod running;
mod samples;
