//! What the orders look like. Every contestant gets the same orders in the same order.

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use serde::Serialize;

/// Stock of each SKU at the start: more than any run takes.
pub const STOCK: i64 = 1_000_000_000;
/// What an order to be rejected asks for: more than there ever is.
pub const TOO_MUCH: i64 = 2 * STOCK;
/// Every fifth order of shape r asks for too much.
pub const REJECT_EVERY: usize = 5;
/// Spreads the ranks of a Zipf distribution over the SKUs, so that hot ones are no neighbours in the index.
/// A prime that does not divide the number of SKUs, so it only changes their order.
pub const SPREAD: u64 = 7919;

/// A shape of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
pub enum Shape {
    /// One line, one hot SKU
    #[value(name = "h")]
    #[serde(rename = "h")]
    Hot,
    /// One line, 10,000 SKUs, uniform
    #[value(name = "u")]
    #[serde(rename = "u")]
    Uniform,
    /// One line, 100,000 SKUs, Zipf with exponent 1.0
    #[value(name = "z")]
    #[serde(rename = "z")]
    Zipf,
    /// Three lines, 10,000 SKUs, uniform
    #[value(name = "c")]
    #[serde(rename = "c")]
    Cart,
    /// As z, with a fifth of the orders rejected
    #[value(name = "r")]
    #[serde(rename = "r")]
    Rejects,
    /// As u, with holds, cancellations, returns and restocks among the orders: for the verifier alone, since no peer has them
    #[value(name = "m")]
    #[serde(rename = "m")]
    Mixed,
}

impl Shape {
    /// Those that every contestant can run.
    pub const OF_ALL: [Self; 5] = [Self::Hot, Self::Uniform, Self::Zipf, Self::Cart, Self::Rejects];

    pub fn letter(self) -> &'static str {
        match self {
            Self::Hot => "h",
            Self::Uniform => "u",
            Self::Zipf => "z",
            Self::Cart => "c",
            Self::Rejects => "r",
            Self::Mixed => "m",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Hot => "one hot SKU",
            Self::Uniform => "10,000 SKUs",
            Self::Zipf => "100,000 SKUs, Zipf",
            Self::Cart => "three lines",
            Self::Rejects => "Zipf, 1/5 rejected",
            Self::Mixed => "mixed life",
        }
    }

    /// How many SKUs there are.
    pub fn skus(self) -> u64 {
        match self {
            Self::Hot => 1,
            Self::Uniform | Self::Cart | Self::Mixed => 10_000,
            Self::Zipf | Self::Rejects => 100_000,
        }
    }

    /// How many of so many orders are rejected.
    pub fn rejected(self, orders: usize) -> usize {
        if self == Self::Rejects { orders / REJECT_EVERY } else { 0 }
    }
}

/// How order ids look: it decides where an index grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// A number that counts up, as an order number or a time-ordered UUID does
    Counting,
    /// Random, as a version 4 UUID is
    Random,
}

impl Ids {
    /// The id of the order with this number. The same number gives the same id.
    pub fn id(self, run: &str, number: usize) -> String {
        match self {
            Self::Counting => format!("o-{run}{number:010}"),
            Self::Random => {
                // A hash is a random number that can be made again.
                let hash = blake3::hash(format!("{run}{number}").as_bytes());
                let hex = hash.to_hex();
                let (time, middle, random) = (&hex[..8], &hex[8..12], &hex[20..32]);
                format!("{time}-{middle}-4{}-8{}-{random}", &hex[13..16], &hex[17..20])
            }
        }
    }
}

/// One line of an order.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub sku: u64,
    pub quantity: i64,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// An order, for good.
    Order,
    /// An order that holds, for a day.
    Hold,
    /// The end of the order of this id.
    Cancel,
    /// That all of this order comes back.
    Return { order: String },
    /// Pieces of its one line.
    Restock,
}

/// An order, or in shape m something else; its lines are sorted by SKU, each SKU once.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: String,
    pub lines: Vec<Line>,
    pub asks: Asks,
}

impl Order {
    pub fn new(id: String, lines: Vec<Line>) -> Self {
        Self { id, lines, asks: Asks::Order }
    }

    /// The order that it is about, which is its record's key.
    pub fn key(&self) -> &str {
        match &self.asks {
            Asks::Return { order } => order,
            _ => &self.id,
        }
    }
}

/// Of a hundred records of shape m, so many are of each kind; the rest are orders.
const HOLDS: u32 = 3;
const FOLLOWING: u32 = 5;
const RESTOCKS: u32 = 2;

/// The name of a SKU by its number.
pub fn sku_name(number: u64) -> String {
    format!("SKU-{number:06}")
}

/// So many orders of a shape: the same for the same arguments.
pub fn orders(shape: Shape, count: usize, ids: Ids, run: &str) -> Vec<Order> {
    let mut random = StdRng::seed_from_u64(7);
    let skus = shape.skus();
    // Holds because the number of SKUs and the exponent are positive constants.
    #[allow(clippy::cast_precision_loss)]
    let zipf = Zipf::new(skus as f64, 1.0).expect("a valid distribution");
    let line = |sku| Line { sku, quantity: 1 };
    let mut orders: Vec<Order> = (0..count)
        .map(|number| {
            let lines = match shape {
                Shape::Hot => vec![line(0)],
                Shape::Uniform | Shape::Mixed => vec![line(random.random_range(0..skus))],
                Shape::Zipf | Shape::Rejects => {
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    let rank = zipf.sample(&mut random) as u64 - 1;
                    let quantity =
                        if shape == Shape::Rejects && number % REJECT_EVERY == 0 { TOO_MUCH } else { 1 };
                    vec![Line { sku: rank * SPREAD % skus, quantity }]
                }
                // One SKU of each third: sorted and different without more work, for pgbench as for everyone.
                Shape::Cart => {
                    (0..3).map(|third| line(third * skus / 3 + random.random_range(0..skus / 3))).collect()
                }
            };
            Order::new(ids.id(run, number), lines)
        })
        .collect();
    if shape == Shape::Mixed {
        mix(&mut orders, &mut random);
    }
    orders
}

/// Makes some of these orders something else: each order is followed once at most, by what comes after it.
fn mix(orders: &mut [Order], random: &mut StdRng) {
    let mut to_follow: Vec<usize> = Vec::new();
    for at in 0..orders.len() {
        let asks = match random.random_range(0..100) {
            kind if kind < HOLDS => Asks::Hold,
            kind if kind < HOLDS + FOLLOWING && !to_follow.is_empty() => {
                let followed = orders[to_follow.swap_remove(random.random_range(0..to_follow.len()))].clone();
                orders[at].lines = followed.lines;
                if random.random() {
                    orders[at].id = followed.id;
                    Asks::Cancel
                } else {
                    Asks::Return { order: followed.id }
                }
            }
            kind if kind >= 100 - RESTOCKS => Asks::Restock,
            _ => Asks::Order,
        };
        if matches!(asks, Asks::Order | Asks::Hold) {
            to_follow.push(at);
        }
        orders[at].asks = asks;
    }
}
