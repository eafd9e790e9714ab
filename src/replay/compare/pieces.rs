//! Pieces that were asked for where their order has none: where it has them.

use std::collections::HashSet;

use anyhow::Result;

use crate::ledger::{CommandKey, CommandKind, Id, Item, OrderState};
use crate::store::Snapshot;

/// A line of a return or a confirmation that asks for an item of which its order has nothing.
pub(super) struct Misplaced {
    pub(super) key: CommandKey,
    pub(super) order_id: Id,
    pub(super) item: Item,
}

/// Where orders have the pieces that were looked for at another location.
pub(super) async fn where_pieces_are(
    snapshot: &mut dyn Snapshot,
    misplaced: Vec<Misplaced>,
) -> Result<Vec<String>> {
    let ids: HashSet<&Id> = misplaced.iter().map(|line| &line.order_id).collect();
    let known = snapshot.decisions_of(&ids.into_iter().collect::<Vec<_>>()).await?;
    let said = misplaced.iter().filter_map(|Misplaced { key, order_id, item }| {
        let created = known.get(&CommandKey { id: order_id.clone(), kind: CommandKind::OrderCreated })?;
        let taken = OrderState::of(created).ok()?.lines;
        let elsewhere = taken.iter().filter(|line| line.item.sku == item.sku && line.item != *item);
        let elsewhere: Vec<String> =
            elsewhere.map(|line| format!("{} of {}", line.deducted, at_location(&line.item))).collect();
        (!elsewhere.is_empty()).then(|| {
            format!(
                "{key} names {}, of which order {order_id} took nothing; it took {}",
                at_location(item),
                elsewhere.join(", ")
            )
        })
    });
    Ok(said.collect())
}

/// An item, with the name of the default location where it is there.
fn at_location(item: &Item) -> String {
    if item.location.is_some() { item.to_string() } else { format!("{item} at the default location") }
}
