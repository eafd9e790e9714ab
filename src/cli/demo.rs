//! `stock-verifier demo`: the main job with nothing installed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::progress::Shown;
use crate::config::BatchArgs;
use crate::demo::{self, Options};

/// The arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
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
    let DemoArgs { orders, seed, ledger, http_listen, batch } = args;
    let show = || {
        let shown = Shown::stopping("verifying", STOPPING);
        (shown.progress.clone(), shown)
    };
    let holds = demo::run(&Options { orders, seed, ledger, http_listen, batch }, show).await?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
