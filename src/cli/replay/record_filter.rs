//! Which records: arguments to a [`RecordFilter`].

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::ledger::{Id, Set, Sku};
use crate::replay::record_filter::{Bound, RecordFilter, read_positions};

/// From where to where.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which records")]
pub struct RangeArgs {
    /// Where to begin in each partition: earliest, latest, an offset, a date-time, or how long ago
    #[arg(long, value_name = "WHERE", default_value = "earliest")]
    from: Bound,

    /// Where to end
    #[arg(long, value_name = "WHERE", default_value = "latest")]
    to: Bound,
}

impl RangeArgs {
    /// Everything in between.
    pub(super) fn filter(&self) -> RecordFilter {
        RecordFilter { from: self.from, to: self.to, ..RecordFilter::all() }
    }
}

/// Which records.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which records")]
pub struct ChoiceArgs {
    #[command(flatten)]
    range: RangeArgs,

    /// Of this partition; may be given many times
    #[arg(long, value_name = "N")]
    partition: Vec<i32>,

    /// With or about this id: of an order, return, confirmation, extension or adjustment; may be given many times
    #[arg(long, value_name = "ID")]
    order_id: Vec<String>,

    /// The same ids from a file, one a line
    #[arg(long, value_name = "FILE")]
    order_ids_file: Option<PathBuf>,

    /// About this SKU; may be given many times. A command that names no SKU, a cancellation say, is about none
    #[arg(long, value_name = "SKU")]
    sku: Vec<String>,

    /// Where to begin in each partition, as lines of TOPIC PARTITION OFFSET; other partitions are left out
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    positions_file: Option<PathBuf>,
}

impl ChoiceArgs {
    /// What they mean.
    ///
    /// # Errors
    /// When a file cannot be read, or what it or a flag names cannot be.
    pub(super) fn filter(&self) -> Result<RecordFilter> {
        let mut filter = self.range.filter();
        filter.partitions = self.partition.iter().copied().collect();
        if let Some(file) = &self.positions_file {
            let positions = read_positions(&read(file)?).with_context(|| file.display().to_string())?;
            filter.positions = Some(positions);
        }
        let listed = self.order_ids_file.as_deref().map(read).transpose()?.unwrap_or_default();
        let ids = self.order_id.iter().map(String::as_str);
        filter.ids = ids
            .chain(listed.lines().map(str::trim).filter(|line| !line.is_empty()))
            .map(|id| Id::new(id).with_context(|| format!("{id:?} is no id")))
            .collect::<Result<Set<Id>>>()?;
        filter.skus = self
            .sku
            .iter()
            .map(|sku| Sku::new(sku).with_context(|| format!("{sku:?} is no SKU")))
            .collect::<Result<Set<Sku>>>()?;
        Ok(filter)
    }
}

/// The text of a file.
pub(super) fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
