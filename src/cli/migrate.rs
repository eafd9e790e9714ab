//! `stock-verifier migrate`: creates or updates the ledger's tables.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{Access, FEW_CONNECTIONS, open_ledger};
use crate::config::DatabaseArgs;
use crate::console;

/// The arguments of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Creates or updates the tables.
///
/// # Errors
/// When the database cannot be reached, or was migrated by a newer program.
pub async fn run(args: MigrateArgs) -> Result<ExitCode> {
    let store = open_ledger(&args.database, FEW_CONNECTIONS, Access::Migrate).await?;
    store.close().await;
    console::print("The ledger's tables are up to date.\n")?;
    Ok(ExitCode::SUCCESS)
}
