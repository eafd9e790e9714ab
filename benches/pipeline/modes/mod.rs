//! What is measured instead of a comparison.

use anyhow::Result;

use crate::Bench;

/// Runs the modes that were asked for; `false` when there was none.
pub fn run(_bench: &mut Bench) -> Result<bool> {
    Ok(false)
}
