//! What the tests on real servers share.

pub mod database;
pub mod kafka;
pub mod process;
pub mod proof;
pub mod scene;
pub mod servers;
pub mod stream;
pub mod wait;
