//! What tests of several rooms share.

pub mod brokers;
pub mod browser;
pub mod clock;
pub mod collector;
pub mod database;
mod dropped;
pub mod kafka;
pub mod postgres;
pub mod preloaded;
pub mod process;
pub mod prometheus;
pub mod proof;
pub mod proxy;
pub mod redis;
pub mod registry;
pub mod scene;
pub mod servers;
mod stores;
pub mod stream;
mod template;
pub mod turns;
pub mod wait;

pub use stores::*;
