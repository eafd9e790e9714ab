//! The model: what each command must do to levels and orders, and what must be published about it.
//!
//! It shares nothing with the code under test but the words of a command. What is published is written here as JSON, name by
//! name, so that the contract's names are held too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::{CommandKind, MAX_QUANTITY, Source, Stamp};
use super::{Ask, Lines, Record, Thing};

/// An outcome as the model knows it; what is published is the decision's text, read as JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Accepted(Value),
    Rejected(Value),
    Republished,
    Repeated,
    Conflict(Option<Source>),
    NotDue,
    Undecided,
}

/// Which command it is.
pub(super) type Key = (CommandKind, &'static str);

/// A movement: of what, version, quantity, balance, and the command that caused it.
pub(super) type Line = (Thing, i64, i64, i64, Key);

/// A level.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Shelf {
    pub(super) pieces: i64,
    pub(super) version: i64,
    pub(super) backorder: i64,
    pub(super) most: Option<i64>,
}

/// Pieces taken, and of them given back.
pub(super) type Pieces = BTreeMap<Thing, (i64, i64)>;

/// An accepted order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) lines: Pieces,
    /// When its hold ends, if it was one, whatever became of it.
    pub(super) end: Option<i64>,
    pub(super) fate: Option<Fate>,
    pub(super) source: Option<Source>,
}

/// How a hold or an order ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Confirmed,
    Expired,
    Released,
    Cancelled,
}

impl Order {
    /// When the hold ends, while it is neither confirmed nor given back.
    pub(super) fn open_until(&self) -> Option<i64> {
        self.end.filter(|_| self.fate.is_none())
    }
}

/// The first command of an id: its content and the record it came from.
type First = (Ask, Option<Source>);

#[derive(Default)]
pub(super) struct Model {
    pub(super) stock: BTreeMap<Thing, Shelf>,
    pub(super) orders: BTreeMap<&'static str, Order>,
    pub(super) movements: Vec<Line>,
    decided: BTreeMap<Key, First>,
    /// Orders that were cancelled, accepted or not, known or not.
    cancelled: BTreeSet<&'static str>,
}

/// What is published, of an accepted command or of a rejected one.
type Published = Result<Value, Value>;

/// One line for each thing, in order.
pub(super) fn sums(lines: &Lines) -> BTreeMap<Thing, i64> {
    let mut sums = BTreeMap::new();
    for (thing, pieces) in lines {
        *sums.entry(*thing).or_insert(0) += pieces;
    }
    sums
}

/// What must be equal for a command to be the same again.
fn content(ask: &Ask) -> Ask {
    let summed = |lines: &Lines| sums(lines).into_iter().collect::<Lines>();
    match ask.clone() {
        Ask::Order { lines, partial, hold } => Ask::Order { lines: summed(&lines), partial, hold },
        Ask::Return { order, lines } => Ask::Return { order, lines: summed(&lines) },
        Ask::Confirm { order, lines } => Ask::Confirm { order, lines: lines.as_ref().map(summed) },
        // Its content is its bytes, whatever it was to be about.
        Ask::Invalid { faults, .. } => Ask::Invalid { kind: CommandKind::OrderCreated, faults },
        same => same,
    }
}

/// A thing, and what else is said of it.
fn about((sku, location): Thing, more: Value) -> Value {
    let Value::Object(mut said) = more else { panic!("an object") };
    said.insert("sku".into(), sku.into());
    if !location.is_empty() {
        said.insert("location".into(), location.into());
    }
    said.into()
}

fn reason(name: &str, thing: Thing, more: Value) -> Value {
    let mut said = about(thing, more);
    said["reason"] = name.into();
    said
}

fn over(end: i64) -> Value {
    json!({ "reason": "hold_expired", "expired_at": time(end) })
}

fn time(micros: i64) -> String {
    Stamp(micros).rfc3339()
}

/// A rejection of a command whose id is the order's, or no order's.
fn no<T>(reasons: &[Value]) -> Result<T, Value> {
    Err(json!({ "reasons": reasons }))
}

/// A rejection of a command that names its order.
fn no_of<T>(order: &str, reasons: &[Value]) -> Result<T, Value> {
    Err(json!({ "order_id": order, "reasons": reasons }))
}

impl Model {
    pub(super) fn one(&mut self, record: &Record, now: i64) -> Said {
        let key = (record.ask.kind(), record.id);
        let content = content(&record.ask);
        if let Some((first, source)) = self.decided.get(&key) {
            return if record.source.is_some() && *source == record.source {
                Said::Republished
            } else if *first == content {
                Said::Repeated
            } else {
                Said::Conflict(source.clone())
            };
        }
        let due = self.orders.get(record.id).and_then(Order::open_until).is_some_and(|end| end <= now);
        if record.ask == Ask::Due && (record.below || !due) {
            return Said::NotDue;
        }
        if record.below {
            return Said::Undecided;
        }
        self.decided.insert(key, (content.clone(), record.source.clone()));
        match self.decide(key, &content, record.source.as_ref(), now) {
            Ok(published) => Said::Accepted(published),
            Err(published) => Said::Rejected(published),
        }
    }

    fn decide(&mut self, key: Key, ask: &Ask, source: Option<&Source>, now: i64) -> Published {
        let own = key.1;
        match ask {
            Ask::Invalid { faults, .. } => {
                let one = |line| json!({ "reason": "invalid_order", "line": line, "detail": "is wrong" });
                no(&(1..=*faults).map(one).collect::<Vec<_>>())
            }
            Ask::Order { .. } if self.cancelled.contains(own) => {
                no(&[json!({ "reason": "order_cancelled" })])
            }
            Ask::Order { lines, partial, hold } => {
                let end = hold.map(|seconds| now + seconds * 1_000_000);
                let (lines, mut published) = self.take(key, lines, *partial)?;
                if let Some(end) = end {
                    published["expires_at"] = time(end).into();
                }
                self.orders.insert(own, Order { lines, end, fate: None, source: source.cloned() });
                Ok(published)
            }
            Ask::Cancel => {
                self.cancelled.insert(own);
                let returned = self.end(key, own, Fate::Cancelled);
                Ok(json!({ "returned": returned }))
            }
            Ask::Return { order, lines } => self.give_back(key, order, lines, now),
            Ask::Confirm { order, lines } => {
                let why = self.why_not_open(order, now);
                if let Some(why) = why {
                    no_of(order, &[why])
                } else {
                    self.confirm(key, order, lines.as_ref())
                }
            }
            Ask::Release => match self.why_not_open(own, now) {
                Some(why) => no(&[why]),
                None => Ok(json!({ "returned": self.end(key, own, Fate::Released) })),
            },
            Ask::Extend { order, by } => {
                if let Some(why) = self.why_not_open(order, now) {
                    return no_of(order, &[why]);
                }
                let end = self.orders.get_mut(order).unwrap().end.as_mut().unwrap();
                *end += by * 1_000_000;
                Ok(json!({ "order_id": order, "expires_at": time(*end) }))
            }
            Ask::Due => {
                let end = self.orders[own].end.unwrap();
                Ok(json!({ "expired_at": time(end), "returned": self.end(key, own, Fate::Expired) }))
            }
            Ask::Receive { thing, pieces } => self.add(key, *thing, *pieces),
            Ask::Adjust { thing, by } => match self.stock.get(thing) {
                None => no(&[reason("unknown_sku", *thing, json!({ "requested": by.abs() }))]),
                Some(_) if *by > 0 => self.add(key, *thing, *by),
                Some(level) if level.pieces + by < 0 => {
                    let available = if level.pieces > 0 { level.pieces } else { 0 };
                    let more = json!({ "requested": -by, "available": available });
                    no(&[reason("insufficient_stock", *thing, more)])
                }
                Some(_) => Ok(self.adjusted(key, *thing, *by)),
            },
            Ask::Set { thing, available, expected } => {
                let level = self.stock.get(thing).copied().unwrap_or_default();
                match expected {
                    Some(expected) if *expected != level.version => {
                        let more = json!({ "expected": expected, "actual": level.version });
                        no(&[reason("version_mismatch", *thing, more)])
                    }
                    _ => Ok(self.adjusted(key, *thing, available - level.pieces)),
                }
            }
            Ask::Limit { thing, backorder, most } => self.limit(key, *thing, *backorder, *most),
        }
    }

    /// Takes what an order asks for, all or nothing unless it may be partial.
    fn take(&mut self, key: Key, lines: &Lines, partial: bool) -> Result<(Pieces, Value), Value> {
        let mut short = Vec::new();
        let mut granted = Vec::new();
        for (thing, wanted) in lines {
            let Some(level) = self.stock.get(thing) else {
                short.push(reason("unknown_sku", *thing, json!({ "requested": wanted })));
                continue;
            };
            let sellable = level.pieces + level.backorder;
            let mut most = *wanted;
            if level.most.is_some_and(|limit| *wanted > limit) {
                most = level.most.unwrap();
                let more = json!({ "requested": wanted, "limit": most });
                short.push(reason("limit_exceeded", *thing, more));
            } else if *wanted > sellable {
                let more = json!({ "requested": wanted, "available": sellable });
                short.push(reason("insufficient_stock", *thing, more));
            }
            if most > sellable {
                most = sellable;
            }
            if most > 0 {
                granted.push((*thing, most));
            }
        }
        if granted.is_empty() || (!partial && !short.is_empty()) {
            return no(&short);
        }
        let (mut taken, mut published) = (Pieces::new(), Vec::new());
        for (thing, pieces) in granted {
            taken.insert(thing, (pieces, 0));
            let before = self.stock[&thing].pieces;
            let balance = self.shift(key, thing, -pieces);
            let mut more = json!({ "quantity": pieces, "balance": balance });
            let there = if before > 0 { before } else { 0 };
            if pieces > there {
                more["backordered"] = (pieces - there).into();
            }
            published.push(about(thing, more));
        }
        let mut published = json!({ "lines": published });
        if !short.is_empty() {
            published["short"] = short.into();
        }
        Ok((taken, published))
    }

    /// Gives back these lines, all or none, or says why not.
    fn give_back(&mut self, key: Key, order: &'static str, lines: &Lines, now: i64) -> Published {
        let released = self.orders.get(order).is_some_and(|order| order.fate == Some(Fate::Released));
        if self.cancelled.contains(order) || released {
            return no_of(order, &[json!({ "reason": "already_cancelled" })]);
        }
        let Some(known) = self.orders.get(order) else {
            return no_of(order, &[json!({ "reason": "order_not_found" })]);
        };
        match (known.end, known.fate) {
            (Some(end), Some(Fate::Expired)) => return no_of(order, &[over(end)]),
            (Some(end), None) if end <= now => return no_of(order, &[over(end)]),
            _ => {}
        }
        let mut reasons = Vec::new();
        for (thing, pieces) in lines {
            let (taken, back) = known.lines.get(thing).copied().unwrap_or((0, 0));
            if back + pieces > taken {
                let more = json!({ "requested": pieces, "left": taken - back });
                reasons.push(reason("return_exceeds_deducted", *thing, more));
            }
        }
        if !reasons.is_empty() {
            return no_of(order, &reasons);
        }
        let returned: Vec<_> =
            lines.iter().map(|(thing, pieces)| self.back(key, order, *thing, *pieces)).collect();
        Ok(json!({ "order_id": order, "returned": returned }))
    }

    /// Keeps these lines of an open hold, or all that is left, and gives back the rest.
    fn confirm(&mut self, key: Key, order: &'static str, lines: Option<&Lines>) -> Published {
        let left: BTreeMap<Thing, i64> =
            self.orders[order].lines.iter().map(|(thing, (taken, back))| (*thing, taken - back)).collect();
        let kept = lines.map_or_else(|| left.clone(), sums);
        let mut reasons = Vec::new();
        for (thing, pieces) in &kept {
            let limit = left.get(thing).copied().unwrap_or(0);
            if *pieces > limit {
                reasons.push(reason(
                    "limit_exceeded",
                    *thing,
                    json!({ "requested": pieces, "limit": limit }),
                ));
            }
        }
        if !reasons.is_empty() {
            return no_of(order, &reasons);
        }
        let (mut published, mut returned) = (Vec::new(), Vec::new());
        for (thing, left) in left {
            let keep = kept.get(&thing).copied().unwrap_or(0);
            if keep > 0 {
                published.push(about(thing, json!({ "quantity": keep })));
            }
            if left > keep {
                returned.push(self.back(key, order, thing, left - keep));
            }
        }
        self.orders.get_mut(order).unwrap().fate = Some(Fate::Confirmed);
        Ok(json!({ "order_id": order, "lines": published, "returned": returned }))
    }

    /// Why this is no hold that can still be confirmed, released or extended.
    fn why_not_open(&self, order: &str, now: i64) -> Option<Value> {
        let Some(known) = self.orders.get(order) else {
            let cancelled = self.cancelled.contains(order);
            return Some(
                json!({ "reason": if cancelled { "already_cancelled" } else { "order_not_found" } }),
            );
        };
        match (known.end, known.fate) {
            (_, Some(Fate::Cancelled | Fate::Released)) => Some(json!({ "reason": "already_cancelled" })),
            (Some(end), Some(Fate::Expired)) => Some(over(end)),
            (Some(end), None) if end <= now => Some(over(end)),
            (Some(_), None) => None,
            _ => Some(json!({ "reason": "already_confirmed" })),
        }
    }

    /// Gives back all that an order has, if there is one.
    fn end(&mut self, key: Key, order: &'static str, fate: Fate) -> Vec<Value> {
        let Some(known) = self.orders.get_mut(order) else { return Vec::new() };
        known.fate = Some(fate);
        let mut returned = Vec::new();
        for (thing, (taken, back)) in known.lines.clone() {
            if back < taken {
                returned.push(self.back(key, order, thing, taken - back));
            }
        }
        returned
    }

    fn back(&mut self, key: Key, order: &'static str, thing: Thing, pieces: i64) -> Value {
        self.orders.get_mut(order).unwrap().lines.get_mut(&thing).unwrap().1 += pieces;
        let balance = self.shift(key, thing, pieces);
        about(thing, json!({ "quantity": pieces, "balance": balance }))
    }

    /// Adds pieces, up to the largest level there may be.
    fn add(&mut self, key: Key, thing: Thing, pieces: i64) -> Published {
        let now = self.stock.get(&thing).map_or(0, |level| level.pieces);
        if now + pieces > MAX_QUANTITY {
            // What is given back may have filled it beyond that already.
            let limit = if now > MAX_QUANTITY { 0 } else { MAX_QUANTITY - now };
            return no(&[reason("limit_exceeded", thing, json!({ "requested": pieces, "limit": limit }))]);
        }
        Ok(self.adjusted(key, thing, pieces))
    }

    fn limit(&mut self, key: Key, thing: Thing, backorder: i64, most: Option<i64>) -> Published {
        let Some(level) = self.stock.get_mut(&thing) else {
            return no(&[reason("unknown_sku", thing, json!({ "requested": 0 }))]);
        };
        if level.pieces + backorder < 0 {
            let more = json!({ "requested": -level.pieces, "limit": backorder });
            return no(&[reason("limit_exceeded", thing, more)]);
        }
        (level.backorder, level.most) = (backorder, most);
        let mut published = self.adjusted(key, thing, 0);
        published["limits"] = json!({ "backorder_limit": backorder });
        if let Some(most) = most {
            published["limits"]["order_limit"] = most.into();
        }
        Ok(published)
    }

    fn adjusted(&mut self, key: Key, thing: Thing, by: i64) -> Value {
        let balance = self.shift(key, thing, by);
        let version = self.stock[&thing].version;
        let line = about(thing, json!({ "quantity": by, "balance": balance, "version": version }));
        json!({ "lines": [line] })
    }

    fn shift(&mut self, key: Key, thing: Thing, by: i64) -> i64 {
        let level = self.stock.entry(thing).or_default();
        level.pieces = level.pieces.checked_add(by).expect("the model does not overflow");
        level.version += 1;
        self.movements.push((thing, level.version, by, level.pieces, key));
        level.pieces
    }
}
