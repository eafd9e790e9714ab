//! The live page's files and its stream.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stock_verifier::http::bounds::{LIVE_EVERY, LIVE_FRESH, MAX_STREAMS};
use stock_verifier::http::{Live, Member, Server};
use stock_verifier::ledger::{CommandKind, Item, Offset, Sku, Source, TopicPartition};
use stock_verifier::live::{
    Counts, DeadLetter, DecisionCount, Ends, Glance, HotItem, Latency, PartitionLag, Stages, Watched,
};
use stock_verifier::store::Store;

use super::client::{Client, document};
use super::{api, ask, start};
use crate::support::wait;
use crate::support::{TestDatabase, batch, set};

const SOON: Duration = Duration::from_secs(20);

/// A process at work that says how it is looked at. It has a hundred orders a second.
#[derive(Default)]
struct Shown {
    is_watched: AtomicBool,
    glances: AtomicU64,
    /// How often it was asked for its counts.
    counted: AtomicU64,
    is_busy: AtomicBool,
    since: OnceLock<Instant>,
}

impl Watched for Shown {
    fn set_watched(&self, is_watched: bool) {
        self.is_watched.store(is_watched, Ordering::SeqCst);
    }

    fn counts(&self) -> Counts {
        self.counted.fetch_add(1, Ordering::SeqCst);
        let since = self.since.get_or_init(Instant::now).elapsed();
        Counts { orders: u64::try_from(since.as_millis()).unwrap() / 10, rejected_orders: 0 }
    }

    fn glance(&self) -> Glance {
        self.glances.fetch_add(1, Ordering::SeqCst);
        if self.is_busy.load(Ordering::SeqCst) { full() } else { Glance::default() }
    }
}

/// One who looks.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(client: &Client) -> Self {
        let mut stream = Self::asked(client);
        let head = stream.head();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream") && head.contains("no-store"), "{head}");
        stream
    }

    fn asked(client: &Client) -> Self {
        let address = client.base.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET /v1/live HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "{head}");
        }
        head
    }

    /// The data of the next event; `None` at the end.
    fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // Between the lines stand the sizes of chunks.
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
            if line == "0\r\n" {
                return None;
            }
        }
    }
}

/// Panics when a snapshot is not what the document says.
fn check(snapshot: &Value) {
    let whole = json!({"$ref": "#/components/schemas/LiveView", "components": document()["components"]});
    if let Err(error) = jsonschema::validator_for(&whole).unwrap().validate(snapshot) {
        panic!("{snapshot:#} is not what the document says: {error}");
    }
}

async fn served(shown: &Arc<Shown>) -> (Server, Client) {
    let store: Arc<dyn Store> = TestDatabase::memory().ledger().await;
    store.apply(&batch(vec![set("stock-1", "MUG", 7, None)])).await.unwrap();
    let members = || {
        let member = Member {
            client_id: "stock-verifier-a-orders".to_owned(),
            host: "/10.0.0.1".to_owned(),
            partitions: vec![("orders".to_owned(), vec![0, 1])],
        };
        Box::pin(async { Ok(vec![member]) }) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
    };
    let live = Live {
        watched: Arc::clone(shown) as Arc<dyn Watched>,
        instance: "a".to_owned(),
        group: "shop".to_owned(),
        members: Some(Box::new(members)),
    };
    start(super::Api { live: Some(live), ..api(store) }).await
}

fn full() -> Glance {
    let at = TopicPartition::new("orders", 3);
    let ms = Duration::from_millis;
    let latency = Latency { records: 9, mean: ms(20), p50: ms(18), p95: ms(30), p99: ms(40) };
    let hot = |sku: &str, wanted_per_second| HotItem {
        item: Item::from(Sku::new(sku).unwrap()),
        wanted_per_second,
    };
    let counted = |kind, reason, count| DecisionCount { kind, reason, count };
    Glance {
        ends: Ends { accepted: 5, rejected: 3, republished: 1, dead_letters: 1, absorbed: 2, ignored: 0 },
        decisions: vec![
            counted(CommandKind::OrderCreated, None, 5),
            counted(CommandKind::OrderCreated, Some("unknown_sku"), 2),
            counted(CommandKind::OrderReturned, Some("unknown_sku"), 1),
        ],
        stages: Stages { applied: (2, ms(10)), published: (2, ms(6)), latency },
        hot: vec![hot("MUG", 12.34), hot("MUGG", 0.5)],
        rejections: Vec::new(),
        dead_letters: vec![DeadLetter {
            source: Source { at: at.clone(), offset: Offset(17) },
            error: "malformed",
            detail: "no JSON".to_owned(),
            at_ms: 1_000,
        }],
        lags: vec![PartitionLag { at, records: 4, seconds: 1.5 }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_its_files_are_served_and_may_load_nothing_else() {
    let shown = Arc::new(Shown::default());
    let (server, client) = served(&shown).await;
    ask(&client, |client: Client| {
        let page = client.get("/");
        assert!(page.header("content-type").starts_with("text/html"));
        let files: Vec<&str> =
            page.text.split(['"', '\'']).filter(|text| text.starts_with("page/")).collect();
        assert!(files.len() >= 4, "{files:?}");
        let scripts = ["page/dom.js", "page/api.js", "page/ask.js", "page/live.js", "page/story.js"];
        for file in files.into_iter().chain(scripts) {
            let answer = client.get(&format!("/{file}"));
            assert_eq!(answer.status, 200, "{file}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{file}");
            // An address elsewhere is one of a namespace, which nobody loads.
            let elsewhere = answer.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{file}");
            assert!(!answer.text.contains("innerHTML"), "{file}");
        }
        assert!(!page.text.contains("style=") && !page.text.contains("onclick"), "the policy refuses it");
        assert_eq!(client.get("/page/nothing.js").status, 404);
        assert_eq!(client.get("/page/..%2fmod.rs").status, 404);
    })
    .await;
    assert!(!shown.is_watched.load(Ordering::SeqCst));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_has_what_was_seen_and_what_the_ledger_has_of_it() {
    let shown = Arc::new(Shown::default());
    shown.is_busy.store(true, Ordering::SeqCst);
    let (server, client) = served(&shown).await;
    let at_work = Arc::clone(&shown);
    ask(&client, move |client: Client| {
        let mut stream = Stream::open(&client);
        let first = stream.next().unwrap();
        check(&first);
        assert_eq!(first["about"]["instance"], "a");
        assert_eq!(first["rejected_by"], json!([{"reason": "unknown_sku", "count": 3}]));
        assert_eq!(
            first["decided"],
            json!([{"type": "order.created", "accepted": 5, "rejected": 2}, {"type": "order.returned", "accepted": 0, "rejected": 1}])
        );
        let stages = &first["stages"];
        assert_eq!([&stages["waiting_ms"], &stages["deciding_ms"], &stages["publishing_ms"]], [12.0, 5.0, 3.0]);
        assert_eq!(first["partitions"], json!([{"topic": "orders", "partition": 3, "lag": 4, "lag_seconds": 1.5}]));
        assert_eq!(
            first["hot"],
            json!([{"sku": "MUG", "wanted_per_second": 12.34, "available": 7}, {"sku": "MUGG", "wanted_per_second": 0.5}])
        );
        assert_eq!(first["dead_letters"][0]["source"], json!({"topic": "orders", "partition": 3, "offset": 17}));
        at_work.is_busy.store(false, Ordering::SeqCst);
        let later = wait::value("the group is known and nothing is published any more", SOON, || {
            let later = stream.next().unwrap();
            check(&later);
            let is_known = later["consumer_group"]["members"] != json!([]);
            (is_known && later.get("stages").is_none()).then_some(later)
        });
        assert_eq!(later["consumer_group"]["members"][0]["partitions"], json!({"orders": [0, 1]}));
        let rates = later["orders_per_second"].as_array().unwrap();
        assert!(rates.iter().all(|rate| (50.0..=150.0).contains(&rate.as_f64().unwrap())), "{rates:?}");
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_who_look_cost_as_many_snapshots_as_one_and_nobody_none() {
    let shown = Arc::new(Shown::default());
    let (server, client) = served(&shown).await;
    let looks = Arc::clone(&shown);
    ask(&client, move |client: Client| {
        let glances = || looks.glances.load(Ordering::SeqCst);
        let start = Instant::now();
        let mut streams: Vec<Stream> = (0..10).map(|_| Stream::open(&client)).collect();
        for stream in &mut streams {
            stream.next().unwrap();
        }
        let arrivals = glances();
        // One for the first who came and one of the second that began; more only as time goes by.
        let times = |every: Duration| start.elapsed().as_millis() / every.as_millis();
        let most = 2 + times(LIVE_EVERY) + times(LIVE_FRESH);
        assert!(u128::from(arrivals) <= most, "{arrivals} snapshots for ten who came together, not {most}");
        assert!(looks.is_watched.load(Ordering::SeqCst));
        // What was made while they came is behind all of them.
        let last = streams[9].next().unwrap()["at"].to_string();
        for stream in &mut streams[..9] {
            loop {
                let at = stream.next().unwrap()["at"].to_string();
                if at >= last {
                    break;
                }
            }
        }
        let (before, start) = (glances(), Instant::now());
        // Each sees the same three seconds.
        let mut seen: Vec<Vec<Value>> = Vec::new();
        for stream in &mut streams {
            seen.push((0..3).map(|_| stream.next().unwrap()["at"].clone()).collect());
        }
        let made = u128::from(glances() - before);
        // As many as for one, however long the three took: some were on their way already.
        let times = |every: Duration| start.elapsed().as_millis() / every.as_millis();
        let most = 2 + times(LIVE_EVERY) + times(LIVE_FRESH);
        assert!(made <= most, "{made} snapshots while ten saw three each, not {most}");
        assert!(seen[0].iter().any(|at| seen[9].contains(at)), "{seen:?}");
        drop(streams);
        wait::until("nobody looks any more", SOON, || !looks.is_watched.load(Ordering::SeqCst));
        let after = glances();
        // It goes on counting, and looks no more.
        let counted = looks.counted.load(Ordering::SeqCst);
        wait::until("two more seconds are counted", SOON, || {
            looks.counted.load(Ordering::SeqCst) >= counted + 2
        });
        assert_eq!(glances(), after);
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_look_than_may_and_a_stop_ends_their_streams() {
    let shown = Arc::new(Shown::default());
    let (server, client) = served(&shown).await;
    let mut streams = ask(&client, |client: Client| {
        let mut streams: Vec<Stream> = (0..MAX_STREAMS).map(|_| Stream::open(&client)).collect();
        let busy = client.get("/v1/live");
        assert_eq!((busy.status, busy.header("retry-after")), (503, "1"));
        streams.pop();
        wait::until("a place is free again", SOON, || {
            let mut next = Stream::asked(&client);
            next.head().starts_with("HTTP/1.1 200")
        });
        streams
    })
    .await;
    server.stop().await;
    tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        streams[0].0.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "it is ended in good order: {rest:?}");
    })
    .await
    .unwrap();
}
