//! The life of an order's stock after it was taken: cancelled, returned, held, confirmed, released, expired.
//!
//! A plain order is final at once. A hold is open until it is confirmed, released, cancelled or over; its time is over
//! at its end by the ledger's clock, whether or not the stock was given back yet.

use super::stock::{Change, Levels, shift};
use super::view::View;
use super::{
    CommandKind, Confirmed, ConfirmedLine, Extended, GivenBack, HoldSeconds, Id, Item, Map, OrderLine,
    OrderState, Reason, ReturnedLine, Stamp,
};

/// What a follow-up changed, and what is published about it.
pub(super) type Followed<Published> = Result<(Vec<Change>, Published), Vec<Reason>>;

/// Gives back all that is left. Nothing is left of an order that was rejected, or is not decided yet.
pub(super) fn cancel(view: &mut View, order_id: &Id) -> (Vec<Change>, GivenBack) {
    let changes = view.orders.get_mut(order_id).map_or_else(Vec::new, |order| {
        order.hold = None;
        give_back_all(&mut view.levels, order)
    });
    let published = given_back(None, &changes);
    (changes, published)
}

/// Gives back these lines of an order, all or none.
pub(super) fn take_back(
    view: &mut View,
    order_id: &Id,
    lines: &[OrderLine],
    now: Stamp,
) -> Followed<GivenBack> {
    if let Some(reason) = gone(view, order_id, now) {
        return Err(vec![reason]);
    }
    let Some(order) = view.orders.get_mut(order_id) else { return Err(vec![Reason::OrderNotFound]) };
    let too_many: Vec<Reason> = beyond(order, lines)
        .map(|(line, left)| Reason::ReturnExceedsDeducted {
            sku: line.item.sku.clone(),
            location: line.item.location.clone(),
            requested: line.quantity,
            left,
        })
        .collect();
    if !too_many.is_empty() {
        return Err(too_many);
    }
    let pieces: Map<&Item, i64> = lines.iter().map(|line| (&line.item, line.quantity)).collect();
    let changes = give_back(&mut view.levels, order, |item, _| pieces.get(item).copied().unwrap_or(0));
    let published = given_back(Some(order_id.clone()), &changes);
    Ok((changes, published))
}

/// Makes a hold final: these lines of it, or all that is left.
pub(super) fn confirm(
    view: &mut View,
    order_id: &Id,
    lines: Option<&[OrderLine]>,
    now: Stamp,
) -> Followed<Confirmed> {
    let (order, levels) = open_hold(view, order_id, now).map_err(|reason| vec![reason])?;
    let too_many: Vec<Reason> = beyond(order, lines.unwrap_or_default())
        .map(|(line, limit)| Reason::LimitExceeded {
            sku: line.item.sku.clone(),
            location: line.item.location.clone(),
            requested: line.quantity,
            limit,
        })
        .collect();
    if !too_many.is_empty() {
        return Err(too_many);
    }
    let kept: Option<Map<&Item, i64>> =
        lines.map(|lines| lines.iter().map(|line| (&line.item, line.quantity)).collect());
    let rest =
        |item: &Item, left: i64| kept.as_ref().map_or(0, |kept| left - kept.get(item).copied().unwrap_or(0));
    order.hold = None;
    let changes = give_back(levels, order, rest);
    let lines = order.lines.iter().filter(|line| line.returned < line.deducted).map(|line| ConfirmedLine {
        sku: line.item.sku.clone(),
        location: line.item.location.clone(),
        quantity: line.deducted - line.returned,
    });
    let published =
        Confirmed { order_id: order_id.clone(), lines: lines.collect(), returned: returned(&changes) };
    Ok((changes, published))
}

/// Gives back an open hold.
pub(super) fn release(view: &mut View, order_id: &Id, now: Stamp) -> Followed<GivenBack> {
    let (order, levels) = open_hold(view, order_id, now).map_err(|reason| vec![reason])?;
    order.hold = None;
    let changes = give_back_all(levels, order);
    let published = given_back(None, &changes);
    Ok((changes, published))
}

/// Moves the end of an open hold.
pub(super) fn extend(view: &mut View, order_id: &Id, by: HoldSeconds, now: Stamp) -> Followed<Extended> {
    let (order, _) = open_hold(view, order_id, now).map_err(|reason| vec![reason])?;
    // Holds because it is open.
    let hold = order.hold.as_mut().expect("an open hold");
    hold.expires_at = hold.expires_at.plus_seconds(by.get());
    let published = Extended { order_id: order_id.clone(), expires_at: hold.expires_at.rfc3339() };
    Ok((Vec::new(), published))
}

/// Gives back a hold whose time is over; `None` when there is none: it was confirmed, given back, or made longer.
pub(super) fn expire(view: &mut View, order_id: &Id, now: Stamp) -> Option<(Vec<Change>, GivenBack)> {
    let order = view.orders.get_mut(order_id)?;
    let hold = order.hold.take_if(|hold| hold.expires_at <= now)?;
    let changes = give_back_all(&mut view.levels, order);
    let mut published = given_back(None, &changes);
    published.expired_at = Some(hold.expires_at.rfc3339());
    Some((changes, published))
}

/// The order, if it is a hold that is neither confirmed nor over; else why not.
fn open_hold<'v>(
    view: &'v mut View,
    order_id: &Id,
    now: Stamp,
) -> Result<(&'v mut OrderState, &'v mut Levels), Reason> {
    if let Some(reason) = gone(view, order_id, now) {
        return Err(reason);
    }
    match view.orders.get_mut(order_id) {
        None => Err(Reason::OrderNotFound),
        Some(order) if order.hold.is_none() => Err(Reason::AlreadyConfirmed),
        Some(order) => Ok((order, &mut view.levels)),
    }
}

/// Why the order has nothing any more, if so: given up by someone's will, or a hold whose time is over, whether its
/// stock was given back yet or not.
fn gone(view: &View, order_id: &Id, now: Stamp) -> Option<Reason> {
    if was_given_up(view, order_id) {
        return Some(Reason::AlreadyCancelled);
    }
    match &view.orders.get(order_id)?.hold {
        Some(hold) if now < hold.expires_at => None,
        Some(hold) => Some(Reason::HoldExpired { expired_at: hold.expires_at.rfc3339() }),
        None => expiry(view, order_id),
    }
}

/// When the order's hold ended, if that is how it ended.
fn expiry(view: &View, order_id: &Id) -> Option<Reason> {
    let expired = view.accepted(order_id, CommandKind::HoldExpired)?;
    let published: Option<GivenBack> = serde_json::from_str(&expired.detail).ok();
    // A text this program did not write: the audit names it.
    let expired_at =
        published.and_then(|published| published.expired_at).unwrap_or_else(|| expired.decided_at.rfc3339());
    Some(Reason::HoldExpired { expired_at })
}

/// Whether the whole order was given back by someone's will.
fn was_given_up(view: &View, order_id: &Id) -> bool {
    [CommandKind::OrderCancelled, CommandKind::OrderReleased]
        .into_iter()
        .any(|kind| view.accepted(order_id, kind).is_some())
}

/// The lines that ask for more than the order still has, each with what it has.
fn beyond<'l>(order: &OrderState, lines: &'l [OrderLine]) -> impl Iterator<Item = (&'l OrderLine, i64)> {
    let left: Map<&Item, i64> =
        order.lines.iter().map(|line| (&line.item, line.deducted - line.returned)).collect();
    lines.iter().filter_map(move |line| {
        let left = left.get(&line.item).copied().unwrap_or(0);
        (line.quantity > left).then_some((line, left))
    })
}

fn give_back_all(levels: &mut Levels, order: &mut OrderState) -> Vec<Change> {
    give_back(levels, order, |_, left| left)
}

/// Gives back, of each line, as many pieces as `pieces` says of what is left of it: never more.
fn give_back(levels: &mut Levels, order: &mut OrderState, pieces: impl Fn(&Item, i64) -> i64) -> Vec<Change> {
    let mut changes = Vec::with_capacity(order.lines.len());
    for line in &mut order.lines {
        let quantity = pieces(&line.item, line.deducted - line.returned);
        if quantity > 0 {
            line.returned += quantity;
            changes.push(shift(levels, &line.item, quantity));
        }
    }
    changes
}

fn given_back(order_id: Option<Id>, changes: &[Change]) -> GivenBack {
    GivenBack { order_id, expired_at: None, returned: returned(changes) }
}

fn returned(changes: &[Change]) -> Vec<ReturnedLine> {
    changes.iter().map(Change::returned).collect()
}

/// Whether the order was cancelled before it was created.
pub(super) fn is_cancelled(view: &View, order_id: &Id) -> bool {
    view.accepted(order_id, CommandKind::OrderCancelled).is_some()
}
