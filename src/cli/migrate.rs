//! `stock-verifier migrate`: creates or updates the ledger's tables.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::open::{Access, FEW_CONNECTIONS, check_or_migrate, open_ledger};
use crate::config::DatabaseArgs;
use crate::console;
use crate::store::LedgerAdmin as _;
use crate::store::postgres::PostgresStore;

/// The arguments of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Also distribute the tables of an empty ledger over the nodes of the Citus cluster whose coordinator the URL names
    #[arg(long)]
    citus: bool,

    /// Shards of each distributed table; four for each node where none are given
    #[arg(long, value_name = "N", requires = "citus", value_parser = clap::value_parser!(u16).range(1..=1024))]
    citus_shards: Option<u16>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Creates or updates the tables.
///
/// # Errors
/// When the database cannot be reached, or was migrated by a newer program; with `--citus`, when there is no cluster, or the
/// ledger is not empty.
pub async fn run(args: MigrateArgs) -> Result<ExitCode> {
    if args.citus {
        distribute(&args).await?;
        console::print(
            "The ledger's tables are up to date, and distributed over the nodes of the cluster.\n",
        )?;
    } else {
        let store = open_ledger(&args.database, FEW_CONNECTIONS, Access::Migrate).await?;
        store.close().await;
        console::print("The ledger's tables are up to date.\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn distribute(args: &MigrateArgs) -> Result<()> {
    let url = args.database.url()?;
    if url.expose().starts_with("sqlite:") {
        bail!("--citus is for a ledger in PostgreSQL, and --database-url names a SQLite file");
    }
    let store = PostgresStore::open_with_password(url.expose(), url.password(), FEW_CONNECTIONS)
        .await
        .context("cannot open the ledger that --database-url names")?;
    let distributed = async {
        // Before anything is made: on a worker, tables would be in the way of the coordinator's.
        store.check_cluster().await?;
        check_or_migrate(&store, true, true).await?;
        store.distribute(args.citus_shards).await
    };
    let distributed = distributed.await;
    store.close().await;
    Ok(distributed?)
}
