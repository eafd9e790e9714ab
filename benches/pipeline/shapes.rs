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
}

impl Shape {
    pub fn letter(self) -> &'static str {
        match self {
            Self::Hot => "h",
            Self::Uniform => "u",
            Self::Zipf => "z",
            Self::Cart => "c",
            Self::Rejects => "r",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Hot => "one hot SKU",
            Self::Uniform => "10,000 SKUs",
            Self::Zipf => "100,000 SKUs, Zipf",
            Self::Cart => "three lines",
            Self::Rejects => "Zipf, 1/5 rejected",
        }
    }

    /// How many SKUs there are.
    pub fn skus(self) -> u64 {
        match self {
            Self::Hot => 1,
            Self::Uniform | Self::Cart => 10_000,
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

/// An order; its lines are sorted by SKU, each SKU once.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: String,
    pub lines: Vec<Line>,
}

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
    (0..count)
        .map(|number| {
            let lines = match shape {
                Shape::Hot => vec![line(0)],
                Shape::Uniform => vec![line(random.random_range(0..skus))],
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
            Order { id: ids.id(run, number), lines }
        })
        .collect()
}
