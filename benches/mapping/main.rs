//! What it costs to make a command of a Shopify order by the built-in mapping, next to what any program pays that reads the
//! same bytes: a parse by `serde_json`, into its own values.
//!
//! ```text
//! cargo bench --bench mapping
//! ```
//!
//! The order is made up after Shopify's documentation: three lines, every field that an order has. The two take turns, round
//! after round; what is shown is each one's best and median round. Needs no servers.

// The parts are public to the benchmark only; nothing outside can reach them.
#![allow(missing_docs)]
#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use stock_verifier::event::{Header, Reading, Record, read_record};
use stock_verifier::ledger::{Offset, Source, TopicPartition};
use stock_verifier::mapping::{Mapping, preset};
use tikv_jemallocator::Jemalloc;

// As the program has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const ORDER: &str = include_str!("shopify-order.json");
/// Orders of a round, and rounds.
const ORDERS: u32 = 2_000;
const ROUNDS: usize = 15;
/// Most that a mapping may cost, in parses.
const LIMIT: f64 = 4.0;

fn record() -> Record {
    let header =
        |name: &str, value: &str| Header { name: name.to_owned(), value: Some(value.as_bytes().to_vec()) };
    Record {
        source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
        key: Some(b"5678901234567".to_vec()),
        value: Some(ORDER.trim_end().as_bytes().to_vec()),
        headers: vec![
            header("X-Shopify-Topic", "orders/create"),
            header("X-Shopify-Shop-Domain", "mugs.example"),
            header("X-Shopify-API-Version", "2026-01"),
        ],
        timestamp_ms: Some(1_767_323_045_678),
        decoded: None,
    }
}

/// The time of one order, of a round.
fn round(mut one: impl FnMut()) -> Duration {
    let begun = Instant::now();
    (0..ORDERS).for_each(|_| one());
    begun.elapsed() / ORDERS
}

fn main() {
    let record = record();
    let bytes = record.value.as_deref().expect("a value");
    let mapping = Mapping::compile("preset:shopify", &preset("shopify", None).expect("there is one"))
        .expect("it compiles");
    assert!(matches!(read_record(&record, Some(&mapping)), Reading::Command(_)), "it is an order");
    let (mut parsed, mut mapped) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        parsed.push(round(|| drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(bytes))))));
        mapped.push(round(|| drop(black_box(read_record(black_box(&record), Some(&mapping))))));
    }
    println!("{} bytes an order, {ROUNDS} rounds of {ORDERS}\n", bytes.len());
    println!("{:<40}{:>12}{:>12}", "", "best", "median");
    let mut sorted =
        [("serde_json, to a value", parsed), ("unwrapped, mapped and read as a command", mapped)];
    for (name, times) in &mut sorted {
        times.sort_unstable();
        println!("{name:<40}{:>12}{:>12}", format!("{:.1?}", times[0]), format!("{:.1?}", times[ROUNDS / 2]));
    }
    let ratio = |at: usize| sorted[1].1[at].as_secs_f64() / sorted[0].1[at].as_secs_f64();
    println!(
        "\n{:.2} parses at best, {:.2} at the median; at most {LIMIT} are allowed",
        ratio(0),
        ratio(ROUNDS / 2)
    );
    if ratio(ROUNDS / 2) > LIMIT {
        std::process::exit(1);
    }
}
