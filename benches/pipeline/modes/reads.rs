//! What reads cost deciding: latency of orders at a steady rate while prechecks are answered, from each source in turn.
//!
//! The load generator is this process: so many threads, each with a connection of its own that stays open. Prechecks are
//! due at fixed times; their latency counts from when they were due, so that a slow answer does not hide the wait of the next.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::latency::{MAX_MICROS, WARM_UP, micros, millis, stream};
use crate::Bench;
use crate::args::ReadSource;
use crate::probe;
use crate::report::{median, save};
use crate::shapes::{Shape, sku_name};
use crate::standby::Standby;

/// Connections that ask.
const CONNECTIONS: u32 = 16;
/// Longest wait for an answer, and for the verifier to listen.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// One measurement.
struct Measured {
    p50: f64,
    p99: f64,
    /// Of the prechecks: a second, and p50 and p99 of their latency.
    reads: Option<(f64, f64, f64)>,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let programs = bench.services.postgres_programs.clone();
    let programs = programs.context("PG_BIN is not set: a replica is made with the programs there")?;
    let standby = Standby::start(&programs, &bench.services.database_url)?;
    let mut rows = Vec::new();
    for round in 1..=bench.args.rounds.min(3) {
        for source in bench.args.read_sources.clone() {
            let quiet = probe::probe(&bench.services.disk)?;
            let measured = measure(bench, &standby, source)?;
            eprintln!(
                "round {round}, {}: orders p50 {:.1} ms, p99 {:.1} ms; reads {:?} (others {:.0} %)",
                source,
                measured.p50,
                measured.p99,
                measured.reads,
                quiet.busy * 100.0
            );
            rows.push((source, measured));
        }
    }
    report(bench, &rows)
}

fn measure(bench: &mut Bench, standby: &Standby, source: ReadSource) -> Result<Measured> {
    let (order_rate, read_rate) = (bench.args.order_rate, bench.args.read_rate);
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let arguments = |database: &str| {
        let mut arguments = vec!["--http-listen".to_owned(), format!("127.0.0.1:{port}")];
        match source {
            ReadSource::Nobody | ReadSource::Elsewhere => arguments.clear(),
            ReadSource::Primary => {}
            // A wrong URL would fail the verifier's start, which says so.
            ReadSource::Replica => arguments
                .extend(["--read-database-url".to_owned(), standby.url_of(database).unwrap_or_default()]),
            ReadSource::LevelsTopic => {
                arguments.extend(["--precheck-from".to_owned(), "levels-topic".to_owned()]);
            }
        }
        arguments
    };
    let beside = |over: &AtomicBool| match source {
        ReadSource::Nobody => Ok(None),
        ReadSource::Elsewhere => ask(answer_at_once()?, read_rate, over).map(Some),
        _ => ask(port, read_rate, over).map(Some),
    };
    let (orders, reads) = stream(bench, Shape::Uniform, order_rate, arguments, beside)?;
    let at = |histogram: &Histogram<u64>, quantile| millis(histogram.value_at_quantile(quantile));
    Ok(Measured {
        p50: at(&orders, 0.5),
        p99: at(&orders, 0.99),
        reads: reads.map(|(reads, rate)| (rate, at(&reads, 0.5), at(&reads, 0.99))),
    })
}

/// Asks at this rate until it is over; latencies after the warm-up, and how many were answered a second then.
fn ask(port: u16, rate: u32, over: &AtomicBool) -> Result<(Histogram<u64>, f64)> {
    let start = Instant::now();
    let (all, asked_for) = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CONNECTIONS)
            .map(|number| scope.spawn(move || ask_on_one(port, rate, number, start, over)))
            .collect();
        let mut all = Histogram::<u64>::new_with_max(MAX_MICROS, 3)?;
        for one in asking {
            all.add(one.join().map_err(|_| anyhow!("a reader panicked"))??)?;
        }
        Ok::<_, anyhow::Error>((all, start.elapsed().saturating_sub(WARM_UP)))
    })?;
    #[allow(clippy::cast_precision_loss)]
    let rate = all.len() as f64 / asked_for.as_secs_f64();
    Ok((all, rate))
}

fn ask_on_one(
    port: u16,
    rate: u32,
    number: u32,
    start: Instant,
    over: &AtomicBool,
) -> Result<Histogram<u64>> {
    let mut random = StdRng::seed_from_u64(number.into());
    let mut connection = connect(port)?;
    let mut latencies = Histogram::new_with_max(MAX_MICROS, 3)?;
    let every = Duration::from_secs(1) * CONNECTIONS / rate;
    let mut due = start.elapsed() + every * number / CONNECTIONS;
    while !over.load(Ordering::Acquire) {
        if let Some(early) = due.checked_sub(start.elapsed()) {
            std::thread::sleep(early);
        }
        let sku = |random: &mut StdRng| sku_name(random.random_range(0..Shape::Uniform.skus()));
        let (one, other) = (sku(&mut random), sku(&mut random));
        let cart =
            format!(r#"{{"lines":[{{"sku":"{one}","quantity":1}},{{"sku":"{other}","quantity":2}}]}}"#);
        precheck(&mut connection, &cart)?;
        if start.elapsed() > WARM_UP {
            latencies.saturating_record(micros(start.elapsed().saturating_sub(due)));
        }
        due += every;
    }
    Ok(latencies)
}

/// Answers whatever comes, until this process ends: a thread for each connection. Its port.
fn answer_at_once() -> Result<u16> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || -> Result<()> {
                let mut stream = BufReader::new(stream);
                while read_message(&mut stream)?.is_some() {
                    stream.get_mut().write_all(ANSWER)?;
                }
                Ok(())
            });
        }
    });
    Ok(port)
}

/// Once the verifier listens.
fn connect(port: u16) -> Result<BufReader<TcpStream>> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_LIMIT))?;
                return Ok(BufReader::new(stream));
            }
            Err(_) if begun.elapsed() < ANSWER_LIMIT => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(error).context("the verifier does not listen"),
        }
    }
}

/// One request and its whole answer.
fn precheck(connection: &mut BufReader<TcpStream>, cart: &str) -> Result<()> {
    let head =
        "POST /v1/precheck HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: ";
    connection.get_mut().write_all(format!("{head}{}\r\n\r\n{cart}", cart.len()).as_bytes())?;
    let (status, body) = read_message(connection)?.context("the connection ended")?;
    if !status.contains(" 200 ") {
        bail!("{}: {}", status.trim_end(), String::from_utf8_lossy(&body));
    }
    Ok(())
}

/// The first line and the body of what comes; `None` where the connection ended before.
fn read_message(connection: &mut BufReader<TcpStream>) -> Result<Option<(String, Vec<u8>)>> {
    let mut first = String::new();
    if connection.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            bail!("the connection ended");
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(Some((first, body)))
}

fn report(bench: &Bench, rows: &[(ReadSource, Measured)]) -> Result<()> {
    let of = |source: ReadSource, value: fn(&Measured) -> f64| {
        median(rows.iter().filter(|(of, _)| *of == source).map(|(_, measured)| value(measured)).collect())
    };
    println!(
        "{:.0} orders/s, {} prechecks/s on {CONNECTIONS} connections; medians",
        bench.args.order_rate, bench.args.read_rate
    );
    let mut measured = Vec::new();
    for source in bench.args.read_sources.iter().copied() {
        let (p50, p99) = (of(source, |measured| measured.p50), of(source, |measured| measured.p99));
        let ratio = p99 / of(ReadSource::Nobody, |measured| measured.p99);
        print!("{source:>12}: orders p50 {p50:.1} ms, p99 {p99:.1} ms ({ratio:.2} ×)");
        let mut row =
            serde_json::json!({"source": source.to_string(), "p50_ms": p50, "p99_ms": p99, "ratio": ratio});
        if source != ReadSource::Nobody {
            let read = |value: fn(&(f64, f64, f64)) -> f64| {
                let of_source = rows.iter().filter(|(of, _)| *of == source);
                median(of_source.filter_map(|(_, measured)| measured.reads.as_ref().map(value)).collect())
            };
            let (rate, p50, p99) = (read(|one| one.0), read(|one| one.1), read(|one| one.2));
            print!("; reads {rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms");
            row["reads"] = serde_json::json!({"per_second": rate, "p50_ms": p50, "p99_ms": p99});
        }
        println!();
        measured.push(row);
    }
    save(&bench.args.json.with_file_name("reads.json"), &serde_json::to_string_pretty(&measured)?)
}
