//! Repairing what can be derived.

use anyhow::{Context as _, Result};

use crate::ledger::{Command, CommandKey, Id, Outcome, Request, Set};
use crate::replay::Progress;
use crate::replay::finding::Finding;
use crate::replay::record_filter::RecordFilter;
use crate::replay::republish::republish;
use crate::replay::scope::Scope;
use crate::store::{CommandBatch, LedgerAdmin, LedgerHistory};

/// Levels repaired at once.
const PAGE: usize = 1_000;

/// Makes each level that is not what its movements say follow from them, and leaves a ledger line that says so. Items
/// whose movements are themselves not one chain are left alone: nothing tells which of them is wrong. What was repaired is
/// added to `repaired`, also where it ends with an error.
pub(super) async fn levels(store: &dyn LedgerAdmin, repaired: &mut Vec<String>) -> Result<()> {
    let wrong = store.repairable_levels().await?;
    let now = jiff::Timestamp::now().as_microsecond();
    for (page, items) in wrong.chunks(PAGE).enumerate() {
        let mut requests = Vec::with_capacity(items.len());
        for (index, level) in items.iter().enumerate() {
            let id = Id::new(&format!("audit-repair-{now}-{page}-{index}"))
                .context("an id of this program is one")?;
            // States what is so already: a movement of nothing, whose decision names the repair.
            let (item, level) = (level.item.clone(), level.level);
            let command = if level.available < 0 {
                Command::limits_set(id, item, level.limits)
            } else {
                // Should something move it meanwhile, that movement says what it is.
                Command::stock_set(id, item, level.available, Some(level.version))
            };
            requests.push(Request { command, source: None });
        }
        let batch = CommandBatch { advances: Vec::new(), requests, epoch: None };
        let applied = store.repair(&batch).await?;
        for (level, outcome) in items.iter().zip(applied.outcomes) {
            let Outcome::Decided(decision) = outcome else { continue };
            if !decision.accepted {
                continue;
            }
            repaired.push(format!(
                "SKU {}: its level is {} again, as its movements say ({})",
                level.item, level.level.available, decision.key
            ));
        }
    }
    Ok(())
}

/// Republishes results that were never published.
pub(super) async fn results(
    store: &dyn LedgerHistory,
    scope: Scope<'_>,
    findings: &[Finding],
    progress: &Progress,
) -> Result<Vec<String>> {
    let keys: Set<CommandKey> = findings.iter().filter_map(Finding::unpublished).cloned().collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let filter = RecordFilter { keys, ..RecordFilter::all() };
    // What was decided was read just now, by its decisions: what cannot be read is no more than a dead letter.
    let scope = Scope { filter: &filter, without_registry: true, ..scope };
    let published = republish(store, scope, None, true, progress).await?;
    let number = published.accepted + published.rejected;
    Ok((number > 0)
        .then(|| format!("{number} results that were never published are published now"))
        .into_iter()
        .collect())
}
