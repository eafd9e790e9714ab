//! Reads a level from a ledger in a SQLite file, such as the one that the example `apply_to_sqlite` made. For a ledger
//! in PostgreSQL, open a `PostgresStore` instead: the rest stays the same.
//!
//! `cargo run --release --example read_a_level -- stock.db MUG`

use anyhow::{Context as _, Result};
use stock_verifier::ledger::{Item, Sku};
use stock_verifier::store::sqlite::SqliteStore;
use stock_verifier::store::{LedgerAdmin as _, LedgerReader as _};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (file, sku) =
        arguments.next().zip(arguments.next()).context("say which file and SKU: stock.db MUG")?;
    print!("{}", run(&file, &sku).await?);
    Ok(())
}

/// Says how much of the SKU there is at the default location.
pub(crate) async fn run(file: &str, sku: &str) -> Result<String> {
    let store = SqliteStore::open(&format!("sqlite://{file}")).await?;
    // A ledger of another version of this program is refused.
    store.check().await?;
    let item = Item::from(Sku::new(sku)?);
    let levels = store.levels_of(std::slice::from_ref(&item)).await?;
    store.close().await;
    Ok(match levels.first() {
        Some(found) => format!("{item}: {} left, version {}\n", found.level.available, found.level.version),
        None => format!("{item}: no stock of it was ever recorded\n"),
    })
}
