//! The rule of the cached amount, pure: what the scripts of `scripts/` do in Redis, written to be read. A test holds both
//! against each other, and another lets everything happen to it in any order.
//!
//! **The amount of an item is its last stored level less the pieces of every entry that is not closed.**
//!
//! So a piece is never counted free while an order may still take it, and never lost, for every entry ends:
//!
//! | an entry is | its pieces are | until |
//! |---|---|---|
//! | admitted | subtracted | Kafka has its order: *sent*; or its result comes; or it ends by its bound |
//! | sent | subtracted | its result comes: *accepted* or *rejected*; or it ends by its bound |
//! | accepted | subtracted, line by line | a level of the line's item is stored whose read began after the result had come; or such a read found no level, so the order took none |
//! | closed | in the level | it is forgotten |
//! | rejected | given back, once | it is forgotten |
//! | decided | none: a result came of which no entry was there | it is forgotten |
//!
//! An entry ends by its bound when no result came for longer than the producer could still be trying: its partition's end
//! is read, the ledger's position is waited for to pass it, and its id looked up. Decided with this content: as if the
//! result had come. Absent, or of other content: given back. To give back too early costs a rejection by the ledger, never
//! an oversale: only the ledger decides.
//!
//! The last three are remembered so that who asks again is answered; nothing is subtracted for them.
//!
//! An order that takes what there is (a partial one) gets no more of an item than one order may. So no more is subtracted
//! for it: else one that asks for a million would keep everybody out until its result. Where that limit is raised before it
//! is decided, it may get more than was subtracted; which costs a rejection, as above.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Digest, Id, Item, Level, NextOffset, OrderLine, Sku, Stamp, TopicPartition};

/// Most pieces of an item that are subtracted at once. Up to there Lua's numbers are exact; far beyond what a level and a
/// backorder limit come to together, so whoever asks for more gets nothing by any estimate.
pub const MOST_PENDING: i64 = 1 << 53;

/// A moment by Redis' clock, in milliseconds since 1970. All gates go by that clock.
pub type Millis = u64;

/// A moment as it is written.
#[must_use]
pub fn stamp(at: Millis) -> Stamp {
    Stamp(i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1_000))
}

/// How an entry stands; the table above says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Taken by the script; whether Kafka has the order is not known.
    Admitted,
    /// Kafka has the order.
    Sent,
    /// The ledger accepted it.
    Accepted,
    /// It is in the stored levels.
    Closed,
    /// The ledger rejected it.
    Rejected,
    /// The ledger accepted an order that has no entry here.
    Decided,
}

impl Standing {
    /// Every one, with its name in Redis.
    pub const NAMES: [(Self, &'static str); 6] = [
        (Self::Admitted, "admitted"),
        (Self::Sent, "sent"),
        (Self::Accepted, "accepted"),
        (Self::Closed, "closed"),
        (Self::Rejected, "rejected"),
        (Self::Decided, "decided"),
    ];

    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(standing, _)| *standing)
    }

    /// Whether no result came yet.
    #[must_use]
    pub fn is_unsettled(self) -> bool {
        matches!(self, Self::Admitted | Self::Sent)
    }
}

/// What is kept of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How it stands.
    pub standing: Standing,
    /// Its content; `None` where only its result was seen.
    pub digest: Option<Digest>,
    /// The pieces that are subtracted for it now.
    pub open: BTreeMap<Item, i64>,
    /// When it was handed to the producer last.
    pub at: Millis,
    /// Whether it passed without a judgement.
    pub undecided: bool,
    /// Who buys, where that was said.
    pub buyer: Option<String>,
}

/// An order that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its id.
    pub id: Id,
    /// Its content.
    pub digest: Digest,
    /// Its lines, each item once.
    pub lines: Vec<OrderLine>,
    /// Whether it wants all or nothing: any other passes without a judgement.
    pub all_or_none: bool,
    /// Who buys, where that was said.
    pub buyer: Option<String>,
}

/// Why a line is not let in. An estimate, and never a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineRefusal {
    /// More than there is.
    Short {
        /// The line's index.
        line: usize,
        /// How much there is.
        available: i64,
    },
    /// More than one order may take.
    OverLimit {
        /// The line's index.
        line: usize,
        /// The most.
        limit: i64,
    },
}

/// What asking to be let in comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Nothing is known here: the cache was emptied, or is being filled.
    Empty,
    /// An entry was made: send the order.
    Admitted {
        /// Whether it passed without a judgement.
        undecided: bool,
        /// The entry's moment, which [`CachedStock::give_back`] asks for.
        at: Millis,
    },
    /// It is there, and was not known to be sent for so long that nobody can still be sending it: send it again.
    Resend {
        /// Whether it passed without a judgement.
        undecided: bool,
    },
    /// It is there, and somebody may be sending it now.
    Sending,
    /// It is there, and Kafka has it.
    Sent {
        /// Whether it passed without a judgement.
        undecided: bool,
    },
    /// The ledger has decided it.
    Decided,
    /// The id is taken by other content.
    Conflict,
    /// Not enough, by the estimate; nothing was changed.
    Short(Vec<LineRefusal>),
    /// A SKU of it is not sold now.
    NotOpen {
        /// Which.
        sku: Sku,
        /// From when on it is sold; `None` where it was closed by hand.
        opens_at: Option<Millis>,
    },
    /// The buyer had as much as one may have in this time.
    BuyerLimit {
        /// Of what.
        sku: Sku,
        /// How many pieces the buyer can have now.
        left: i64,
    },
    /// A SKU of it is limited for each buyer, and no buyer is named.
    BuyerMissing {
        /// Which.
        sku: Sku,
    },
}

/// How a SKU is sold; one that this is not known of is sold without more ado.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sale {
    /// From when on.
    pub opens_at: Option<Millis>,
    /// Closed by hand.
    pub closed: bool,
    /// What each buyer can have.
    pub buyer: Option<BuyerLimit>,
}

/// How much of a SKU each buyer can have in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuyerLimit {
    /// Pieces.
    pub pieces: i64,
    /// In any stretch of so many milliseconds.
    pub window_ms: Millis,
}

/// What settling came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The offset is now where these results end.
    Applied,
    /// They were settled before.
    Already,
    /// Results before them were not: go back to this offset.
    Gap(NextOffset),
    /// No offset is known: the cache was emptied.
    Empty,
}

/// An entry without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Its order.
    pub id: Id,
    /// Its content.
    pub digest: Digest,
    /// When it was handed to the producer last.
    pub at: Millis,
}

/// All that the gates keep in Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachedStock {
    filled: bool,
    levels: BTreeMap<Item, Level>,
    entries: BTreeMap<Id, Entry>,
    offsets: BTreeMap<TopicPartition, NextOffset>,
    sales: BTreeMap<Sku, Sale>,
    /// What buyers took of SKUs: the order, when, and how many pieces.
    bought: BTreeMap<(Sku, String), BTreeMap<Id, (Millis, i64)>>,
}

impl CachedStock {
    /// The rule: the last stored level less every entry that is not closed; `None` of an item that is not known.
    #[must_use]
    pub fn amount(&self, item: &Item) -> Option<i64> {
        self.levels.get(item).map(|level| level.available - self.pending(item))
    }

    /// The pieces of an item that are subtracted for entries.
    #[must_use]
    pub fn pending(&self, item: &Item) -> i64 {
        self.entries.values().filter_map(|entry| entry.open.get(item)).sum()
    }

    /// The last stored level of an item.
    #[must_use]
    pub fn level(&self, item: &Item) -> Option<Level> {
        self.levels.get(item).copied()
    }

    /// What is kept of an order.
    #[must_use]
    pub fn entry(&self, id: &Id) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Everything that is kept of orders.
    pub fn entries(&self) -> impl Iterator<Item = (&Id, &Entry)> {
        self.entries.iter()
    }

    /// Whether it was filled from the ledger.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.filled
    }

    /// Says that it was filled from the ledger.
    pub fn set_filled(&mut self) {
        self.filled = true;
    }

    /// How far results of a partition were settled.
    #[must_use]
    pub fn offset(&self, at: &TopicPartition) -> Option<NextOffset> {
        self.offsets.get(at).copied()
    }

    /// Begins a partition of results here, where none is known of it.
    pub fn begin_offset(&mut self, at: &TopicPartition, next: NextOffset) {
        self.offsets.entry(at.clone()).or_insert(next);
    }

    /// States how a SKU is sold.
    pub fn set_sale(&mut self, sku: Sku, sale: Sale) {
        self.sales.insert(sku, sale);
    }

    /// Lets an order in or not: the whole cart or nothing, once for its id.
    pub fn admit(&mut self, asked: &Asked, now: Millis, resend_after: Millis) -> Admission {
        if !self.filled {
            return Admission::Empty;
        }
        if let Some(entry) = self.entries.get_mut(&asked.id) {
            return again(entry, &asked.digest, now, resend_after);
        }
        let lines = self.at_most(asked);
        let pieces = pieces_by_sku(lines.iter().copied());
        if let Some(not_open) = pieces.keys().find_map(|sku| self.not_open(sku, now)) {
            return not_open;
        }
        let (refusals, undecided) = self.judge(&lines, asked.all_or_none);
        if !refusals.is_empty() {
            return Admission::Short(refusals);
        }
        for (sku, pieces) in &pieces {
            if let Some(refused) = self.beyond_buyer_limit(sku, *pieces, asked, now) {
                return refused;
            }
        }
        for (sku, pieces) in pieces {
            let limited = self.sales.get(&sku).is_some_and(|sale| sale.buyer.is_some());
            if let Some(buyer) = asked.buyer.clone().filter(|_| limited) {
                self.bought.entry((sku, buyer)).or_default().insert(asked.id.clone(), (now, pieces));
            }
        }
        let entry = Entry {
            standing: Standing::Admitted,
            digest: Some(asked.digest),
            open: lines.into_iter().map(|(item, quantity)| (item.clone(), quantity)).collect(),
            at: now,
            undecided,
            buyer: asked.buyer.clone(),
        };
        self.entries.insert(asked.id.clone(), entry);
        Admission::Admitted { undecided, at: now }
    }

    /// What an order takes of each item at most: all that it asks for, or none; else no more than one order may.
    fn at_most<'a>(&self, asked: &'a Asked) -> Vec<(&'a Item, i64)> {
        let at_most = |OrderLine { item, quantity }: &'a OrderLine| {
            let limit = self.levels.get(item).and_then(|level| level.limits.order);
            (item, limit.filter(|_| !asked.all_or_none).map_or(*quantity, |limit| limit.min(*quantity)))
        };
        asked.lines.iter().map(at_most).collect()
    }

    /// What is wrong with the lines by the estimate, and whether anything of them cannot be judged: an item that is not
    /// known, one that is promised beyond what is there, an order that takes what there is.
    fn judge(&self, lines: &[(&Item, i64)], all_or_none: bool) -> (Vec<LineRefusal>, bool) {
        let (mut refusals, mut undecided) = (Vec::new(), !all_or_none);
        for (line, (item, quantity)) in lines.iter().enumerate() {
            let (level, pending) = (self.levels.get(*item), self.pending(item));
            let is_known = level.is_some_and(|level| level.limits.backorder == 0);
            undecided |= !is_known;
            let is_judged = is_known && all_or_none;
            let amount = level.map_or(0, |level| level.available - pending);
            let limit = level.and_then(|level| level.limits.order).filter(|limit| quantity > limit);
            if let Some(limit) = limit.filter(|_| is_judged) {
                refusals.push(LineRefusal::OverLimit { line, limit });
            } else if (is_judged && *quantity > amount) || *quantity > MOST_PENDING - pending {
                refusals.push(LineRefusal::Short { line, available: amount.max(0) });
            }
        }
        (refusals, undecided)
    }

    fn not_open(&self, sku: &Sku, now: Millis) -> Option<Admission> {
        let sale = self.sales.get(sku)?;
        if sale.closed {
            return Some(Admission::NotOpen { sku: sku.clone(), opens_at: None });
        }
        let opens_at = sale.opens_at.filter(|opens_at| now < *opens_at)?;
        Some(Admission::NotOpen { sku: sku.clone(), opens_at: Some(opens_at) })
    }

    fn beyond_buyer_limit(&self, sku: &Sku, pieces: i64, asked: &Asked, now: Millis) -> Option<Admission> {
        let limit = self.sales.get(sku)?.buyer?;
        let Some(buyer) = &asked.buyer else { return Some(Admission::BuyerMissing { sku: sku.clone() }) };
        let bought = self.bought.get(&(sku.clone(), buyer.clone()));
        // The same order again, whose entry is forgotten by now, is no second purchase.
        let counts = |(id, (at, _)): &(&Id, &(Millis, i64))| **id != asked.id && at + limit.window_ms > now;
        let had: i64 =
            bought.map_or(0, |bought| bought.iter().filter(counts).map(|(_, (_, pieces))| pieces).sum());
        let left = (limit.pieces - had).max(0);
        (pieces > left).then(|| Admission::BuyerLimit { sku: sku.clone(), left })
    }

    /// Kafka has the order.
    pub fn sent(&mut self, id: &Id, digest: &Digest) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.standing == Standing::Admitted
            && entry.digest == Some(*digest)
        {
            entry.standing = Standing::Sent;
        }
    }

    /// Settles the results of a partition from one offset to another, all of them, or none where some before them are not
    /// settled. What has no entry is nothing to it.
    pub fn settle(
        &mut self,
        at: &TopicPartition,
        from: NextOffset,
        next: NextOffset,
        results: &[(Id, bool)],
    ) -> Settled {
        let Some(stored) = self.offset(at) else { return Settled::Empty };
        if stored < from {
            return Settled::Gap(stored);
        }
        if stored >= next {
            return Settled::Already;
        }
        for (id, accepted) in results {
            self.settle_one(id, *accepted);
        }
        self.offsets.insert(at.clone(), next);
        Settled::Applied
    }

    /// Settles an entry whose decision was looked up, if it is still without a result.
    pub fn settle_found(&mut self, id: &Id, digest: &Digest, accepted: bool) {
        let same = |entry: &Entry| entry.digest == Some(*digest) && entry.standing.is_unsettled();
        if self.entries.get(id).is_some_and(same) {
            self.settle_one(id, accepted);
        }
    }

    fn settle_one(&mut self, id: &Id, accepted: bool) {
        let Some(entry) = self.entries.get_mut(id) else {
            if accepted {
                let entry = Entry {
                    standing: Standing::Decided,
                    digest: None,
                    open: BTreeMap::new(),
                    at: 0,
                    undecided: false,
                    buyer: None,
                };
                self.entries.insert(id.clone(), entry);
            }
            return;
        };
        match (entry.standing.is_unsettled(), accepted) {
            (false, _) => {}
            (true, true) => entry.standing = Standing::Accepted,
            (true, false) => {
                let gone = Entry { open: std::mem::take(&mut entry.open), ..entry.clone() };
                entry.standing = Standing::Rejected;
                self.forget_purchase(id, &gone);
            }
        }
    }

    /// The lines of accepted entries that wait for a level: to be asked before a level is read, and given to
    /// [`CachedStock::store_level`] with it.
    #[must_use]
    pub fn waiting(&self, item: &Item) -> BTreeSet<Id> {
        let waits = |entry: &Entry| entry.standing == Standing::Accepted && entry.open.contains_key(item);
        self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// Stores a level that was read, unless a newer one is stored, and closes the lines that waited before its read began.
    /// `None` where the ledger knows no such item: so nobody took any of it.
    pub fn store_level(&mut self, item: &Item, level: Option<Level>, closes: &BTreeSet<Id>) {
        if let Some(level) = level {
            let stored = self.levels.entry(item.clone()).or_insert(level);
            if level.version >= stored.version {
                *stored = level;
            }
        }
        for id in closes {
            if let Some(entry) = self.entries.get_mut(id)
                && entry.standing == Standing::Accepted
            {
                entry.open.remove(item);
                if entry.open.is_empty() {
                    entry.standing = Standing::Closed;
                }
            }
        }
    }

    /// The entries without a result that were handed to the producer at this moment or before.
    #[must_use]
    pub fn unsettled(&self, before: Millis) -> Vec<Unsettled> {
        let due = self.entries.iter().filter_map(|(id, entry)| {
            let digest = entry.digest.filter(|_| entry.standing.is_unsettled() && entry.at <= before)?;
            Some(Unsettled { id: id.clone(), digest, at: entry.at })
        });
        due.collect()
    }

    /// Gives the pieces of an entry without a result back and forgets it, if it was not handed to the producer since.
    /// Whether it did.
    pub fn give_back(&mut self, id: &Id, at: Millis) -> bool {
        let same = |entry: &Entry| entry.standing.is_unsettled() && entry.at == at;
        if !self.entries.get(id).is_some_and(same) {
            return false;
        }
        if let Some(gone) = self.entries.remove(id) {
            self.forget_purchase(id, &gone);
        }
        true
    }

    /// Forgets an entry that has ended, as Redis does after a time. Whether there was one.
    pub fn forget(&mut self, id: &Id) -> bool {
        let has_ended = |entry: &Entry| {
            matches!(entry.standing, Standing::Closed | Standing::Rejected | Standing::Decided)
        };
        let is_there = self.entries.get(id).is_some_and(has_ended);
        if is_there {
            self.entries.remove(id);
        }
        is_there
    }

    /// Takes what a buyer had by an entry from what counts; not what there is of one with this id that was forgotten before.
    fn forget_purchase(&mut self, id: &Id, gone: &Entry) {
        let Some(buyer) = &gone.buyer else { return };
        for (sku, pieces) in pieces_by_sku(gone.open.iter().map(|(item, quantity)| (item, *quantity))) {
            if let Some(bought) = self.bought.get_mut(&(sku, buyer.clone()))
                && bought.get(id).is_some_and(|(_, had)| *had == pieces)
            {
                bought.remove(id);
            }
        }
    }
}

/// What an order comes to that has an entry already.
fn again(entry: &mut Entry, digest: &Digest, now: Millis, resend_after: Millis) -> Admission {
    if entry.digest.is_some_and(|known| known != *digest) {
        return Admission::Conflict;
    }
    let undecided = entry.undecided;
    match entry.standing {
        Standing::Admitted if now.saturating_sub(entry.at) < resend_after => Admission::Sending,
        Standing::Admitted => {
            entry.at = now;
            Admission::Resend { undecided }
        }
        Standing::Sent => Admission::Sent { undecided },
        Standing::Accepted | Standing::Closed | Standing::Rejected | Standing::Decided => Admission::Decided,
    }
}

/// How many pieces of each SKU some lines ask for, whatever the location.
fn pieces_by_sku<'a>(lines: impl IntoIterator<Item = (&'a Item, i64)>) -> BTreeMap<Sku, i64> {
    lines.into_iter().fold(BTreeMap::new(), |mut pieces, (item, quantity)| {
        *pieces.entry(item.sku.clone()).or_default() += quantity;
        pieces
    })
}

#[cfg(test)]
mod tests;
