//! Decides a batch of orders in memory, by the ledger's own rules: no database, no Kafka, no clock.
//!
//! `cargo run --release --example decide_a_batch`

use std::fmt::Write as _;

use anyhow::Result;
use stock_verifier::ledger::{
    Command, Id, Item, Level, Limits, Outcome, Quantity, Request, Seq, Sequenced, Sequences, Sku, Stamp,
    Terms, View, decide,
};

fn main() -> Result<()> {
    print!("{}", run()?);
    Ok(())
}

/// Decides three orders of ten mugs, of which there are twelve.
pub(crate) fn run() -> Result<String> {
    let mug = Item::from(Sku::new("MUG")?);

    // What a store would read under its locks: the levels of all items that the batch is about.
    let mut view = View::default();
    view.levels.insert(mug.clone(), Level { available: 12, version: 1, limits: Limits::default() });

    // The first order comes twice. A command that is no record's has no source.
    let order = |id: &str, pieces| -> Result<Request> {
        let lines = vec![(mug.clone(), Quantity::new(pieces)?)];
        Ok(Request { command: Command::order_created(Id::new(id)?, lines, Terms::default()), source: None })
    };
    let requests = [order("o-1", 10)?, order("o-2", 10)?, order("o-1", 10)?];

    // The caller says which sequence the ledger is at and what time it is. So the same input gives the same output.
    let first = Sequenced { seq: Seq(1), at: Stamp(1_700_000_000_000_000) };
    let changes = decide(view, &requests, |_| false, Sequences::From(first));

    let mut text = String::new();
    for (request, outcome) in requests.iter().zip(&changes.outcomes) {
        let id = &request.command.key.id;
        match outcome {
            Outcome::Decided(decision) if decision.accepted => {
                writeln!(text, "{id}: accepted {}", decision.detail)?;
            }
            Outcome::Decided(decision) => writeln!(text, "{id}: rejected {}", decision.detail)?,
            other => writeln!(text, "{id}: {other:?}")?,
        }
    }
    for (item, level) in &changes.levels {
        writeln!(text, "{item}: {} left, version {}", level.available, level.version)?;
    }
    Ok(text)
}
