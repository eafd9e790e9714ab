//! Contestant 5: Redis and a script.
//!
//! The client is as light as can be, so that it takes nothing from Redis:
//! requests are encoded before the clock starts, and one thread writes them
//! and counts the answers.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Run;
use crate::Bench;
use crate::shapes::{Order, STOCK, Shape, sku_name};

/// All lines or none, and the first verdict stands when an order comes again.
const SCRIPT: &str = r"
local seen = redis.call('HGET', KEYS[1], ARGV[1])
if seen then return seen ~= '' and 1 or 0 end
for i = 2, #KEYS do
  local left = redis.call('GET', KEYS[i])
  if not left or tonumber(left) < tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[1], '')
    return 0
  end
end
for i = 2, #KEYS do redis.call('DECRBY', KEYS[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
";
/// Numbers of connections that are tried for the best, one request at a time on each.
const CONNECTIONS: [usize; 4] = [8, 16, 32, 64];
/// Of the orders, the share a try gets.
const TRY: usize = 5;
/// Pipelined: connections, and requests under way on each.
const PIPELINES: usize = 4;
const DEPTH: usize = 64;
/// SKUs set by one request while seeding.
const SEED_BATCH: usize = 1_000;

/// How often Redis syncs its log.
#[derive(Debug, Clone, Copy)]
pub enum Sync {
    EverySecond,
    Always,
}

/// How requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// The next request of a connection follows the answer of the one before.
    OneByOne,
    Pipelined,
}

pub fn run(bench: &mut Bench, shape: Shape, sync: Sync, way: Way) -> Result<Run> {
    let address = address(bench)?;
    // A thread and a runtime of its own, as redis-benchmark is one thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let orders = bench.orders(shape);
    let measure = |orders: &[Order], connections, depth| {
        runtime.block_on(measure(&address, shape, sync, orders, connections, depth))
    };
    let (connections, depth) = match way {
        Way::Pipelined => (PIPELINES, DEPTH),
        Way::OneByOne => {
            let always = matches!(sync, Sync::Always);
            if let Some(best) = bench.best.connections.get(&(shape, always)) {
                (*best, 1)
            } else {
                let mut best = (0.0, 1);
                for connections in CONNECTIONS {
                    let rate = measure(&orders[..orders.len() / TRY], connections, 1)?.rate();
                    if rate > best.0 {
                        best = (rate, connections);
                    }
                }
                bench.best.connections.insert((shape, always), best.1);
                (best.1, 1)
            }
        }
    };
    let run = measure(&orders, connections, depth)?;
    #[allow(clippy::cast_precision_loss)]
    Ok(run.note("connections", connections as f64))
}

fn address(bench: &Bench) -> Result<String> {
    let url = bench.services.redis_url.as_deref().context("REDIS_URL is not set, but Redis is to run")?;
    let url = url::Url::parse(url)?;
    Ok(format!("{}:{}", url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(6379)))
}

async fn measure(
    address: &str,
    shape: Shape,
    sync: Sync,
    orders: &[Order],
    connections: usize,
    depth: usize,
) -> Result<Run> {
    let mut control = TcpStream::connect(address).await?;
    let sync = match sync {
        Sync::EverySecond => "everysec",
        Sync::Always => "always",
    };
    for command in [
        &["FLUSHALL"][..],
        &["CONFIG", "SET", "appendonly", "yes"],
        // Seeding need not be slow.
        &["CONFIG", "SET", "appendfsync", "everysec"],
        // Its log is not rewritten in the middle of a measurement.
        &["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"],
    ] {
        call(&mut control, command).await?;
    }
    let names: Vec<String> = (0..shape.skus()).map(sku_name).collect();
    let stock = STOCK.to_string();
    for chunk in names.chunks(SEED_BATCH) {
        let mut command = vec!["MSET"];
        for name in chunk {
            command.extend([name.as_str(), &stock]);
        }
        call(&mut control, &command).await?;
    }
    call(&mut control, &["BGREWRITEAOF"]).await?;
    while !call(&mut control, &["INFO", "persistence"]).await?.contains("aof_rewrite_in_progress:0") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let loaded = call(&mut control, &["SCRIPT", "LOAD", SCRIPT]).await?;
    let sha = loaded.lines().nth(1).context("no script hash")?.to_owned();
    call(&mut control, &["CONFIG", "SET", "appendfsync", sync]).await?;

    let mut shares: Vec<Vec<Chunk>> = vec![Vec::new(); connections];
    for (number, chunk) in orders.chunks(depth).enumerate() {
        let bytes = chunk.iter().flat_map(|order| request(&sha, order)).collect();
        shares[number % connections].push(Chunk { bytes, requests: chunk.len() });
    }
    let mut ready = Vec::new();
    for share in shares {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        ready.push((stream, share));
    }
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (stream, share) in ready {
        tasks.spawn(talk(stream, share));
    }
    let mut accepted = 0;
    while let Some(done) = tasks.join_next().await {
        accepted += done??;
    }
    let time = start.elapsed();
    let expected = orders.len() - shape.rejected(orders.len());
    ensure!(accepted == expected, "Redis accepted {accepted} of {expected}");
    Ok(Run::new(orders.len(), time))
}

/// Requests that are sent together.
#[derive(Debug, Clone)]
struct Chunk {
    bytes: Vec<u8>,
    requests: usize,
}

/// Sends each chunk and waits for its answers; gives the number of orders accepted.
async fn talk(mut stream: TcpStream, chunks: Vec<Chunk>) -> Result<usize> {
    let mut buffer = [0; 4096];
    let mut accepted = 0;
    for Chunk { bytes, requests } in chunks {
        stream.write_all(&bytes).await?;
        let mut answers = 0;
        while answers < requests {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "Redis hung up");
            for byte in &buffer[..read] {
                match byte {
                    b'\n' => answers += 1,
                    b'1' => accepted += 1,
                    b'-' => bail!("Redis says {}", String::from_utf8_lossy(&buffer[..read])),
                    _ => {}
                }
            }
        }
    }
    Ok(accepted)
}

fn request(sha: &str, order: &Order) -> Vec<u8> {
    let keys: Vec<String> = order.lines.iter().map(|line| sku_name(line.sku)).collect();
    let quantities: Vec<String> = order.lines.iter().map(|line| line.quantity.to_string()).collect();
    let count = (keys.len() + 1).to_string();
    let lines: Vec<_> =
        keys.iter().zip(&quantities).map(|(key, quantity)| format!("{key} {quantity}")).collect();
    let recorded = lines.join(";");
    let mut words = vec!["EVALSHA", sha, &count, "orders"];
    words.extend(keys.iter().map(String::as_str));
    words.extend([order.id.as_str(), &recorded]);
    words.extend(quantities.iter().map(String::as_str));
    encode(&words)
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// One command and the whole of its short answer.
async fn call(stream: &mut TcpStream, words: &[&str]) -> Result<String> {
    stream.write_all(&encode(words)).await?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "Redis hung up");
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some(message) = text.strip_prefix('-') {
            bail!("Redis says {message}");
        }
        let whole = match text.strip_prefix('$').and_then(|rest| rest.split_once("\r\n")) {
            Some((length, body)) => length.parse::<usize>().is_ok_and(|length| body.len() >= length + 2),
            None => !text.starts_with('$') && text.ends_with("\r\n"),
        };
        if whole {
            return Ok(text.into_owned());
        }
    }
}
