//! The log: how it looks, what is in it, and how that is changed while the process runs.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::console;

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What is logged, unless somebody says otherwise.
pub(super) const USUAL_LOG: &str = "info,rdkafka=warn,librdkafka=warn,sqlx=warn";
/// What the demo logs. A producer's warning that a consumer's property is not for it is of no use to anybody.
pub(super) const DEMO_LOG: &str = "warn,rdkafka=error,librdkafka=error";

/// What doctor logs: what it finds, it says.
pub(super) const DOCTOR_LOG: &str = "error,rdkafka=off,librdkafka=off";

/// Changes what is logged.
type Change = Box<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>;
static CHANGE: OnceLock<Change> = OnceLock::new();

/// Refuses what is no filter.
pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| {
        format!(
            "{error}; expected a level (error, warn, info, debug, trace), or TARGET=LEVEL, joined by commas"
        )
    })
}

/// What is logged: as the settings say; else as `RUST_LOG` says; else as is usual.
fn filter(log: Option<&str>, usual: &str) -> EnvFilter {
    match log {
        Some(log) => EnvFilter::new(log),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual)),
    }
}

/// Begins to log to standard error.
pub(super) fn begin(format: LogFormat, log: Option<&str>, usual: &str) {
    // What cannot be written is not said with `eprintln!` instead, which panics when nobody hears it.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(log, usual))
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let change: Change = match format {
        LogFormat::Pretty => {
            let builder = builder
                .with_ansi(console::may_colour_what_is_said())
                .with_target(false)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().init();
            Box::new(move |filter| handle.reload(filter).context("the log has ended"))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().init();
            Box::new(move |filter| handle.reload(filter).context("the log has ended"))
        }
    };
    // Logging begins once.
    let _ = CHANGE.set(change);
}

/// Logs this from here on.
///
/// # Errors
/// When nothing is logged.
pub(super) fn change(log: Option<&str>) -> Result<()> {
    CHANGE.get().context("logging has not begun")?(filter(log, USUAL_LOG))
}
