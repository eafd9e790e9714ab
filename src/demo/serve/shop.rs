//! A shop that is open: orders of all kinds, what follows them, and stock that comes in, all made from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::super::workload::{FLASH_SKU, Workload};

/// Orders a second, on average: what one can follow with the eye, and any machine can verify beside a browser.
const RATE: f64 = 240.0;
/// How far the rate swings, and how long a swing takes: a line that moves says that it lives.
const SWING: f64 = 0.4;
const SWING_SECONDS: f64 = 45.0;
/// Orders that hold their stock for a while, and plain ones that something may follow; the others are the demo's stream.
const HOLDS: f64 = 0.25;
const FOLLOWED: f64 = 0.15;
/// How long a hold lasts, in seconds.
const HOLD_SECONDS: std::ops::RangeInclusive<i64> = 4..=15;
/// Holds that are confirmed, and those that are released; the others expire.
const CONFIRMED: f64 = 0.55;
const RELEASED: f64 = 0.20;
/// Plain orders of which something comes back, and those that are cancelled.
const RETURNED: f64 = 0.35;
const CANCELLED: f64 = 0.15;
/// When what follows an order comes, after it: in milliseconds. Before the shortest hold is over.
const FOLLOWS_MS: std::ops::Range<u64> = 800..3_500;
/// How often stock comes in, and for how many SKUs each time.
const RESTOCK_EVERY: Duration = Duration::from_millis(500);
const RESTOCKED: u32 = 6;
/// Pieces that an order takes for good, on average: so many come in for each, and what there is stays about the same.
const PIECES_FOR_GOOD: f64 = 2.0;
/// A flash sale begins again after so long, and lasts to the end of it: its stock comes in when it begins.
const FLASH_EVERY: Duration = Duration::from_secs(40);
const FLASH_BEGINS: Duration = Duration::from_secs(26);
const FLASH_PIECES: u32 = 180;
/// Orders for the flash item while its sale is on.
const FLASH_RATE: f64 = 0.12;
/// Most orders that are made up for at once after a stall: a shop's customers go elsewhere.
const MOST_AT_ONCE: usize = 500;

/// A record that the shop produces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShopRecord {
    /// Among the adjustments; else among the orders.
    pub(super) is_adjustment: bool,
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

/// The shop. Its time begins at zero and is given.
pub(super) struct Shop {
    workload: Workload,
    rng: StdRng,
    next_order: Duration,
    next_restock: Duration,
    next_sale: Duration,
    /// What follows orders, by when it comes; the number keeps those of one moment apart.
    follows: BTreeMap<(Duration, u64), ShopRecord>,
    made: u64,
}

impl Shop {
    /// The same seed makes the same shop.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            // It never ends, and so its own flash sale never begins: this one has its own.
            workload: Workload::new(seed, u32::MAX),
            rng: StdRng::seed_from_u64(seed ^ 0x0050_4f48),
            next_order: Duration::ZERO,
            next_restock: RESTOCK_EVERY,
            next_sale: Duration::ZERO,
            follows: BTreeMap::new(),
            made: 0,
        }
    }

    /// What comes until this moment, and was not made yet.
    pub(super) fn until(&mut self, now: Duration) -> Vec<ShopRecord> {
        let mut records = Vec::new();
        while self.next_order <= now && records.len() < MOST_AT_ONCE {
            self.order(&mut records);
            let swing = (self.next_order.as_secs_f64() / SWING_SECONDS * std::f64::consts::TAU).sin();
            self.next_order += Duration::from_secs_f64(1.0 / (RATE * (1.0 + SWING * swing)));
        }
        self.next_order = self.next_order.max(now.saturating_sub(RESTOCK_EVERY));
        while self.next_restock <= now {
            self.restock(&mut records);
            self.next_restock += RESTOCK_EVERY;
        }
        while self.next_sale + FLASH_BEGINS <= now {
            records.push(self.received(FLASH_SKU.to_owned(), FLASH_PIECES));
            self.next_sale += FLASH_EVERY;
        }
        let later = self.follows.split_off(&(now, u64::MAX));
        records.extend(std::mem::replace(&mut self.follows, later).into_values());
        records
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn order(&mut self, records: &mut Vec<ShopRecord>) {
        let within = Duration::from_millis(
            u64::try_from(self.next_order.as_millis() % FLASH_EVERY.as_millis()).unwrap_or(0),
        );
        if within >= FLASH_BEGINS && self.rng.random_bool(FLASH_RATE) {
            let id = format!("flash-{:06}", self.number());
            let lines = json!([{"sku": FLASH_SKU, "quantity": self.rng.random_range(1..=2)}]);
            records.push(of_order(&id, &json!({"type": "order.created", "order_id": id, "lines": lines})));
            return;
        }
        match self.rng.random::<f64>() {
            dice if dice < HOLDS => self.hold(records),
            dice if dice < HOLDS + FOLLOWED => self.followed(records),
            _ => records.extend(self.workload.next().map(|delivery| ShopRecord {
                is_adjustment: false,
                key: delivery.key,
                value: delivery.value,
            })),
        }
    }

    /// An order that holds its stock, and what becomes of that.
    fn hold(&mut self, records: &mut Vec<ShopRecord>) {
        let id = format!("hold-{:06}", self.number());
        let seconds = self.rng.random_range(HOLD_SECONDS);
        let (value, _) = self.workload.other(&id, Some(seconds));
        records.push(ShopRecord { is_adjustment: false, key: id.clone(), value: Some(value) });
        match self.rng.random::<f64>() {
            dice if dice < CONFIRMED => self.follow(&id, &json!({"type": "order.confirmed", "order_id": id})),
            dice if dice < CONFIRMED + RELEASED => {
                self.follow(&id, &json!({"type": "order.released", "order_id": id}));
            }
            // Its time will be over.
            _ => {}
        }
    }

    /// A plain order, of which something may come back.
    fn followed(&mut self, records: &mut Vec<ShopRecord>) {
        let number = self.number();
        let id = format!("shop-{number:06}");
        let (value, lines) = self.workload.other(&id, None);
        records.push(ShopRecord { is_adjustment: false, key: id.clone(), value: Some(value) });
        match self.rng.random::<f64>() {
            dice if dice < RETURNED => {
                let lines = lines.first().map(|(sku, _)| json!({"sku": sku, "quantity": 1}));
                let back = json!({
                    "type": "order.returned", "return_id": format!("return-{number:06}"), "order_id": id, "lines": [lines],
                });
                self.follow(&id, &back);
            }
            dice if dice < RETURNED + CANCELLED => {
                self.follow(&id, &json!({"type": "order.cancelled", "order_id": id}));
            }
            _ => {}
        }
    }

    fn follow(&mut self, id: &str, value: &Value) {
        let after = Duration::from_millis(self.rng.random_range(FOLLOWS_MS));
        let number = self.number();
        self.follows.insert((self.next_order + after, number), of_order(id, value));
    }

    /// Stock comes in for some SKUs: as much as is taken for good meanwhile.
    fn restock(&mut self, records: &mut Vec<ShopRecord>) {
        let each = RATE * PIECES_FOR_GOOD * RESTOCK_EVERY.as_secs_f64() / f64::from(RESTOCKED);
        for _ in 0..RESTOCKED {
            let sku = self.workload.sku();
            let pieces = self.rng.random_range(0.5..1.5) * each;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some dozen pieces")]
            let pieces = pieces as u32 + 1;
            records.push(self.received(sku, pieces));
        }
    }

    fn received(&mut self, sku: String, pieces: u32) -> ShopRecord {
        let id = format!("delivery-{:06}", self.number());
        let value = json!({"type": "stock.received", "adjustment_id": id, "sku": sku, "quantity": pieces});
        ShopRecord { is_adjustment: true, key: sku, value: Some(value.to_string().into_bytes()) }
    }
}

/// A record among the orders.
fn of_order(id: &str, value: &Value) -> ShopRecord {
    ShopRecord { is_adjustment: false, key: id.to_owned(), value: Some(value.to_string().into_bytes()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::{Record, read_command};
    use crate::ledger::{Offset, Source, TopicPartition};

    fn minutes(seed: u64, step: Duration) -> Vec<ShopRecord> {
        let mut shop = Shop::new(seed);
        let mut records = Vec::new();
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(120) {
            now += step;
            records.extend(shop.until(now));
        }
        records
    }

    #[test]
    fn two_minutes_have_orders_of_every_kind_and_stock_that_comes_in_at_about_their_rate() {
        let records = minutes(7, Duration::from_millis(20));
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for record in records {
            let source = Source { at: TopicPartition::new("orders", 0), offset: Offset(0) };
            let (key, value, is_adjustment) =
                (Some(record.key.into_bytes()), record.value, record.is_adjustment);
            let record =
                Record { source, key, value, headers: Vec::new(), timestamp_ms: None, decoded: None };
            let kind = read_command(&record).map_or("none", |command| command.key.kind.name());
            assert!(kind == "none" || is_adjustment == (kind == "adjustment"), "{kind}");
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        let count = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
        assert!((25_000..33_000).contains(&count("order.created")), "{kinds:?}");
        let others =
            ["adjustment", "order.cancelled", "order.returned", "order.confirmed", "order.released", "none"];
        // What is no command is the rarest.
        assert!(others.iter().all(|kind| count(kind) > 50), "{kinds:?}");
    }

    #[test]
    fn the_same_seed_makes_the_same_shop_and_after_a_stall_not_all_is_made_up_for() {
        let step = Duration::from_millis(50);
        assert!(minutes(1, step) == minutes(1, step) && minutes(1, step) != minutes(2, step));
        let mut shop = Shop::new(1);
        let after = shop.until(Duration::from_secs(600));
        let orders = after.iter().filter(|record| !record.is_adjustment).count();
        assert!((MOST_AT_ONCE..2 * MOST_AT_ONCE).contains(&orders), "{orders}");
        let next = shop.until(Duration::from_secs(601)).len();
        assert!(next < 2 * MOST_AT_ONCE, "{next}");
    }
}
