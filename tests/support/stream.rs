//! A stream of orders as a bad day brings them.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};

use super::kafka::{Sent, order, sent};

/// SKUs with stock.
const SKUS: usize = 300;

/// A SKU's name, the most wanted first.
pub fn sku(rank: usize) -> String {
    format!("SKU-{rank:03}")
}

/// The seed of a test's random choices: from the environment to repeat a run, else new; printed either way.
pub fn seed() -> u64 {
    let seed = match std::env::var("STOCK_VERIFIER_SEED") {
        Ok(text) => text.parse().expect("STOCK_VERIFIER_SEED is a number"),
        Err(_) => rand::rng().random_range(0..1_000_000_000),
    };
    println!("to repeat this run: STOCK_VERIFIER_SEED={seed}");
    seed
}

/// Stock, and a stream that asks for more of it than there is.
pub struct Stream {
    /// Levels to begin with.
    pub stock: Vec<(String, i64)>,
    /// `orders` orders with ids of their own, and between them repetitions, conflicts, invalid orders and garbage.
    pub records: Vec<Sent>,
}

/// Makes a stream. The same seed makes the same one.
pub fn make(seed: u64, orders: usize, partitions: i32) -> Stream {
    let mut random = StdRng::seed_from_u64(seed);
    let wanted = Zipf::new(SKUS as f64, 1.05).expect("a distribution");
    // Less than is wanted of each: the hot SKUs run out on the way.
    let stock = (1..=SKUS).map(|rank| (sku(rank), (orders / 4 / rank).max(5) as i64)).collect();
    let mut records: Vec<Sent> = Vec::with_capacity(orders + orders / 16);
    let mut number = 0;
    while number < orders {
        let to = random.random_range(0..partitions);
        let id = format!("o-{number}");
        let record = match random.random_range(0..1000) {
            // The same again, on any partition.
            0..20 if !records.is_empty() => {
                let earlier = random.random_range(0..records.len());
                records[earlier].clone()
            }
            // An id that was used already, for something else.
            20..30 if number > 0 => {
                let earlier = format!("o-{}", random.random_range(0..number));
                order(&earlier, &[("SKU-001", random.random_range(100..200))])
            }
            30..40 => sent("garbage", vec![0xff, random.random(), random.random()]),
            40..45 => {
                number += 1;
                sent(&id, format!(r#"{{"type":"order.created","order_id":"{id}","lines":[]}}"#))
            }
            45..50 => {
                number += 1;
                order(&id, &[("NO-SUCH-SKU", 1), ("SKU-002", 1)])
            }
            _ => {
                number += 1;
                let lines: Vec<_> = (0..random.random_range(1..=4))
                    .map(|_| (sku(wanted.sample(&mut random) as usize), random.random_range(1..=3)))
                    .collect();
                let lines: Vec<_> = lines.iter().map(|(sku, quantity)| (sku.as_str(), *quantity)).collect();
                order(&id, &lines)
            }
        };
        records.push(record.to(to));
    }
    Stream { stock, records }
}
