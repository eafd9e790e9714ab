//! `gate open`, `gate close` and `gate status`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;

use super::redis_settings;
use crate::config::RedisArgs;
use crate::console;
use crate::gate::cache::{CacheError, RedisCache};
use crate::gate::rule::{BuyerLimit, Millis, Sale, stamp};
use crate::ledger::{Item, Sku, Stamp};

/// What a sale needs.
#[derive(Debug, Subcommand)]
pub(super) enum SaleCommand {
    /// Sell a SKU from a time on, or from now on; with a limit for each buyer where one is given
    Open(OpenArgs),
    /// Sell a SKU no more, until it is opened; orders that were let in stay in
    Close(CloseArgs),
    /// Show how many entries are open, and how SKUs are sold
    Status(StatusArgs),
}

/// The arguments of `gate open`.
#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    /// Which SKU, at all its locations
    sku: String,

    /// From when on: a date-time with its zone. Default: now
    #[arg(long, value_name = "WHEN", value_parser = parse_time)]
    at: Option<Stamp>,

    /// Most pieces that one buyer can have in --buyer-window; the order names the buyer (`buyer_id`)
    #[arg(long, value_name = "PIECES", value_parser = clap::value_parser!(i64).range(1..))]
    buyer_limit: Option<i64>,

    /// The time in which --buyer-limit counts
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = RedisArgs::parse_time)]
    buyer_window: Duration,

    #[command(flatten)]
    redis: RedisArgs,
}

/// The arguments of `gate close`.
#[derive(Debug, Args)]
pub(super) struct CloseArgs {
    /// Which SKU, at all its locations
    sku: String,

    #[command(flatten)]
    redis: RedisArgs,
}

/// The arguments of `gate status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Which SKUs at their default location; default: those that were opened or closed
    skus: Vec<String>,

    #[command(flatten)]
    redis: RedisArgs,
}

fn parse_time(text: &str) -> Result<Stamp, String> {
    Stamp::read(text).ok_or_else(|| "expected a date-time with its zone (2026-11-22T18:00:00Z)".to_owned())
}

/// Does what a sale needs.
///
/// # Errors
/// When a SKU is none, or Redis does not answer.
pub(super) async fn run(command: SaleCommand) -> Result<ExitCode> {
    match command {
        SaleCommand::Open(args) => open(args).await?,
        SaleCommand::Close(args) => close(args).await?,
        SaleCommand::Status(args) => status(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(args: OpenArgs) -> Result<()> {
    let sku = read_sku(&args.sku)?;
    let cache = connect(&args.redis)?;
    let buyer = args.buyer_limit.map(|pieces| {
        let window_ms = Millis::try_from(args.buyer_window.as_millis()).unwrap_or(Millis::MAX);
        BuyerLimit { pieces, window_ms }
    });
    if buyer.is_some_and(|limit| limit.window_ms == 0) {
        bail!("--buyer-window is no time at all: nothing would be limited");
    }
    let opens_at = args.at.map(|at| Millis::try_from(at.0 / 1_000).unwrap_or(0));
    cache.set_sale(&sku, &Sale { opens_at, closed: false, buyer }).await.context(CANNOT)?;
    let from = args.at.map_or_else(|| "from now on".to_owned(), |at| format!("from {} on", at.rfc3339()));
    console::print(&format!("{sku} is sold {from}.\n"))
}

async fn close(args: CloseArgs) -> Result<()> {
    let sku = read_sku(&args.sku)?;
    let cache = connect(&args.redis)?;
    // What it was limited by is stated again when it is opened.
    cache.set_sale(&sku, &Sale { closed: true, ..Sale::default() }).await.context(CANNOT)?;
    console::print(&format!("{sku} is sold no more.\n"))
}

async fn status(args: StatusArgs) -> Result<()> {
    let cache = connect(&args.redis)?;
    let skus = if args.skus.is_empty() {
        cache.sales().await.context(CANNOT)?.into_iter().collect()
    } else {
        args.skus.iter().map(|sku| read_sku(sku)).collect::<Result<Vec<_>>>()?
    };
    let status = cache.status().await.context(CANNOT)?;
    let oldest = status.oldest.map_or(String::new(), |age| format!(", the oldest for {age:.1?}"));
    let filled = if status.filled { "" } else { " The cache is not filled yet." };
    console::print(&format!(
        "{} entries wait for a result and {} for a level{oldest}.{filled}\n",
        status.unsettled, status.accepted
    ))?;
    if skus.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["SKU", "LEFT", "OF ENTRIES", "SOLD", "EACH BUYER"]);
    for sku in skus {
        let row = row(&cache, &sku).await.context(CANNOT)?;
        table.add_row(row);
    }
    console::print(&format!("{table}\n"))
}

async fn row(cache: &RedisCache, sku: &Sku) -> Result<[String; 5], CacheError> {
    let (level, pending) = cache.amount(&Item::from(sku.clone())).await?;
    let sale = cache.sale(sku).await?;
    let left = level.map_or_else(|| "unknown".to_owned(), |level| (level.available - pending).to_string());
    let sold = match sale.opens_at {
        _ if sale.closed => "no".to_owned(),
        Some(at) => format!("from {}", stamp(at).rfc3339()),
        None => "yes".to_owned(),
    };
    let buyer = sale.buyer.map_or_else(String::new, |BuyerLimit { pieces, window_ms }| {
        format!("{pieces} in {}", humantime::format_duration(Duration::from_millis(window_ms)))
    });
    Ok([sku.to_string(), left, pending.to_string(), sold, buyer])
}

const CANNOT: &str = "Redis does not answer (check --redis-url, and --redis-password-file)";

fn connect(args: &RedisArgs) -> Result<RedisCache> {
    RedisCache::new(&redis_settings(args)?).context("--redis-url names no Redis")
}

fn read_sku(text: &str) -> Result<Sku> {
    Sku::new(text).map_err(|error| anyhow::anyhow!("the SKU {text:?} {error}"))
}
