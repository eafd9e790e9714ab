//! Applies a batch to a ledger in a SQLite file: states a level, then takes from it. Each command is decided once: a
//! second run of this program changes nothing.
//!
//! `cargo run --release --example apply_to_sqlite -- stock.db`

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use stock_verifier::ledger::{Command, Id, Item, Outcome, Quantity, Request, Sku, Terms};
use stock_verifier::store::sqlite::SqliteStore;
use stock_verifier::store::{CommandBatch, LedgerAdmin as _, LedgerWriter as _};

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::args().nth(1).context("say which file: stock.db")?;
    print!("{}", run(&file).await?);
    Ok(())
}

/// Applies the batch and says what became of each command.
pub(crate) async fn run(file: &str) -> Result<String> {
    let store = SqliteStore::open(&format!("sqlite://{file}")).await?;
    store.migrate().await?;

    let mug = Item::from(Sku::new("MUG")?);
    let commands = [
        Command::stock_set(Id::new("a-1")?, mug.clone(), 12, None),
        Command::order_created(Id::new("o-1")?, vec![(mug, Quantity::new(10)?)], Terms::default()),
    ];
    // Commands of our own: from no record, so no partition moves on.
    let requests = commands.map(|command| Request { command, source: None }).to_vec();
    let applied = store.apply(&CommandBatch { requests, ..CommandBatch::default() }).await?;
    store.close().await;

    let mut text = String::new();
    for outcome in &applied.outcomes {
        match outcome {
            Outcome::Decided(decision) if decision.accepted => writeln!(text, "{}: accepted", decision.key)?,
            Outcome::Decided(decision) => writeln!(text, "{}: rejected", decision.key)?,
            Outcome::Repeated => writeln!(text, "decided before")?,
            other => writeln!(text, "{other:?}")?,
        }
    }
    Ok(text)
}
