//! `stock-verifier demo`: the main job with nothing installed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::EXIT_INTERRUPTED;
use super::progress::Shown;
use super::signals::Signals;
use crate::config::BatchArgs;
use crate::demo::{self, Options};

/// The arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Go on until Ctrl-C, as a shop that is open: orders flow, holds expire, returns come, stock comes in. Look at it at the
    /// address that is printed first
    #[arg(long, conflicts_with = "orders")]
    serve: bool,

    /// How many orders; repetitions, conflicts and garbage come on top
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    orders: u32,

    /// The same seed makes the same stock and orders
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Keep the ledger in this file, which must not exist yet; else it is in the temp directory and removed at the end
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,

    /// Answer reads, probes and metrics over HTTP at this address; port 0 is any that is free
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    http_listen: SocketAddr,

    /// What bounds a batch
    #[command(flatten)]
    batch: BatchArgs,
}

/// What Ctrl-C does to it.
const STOPPING: &str = "No more orders; the rest is published and proved (Ctrl-C again ends at once).";

/// Plays, proves and reports. Exit status: 0 when every invariant holds, else 1.
///
/// # Errors
/// When the ledger's file, the broker or the verifier fails.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let DemoArgs { serve, orders, seed, ledger, http_listen, batch } = args;
    let options = Options { orders, seed, ledger, http_listen, batch };
    if serve {
        let stop = CancellationToken::new();
        let signals = Signals::listen().context("signals cannot be heard")?;
        tokio::spawn(stop_on_signal(signals, stop.clone()));
        let holds = demo::serve(&options, &stop).await?;
        return Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let show = || {
        let shown = Shown::stopping("verifying", STOPPING);
        (shown.progress.clone(), shown)
    };
    let holds = demo::run(&options, show).await?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Cancels at the first SIGTERM or Ctrl-C; ends the process at the second.
async fn stop_on_signal(mut signals: Signals, stop: CancellationToken) {
    signals.next().await;
    stop.cancel();
    signals.next().await;
    std::process::exit(EXIT_INTERRUPTED.into());
}
