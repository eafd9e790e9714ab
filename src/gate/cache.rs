//! The cached amounts and the entries in Redis: [`CachedStock`](super::rule::CachedStock), kept there by scripts, so that
//! each step is done whole or not at all, whichever gate asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, Value};
use secrecy::SecretString;

use super::answers::{Answer, read_admission};
use super::connection::RedisConnection;
pub use super::connection::{CacheError, RedisSettings};
use super::rule::{Admission, Asked, BuyerLimit, Millis, Sale, Settled, Standing, Unsettled};
use super::scripts::Scripts;
use crate::ledger::{Digest, Id, Item, Level, Limits, Location, NextOffset, Sku, TopicId, TopicPartition};

/// Keys that one step of a walk over all of them looks at.
const SCAN_COUNT: usize = 1_000;
/// How long filling may take.
const FILLING_LIMIT: Duration = Duration::from_secs(3_600);
/// How long it is remembered at most that an order without an entry was decided. Whoever was let in by a Redis that went back
/// since asks again within; and every order that came by no gate leaves such a mark: 5,000 a second are 1.5 million of them.
const MARK_LIMIT: Duration = Duration::from_secs(300);
/// Between an item's SKU and its location. No id holds a control character.
const SEPARATOR: char = '\u{1f}';

/// A level that was read, with the orders that waited for it before its read began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelRead {
    /// Which item.
    pub item: Item,
    /// What there is; `None` where the ledger knows no such item.
    pub level: Option<Level>,
    /// Accepted orders whose lines it closes.
    pub closes: BTreeSet<Id>,
}

/// What stands in Redis while one gate fills it.
#[derive(Debug)]
pub struct FillingMark(u64);

impl FillingMark {
    fn key(&self) -> String {
        format!("filling:{:016x}", self.0)
    }
}

/// What there is of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus {
    /// Whether the cache was filled from the ledger.
    pub filled: bool,
    /// Entries without a result.
    pub unsettled: u64,
    /// Accepted entries that wait for levels.
    pub accepted: u64,
    /// The age of the oldest of both.
    pub oldest: Option<Duration>,
}

/// A connection to the cache; clones share it. What fails is told at once, and the next call connects anew.
#[derive(Clone)]
pub struct RedisCache {
    connection: RedisConnection,
    scripts: Arc<Scripts>,
    prefix: Arc<str>,
    remember_ms: u64,
    mark_ms: u64,
}

/// As Redis takes it: at least the shortest there is.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl RedisCache {
    /// Connects as soon as something is asked.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(settings: &RedisSettings) -> Result<Self, CacheError> {
        Ok(Self {
            connection: RedisConnection::new(settings)?,
            scripts: Arc::new(Scripts::new()),
            prefix: settings.prefix.as_str().into(),
            remember_ms: millis(settings.remember),
            mark_ms: millis(settings.remember.min(MARK_LIMIT)),
        })
    }

    /// Connects with this password from here on.
    ///
    /// # Errors
    /// When no connection can be made ready.
    pub fn set_password(&self, password: &SecretString) -> Result<(), CacheError> {
        self.connection.set_password(password)
    }

    /// What a command of one's own is answered.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        self.connection.send(command).await
    }

    /// The name of a key.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Sends commands together. Nothing has no answer, which would be waited for in vain.
    async fn send<T: FromRedisValue>(&self, pipe: &Pipeline) -> Result<T, CacheError> {
        if pipe.is_empty() {
            return Ok(T::from_redis_value(Value::Array(Vec::new()))?);
        }
        self.connection.send_all(pipe).await
    }

    async fn run<T: FromRedisValue>(&self, call: &redis::ScriptInvocation<'_>) -> Result<T, CacheError> {
        self.connection.call(call).await
    }

    fn call<'s>(&self, script: &'s redis::Script) -> redis::ScriptInvocation<'s> {
        let mut call = script.prepare_invoke();
        call.arg(&*self.prefix);
        call
    }

    /// Lets an order in or not.
    ///
    /// # Errors
    /// When Redis does not answer: then an entry may have been made.
    pub async fn admit(&self, asked: &Asked, resend_after: Duration) -> Result<Admission, CacheError> {
        let lines: Vec<(String, i64)> =
            asked.lines.iter().map(|line| (item_text(&line.item), line.quantity)).collect();
        // Holds because pairs of text and numbers have nothing that JSON has not.
        let lines = serde_json::to_string(&lines).expect("lines are always JSON");
        let mut call = self.call(&self.scripts.admit);
        call.arg(asked.id.as_str())
            .arg(hex(asked.digest))
            .arg(lines)
            .arg(if asked.all_or_none { "1" } else { "0" })
            .arg(asked.buyer.as_deref().unwrap_or(""))
            .arg(u64::try_from(resend_after.as_millis()).unwrap_or(u64::MAX));
        let answer: Vec<Value> = self.run(&call).await?;
        read_admission(answer)
    }

    /// Kafka has these orders.
    ///
    /// # Errors
    /// When Redis does not answer: their results come all the same.
    pub async fn sent(&self, orders: &[(Id, Digest)]) -> Result<(), CacheError> {
        let mut call = self.call(&self.scripts.sent);
        for (id, digest) in orders {
            call.arg(id.as_str()).arg(hex(*digest));
        }
        self.run(&call).await
    }

    /// Settles the results of a partition from one offset to another.
    ///
    /// # Errors
    /// When Redis does not answer: then they may be settled, and settling them again does nothing.
    pub async fn settle(
        &self,
        at: &TopicPartition,
        from: NextOffset,
        next: NextOffset,
        results: &[(Id, bool)],
    ) -> Result<Settled, CacheError> {
        let mut call = self.call(&self.scripts.settle);
        call.arg(offset_name(at)).arg(from.0).arg(next.0).arg(self.remember_ms).arg(self.mark_ms);
        for (id, accepted) in results {
            call.arg(id.as_str()).arg(flag(*accepted));
        }
        let mut answer = Answer::of(self.run(&call).await?);
        match &*answer.text()? {
            "applied" => Ok(Settled::Applied),
            "already" => Ok(Settled::Already),
            "gap" => Ok(Settled::Gap(NextOffset(answer.number()?))),
            "empty" => Ok(Settled::Empty),
            other => Err(CacheError::Strange(other.to_owned())),
        }
    }

    /// Settles an entry whose decision was looked up, if it is still without a result.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn settle_found(&self, id: &Id, digest: Digest, accepted: bool) -> Result<(), CacheError> {
        let mut call = self.call(&self.scripts.settle_found);
        call.arg(id.as_str()).arg(hex(digest)).arg(flag(accepted)).arg(self.remember_ms);
        self.run(&call).await
    }

    /// Gives an entry without a result back and forgets it, if it was not handed to the producer since. Whether it did.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn give_back(&self, id: &Id, at: Millis) -> Result<bool, CacheError> {
        let mut call = self.call(&self.scripts.give_back);
        call.arg(id.as_str()).arg(at);
        self.run(&call).await
    }

    /// Entries without a result that were handed to the producer so long ago or longer, the oldest first, without so many of
    /// the oldest.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn unsettled(
        &self,
        age: Duration,
        skipped: usize,
        most: usize,
    ) -> Result<Vec<Unsettled>, CacheError> {
        let mut call = self.call(&self.scripts.unsettled);
        call.arg(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).arg(skipped).arg(most);
        let answer: Vec<(String, String, Millis)> = self.run(&call).await?;
        answer
            .into_iter()
            .map(|(id, digest, at)| Ok(Unsettled { id: id_of(&id)?, digest: unhex(&digest)?, at }))
            .collect()
    }

    /// The items to read levels of: these, and up to `more` that accepted orders wait for; each with such orders, up to
    /// `most_orders`. To be asked before the levels are read.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn begin_read(
        &self,
        items: &[Item],
        more: usize,
        most_orders: usize,
    ) -> Result<Vec<(Item, BTreeSet<Id>)>, CacheError> {
        let mut call = self.call(&self.scripts.begin_read);
        call.arg(more).arg(most_orders);
        for item in items {
            call.arg(item_text(item));
        }
        let answer: Vec<(String, Vec<String>)> = self.run(&call).await?;
        let read = |(item, ids): (String, Vec<String>)| {
            let ids = ids.iter().map(|id| id_of(id)).collect::<Result<_, _>>()?;
            Ok((item_of(&item)?, ids))
        };
        answer.into_iter().map(read).collect()
    }

    /// Stores levels that were read, unless newer ones are stored, and closes the lines that waited before their reads
    /// began.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn store_levels(&self, levels: &[LevelRead]) -> Result<(), CacheError> {
        let mut call = self.call(&self.scripts.store_levels);
        call.arg(self.remember_ms);
        for LevelRead { item, level, closes } in levels {
            call.arg(item_text(item));
            match level {
                Some(Level { available, version, limits }) => {
                    let limit = limits.order.map_or_else(String::new, |limit| limit.to_string());
                    call.arg(available).arg(version).arg(limits.backorder).arg(limit);
                }
                None => {
                    call.arg("").arg("").arg("").arg("");
                }
            }
            call.arg(closes.len());
            for id in closes {
                call.arg(id.as_str());
            }
        }
        self.run(&call).await
    }

    /// What there is of entries.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn status(&self) -> Result<CacheStatus, CacheError> {
        let (filled, unsettled, accepted, oldest): (i64, u64, u64, i64) =
            self.run(&self.call(&self.scripts.status)).await?;
        let oldest = u64::try_from(oldest).ok().map(Duration::from_millis);
        Ok(CacheStatus { filled: filled == 1, unsettled, accepted, oldest })
    }

    /// Begins partitions of results at these offsets, where none are known of them.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn begin_offsets(&self, offsets: &[(TopicPartition, NextOffset)]) -> Result<(), CacheError> {
        let mut pipe = redis::pipe();
        for (at, next) in offsets {
            pipe.cmd("SETNX").arg(self.key(&format!("offset:{}", offset_name(at)))).arg(next.0).ignore();
        }
        self.send(&pipe).await
    }

    /// How far results of these partitions were settled.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn offsets(&self, of: &[TopicPartition]) -> Result<Vec<Option<NextOffset>>, CacheError> {
        if of.is_empty() {
            // Redis refuses to be asked for nothing.
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for at in of {
            command.arg(self.key(&format!("offset:{}", offset_name(at))));
        }
        let found: Vec<Option<i64>> = self.ask(&command).await?;
        Ok(found.into_iter().map(|offset| offset.map(NextOffset)).collect())
    }

    /// States which topic a name of results means now, with so many partitions. Whether it was made anew, and the offsets of
    /// the one before were forgotten.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn meet_topic(&self, name: &str, id: &TopicId, partitions: i32) -> Result<bool, CacheError> {
        let mut call = self.call(&self.scripts.meet_topic);
        call.arg(name).arg(id.as_str()).arg(partitions);
        self.run(&call).await
    }

    /// Begins to fill it from the ledger.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn begin_filling(&self) -> Result<FillingMark, CacheError> {
        let mark = FillingMark(rand::random());
        let mut command = redis::cmd("SET");
        command.arg(self.key(&mark.key())).arg("").arg("EX").arg(FILLING_LIMIT.as_secs());
        self.ask::<()>(&command).await?;
        Ok(mark)
    }

    /// Says that it was filled from the ledger. Whether it was: not where Redis lost what it had since that was begun.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_filled(&self, begun: FillingMark) -> Result<bool, CacheError> {
        let mut call = self.call(&self.scripts.set_filled);
        call.arg(begun.key());
        self.run(&call).await
    }

    /// States how a SKU is sold.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_sale(&self, sku: &Sku, sale: &Sale) -> Result<(), CacheError> {
        let key = self.key(&format!("sale:{sku}"));
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg(&key).ignore();
        let mut fields: Vec<(&str, u64)> = Vec::new();
        fields.extend(sale.opens_at.map(|at| ("opens_at", at)));
        fields.extend(sale.closed.then_some(("closed", 1)));
        if let Some(BuyerLimit { pieces, window_ms }) = sale.buyer {
            fields.extend([("buyer_pieces", pieces.max(0).unsigned_abs()), ("buyer_window", window_ms)]);
        }
        for (name, value) in &fields {
            pipe.cmd("HSET").arg(&key).arg(*name).arg(*value).ignore();
        }
        pipe.cmd(if fields.is_empty() { "SREM" } else { "SADD" })
            .arg(self.key("sales"))
            .arg(sku.as_str())
            .ignore();
        self.send(&pipe).await
    }

    /// How a SKU is sold.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn sale(&self, sku: &Sku) -> Result<Sale, CacheError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.key(&format!("sale:{sku}")));
        command.arg("opens_at").arg("closed").arg("buyer_pieces").arg("buyer_window");
        let (opens_at, closed, pieces, window): (Option<u64>, Option<u64>, Option<i64>, Option<u64>) =
            self.ask(&command).await?;
        let buyer = pieces.zip(window).map(|(pieces, window_ms)| BuyerLimit { pieces, window_ms });
        Ok(Sale { opens_at, closed: closed.is_some(), buyer })
    }

    /// The SKUs that something is stated of, in their order.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn sales(&self) -> Result<BTreeSet<Sku>, CacheError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.key("sales"));
        let found: Vec<String> = self.ask(&command).await?;
        found
            .iter()
            .map(|sku| Sku::new(sku).map_err(|error| CacheError::Strange(error.to_string())))
            .collect()
    }

    /// The stored level of each item, where it is known, and the pieces of entries that are subtracted from it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn amounts(&self, items: &[Item]) -> Result<Vec<(Option<Level>, i64)>, CacheError> {
        /// available, version, backorder, limit, pending
        type Fields = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let mut pipe = redis::pipe();
        for item in items {
            pipe.cmd("HMGET").arg(self.key(&format!("item:{}", item_text(item))));
            pipe.arg("available").arg("version").arg("backorder").arg("limit").arg("pending");
        }
        let found: Vec<Fields> = self.send(&pipe).await?;
        let read = |(available, version, backorder, order, pending): Fields| {
            let level = available.zip(version).map(|(available, version)| Level {
                available,
                version,
                limits: Limits { backorder: backorder.unwrap_or(0), order },
            });
            (level, pending.unwrap_or(0))
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// The same of one item.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn amount(&self, item: &Item) -> Result<(Option<Level>, i64), CacheError> {
        Ok(self.amounts(std::slice::from_ref(item)).await?.into_iter().next().unwrap_or_default())
    }

    /// Every item that something is kept of.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn items(&self) -> Result<BTreeSet<Item>, CacheError> {
        let start = self.key("item:");
        let (mut items, mut cursor) = (BTreeSet::new(), 0_u64);
        loop {
            let mut command = redis::cmd("SCAN");
            command
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{}*", globbed(&start)))
                .arg("COUNT")
                .arg(SCAN_COUNT);
            let (next, keys): (u64, Vec<String>) = self.ask(&command).await?;
            for key in &keys {
                items.insert(item_of(key.strip_prefix(&start).unwrap_or_default())?);
            }
            if next == 0 {
                return Ok(items);
            }
            cursor = next;
        }
    }

    /// The items of these whose subtracted pieces are not those of their entries: what is subtracted, and what should be,
    /// which it is made where `repair` says so.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn recount(&self, items: &[Item], repair: bool) -> Result<Vec<(Item, i64, i64)>, CacheError> {
        let mut call = self.call(&self.scripts.recount);
        call.arg(flag(repair));
        for item in items {
            call.arg(item_text(item));
        }
        let found: Vec<(String, i64, i64)> = self.run(&call).await?;
        found.into_iter().map(|(item, is, should)| Ok((item_of(&item)?, is, should))).collect()
    }

    /// Forgets the stored levels of these items, so that any other counts.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_levels(&self, items: &[Item]) -> Result<(), CacheError> {
        let mut pipe = redis::pipe();
        for item in items {
            pipe.cmd("HDEL").arg(self.key(&format!("item:{}", item_text(item))));
            pipe.arg("available").arg("version").arg("backorder").arg("limit").ignore();
        }
        self.send(&pipe).await
    }

    /// How the entry of an order stands; `None` where there is none.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn standing(&self, id: &Id) -> Result<Option<Standing>, CacheError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.key(&format!("order:{id}"))).arg("standing");
        let found: Option<String> = self.ask(&command).await?;
        found.map(|name| Standing::of(&name).ok_or(CacheError::Strange(name))).transpose()
    }
}

/// A text as a pattern that matches it alone.
fn globbed(text: &str) -> String {
    text.chars().fold(String::new(), |mut pattern, letter| {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
        pattern
    })
}

fn flag(is_so: bool) -> &'static str {
    if is_so { "1" } else { "0" }
}

fn offset_name(at: &TopicPartition) -> String {
    format!("{}:{}", at.topic, at.partition)
}

/// An item as keys name it.
pub(super) fn item_text(item: &Item) -> String {
    match &item.location {
        None => item.sku.as_str().to_owned(),
        Some(location) => format!("{}{SEPARATOR}{location}", item.sku),
    }
}

/// The item that a key names.
pub(super) fn item_of(text: &str) -> Result<Item, CacheError> {
    let strange = |_| CacheError::Strange(format!("the item {text:?}"));
    let (sku, location) =
        text.split_once(SEPARATOR).map_or((text, None), |(sku, location)| (sku, Some(location)));
    let location = location.map(Location::new).transpose().map_err(strange)?;
    Ok(Item { sku: Sku::new(sku).map_err(strange)?, location })
}

fn id_of(text: &str) -> Result<Id, CacheError> {
    Id::new(text).map_err(|_| CacheError::Strange(format!("the id {text:?}")))
}

fn hex(digest: Digest) -> String {
    format!("{digest:?}")
}

fn unhex(text: &str) -> Result<Digest, CacheError> {
    let number = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    let number = number.ok_or_else(|| CacheError::Strange(format!("the digest {text:?}")))?;
    Ok(Digest(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_digests_are_read_as_they_are_written() {
        let mug = Item { sku: Sku::new("MUG").unwrap(), location: None };
        let berlin = Item { location: Some(Location::new("berlin").unwrap()), ..mug.clone() };
        for item in [mug, berlin] {
            assert_eq!(item_of(&item_text(&item)).unwrap(), item);
        }
        assert!(item_of("").is_err() && item_of("MUG\u{1f}").is_err());
        let digest = Digest([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(unhex(&hex(digest)).unwrap(), digest);
        assert!(unhex("").is_err() && unhex(&"x".repeat(32)).is_err());
    }
}
