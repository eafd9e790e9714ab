//! Databases for one measurement each: copies of a template that was seeded once.

use std::collections::HashSet;
use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use stock_verifier::ledger::{Command, Id, Request, Sku};
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::{CommandBatch, LedgerAdmin as _, LedgerWriter as _};

use crate::shapes::{STOCK, sku_name};

/// Adjustments applied at once while seeding.
const SEED_BATCH: usize = 5_000;

/// The tables of the contestants that use plain SQL: what a shop would have.
const PLAIN_TABLES: &str = include_str!("plain_tables.sql");

/// A PostgreSQL server and the templates made on it.
pub struct Databases {
    url: url::Url,
    templates: HashSet<String>,
}

/// What a template holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// The verifier's ledger.
    Ledger,
    /// The inventory, flow and decided tables of contestants 3 and 4.
    Plain,
}

/// A database of its own; [`Databases::drop_scratch`] ends it.
#[derive(Debug, Clone)]
pub struct Scratch {
    pub name: String,
    pub url: String,
}

pub async fn connect(url: &str) -> Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
    PgConnection::connect_with(&options).await.context("cannot connect to PostgreSQL")
}

pub async fn execute(connection: &mut PgConnection, sql: impl Into<String>) -> Result<u64> {
    let sql: String = sql.into();
    let done = connection.execute(sqlx::raw_sql(&sql)).await;
    Ok(done
        .with_context(|| format!("SQL failed: {}", sql.chars().take(200).collect::<String>()))?
        .rows_affected())
}

impl Databases {
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { url: url::Url::parse(url)?, templates: HashSet::new() })
    }

    /// Where a database of this name is.
    pub fn url_of(&self, name: &str) -> String {
        let mut url = self.url.clone();
        url.set_path(name);
        url.into()
    }

    pub async fn admin(&self) -> Result<PgConnection> {
        connect(self.url.as_str()).await
    }

    /// A new database with so many SKUs, each with [`STOCK`] pieces, and everything on disk.
    pub async fn scratch(&mut self, tables: Tables, skus: u64) -> Result<Scratch> {
        let template = self.template(tables, skus).await?;
        let name = format!("bench_run_{}_{}", std::process::id(), self.templates.len());
        let mut admin = self.admin().await?;
        execute(&mut admin, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        execute(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")).await?;
        // So that no checkpoint of what went before falls into the measurement.
        execute(&mut admin, "CHECKPOINT").await?;
        Ok(Scratch { url: self.url_of(&name), name })
    }

    pub async fn drop_scratch(&self, scratch: Scratch) -> Result<()> {
        self.drop_database(&scratch.name).await
    }

    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let mut admin = self.admin().await?;
        execute(&mut admin, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        Ok(())
    }

    /// Ends the templates.
    pub async fn close(&mut self) -> Result<()> {
        for template in std::mem::take(&mut self.templates) {
            self.drop_database(&template).await?;
        }
        Ok(())
    }

    async fn template(&mut self, tables: Tables, skus: u64) -> Result<String> {
        let kind = match tables {
            Tables::Ledger => "ledger",
            Tables::Plain => "plain",
        };
        let name = format!("bench_{kind}_{}_{skus}", std::process::id());
        if !self.templates.contains(&name) {
            let mut admin = self.admin().await?;
            execute(&mut admin, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
            execute(&mut admin, format!("CREATE DATABASE {name}")).await?;
            self.templates.insert(name.clone());
            let url = self.url_of(&name);
            match tables {
                Tables::Ledger => seed_ledger(&url, skus).await?,
                Tables::Plain => seed_plain(&url, skus).await?,
            }
            let mut connection = connect(&url).await?;
            // As on a server that has run for a while: statistics are there, hint bits are set.
            execute(&mut connection, "VACUUM (FREEZE, ANALYZE)").await?;
            connection.close().await?;
        }
        Ok(name)
    }
}

/// Makes a ledger by its own rules: each SKU's stock has its decision and its first movement.
pub async fn seed_ledger(url: &str, skus: u64) -> Result<()> {
    let store = PostgresStore::open(url, Connections { batches: 1, readers: 1, others: 1 }).await?;
    store.migrate().await?;
    let numbers: Vec<u64> = (0..skus).collect();
    for chunk in numbers.chunks(SEED_BATCH) {
        let levels = chunk.iter().map(|number| (*number, STOCK));
        state_levels(&store, "a", levels).await?;
    }
    store.close().await;
    let mut connection = connect(url).await?;
    // Announced long ago: no verifier under measurement publishes the whole catalogue first.
    execute(&mut connection, "TRUNCATE unannounced_levels").await?;
    connection.close().await?;
    Ok(())
}

/// States levels of SKUs, each by an adjustment whose id begins so.
pub async fn state_levels(
    store: &PostgresStore,
    ids: &str,
    levels: impl IntoIterator<Item = (u64, i64)>,
) -> Result<()> {
    let requests = levels
        .into_iter()
        .map(|(number, quantity)| {
            let id = Id::new(&format!("{ids}-{number}"))?;
            let command = Command::stock_set(id, Sku::new(&sku_name(number))?.into(), quantity, None);
            Ok(Request { command, source: None })
        })
        .collect::<Result<_>>()?;
    store.apply(&CommandBatch { advances: Vec::new(), requests, epoch: None }).await?;
    Ok(())
}

async fn seed_plain(url: &str, skus: u64) -> Result<()> {
    let mut connection = connect(url).await?;
    execute(&mut connection, PLAIN_TABLES).await?;
    execute(
        &mut connection,
        format!(
            "INSERT INTO inventory SELECT 'SKU-' || lpad(n::text, 6, '0'), {STOCK} FROM generate_series(0, {skus} - 1) AS n"
        ),
    )
    .await?;
    connection.close().await?;
    Ok(())
}
