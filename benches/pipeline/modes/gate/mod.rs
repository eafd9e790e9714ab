//! A gate, next to its own script called straight from a Redis client, and in a flash sale.

mod load;
mod redis;
mod sale;
mod stage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use stock_verifier::kafka::order_producer::OrderProducer;

use self::load::{Answers, Expected, NUMBER, Target, Template, ask};
use self::stage::Stage;
use crate::Bench;
use crate::probe::{self, Probe};
use crate::report::{Machine, median, save};
use crate::shapes::{STOCK, sku_name};

pub use self::sale::run as sales;

/// The script of the gate, as the gate itself puts it together.
const SCRIPT: &str = concat!(
    "#!lua\n",
    include_str!("../../../../src/gate/scripts/common.lua"),
    include_str!("../../../../src/gate/scripts/admit.lua")
);
/// A SKU with more pieces than are asked for, and one without any.
const LEVELS: [i64; 2] = [STOCK, 0];
const PLENTY: u64 = 0;
const SOLD_OUT: u64 = 1;
/// Redis' database of those who call the script themselves; the gates' is the first.
const OWN_DATABASE: u8 = 1;
/// Seconds for which orders are admitted before anything counts. A broker that was just started takes ten times as much of
/// the processor for an order, until its Java has compiled what it does.
const WARM_UP: u64 = 90;
/// At half of the most that is answered, p99 is below this.
const P99_LIMIT_MS: f64 = 25.0;

/// What is measured, with the share of the direct calls that it must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    SoldOut,
    Admitted,
}

impl Kind {
    const ALL: [Self; 2] = [Self::SoldOut, Self::Admitted];

    fn name(self) -> &'static str {
        match self {
            Self::SoldOut => "sold out",
            Self::Admitted => "admitted",
        }
    }

    fn wanted(self) -> f64 {
        match self {
            Self::SoldOut => 0.4,
            Self::Admitted => 0.2,
        }
    }

    fn sku(self) -> String {
        sku_name(match self {
            Self::SoldOut => SOLD_OUT,
            Self::Admitted => PLENTY,
        })
    }

    fn status(self) -> u16 {
        match self {
            Self::SoldOut => 409,
            Self::Admitted => 202,
        }
    }

    /// Lines of the script's answer, and how they begin.
    fn lines(self) -> Expected {
        match self {
            Self::SoldOut => Expected::Lines(9, "*2\r\n$5\r\nshort\r\n"),
            Self::Admitted => Expected::Lines(7, "*3\r\n$8\r\nadmitted\r\n"),
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Script,
    Gate,
    TwoGates,
    GateAtHalf,
    /// The script called straight, and each order sent to Kafka then by who called it. No gate runs: so much costs what
    /// every gate has to do.
    NoGate,
    NoGateAtHalf,
}

impl Who {
    const ALL: [Self; 6] =
        [Self::Script, Self::Gate, Self::TwoGates, Self::GateAtHalf, Self::NoGate, Self::NoGateAtHalf];

    /// Those who give such answers.
    fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::SoldOut => &Self::ALL[..4],
            Kind::Admitted => &Self::ALL,
        }
    }

    fn is_without_gate(self) -> bool {
        matches!(self, Self::NoGate | Self::NoGateAtHalf)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Script => "script called straight",
            Self::Gate => "gate",
            Self::TwoGates => "two gates",
            Self::GateAtHalf => "gate, at half of that",
            Self::NoGate => "script and Kafka, without a gate",
            Self::NoGateAtHalf => "the same, at half of the gate's",
        }
    }
}

/// One measurement.
struct Measured {
    kind: Kind,
    who: Who,
    answers: Answers,
    probe: Probe,
    /// How long it took until no entry was open after it.
    rest: Duration,
}

/// Measures what a gate answers in a second.
pub fn rates(bench: &mut Bench) -> Result<()> {
    let mut all: Vec<Measured> = Vec::new();
    let rounds = bench.args.rounds.min(3);
    let next = Arc::new(AtomicU64::new(0));
    let about = {
        let mut stage = Stage::start(bench, &LEVELS)?;
        stage.rest(bench)?;
        warm_up(bench, &mut stage, &next)?;
        for round in 1..=rounds {
            for kind in Kind::ALL {
                let mut most = 0.0;
                for who in Who::of(kind).iter().copied() {
                    let probe = probe::probe(&bench.services.disk)?;
                    let is_at_half = matches!(who, Who::GateAtHalf | Who::NoGateAtHalf);
                    let rate = is_at_half.then_some(most / 2.0);
                    if who == Who::TwoGates {
                        stage.add_gate(bench)?;
                    } else if who.is_without_gate() {
                        stage.remove_gate()?;
                    }
                    let answers = measure(bench, &stage, kind, who, rate, &next)?;
                    if who == Who::Gate {
                        most = answers.per_second;
                    }
                    let rest =
                        if who.is_without_gate() { stage.decided(bench)? } else { stage.rest(bench)? };
                    let measured = Measured { kind, who, answers, probe, rest };
                    if who == Who::TwoGates {
                        stage.remove_gate()?;
                    } else if who.is_without_gate() {
                        stage.add_gate(bench)?;
                    }
                    eprintln!("round {round}, {}", line(&measured));
                    all.push(measured);
                }
            }
        }
        let about = stage.redis.about()?;
        stage.end(bench)?;
        about
    };
    report(bench, &about, &all)
}

fn warm_up(bench: &Bench, stage: &mut Stage, next: &Arc<AtomicU64>) -> Result<()> {
    if bench.args.quick {
        return Ok(());
    }
    let target = of_gates(&stage.addresses()[..1], Kind::Admitted);
    let answers = ask(&target, bench.args.connections, WARM_UP, None, next, &[])?;
    eprintln!("warm-up: {:.0}/s admitted for {WARM_UP} s", answers.per_second);
    stage.rest(bench)?;
    Ok(())
}

fn of_gates(addresses: &[SocketAddr], kind: Kind) -> Target {
    Target {
        addresses: addresses.to_vec(),
        hello: None,
        request: Template::posted_order(&kind.sku()),
        expected: Expected::Status(kind.status()),
        order: None,
    }
}

fn measure(
    bench: &Bench,
    stage: &Stage,
    kind: Kind,
    who: Who,
    rate: Option<f64>,
    next: &Arc<AtomicU64>,
) -> Result<Answers> {
    let addresses = stage.addresses();
    let target = match who {
        Who::Script => of_script(stage, kind)?,
        Who::NoGate | Who::NoGateAtHalf => {
            let producer = OrderProducer::new(&bench.kafka.args(), &stage.names.orders_topic)?;
            let order = Some((Template::order(&kind.sku()), Arc::new(producer)));
            Target { order, ..of_script(stage, kind)? }
        }
        Who::Gate | Who::GateAtHalf => of_gates(&addresses[..1], kind),
        Who::TwoGates => of_gates(&addresses, kind),
    };
    let watched = stage.watched(bench);
    let answers = ask(&target, bench.args.connections, bench.args.gate_seconds(), rate, next, &watched)?;
    if who == Who::Script || who.is_without_gate() {
        let mut redis = stage.redis.connection()?;
        ::redis::cmd("SELECT").arg(OWN_DATABASE).exec(&mut redis)?;
        ::redis::cmd("FLUSHDB").arg("SYNC").exec(&mut redis)?;
    }
    Ok(answers)
}

/// The script in a database of its own, on what a gate would have stored there.
fn of_script(stage: &Stage, kind: Kind) -> Result<Target> {
    const PREFIX: &str = "direct:";
    let mut redis = stage.redis.connection()?;
    ::redis::cmd("SELECT").arg(OWN_DATABASE).exec(&mut redis)?;
    let available = LEVELS[usize::from(kind == Kind::SoldOut)];
    ::redis::cmd("SET").arg(format!("{PREFIX}cache")).arg("filled").exec(&mut redis)?;
    let mut level = ::redis::cmd("HSET");
    level.arg(format!("{PREFIX}item:{}", kind.sku())).arg("available").arg(available);
    level.arg("version").arg(1).arg("backorder").arg(0).exec(&mut redis)?;
    let sha: String = ::redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(&mut redis)?;
    let order = format!("o-{NUMBER}");
    // Any will do: no order comes twice.
    let digest = "0123456789abcdef0123456789abcdef";
    let lines = format!(r#"[["{}",1]]"#, kind.sku());
    let words = ["EVALSHA", &sha, "0", PREFIX, &order, digest, &lines, "1", "", "6000"];
    Ok(Target {
        addresses: vec![stage.redis.address().parse()?],
        hello: Some(encode(&["SELECT", &OWN_DATABASE.to_string()]).into_bytes()),
        request: Template::new(&encode(&words)),
        expected: kind.lines(),
        order: None,
    })
}

fn encode(words: &[&str]) -> String {
    words
        .iter()
        .fold(format!("*{}\r\n", words.len()), |text, word| format!("{text}${}\r\n{word}\r\n", word.len()))
}

fn line(measured: &Measured) -> String {
    let Measured { kind, who, answers, probe, rest } = measured;
    let used: Vec<String> = answers.used.iter().map(|(name, micros)| format!("{name} {micros:.1}")).collect();
    format!(
        "{}, {}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms (others {:.0} %, at rest after {rest:.1?}); CPU µs an answer: {}",
        kind.name(),
        who.name(),
        answers.per_second,
        answers.p50_ms,
        answers.p99_ms,
        probe.busy * 100.0,
        used.join(", ")
    )
}

fn report(bench: &Bench, about: &str, all: &[Measured]) -> Result<()> {
    let of = |kind: Kind, who: Who, value: fn(&Answers) -> f64| {
        let these = all.iter().filter(|one| one.kind == kind && one.who == who);
        median(these.map(|one| value(&one.answers)).collect())
    };
    let connections = bench.args.connections;
    println!("{about}; {connections} connections of one thread; a verifier runs; medians");
    println!("| answers | from | a second | of the script's | p50 | p99 |\n|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let straight = of(kind, Who::Script, |answers| answers.per_second);
        for who in Who::of(kind).iter().copied() {
            let rate = of(kind, who, |answers| answers.per_second);
            let (p50, p99) =
                (of(kind, who, |answers| answers.p50_ms), of(kind, who, |answers| answers.p99_ms));
            let bar = match who {
                Who::Gate => Some(rate / straight >= kind.wanted()),
                Who::GateAtHalf => Some(p99 < P99_LIMIT_MS),
                Who::Script | Who::TwoGates | Who::NoGate | Who::NoGateAtHalf => None,
            };
            let mark = match bar {
                Some(true) => " ✓",
                Some(false) => " ✗",
                None => "",
            };
            println!(
                "| {} | {} | {rate:.0} | {:.2} × | {p50:.2} ms | {p99:.2} ms{mark} |",
                kind.name(),
                who.name(),
                rate / straight
            );
            let used: Vec<&BTreeMap<String, f64>> = all
                .iter()
                .filter(|one| one.kind == kind && one.who == who)
                .map(|one| &one.answers.used)
                .collect();
            rows.push(serde_json::json!({
                "answers": kind.name(), "from": who.name(), "per_second": rate, "ratio": rate / straight,
                "p50_ms": p50, "p99_ms": p99, "is_bar_reached": bar, "cpu_us_an_answer": used,
            }));
        }
    }
    let document = serde_json::json!({
        "redis": about, "connections": connections, "machine": Machine::look(), "measured": rows,
        "at": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    });
    save(&bench.args.json.with_file_name("gate.json"), &serde_json::to_string_pretty(&document)?)
}
