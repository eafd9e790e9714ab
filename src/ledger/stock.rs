//! What commands do to levels.

use super::{
    AcceptedLine, Adjusted, AdjustedLine, Item, Level, Limits, MAX_QUANTITY, Map, OrderLine, Policy, Reason,
    ReturnedLine,
};

/// The levels of a batch's items as they change; an item that is not in here is unknown.
pub(super) type Levels = Map<Item, Level>;

/// A level's change by one command.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) item: Item,
    pub(super) quantity: i64,
    pub(super) balance: i64,
    pub(super) version: i64,
}

impl Change {
    /// The change as an accepted order's line.
    pub(super) fn taken(&self) -> AcceptedLine {
        let (quantity, balance) = (-self.quantity, self.balance);
        AcceptedLine {
            sku: self.item.sku.clone(),
            location: self.item.location.clone(),
            quantity,
            balance,
            backordered: (-balance).clamp(0, quantity),
        }
    }

    /// The change as a line given back.
    pub(super) fn returned(&self) -> ReturnedLine {
        ReturnedLine {
            sku: self.item.sku.clone(),
            location: self.item.location.clone(),
            quantity: self.quantity,
            balance: self.balance,
        }
    }
}

/// What an adjustment did.
pub(super) fn adjusted(change: &Change, limits: Option<Limits>) -> Adjusted {
    let line = AdjustedLine {
        sku: change.item.sku.clone(),
        location: change.item.location.clone(),
        quantity: change.quantity,
        balance: change.balance,
        version: change.version,
    };
    Adjusted { lines: vec![line], limits }
}

/// Takes lines and says what was short, or takes nothing and says why.
pub(super) fn take(
    levels: &mut Levels,
    lines: &[OrderLine],
    policy: Policy,
) -> Result<(Vec<Change>, Vec<Reason>), Vec<Reason>> {
    let short: Vec<Reason> = lines.iter().filter_map(|line| grant(levels.get(&line.item), line).1).collect();
    if short.is_empty() {
        return Ok((lines.iter().map(|line| shift(levels, &line.item, -line.quantity)).collect(), short));
    }
    if policy == Policy::AllOrNone {
        return Err(short);
    }
    let mut taken = Vec::with_capacity(lines.len());
    for line in lines {
        let (pieces, _) = grant(levels.get(&line.item), line);
        if pieces > 0 {
            taken.push(shift(levels, &line.item, -pieces));
        }
    }
    if taken.is_empty() { Err(short) } else { Ok((taken, short)) }
}

/// How many pieces of a line can be taken, and why not all.
pub(super) fn grant(level: Option<&Level>, line: &OrderLine) -> (i64, Option<Reason>) {
    let (sku, location, requested) = (&line.item.sku, &line.item.location, line.quantity);
    let Some(level) = level else {
        return (0, Some(Reason::UnknownSku { sku: sku.clone(), location: location.clone(), requested }));
    };
    let available = (level.available + level.limits.backorder).max(0);
    let limit = level.limits.order.unwrap_or(i64::MAX);
    if requested > limit {
        let (sku, location) = (sku.clone(), location.clone());
        (available.min(limit), Some(Reason::LimitExceeded { sku, location, requested, limit }))
    } else if requested > available {
        let (sku, location) = (sku.clone(), location.clone());
        (available, Some(Reason::InsufficientStock { sku, location, requested, available }))
    } else {
        (requested, None)
    }
}

/// Adds pieces, up to the largest level there may be.
pub(super) fn add(levels: &mut Levels, item: &Item, pieces: i64) -> Result<Change, Reason> {
    let limit = (MAX_QUANTITY - levels.get(item).map_or(0, |level| level.available)).max(0);
    if pieces > limit {
        let (sku, location) = (item.sku.clone(), item.location.clone());
        return Err(Reason::LimitExceeded { sku, location, requested: pieces, limit });
    }
    Ok(shift(levels, item, pieces))
}

/// Changes the level of a known item, not below zero: pieces that are promised but not there cannot be missing.
pub(super) fn adjust(levels: &mut Levels, item: &Item, by: i64) -> Result<Change, Reason> {
    let (sku, location, requested) = (item.sku.clone(), item.location.clone(), by.abs());
    match levels.get(item) {
        None => Err(Reason::UnknownSku { sku, location, requested }),
        Some(_) if by > 0 => add(levels, item, by),
        Some(level) if level.available < requested => {
            Err(Reason::InsufficientStock { sku, location, requested, available: level.available.max(0) })
        }
        Some(_) => Ok(shift(levels, item, by)),
    }
}

/// Makes a level this.
pub(super) fn set(
    levels: &mut Levels,
    item: &Item,
    available: i64,
    expected: Option<i64>,
) -> Result<Change, Reason> {
    let level = levels.get(item).copied().unwrap_or_default();
    if let Some(expected) = expected.filter(|expected| *expected != level.version) {
        let (sku, location) = (item.sku.clone(), item.location.clone());
        return Err(Reason::VersionMismatch { sku, location, expected, actual: level.version });
    }
    Ok(shift(levels, item, available - level.available))
}

/// States the limits of a known item. More than is promised already cannot be forbidden.
pub(super) fn limit(levels: &mut Levels, item: &Item, limits: Limits) -> Result<Change, Reason> {
    let (sku, location) = (item.sku.clone(), item.location.clone());
    let Some(level) = levels.get_mut(item) else {
        return Err(Reason::UnknownSku { sku, location, requested: 0 });
    };
    if level.available < -limits.backorder {
        let requested = -level.available;
        return Err(Reason::LimitExceeded { sku, location, requested, limit: limits.backorder });
    }
    level.limits = limits;
    Ok(shift(levels, item, 0))
}

/// Moves a level by a quantity the caller has checked.
pub(super) fn shift(levels: &mut Levels, item: &Item, quantity: i64) -> Change {
    let Some(level) = levels.get_mut(item) else {
        let mut level = Level::default();
        let change = moved(&mut level, item, quantity);
        levels.insert(item.clone(), level);
        return change;
    };
    moved(level, item, quantity)
}

fn moved(level: &mut Level, item: &Item, quantity: i64) -> Change {
    // Holds because each receipt is bounded by MAX_QUANTITY: nine million of the largest, all sold and then all given
    // back, would still fit; and a version grows by one.
    level.available = level.available.checked_add(quantity).expect("a level is bounded");
    level.version = level.version.checked_add(1).expect("a version counts movements");
    Change { item: item.clone(), quantity, balance: level.available, version: level.version }
}
