//! How large a batch gets.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use crate::store::MAX_BATCH;

/// Most records of a batch where nothing else is said: of those measured, the largest that stays under 150 MB resident with three lines an
/// order (`docs/performance.md`).
pub const DEFAULT_BATCH_MAX_ORDERS: usize = 16_000;

/// What bounds a batch: the first bound reached closes it.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Batches")]
pub struct BatchArgs {
    /// Most records of a batch
    #[arg(long, env = "STOCK_VERIFIER_BATCH_MAX_ORDERS", value_name = "N",
          default_value_t = DEFAULT_BATCH_MAX_ORDERS, value_parser = parse_batch_size)]
    pub batch_max_orders: usize,

    /// Most bytes of keys, values and headers in a batch; one larger record is a batch of its own
    #[arg(long, env = "STOCK_VERIFIER_BATCH_MAX_BYTES", value_name = "SIZE", default_value = "4MiB")]
    pub batch_max_bytes: ByteSize,

    /// Longest time a record waits for others to join its batch
    #[arg(long, env = "STOCK_VERIFIER_BATCH_MAX_AGE", value_name = "TIME", default_value = "10ms",
          value_parser = humantime::parse_duration)]
    pub batch_max_age: Duration,
}

fn parse_batch_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (1..=MAX_BATCH).contains(&size) => Ok(size),
        _ => Err(format!("expected a number from 1 to {MAX_BATCH}")),
    }
}
