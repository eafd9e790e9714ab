//! The load generator: one thread of this process, so many connections that stay open, and on each the next request after
//! the answer of the one before. As light as can be: a request is made once, and only its order's number is written into
//! it; of an answer is read what tells that it is whole and as it should be. What it takes of the processors is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use stock_verifier::event::{TraceContext, submitted};
use stock_verifier::kafka::order_producer::{Delivery, OrderProducer};
use stock_verifier::ledger::Id;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::latency::{MAX_MICROS, micros, millis};
use crate::usage::{self, Usage, Watched};

/// Not counted: connections are made, scripts loaded, and the broker's code compiled.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longest answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Digits of an order's number in a request.
const DIGITS: usize = 10;
/// What stands in a template for them.
pub const NUMBER: &str = "##########";

/// A request of which only the number of its order changes.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    at: usize,
}

impl Template {
    /// Of a text that holds [`NUMBER`] once.
    pub fn new(text: &str) -> Self {
        let at = text.find(NUMBER).expect("a template has a place for the number");
        Self { bytes: text.as_bytes().to_vec(), at }
    }

    /// An order of one piece, as it stands in Kafka.
    pub fn order(sku: &str) -> Self {
        Self::new(&format!(
            r#"{{"type":"order.created","order_id":"o-{NUMBER}","lines":[{{"sku":"{sku}","quantity":1}}]}}"#
        ))
    }

    /// The same, to a gate.
    pub fn posted_order(sku: &str) -> Self {
        let body = format!(r#"{{"order_id":"o-{NUMBER}","lines":[{{"sku":"{sku}","quantity":1}}]}}"#);
        Self::new(&format!(
            "POST /v1/orders HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    pub fn numbered(&mut self, number: u64) -> &[u8] {
        let digits = format!("{number:0DIGITS$}");
        self.bytes[self.at..self.at + DIGITS].copy_from_slice(digits.as_bytes());
        &self.bytes
    }
}

/// How answers are read.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// HTTP, with this status.
    Status(u16),
    /// Of Redis: so many lines, which begin so.
    Lines(usize, &'static str),
}

/// Who is asked, and what.
#[derive(Clone)]
pub struct Target {
    pub addresses: Vec<SocketAddr>,
    /// Sent first on each connection, and answered by one line.
    pub hello: Option<Vec<u8>>,
    pub request: Template,
    pub expected: Expected,
    /// Sent to Kafka by this generator itself once the answer came, before it counts.
    pub order: Option<(Template, Arc<OrderProducer>)>,
}

/// What was measured.
#[derive(Debug)]
pub struct Answers {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Processor microseconds an answer, of each process.
    pub used: Usage,
}

/// What all connections share.
struct Shared {
    /// Before, while and after it is counted.
    phase: AtomicU8,
    next: Arc<AtomicU64>,
}

const COUNTED: u8 = 1;
const OVER: u8 = 2;

/// Asks for so long on so many connections, as fast as answers come, or at `rate`: then latency counts from when a request
/// was due, so that a slow answer does not hide the wait of the next. Orders' numbers are taken from `next`.
pub fn ask(
    target: &Target,
    connections: usize,
    seconds: u64,
    rate: Option<f64>,
    next: &Arc<AtomicU64>,
    watched: &[Watched],
) -> Result<Answers> {
    let shared = Arc::new(Shared { phase: AtomicU8::new(0), next: Arc::clone(next) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking = {
        let (shared, target) = (Arc::clone(&shared), target.clone());
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                let begun = Instant::now();
                for number in 0..connections {
                    #[allow(clippy::cast_precision_loss)]
                    let due = rate.map(|rate| Due {
                        next: begun + Duration::from_secs_f64(number as f64 / rate),
                        every: Duration::from_secs_f64(connections as f64 / rate),
                    });
                    tasks.spawn(ask_on_one(target.clone(), number, due, Arc::clone(&shared)));
                }
                let mut all = Histogram::<u64>::new_with_max(MAX_MICROS, 3)?;
                while let Some(one) = tasks.join_next().await {
                    all.add(one??)?;
                }
                anyhow::Ok(all)
            })
        })?
    };
    std::thread::sleep(WARM_UP);
    let (before, begun) = (usage::usage(watched), Instant::now());
    shared.phase.store(COUNTED, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(seconds));
    shared.phase.store(OVER, Ordering::Relaxed);
    let (time, after) = (begun.elapsed(), usage::usage(watched));
    let all = asking.join().map_err(|_| anyhow!("the load generator panicked"))??;
    #[allow(clippy::cast_precision_loss)]
    let answers = all.len() as f64;
    ensure!(answers > 0.0, "nothing was answered");
    let used = usage::between(&before, &after);
    Ok(Answers {
        per_second: answers / time.as_secs_f64(),
        p50_ms: millis(all.value_at_quantile(0.5)),
        p99_ms: millis(all.value_at_quantile(0.99)),
        used: used.into_iter().map(|(name, seconds)| (name, seconds * 1e6 / answers)).collect(),
    })
}

/// When requests of a connection are due.
struct Due {
    next: Instant,
    every: Duration,
}

async fn ask_on_one(
    mut target: Target,
    number: usize,
    mut due: Option<Due>,
    shared: Arc<Shared>,
) -> Result<Histogram<u64>> {
    let address = target.addresses[number % target.addresses.len()];
    let mut connection = Connection::open(address).await?;
    if let Some(hello) = &target.hello {
        connection.stream.write_all(hello).await?;
        connection.lines(1).await?;
    }
    let mut latencies = Histogram::new_with_max(MAX_MICROS, 3)?;
    loop {
        let phase = shared.phase.load(Ordering::Relaxed);
        if phase == OVER {
            return Ok(latencies);
        }
        let mut since = Instant::now();
        if let Some(due) = &mut due {
            // To the millisecond, as tokio's timers are.
            tokio::time::sleep_until(due.next.into()).await;
            since = due.next;
            due.next += due.every;
        }
        let order = shared.next.fetch_add(1, Ordering::Relaxed);
        connection.stream.write_all(target.request.numbered(order)).await?;
        match target.expected {
            Expected::Status(status) => {
                let answer = connection.answer().await?;
                ensure!(answer.status == status, "a gate answered {}: {}", answer.status, answer.body);
            }
            Expected::Lines(count, begin) => {
                let answer = connection.lines(count).await?;
                ensure!(answer.starts_with(begin), "Redis answered {answer}");
            }
        }
        if let Some((template, producer)) = &mut target.order {
            let id = Id::new(&format!("o-{order:0DIGITS$}"))?;
            let delivery = producer.send(&submitted(&id, template.numbered(order), TraceContext::NONE)).await;
            ensure!(matches!(delivery, Delivery::Written), "Kafka did not take an order: {delivery:?}");
        }
        if phase == COUNTED {
            latencies.saturating_record(micros(since.elapsed()));
        }
    }
}

/// An answer of a gate.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// One connection, with one request at a time.
pub struct Connection {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("nobody listens")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(4096) })
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.read.len() < MAX_ANSWER, "an answer does not end");
        ensure!(self.stream.read_buf(&mut self.read).await? > 0, "the connection was ended");
        Ok(())
    }

    /// So many lines.
    async fn lines(&mut self, count: usize) -> Result<&str> {
        self.read.clear();
        while self.read.split(|byte| *byte == b'\n').count() <= count {
            self.more().await?;
            if self.read[0] == b'-' {
                bail!("Redis says {}", String::from_utf8_lossy(&self.read));
            }
        }
        Ok(std::str::from_utf8(&self.read)?)
    }

    /// A whole answer of HTTP.
    pub async fn answer(&mut self) -> Result<Answer> {
        self.read.clear();
        loop {
            self.more().await?;
            let Some(head) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.read[..head])?;
            let status = text.get(9..12).and_then(|status| status.parse().ok());
            let length: Option<usize> =
                text.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let (Some(status), Some(length)) = (status, length) else { bail!("a strange answer: {text}") };
            let whole = head + 4 + length;
            while self.read.len() < whole {
                self.more().await?;
            }
            let body = std::str::from_utf8(&self.read[head + 4..whole])?.to_owned();
            return Ok(Answer { status, body });
        }
    }
}

/// Sends a request and reads its answer.
pub async fn send(connection: &mut Connection, request: &[u8]) -> Result<Answer> {
    connection.stream.write_all(request).await?;
    connection.answer().await
}
