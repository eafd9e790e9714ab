//! `stock set` and `stock limits`: state the level or the limits of one item.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use super::get::{self, LevelView};
use super::{answered, first_decision, item};
use crate::ledger::{Command, Id, Item, Limits, MAX_QUANTITY, Outcome, Reason, Request};
use crate::store::{CommandBatch, LedgerReader, LedgerWriter, VerifierStore};

/// The arguments of `stock set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Which SKU
    pub sku: String,

    /// Its new level
    #[arg(value_name = "N", value_parser = clap::value_parser!(i64).range(0..=MAX_QUANTITY))]
    pub available: i64,

    /// Where; the default location when it is left out
    #[arg(long, value_name = "TEXT")]
    pub location: Option<String>,

    /// Set it only if this is its version now, as `stock get` shows it; 0 for a SKU that is not known yet
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(i64).range(0..))]
    pub expected_version: Option<i64>,

    /// Print the level then as JSON
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `stock limits`.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// Which SKU
    pub sku: String,

    /// Where; the default location when it is left out
    #[arg(long, value_name = "TEXT")]
    pub location: Option<String>,

    /// How many pieces may be promised beyond what is there; when left out, none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..=MAX_QUANTITY))]
    pub backorder_limit: i64,

    /// Most pieces one order may take; when left out, any number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=MAX_QUANTITY))]
    pub order_limit: Option<i64>,

    /// Print the level then as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn set(args: SetArgs, store: &dyn VerifierStore) -> Result<String> {
    let item = item(&args.sku, args.location.as_deref())?;
    let command = Command::stock_set(own_id("set")?, item.clone(), args.available, args.expected_version);
    match reasons(command, store).await?.first() {
        None => show(item, false, args.json, store).await,
        Some(Reason::VersionMismatch { actual: 0, .. }) => {
            bail!("not set: {item} is not known yet, so its version is 0")
        }
        Some(_) => match store.levels_of(std::slice::from_ref(&item)).await?.first() {
            Some(now) => bail!(
                "not set: {item} has version {} now, with {} available",
                now.level.version,
                now.level.available
            ),
            None => bail!("not set: {item} has another version"),
        },
    }
}

pub(super) async fn limits(args: LimitsArgs, store: &dyn VerifierStore) -> Result<String> {
    let item = item(&args.sku, args.location.as_deref())?;
    let limits = Limits { backorder: args.backorder_limit, order: args.order_limit };
    let command = Command::limits_set(own_id("limits")?, item.clone(), limits);
    match reasons(command, store).await?.first() {
        None => show(item, false, args.json, store).await,
        Some(Reason::LimitExceeded { requested, limit, .. }) => bail!(
            "not limited: {requested} pieces of {item} are promised beyond what is there, more than {limit}"
        ),
        Some(_) => bail!("not limited: no stock of {item} was ever recorded, so set its level first"),
    }
}

/// An id that no other call has: each is a command of its own, as its operator means it.
pub(super) fn own_id(what: &str) -> Result<Id> {
    Id::new(&format!("{what}-{:032x}", rand::random::<u128>())).context("an id of its own")
}

/// Applies one command; what became of it.
pub(super) async fn apply(command: Command, store: &dyn LedgerWriter) -> Result<Outcome> {
    let batch =
        CommandBatch { advances: Vec::new(), requests: vec![Request { command, source: None }], epoch: None };
    let outcomes = store.apply(&batch).await?.outcomes;
    outcomes.into_iter().next().context("the ledger answered nothing")
}

/// Applies one command with an id of its own; why it was rejected, or nothing.
async fn reasons(command: Command, store: &dyn VerifierStore) -> Result<Vec<Reason>> {
    let key = command.key.clone();
    let decision = match apply(command, store).await? {
        Outcome::Decided(decision) => decision,
        // The commit's answer was lost, and the store found its own command decided when it tried again.
        Outcome::Repeated => Arc::new(first_decision(&key, store).await?),
        other => bail!("nothing was changed: {}", answered(&other)),
    };
    if decision.accepted { Ok(Vec::new()) } else { Ok(decision.reasons()?) }
}

/// The level of an item; for programs one object, which also says whether the command was `repeated`.
pub(super) async fn show(item: Item, repeated: bool, json: bool, store: &dyn LedgerReader) -> Result<String> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        level: LevelView<'a>,
        #[serde(skip_serializing_if = "is_false")]
        repeated: bool,
    }
    let levels = store.levels_of(&[item]).await?;
    match levels.first() {
        Some(level) if json => {
            let shown = Shown { level: LevelView::from(level), repeated };
            Ok(serde_json::to_string_pretty(&shown)? + "\n")
        }
        _ => Ok(get::table(&levels)),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(is_so: &bool) -> bool {
    !is_so
}
