//! `stock receive` and `stock adjust`: move the level of one item.

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::state::{apply, own_id, show};
use super::{answered, first_decision, item};
use crate::ledger::{Command, Id, Item, MAX_QUANTITY, Outcome, Quantity, Reason};
use crate::store::VerifierStore;

/// The arguments of `stock receive`.
#[derive(Debug, Args)]
pub struct ReceiveArgs {
    /// Which SKU; one that is not known yet begins here
    pub sku: String,

    /// How many pieces came in
    #[arg(value_name = "N", value_parser = clap::value_parser!(i64).range(1..=MAX_QUANTITY))]
    pub quantity: i64,

    /// The item's location and the command's id
    #[command(flatten)]
    pub common: MoveArgs,
}

/// The arguments of `stock adjust`.
#[derive(Debug, Args)]
pub struct AdjustArgs {
    /// Which SKU
    pub sku: String,

    /// How many pieces were found (5) or are missing (-5)
    #[arg(value_name = "N", allow_negative_numbers = true, value_parser = parse_by)]
    pub by: i64,

    /// The item's location and the command's id
    #[command(flatten)]
    pub common: MoveArgs,
}

/// What both have.
#[derive(Debug, Default, Args)]
pub struct MoveArgs {
    /// Where; the default location when it is left out
    #[arg(long, value_name = "TEXT")]
    pub location: Option<String>,

    /// Makes it count once: the same again under this id changes nothing. When left out, each call counts
    #[arg(long, value_name = "ID")]
    pub adjustment_id: Option<String>,

    /// Print the level then as JSON; with `repeated` where the id was decided before
    #[arg(long)]
    pub json: bool,
}

fn parse_by(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(by) if by != 0 && (-MAX_QUANTITY..=MAX_QUANTITY).contains(&by) => Ok(by),
        _ => Err(format!("expected a whole number, not 0, from -{MAX_QUANTITY} to {MAX_QUANTITY}")),
    }
}

impl MoveArgs {
    fn id(&self, what: &str) -> Result<Id> {
        match &self.adjustment_id {
            Some(text) => Id::new(text).with_context(|| format!("the id {text:?}")),
            None => own_id(what),
        }
    }
}

pub(super) async fn receive(args: ReceiveArgs, store: &dyn VerifierStore) -> Result<String> {
    let item = item(&args.sku, args.common.location.as_deref())?;
    let id = args.common.id("receive")?;
    let pieces = Quantity::new(args.quantity).context("the number of pieces")?;
    applied("received", Command::stock_received(id, item.clone(), pieces), item, &args.common, store).await
}

pub(super) async fn adjust(args: AdjustArgs, store: &dyn VerifierStore) -> Result<String> {
    let item = item(&args.sku, args.common.location.as_deref())?;
    let id = args.common.id("adjust")?;
    applied("adjusted", Command::stock_adjusted(id, item.clone(), args.by), item, &args.common, store).await
}

/// Applies a command, and shows the level as it is then.
async fn applied(
    done: &str,
    command: Command,
    item: Item,
    args: &MoveArgs,
    store: &dyn VerifierStore,
) -> Result<String> {
    let key = command.key.clone();
    let repeated = match (apply(command, store).await?, &args.adjustment_id) {
        (Outcome::Decided(decision), _) if !decision.accepted => {
            bail!("not {done}: {}", why(&item, decision.reasons()?.first()))
        }
        (Outcome::Decided(_), _) => None,
        (Outcome::Repeated, id) => {
            let first = first_decision(&key, store).await?;
            if !first.accepted {
                let why = why(&item, first.reasons()?.first());
                match id {
                    Some(id) => bail!(
                        "not {done}: {id} was decided before, and rejected then: {why}. Another id is needed to try \
                         again"
                    ),
                    // Its own id: the commit's answer was lost, and the store found this very command decided.
                    None => bail!("not {done}: {why}"),
                }
            }
            id.as_ref()
        }
        (Outcome::Conflict { .. }, Some(id)) => {
            bail!("not {done}: {id} was decided before, and was another command")
        }
        (other, _) => bail!("not {done}: {}", answered(&other)),
    };
    let shown = show(item, repeated.is_some(), args.json, store).await?;
    Ok(match repeated.filter(|_| !args.json) {
        Some(id) => format!("{id} was decided before, and is not done again.\n{shown}"),
        None => shown,
    })
}

fn why(item: &Item, reason: Option<&Reason>) -> String {
    match reason {
        Some(Reason::UnknownSku { .. }) => {
            format!("no stock of {item} was ever recorded: `stock receive` or `stock set` begins it")
        }
        Some(Reason::InsufficientStock { requested, available, .. }) => {
            format!("{requested} pieces of {item} cannot be missing where {available} are")
        }
        Some(Reason::LimitExceeded { limit, .. }) => {
            format!("{item} has room for {limit} pieces more, of {MAX_QUANTITY}")
        }
        Some(other) => format!("the ledger rejected it: {}", other.name()),
        None => "the ledger rejected it and does not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjustment_of_nothing_and_one_too_large_are_refused() {
        assert_eq!(parse_by("-5"), Ok(-5));
        assert_eq!(parse_by(&MAX_QUANTITY.to_string()), Ok(MAX_QUANTITY));
        for wrong in ["0", "-0", "1.5", "", "-1000000000001", "9223372036854775808"] {
            assert!(parse_by(wrong).unwrap_err().contains("not 0"), "{wrong:?}");
        }
    }
}
