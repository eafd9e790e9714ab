//! Sample stock and a stream of orders, made from a seed alone.
//!
//! The same seed and number of orders make the same records, byte for byte.
//! Trouble is mixed in at the rates below, which are about those of a shop
//! on a bad day, so that every branch of the contract is walked in a run.

use std::borrow::Cow;
use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::event::schema::{OrderCreated, OrderCreatedLine, OrderCreatedType};

/// SKUs in the catalogue: products × colours × sizes.
pub const CATALOGUE: u16 = 1_000;
const _: () = assert!(CATALOGUE as usize == PRODUCTS.len() * COLOURS.len() * SIZES.len());
const PRODUCTS: [&str; 40] = [
    "ANORAK", "APRON", "BEANIE", "BELT", "BLAZER", "BLOUSE", "BOOTS", "CAP", "CARDIGAN", "CHINOS", "CLOGS",
    "COAT", "DRESS", "FLEECE", "GILET", "GLOVES", "HOODIE", "JACKET", "JEANS", "JERSEY", "KILT", "LEGGINGS",
    "LOAFERS", "MITTENS", "PARKA", "POLO", "PONCHO", "PYJAMAS", "ROBE", "SANDALS", "SCARF", "SHIRT",
    "SHORTS", "SKIRT", "SNEAKERS", "SOCKS", "SWEATER", "TSHIRT", "VEST", "WELLIES",
];
const COLOURS: [&str; 5] = ["BLACK", "WHITE", "NAVY", "RED", "OLIVE"];
const SIZES: [&str; 5] = ["XS", "S", "M", "L", "XL"];

/// The item everybody wants for a while, of which there is not enough.
pub const FLASH_SKU: &str = "FLASH-CONSOLE";
/// When the flash sale is on, as parts of the stream.
const FLASH_SALE: std::ops::Range<f64> = 0.4..0.6;
/// How many orders are for the flash item while its sale is on.
const FLASH_RATE: f64 = 0.5;
/// There is one flash item for so many orders: two fifths of what is wanted.
const ORDERS_PER_FLASH_ITEM: u32 = 25;

/// Skew of the choice among the catalogue's SKUs: the classic Zipf, where the first is wanted twice as often as the second.
const ZIPF_EXPONENT: f64 = 1.0;
/// Cumulative chances of a cart having at most 1, 2, 3, 4 lines; else it has 5.
const LINES: [f64; 4] = [0.45, 0.70, 0.85, 0.95];
/// About how many pieces an order asks for: the mean lines times the mean quantity.
const PIECES_PER_ORDER: f64 = 2.05 * 1.3;
/// Stock of a SKU, as a multiple of what is expected to be wanted: some sell out, most do not.
const STOCKED: std::ops::Range<f64> = 0.7..2.0;

/// Orders whose content breaks the contract.
pub const INVALID_RATE: f64 = 0.01;
/// Orders that ask for a SKU nobody sells.
pub const UNKNOWN_SKU_RATE: f64 = 0.015;
/// Deliveries that repeat an earlier one, for each order.
pub const REPEATED_RATE: f64 = 0.03;
/// Deliveries of an earlier order's id with other content, for each order.
pub const CONFLICT_RATE: f64 = 0.003;
/// Deliveries no order can be read from, for each order.
pub const GARBAGE_RATE: f64 = 0.005;
/// How far back a repetition reaches: a producer that retries does so soon.
const REMEMBERED: usize = 1_000;

/// What a delivery is meant to be. The verifier never learns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryKind {
    /// A good order.
    Order,
    /// An order for a SKU nobody sells.
    UnknownSku,
    /// An order whose content breaks the contract.
    Invalid,
    /// An earlier delivery again.
    Repeated,
    /// An earlier order's id with other content.
    Conflict,
    /// Bytes no order can be read from.
    Garbage,
}

impl DeliveryKind {
    /// Whether it is an order of its own, and not one more delivery.
    #[must_use]
    pub fn is_order(self) -> bool {
        matches!(self, Self::Order | Self::UnknownSku | Self::Invalid)
    }
}

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it is meant to be.
    pub kind: DeliveryKind,
    /// Its key: the order's id.
    pub key: String,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// A SKU's stock before the first order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// Which SKU.
    pub sku: String,
    /// How many pieces.
    pub available: i64,
}

/// The catalogue, most popular first.
fn catalogue(seed: u64) -> Vec<String> {
    let mut skus: Vec<String> = PRODUCTS
        .iter()
        .flat_map(|product| {
            COLOURS
                .iter()
                .flat_map(move |colour| SIZES.iter().map(move |size| format!("{product}-{colour}-{size}")))
        })
        .collect();
    skus.shuffle(&mut StdRng::seed_from_u64(seed));
    skus
}

/// The stock for so many orders.
#[must_use]
pub fn stock(seed: u64, orders: u32) -> Vec<Stock> {
    // Another stream of numbers than the catalogue's and the orders', so that none depends on how the others draw.
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5743_4f54);
    let skus = catalogue(seed);
    let weight = |rank: u16| f64::from(rank).powf(-ZIPF_EXPONENT);
    let weights: f64 = (1..=CATALOGUE).map(weight).sum();
    let mut stock: Vec<Stock> = (1..=CATALOGUE)
        .zip(skus)
        .map(|(rank, sku)| {
            let wanted = f64::from(orders) * PIECES_PER_ORDER * weight(rank) / weights;
            Stock { sku, available: whole(wanted * rng.random_range(STOCKED)) + 3 }
        })
        .collect();
    stock.push(Stock {
        sku: FLASH_SKU.to_owned(),
        available: i64::from((orders / ORDERS_PER_FLASH_ITEM).max(1)),
    });
    stock
}

/// One line of a cart.
#[derive(Debug, Clone)]
struct Line {
    sku: String,
    quantity: i64,
}

/// A delivery that may come again.
#[derive(Debug)]
struct Earlier {
    key: String,
    value: Option<Vec<u8>>,
    /// Empty when the order was not a good one.
    lines: Vec<Line>,
}

/// The stream of deliveries.
#[derive(Debug)]
pub struct Workload {
    rng: StdRng,
    popularity: Zipf<f64>,
    skus: Vec<String>,
    orders: u32,
    made: u32,
    earlier: VecDeque<Earlier>,
    waiting: VecDeque<Delivery>,
}

impl Workload {
    /// A stream of so many orders, and the deliveries that come on top.
    #[must_use]
    pub fn new(seed: u64, orders: u32) -> Self {
        // Holds because both are constants the distribution accepts: at least one element, a finite exponent.
        let popularity = Zipf::new(f64::from(CATALOGUE), ZIPF_EXPONENT).expect("valid Zipf parameters");
        Self {
            rng: StdRng::seed_from_u64(seed.wrapping_add(1)),
            popularity,
            skus: catalogue(seed),
            orders,
            made: 0,
            earlier: VecDeque::with_capacity(REMEMBERED),
            waiting: VecDeque::new(),
        }
    }

    fn line(&mut self) -> Line {
        let rank = usize::try_from(whole(self.popularity.sample(&mut self.rng))).unwrap_or(1);
        let quantity = match self.rng.random::<f64>() {
            dice if dice < 0.80 => 1,
            dice if dice < 0.95 => 2,
            _ => self.rng.random_range(3..=5),
        };
        Line { sku: self.skus[rank.clamp(1, self.skus.len()) - 1].clone(), quantity }
    }

    fn cart(&mut self) -> Vec<Line> {
        let dice: f64 = self.rng.random();
        let lines = 1 + LINES.iter().filter(|chance| dice >= **chance).count();
        let mut cart: Vec<Line> = (0..lines).map(|_| self.line()).collect();
        let passed = f64::from(self.made) / f64::from(self.orders);
        if FLASH_SALE.contains(&passed) && self.rng.random_bool(FLASH_RATE) {
            cart[0] = Line { sku: FLASH_SKU.to_owned(), quantity: 1 };
        }
        cart
    }

    /// Lines as an order of the catalogue has them, each SKU once, with the order's value: for an order on other terms than
    /// those of the stream.
    pub(super) fn other(&mut self, key: &str, hold_seconds: Option<i64>) -> (Vec<u8>, Vec<(String, i64)>) {
        let mut lines = self.cart();
        lines.sort_unstable_by(|one, other| one.sku.cmp(&other.sku));
        lines.dedup_by(|one, other| one.sku == other.sku);
        let value = value_on(key, &lines, hold_seconds);
        (value, lines.into_iter().map(|line| (line.sku, line.quantity)).collect())
    }

    /// A SKU, the more popular the likelier.
    pub(super) fn sku(&mut self) -> String {
        self.line().sku
    }

    /// The next order of its own.
    fn order(&mut self) -> Delivery {
        self.made += 1;
        let key = format!("order-{:07}", self.made);
        let mut lines = self.cart();
        let dice: f64 = self.rng.random();
        let (kind, value) = if dice < INVALID_RATE {
            lines.clear();
            (DeliveryKind::Invalid, self.invalid(&key))
        } else if dice < INVALID_RATE + UNKNOWN_SKU_RATE {
            let at = self.rng.random_range(0..lines.len());
            // A slip of the finger.
            lines[at].sku.push('X');
            (DeliveryKind::UnknownSku, value(&key, &lines))
        } else {
            (DeliveryKind::Order, value(&key, &lines))
        };
        if self.earlier.len() == REMEMBERED {
            self.earlier.pop_front();
        }
        self.earlier.push_back(Earlier { key: key.clone(), value: Some(value.clone()), lines });
        Delivery { kind, key, value: Some(value) }
    }

    /// An order that can be known by its id, and is wrong all the same.
    fn invalid(&mut self, key: &str) -> Vec<u8> {
        let Line { sku, .. } = self.line();
        let lines = match self.rng.random_range(0..6) {
            0 => "[]".to_owned(),
            1 => format!(r#"[{{"sku":"{sku}","quantity":0}}]"#),
            2 => format!(r#"[{{"sku":"{sku}","quantity":-2}},{{"sku":"","quantity":1}}]"#),
            3 => format!(r#"[{{"sku":"{sku}","quantity":1.5}}]"#),
            4 => format!(r#"[{{"sku":"{sku}","quantity":"two"}}]"#),
            _ => format!(r#"[{{"sku":"{sku}"}}]"#),
        };
        format!(r#"{{"type":"order.created","order_id":"{key}","lines":{lines}}}"#).into_bytes()
    }

    /// Bytes no order can be read from.
    fn garbage(&mut self) -> Delivery {
        let number: u32 = self.rng.random();
        let value = match self.rng.random_range(0..7) {
            0 => {
                let mut bytes = vec![0xff; 40];
                self.rng.fill(&mut bytes[1..]);
                Some(bytes)
            }
            1 => Some(br#"{"type":"order.created","order_id":"order-"#.to_vec()),
            2 => Some(br#"{"type":"order.created","lines":[{"sku":"SOCKS-RED-M","quantity":1}]}"#.to_vec()),
            3 => Some(br#"{"type":"customer.created","customer_id":"c-7"}"#.to_vec()),
            4 => Some(format!("{number},SOCKS-RED-M,1\n").into_bytes()),
            5 => Some(b"[".repeat(500)),
            _ => None,
        };
        Delivery { kind: DeliveryKind::Garbage, key: format!("unknown-{number}"), value }
    }

    /// An earlier delivery again.
    fn repeated(&mut self) -> Delivery {
        let at = self.rng.random_range(0..self.earlier.len());
        let Earlier { key, value, .. } = &self.earlier[at];
        Delivery { kind: DeliveryKind::Repeated, key: key.clone(), value: value.clone() }
    }

    /// An earlier order's id with one line more.
    fn conflict(&mut self) -> Delivery {
        let at = self.rng.random_range(0..self.earlier.len());
        let added = self.line();
        let Earlier { key, lines, .. } = &self.earlier[at];
        let mut lines = lines.clone();
        lines.push(added);
        Delivery { kind: DeliveryKind::Conflict, key: key.clone(), value: Some(value(key, &lines)) }
    }
}

impl Iterator for Workload {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        if let Some(delivery) = self.waiting.pop_front() {
            return Some(delivery);
        }
        if self.made == self.orders {
            return None;
        }
        let order = self.order();
        if self.rng.random_bool(REPEATED_RATE) {
            let repeated = self.repeated();
            self.waiting.push_back(repeated);
        }
        if self.rng.random_bool(CONFLICT_RATE) {
            let conflict = self.conflict();
            self.waiting.push_back(conflict);
        }
        if self.rng.random_bool(GARBAGE_RATE) {
            let garbage = self.garbage();
            self.waiting.push_back(garbage);
        }
        Some(order)
    }
}

/// The whole part of a number.
#[expect(clippy::cast_possible_truncation, reason = "a rank or a stock: finite and far below 2^52")]
fn whole(number: f64) -> i64 {
    number as i64
}

fn value(key: &str, lines: &[Line]) -> Vec<u8> {
    value_on(key, lines, None)
}

fn value_on(key: &str, lines: &[Line], hold_seconds: Option<i64>) -> Vec<u8> {
    let order = OrderCreated {
        kind: Some(OrderCreatedType::OrderCreated),
        order_id: Cow::Borrowed(key),
        lines: lines
            .iter()
            .map(|line| OrderCreatedLine {
                sku: Cow::Borrowed(&line.sku),
                location: None,
                quantity: line.quantity,
            })
            .collect(),
        policy: None,
        hold_seconds,
    };
    // Holds because strings and integers always have a JSON form.
    serde_json::to_vec(&order).expect("an order is always valid JSON")
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Record, read_command};
    use crate::ledger::{Action, Command, Offset, Source, TopicPartition};

    fn read(delivery: &Delivery) -> Option<Command> {
        let record = Record {
            source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
            key: Some(delivery.key.clone().into_bytes()),
            value: delivery.value.clone(),
            headers: Vec::new(),
            timestamp_ms: None,
            decoded: None,
        };
        read_command(&record).ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_seed_makes_the_same_stream_and_another_seed_another(seed: u64, orders in 20_u32..400) {
            prop_assert!(Workload::new(seed, orders).eq(Workload::new(seed, orders)));
            prop_assert_eq!(stock(seed, orders), stock(seed, orders));
            prop_assert!(!Workload::new(seed, orders).eq(Workload::new(seed ^ 1, orders)));
        }

        #[test]
        fn every_delivery_is_what_it_is_meant_to_be(seed: u64, orders in 1_u32..600) {
            let known: HashSet<String> = stock(seed, orders).into_iter().map(|stock| stock.sku).collect();
            let mut first: HashMap<String, Command> = HashMap::new();
            let mut made = 0;
            for delivery in Workload::new(seed, orders) {
                made += u32::from(delivery.kind.is_order());
                let command = read(&delivery);
                if delivery.kind == DeliveryKind::Garbage {
                    prop_assert!(command.is_none());
                    continue;
                }
                let command = command.expect("all but garbage can be read");
                prop_assert_eq!(command.key.id.as_str(), &delivery.key);
                match delivery.kind {
                    DeliveryKind::Order | DeliveryKind::UnknownSku => {
                        let Action::Take { lines, .. } = &command.action else { panic!("not a good order") };
                        prop_assert!((1..=5).contains(&lines.len()));
                        let unknown = lines.iter().filter(|line| !known.contains(line.item.sku.as_str())).count();
                        prop_assert_eq!(unknown, usize::from(delivery.kind == DeliveryKind::UnknownSku));
                    }
                    DeliveryKind::Invalid => prop_assert!(matches!(command.action, Action::Refuse(_))),
                    DeliveryKind::Repeated => prop_assert_eq!(&first[&delivery.key], &command),
                    DeliveryKind::Conflict => prop_assert_ne!(first[&delivery.key].digest, command.digest),
                    DeliveryKind::Garbage => unreachable!("handled above"),
                }
                if delivery.kind.is_order() {
                    prop_assert!(first.insert(delivery.key, command).is_none());
                }
            }
            prop_assert_eq!(made, orders);
        }
    }

    #[test]
    fn trouble_comes_at_its_rates() {
        const ORDERS: u32 = 40_000;
        for seed in [1, 2, 3] {
            let mut seen: HashMap<DeliveryKind, u32> = HashMap::new();
            for delivery in Workload::new(seed, ORDERS) {
                *seen.entry(delivery.kind).or_default() += 1;
            }
            for (kind, rate) in [
                (DeliveryKind::UnknownSku, UNKNOWN_SKU_RATE),
                (DeliveryKind::Invalid, INVALID_RATE),
                (DeliveryKind::Repeated, REPEATED_RATE),
                (DeliveryKind::Conflict, CONFLICT_RATE),
                (DeliveryKind::Garbage, GARBAGE_RATE),
            ] {
                let expected = rate * f64::from(ORDERS);
                // Five standard deviations: a fixed seed either passes for ever or shows a wrong rate.
                let allowed = 5.0 * expected.sqrt();
                assert!((f64::from(seen[&kind]) - expected).abs() < allowed, "{kind:?}: {seen:?}");
            }
        }
    }

    #[test]
    fn a_few_skus_are_wanted_most_and_the_flash_item_sells_out() {
        const ORDERS: u32 = 20_000;
        let mut wanted: HashMap<String, i64> = HashMap::new();
        for delivery in Workload::new(7, ORDERS).filter(|delivery| delivery.kind == DeliveryKind::Order) {
            let Some(Action::Take { lines, .. }) = read(&delivery).map(|command| command.action) else {
                continue;
            };
            for line in lines {
                *wanted.entry(line.item.sku.as_str().to_owned()).or_default() += line.quantity;
            }
        }
        let stock = stock(7, ORDERS);
        let flash = stock.iter().find(|stock| stock.sku == FLASH_SKU).map(|stock| stock.available);
        assert!(flash < Some(wanted[FLASH_SKU]));
        let mut pieces: Vec<i64> = wanted.into_values().collect();
        pieces.sort_unstable_by_key(|pieces| std::cmp::Reverse(*pieces));
        let all: i64 = pieces.iter().sum();
        let top: i64 = pieces.iter().take(usize::from(CATALOGUE) / 50).sum();
        assert!(top * 5 > all * 2, "the top 2 % of SKUs make {top} of {all} pieces");
    }
}
