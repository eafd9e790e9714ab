//! Whether and when levels are published.

use std::time::Duration;

use clap::Args;

/// How levels are published.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Levels")]
pub struct LevelsArgs {
    /// Time between a level's change and its record on the levels topic, under full load up to 5s; of the changes in
    /// between only the last is published
    #[arg(long, env = "STOCK_VERIFIER_LEVELS_DELAY", value_name = "TIME", default_value = "500ms",
          value_parser = humantime::parse_duration)]
    pub levels_delay: Duration,

    /// Publish no levels; the levels topic need not be there
    #[arg(long, env = "STOCK_VERIFIER_NO_LEVELS")]
    pub no_levels: bool,
}

impl LevelsArgs {
    /// The delay, if levels are published.
    #[must_use]
    pub fn delay(self) -> Option<Duration> {
        (!self.no_levels).then_some(self.levels_delay)
    }
}
