//! The table of medians and ratios, and the file of all measurements. `chart.rs` draws from it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::args::Args;
use crate::contestants::{Contestant, Run};
use crate::probe::Probe;
use crate::shapes::Shape;
use crate::usage::Usage;

/// A measurement counts when writing was at most so many times as slow as in the quietest moment of the run …
const SLOW_DISK: f64 = 3.0;
/// … and others kept at most this share of the processors busy.
const BUSY: f64 = 0.25;

/// A measurement, as it is written down.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    pub contestant: Contestant,
    pub shape: Shape,
    pub round: usize,
    pub orders_per_second: f64,
    pub orders: usize,
    pub seconds: f64,
    pub probe: Probe,
    /// Whether the machine was quiet enough.
    pub counts: bool,
    pub notes: BTreeMap<String, f64>,
    /// Processor microseconds an order, of each process.
    pub used: Usage,
}

impl Measurement {
    pub fn new(contestant: Contestant, shape: Shape, round: usize, run: &Run, probe: Probe) -> Self {
        Self {
            contestant,
            shape,
            round,
            orders_per_second: run.rate(),
            orders: run.orders,
            seconds: run.time.as_secs_f64(),
            probe,
            counts: true,
            notes: run.notes.clone(),
            used: run.used.clone(),
        }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "round {} {} {:<31} {:>9.0}/s  {:>6.2} s  disk {:.2} ms, others {:.0} %",
            self.round,
            self.shape.letter(),
            self.contestant.name(),
            self.orders_per_second,
            self.seconds,
            self.probe.fdatasync_ms,
            self.probe.busy * 100.0
        )?;
        for (name, value) in &self.notes {
            write!(f, ", {name} {value:.1}")?;
        }
        write!(f, "; CPU µs an order:")?;
        for (name, micros) in &self.used {
            write!(f, " {name} {micros:.1}")?;
        }
        Ok(())
    }
}

/// Everything measured in this run.
#[derive(Debug, Default)]
pub struct Report {
    all: Vec<Measurement>,
}

/// Median of what counts, for each contestant and shape.
pub type Medians = BTreeMap<(Contestant, Shape), f64>;

impl Report {
    pub fn add(&mut self, measurement: Measurement) {
        self.all.push(measurement);
    }

    /// Judges by the quietest moment of the whole run, so that the first rounds are judged like the last.
    pub fn judge(&mut self, count_noisy: bool) {
        let quietest =
            self.all.iter().map(|measurement| measurement.probe.fdatasync_ms).fold(f64::INFINITY, f64::min);
        for measurement in &mut self.all {
            let probe = measurement.probe;
            measurement.counts =
                count_noisy || probe.fdatasync_ms <= SLOW_DISK * quietest && probe.busy <= BUSY;
        }
    }

    pub fn medians(&self) -> Medians {
        let mut rates: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for measured in self.all.iter().filter(|measured| measured.counts) {
            rates.entry((measured.contestant, measured.shape)).or_default().push(measured.orders_per_second);
        }
        rates.into_iter().map(|(key, rates)| (key, median(rates))).collect()
    }

    /// The shapes measured, in the order of their first measurements.
    pub fn shapes(&self) -> Vec<Shape> {
        unique(self.all.iter().map(|measured| measured.shape))
    }

    fn bars(medians: &Medians, shape: Shape) -> Vec<Bar> {
        use Contestant::{
            Copy, Copy2, EndToEnd, Kafka, Procedure, RedisAlways, RedisEverysec, Sql, Store, Store2,
        };
        let wanted = match shape {
            Shape::Hot => 20.0,
            Shape::Uniform | Shape::Zipf | Shape::Rejects | Shape::Mixed => 6.0,
            Shape::Cart => 5.0,
        };
        let hot = shape == Shape::Hot;
        let bars = [
            (EndToEnd, Sql, Some(wanted)),
            (EndToEnd, Procedure, Some(2.0)),
            (Store, Copy, Some(0.7)),
            (Store2, Store, Some(1.0)),
            (Store2, Copy2, None),
            (Store, RedisEverysec, hot.then_some(1.0)),
            (EndToEnd, RedisAlways, hot.then_some(1.0)),
            (EndToEnd, RedisEverysec, None),
            (EndToEnd, Kafka, None),
        ];
        bars.into_iter()
            .filter_map(|(of, to, wanted)| {
                let ratio = medians.get(&(of, shape))? / medians.get(&(to, shape))?;
                let reached = wanted.map(|wanted| ratio >= wanted);
                Some(Bar { shape, of, to, ratio, wanted, reached })
            })
            .collect()
    }

    pub fn print(&self) {
        let medians = self.medians();
        let shapes = self.shapes();
        let contestants: Vec<Contestant> = unique(self.all.iter().map(|measured| measured.contestant));
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        let title = |shape: &Shape| format!("{}: {}", shape.letter(), shape.title());
        table.set_header(std::iter::once("orders/s, median".to_owned()).chain(shapes.iter().map(title)));
        for contestant in contestants {
            let cells = shapes.iter().map(|shape| {
                medians.get(&(contestant, *shape)).map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}"))
            });
            table.add_row(std::iter::once(contestant.name().to_owned()).chain(cells));
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        println!("{table}\n");

        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["shape", "ratio", "of", "to", "bar", ""]);
        for bar in shapes.iter().flat_map(|shape| Self::bars(&medians, *shape)) {
            table.add_row([
                bar.shape.letter().to_owned(),
                format!("{:.2}", bar.ratio),
                bar.of.name().to_owned(),
                bar.to.name().to_owned(),
                bar.wanted.map_or_else(String::new, |wanted| format!("{wanted:.1}")),
                bar.reached.map_or("", |reached| if reached { "reached" } else { "NOT reached" }).to_owned(),
            ]);
        }
        println!("{table}\n");
        let discarded = self.all.iter().filter(|measured| !measured.counts).count();
        println!("{discarded} of {} measurements fell into a noisy moment and do not count.", self.all.len());
    }

    /// Writes the measurements.
    pub fn write(&self, args: &Args) -> Result<()> {
        let medians = self.medians();
        let shapes = self.shapes();
        let document = Document {
            machine: Machine::look(),
            orders: args.orders,
            batch: args.batch,
            ids: args.ids,
            verifier_args: &args.verifier_arg,
            medians: medians
                .iter()
                .map(|((contestant, shape), rate)| Median {
                    contestant: *contestant,
                    shape: *shape,
                    orders_per_second: *rate,
                })
                .collect(),
            bars: shapes.iter().flat_map(|shape| Self::bars(&medians, *shape)).collect(),
            measurements: &self.all,
        };
        save(&args.json, &serde_json::to_string_pretty(&document)?)
    }
}

/// Writes a file and the directories above it.
pub fn save(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    machine: Machine,
    orders: usize,
    batch: Option<usize>,
    ids: crate::shapes::Ids,
    verifier_args: &'a [String],
    medians: Vec<Median>,
    bars: Vec<Bar>,
    measurements: &'a [Measurement],
}

#[derive(Debug, Serialize)]
struct Median {
    contestant: Contestant,
    shape: Shape,
    orders_per_second: f64,
}

/// A ratio of two medians, and what it should be at least.
#[derive(Debug, Serialize)]
struct Bar {
    shape: Shape,
    of: Contestant,
    to: Contestant,
    ratio: f64,
    wanted: Option<f64>,
    reached: Option<bool>,
}

#[derive(Debug, Serialize)]
pub struct Machine {
    processors: usize,
    model: String,
    memory_gib: f64,
    kernel: String,
}

impl Machine {
    pub fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        let kib: f64 = memory.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: after(&read("/proc/cpuinfo"), "model name"),
            memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn unique<T: PartialEq>(of: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for one in of {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}
