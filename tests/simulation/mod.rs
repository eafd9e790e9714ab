//! The real pipeline on a simulated Kafka and database: one thread, a clock that stands still unless everybody waits, and
//! a seed that makes the same run again.

mod ports;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stock_verifier::background::LevelChanges;
use stock_verifier::causes;
use stock_verifier::config::RegistryArgs;
use stock_verifier::kafka::topic_ids::Described;
use stock_verifier::ledger::{NextOffset, TopicPartition};
use stock_verifier::mapping::Mappings;
use stock_verifier::observe::Metrics;
use stock_verifier::pipeline::batch::Bounds;
use stock_verifier::pipeline::ports::Observer as _;
use stock_verifier::pipeline::progress::Progress;
use stock_verifier::pipeline::{Comparison, Pipeline, PipelineError, StoppedPartitions, TopicNews};
use stock_verifier::registry::Registry;
use stock_verifier::store::{CommandBatch, LedgerHistory as _, LedgerReader as _, LedgerWriter as _};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::ports::{BACKLOG, Backlog, Member, Sink};
use self::world::{Faults, ORDERS as ORDERS_TOPIC, World, partition, topic_id};
use crate::support::servers::take_permit;
use crate::support::{set, stream};

/// Longest that a run may take, by its own clock.
const LIMIT: Duration = Duration::from_secs(3600);

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// It was stopped, and says that all that it had in hand is published.
    Done,
    /// It was stopped, and says that some is not.
    Unfinished,
    Killed,
}

/// Orders of one piece each.
fn orders(count: usize) -> Vec<String> {
    let order = |number| {
        format!(
            r#"{{"type":"order.created","order_id":"o-{number}","lines":[{{"sku":"MUG","quantity":1}}]}}"#
        )
    };
    (0..count).map(order).collect()
}

/// A world with so many mugs, and orders for one each.
fn world(seed: u64, faults: Faults, pieces: i64, count: usize, partitions: usize) -> World {
    let world = World::new(seed, faults, &orders(count), partitions);
    let stock = CommandBatch { requests: vec![set("stock", "MUG", pieces, None)], ..CommandBatch::default() };
    runtime().block_on(world.database.apply(&stock)).expect("stock is set");
    world
}

/// One thread, and a clock that stands still unless everybody waits.
fn runtime() -> Runtime {
    take_permit();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

/// What becomes of a process.
#[derive(Clone, Copy)]
enum Fate {
    /// It works until everything is published.
    Lives,
    /// It is killed at this step.
    KilledAt(u64),
    /// It is told to stop at this step.
    StoppedAt(u64),
}

/// The real pipeline, on this world.
fn pipeline(world: &World, batch: usize) -> Pipeline {
    let store = Arc::new(world.clone());
    Pipeline {
        store: store.clone(),
        comparison: Arc::new(Comparison::new(store, Box::new(world.clone()), Arc::new(Progress::default()))),
        level_changes: LevelChanges::ignored(),
        news: TopicNews::none(),
        registry: None,
        stopped: StoppedPartitions::default(),
        bounds: Bounds { records: batch, bytes: 1 << 20, age: Duration::from_millis(10) },
        accept_data_loss: false,
        mappings: Mappings::default(),
        process_stop: CancellationToken::new(),
    }
}

/// Waits until everything is decided and published.
async fn done(world: &World) {
    let published = async {
        while !world.is_done() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(LIMIT, published).await;
    assert!(in_time.is_ok(), "it got stuck at {:?}", world.lock().committed);
}

/// Runs a process until it is killed or told to stop, or everything is published.
fn run(world: &World, batch: usize, fate: Fate) -> Ended {
    {
        let mut inner = world.lock();
        inner.steps = 0;
        (inner.kill_at, inner.stop_at) = match fate {
            Fate::Lives => (None, None),
            Fate::KilledAt(step) => (Some(step), None),
            Fate::StoppedAt(step) => (None, Some(step)),
        };
    }
    let world = &world.for_another_process();
    let runtime = runtime();
    let ended = runtime.block_on(async {
        let pipeline = pipeline(world, batch);
        let stop = CancellationToken::new();
        // Watched, as in the program: whoever watches must change nothing.
        let metrics = Metrics::new("group", StoppedPartitions::default());
        let (source, sink) = (metrics.source(Member::join(world)), metrics.sink(Sink(world.clone())));
        let mut running = tokio::spawn(pipeline.run(source, sink, stop.clone()));
        let published = async {
            while !world.is_done() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = world.killed() => return Ended::Killed,
            ended = &mut running => panic!("it ended by itself: {ended:?}"),
            () = published => {}
            () = world.stopped() => {}
            () = tokio::time::sleep(LIMIT) => panic!("it got stuck at {:?}", world.lock().committed),
        }
        // Killed while it stops is killed too.
        stop.cancel();
        tokio::select! {
            () = world.killed() => Ended::Killed,
            ended = running => {
                match ended.expect("no stage panics") {
                    Ok(()) => Ended::Done,
                    Err(PipelineError::Unfinished(_)) => Ended::Unfinished,
                    Err(error) => panic!("{}", causes::of(&error)),
                }
            }
        }
    });
    // Killed: whatever it was doing, it does no more.
    drop(runtime);
    ended
}

/// Every order was decided once and published once, no more was sold than there was, and all is at rest.
fn holds(world: &World, orders: usize, pieces: i64) {
    assert_eq!(is_published(world, orders, pieces), orders, "published more than once");
}

/// The same, but an order may be published more than once; how many results were published.
fn is_published(world: &World, orders: usize, pieces: i64) -> usize {
    let levels = runtime().block_on(world.database.levels(None)).expect("levels");
    let positions = runtime().block_on(world.database.all_positions()).expect("positions");
    let audit = runtime().block_on(world.database.audit()).expect("an audit");
    assert_eq!(audit.findings, [], "each decision moved what it says, and each level is what was moved");
    let world = world.lock();
    let mut published: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut accepted = 0;
    for value in &world.published {
        let event: serde_json::Value = serde_json::from_slice(value).expect("JSON");
        let id = event["order_id"].as_str().expect("an id").to_owned();
        match published.insert(id, value.clone()) {
            Some(before) => assert_eq!(before, *value, "published again, it is the same"),
            None => accepted += i64::from(event["type"] == "order.accepted"),
        }
    }
    assert_eq!(published.len(), orders, "each order has a result");
    assert_eq!(accepted, pieces.min(i64::try_from(orders).expect("few")), "sold what there was");
    assert_eq!(levels[0].level.available, pieces - accepted);
    for (number, records) in world.log.iter().enumerate() {
        let end = NextOffset(i64::try_from(records.len()).expect("few"));
        assert_eq!(positions[&partition(number)].next, end, "the ledger is where the group is");
    }
    world.published.len()
}

#[test]
fn killed_at_every_wait_of_three_batches_each_order_is_published_once() {
    const ORDERS: usize = 12;
    const BATCH: usize = 4;
    const PIECES: i64 = 9;
    let new = || world(7, Faults::default(), PIECES, ORDERS, 2);
    let whole = new();
    assert_ne!(run(&whole, BATCH, Fate::Lives), Ended::Killed);
    holds(&whole, ORDERS, PIECES);
    let steps = whole.lock().steps;
    assert!(steps > 40, "three batches wait for more than {steps} things");
    let mut in_between = 0;
    for kill_at in 1..=steps {
        let world = new();
        // A run that is quicker than the first has no such step.
        if run(&world, BATCH, Fate::KilledAt(kill_at)) == Ended::Killed {
            {
                let killed = world.lock();
                in_between += usize::from(killed.decided.len() > killed.published.len());
            }
            assert_ne!(run(&world, BATCH, Fate::Lives), Ended::Killed, "killed at {kill_at}");
        }
        holds(&world, ORDERS, PIECES);
    }
    assert!(in_between > 5, "only {in_between} kills came between deciding and publishing");
}

#[test]
fn killed_and_the_groups_offsets_forgotten_no_result_is_lost_and_few_are_published_again() {
    const ORDERS: usize = 60;
    const BATCH: usize = 4;
    const PIECES: i64 = 40;
    let new = || world(7, Faults::default(), PIECES, ORDERS, 2);
    let whole = new();
    assert_ne!(run(&whole, BATCH, Fate::Lives), Ended::Killed);
    let steps = whole.lock().steps;
    let (mut in_between, mut most_again) = (0, 0);
    for kill_at in 1..=steps {
        let world = new();
        let ended = run(&world, BATCH, Fate::KilledAt(kill_at));
        {
            let mut world = world.lock();
            if ended == Ended::Killed {
                in_between += usize::from(world.decided.len() > world.published.len());
            }
            world.committed.clear();
        }
        assert_ne!(run(&world, BATCH, Fate::Lives), Ended::Killed, "killed at {kill_at}");
        most_again = most_again.max(is_published(&world, ORDERS, PIECES) - ORDERS);
    }
    assert!(in_between > 5, "only {in_between} kills came between deciding and publishing");
    // Each batch notes how far those before it are published, so what is published again is of the last ones.
    println!("{most_again} results were published again at most");
    assert!((1..=ORDERS / 2).contains(&most_again), "{most_again} results were published again");
}

#[test]
fn killed_again_while_it_recovers_each_order_is_published_once() {
    const ORDERS: usize = 12;
    const PIECES: i64 = 9;
    let seed = stream::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    for round in 0..150 {
        let world = world(random.random(), Faults::default(), PIECES, ORDERS, 3);
        while kills < 10_000 && run(&world, 4, Fate::KilledAt(random.random_range(1..80))) == Ended::Killed {
            kills += 1;
            if random.random_bool(0.3) {
                break;
            }
        }
        assert_ne!(run(&world, 4, Fate::Lives), Ended::Killed, "round {round} of seed {seed}");
        holds(&world, ORDERS, PIECES);
    }
    assert!(kills > 100, "only {kills} kills");
}

/// A database that went back in time, say, is not what ended it.
#[test]
fn stopped_at_any_wait_while_things_go_wrong_it_ends_well_and_the_next_one_goes_on() {
    const ORDERS: usize = 24;
    const PIECES: i64 = 20;
    let seed = stream::seed();
    let mut random = StdRng::seed_from_u64(seed);
    // Each makes it read again from where it was.
    let kept = Faults { aborted: 0.4, disconnected: 0.2, unanswered: 0.2, ..Faults::default() };
    let moved = Faults { moved: 0.1, ..kept };
    let mut in_between = 0;
    for stop_at in 1..300 {
        let (faults, is_kept) = if stop_at % 2 == 0 { (moved, false) } else { (kept, true) };
        let world = world(random.random(), faults, PIECES, ORDERS, 2);
        println!("stopped at {stop_at}, seed {seed}");
        // What the group took is for who has it then.
        if run(&world, 4, Fate::StoppedAt(stop_at)) == Ended::Done && is_kept {
            let positions = runtime().block_on(world.database.all_positions()).expect("positions");
            let committed = &world.lock().committed;
            let unpublished =
                positions.iter().find(|(at, position)| committed.get(at) != Some(&position.next));
            assert_eq!(unpublished, None, "decided and not published: {committed:?}");
        }
        in_between += usize::from(!world.is_done());
        run(&world, 4, Fate::Lives);
        holds(&world, ORDERS, PIECES);
    }
    assert!(in_between > 50, "only {in_between} stops came in between");
}

#[test]
fn whatever_goes_wrong_and_whenever_it_is_killed_each_order_is_published_once() {
    const ORDERS: usize = 60;
    const PIECES: i64 = 40;
    let seed = stream::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let faults = Faults {
        aborted: 0.1,
        unknown: 0.1,
        moved: 0.05,
        lost: 0.05,
        disconnected: 0.1,
        unanswered: 0.1,
        unsaid: 0.1,
        again: 0.1,
    };
    let mut happened: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..150 {
        let world = world(random.random(), faults, PIECES, ORDERS, 3);
        for _ in 0..random.random_range(0..3) {
            if run(&world, 8, Fate::KilledAt(random.random_range(1..400))) == Ended::Killed {
                *happened.entry("killed").or_default() += 1;
            }
        }
        world.lock().events.iter().for_each(|event| *happened.entry(event).or_default() += 1);
        println!("round {round} of seed {seed}");
        assert_ne!(run(&world, 8, Fate::Lives), Ended::Killed);
        holds(&world, ORDERS, PIECES);
        world.lock().events.iter().for_each(|event| *happened.entry(event).or_default() += 1);
    }
    for what in
        ["killed", "aborted", "unknown", "moved", "lost", "disconnected", "unanswered", "unsaid", "again"]
    {
        assert!(happened.get(what).is_some_and(|times| *times > 20), "{what} hardly happened: {happened:?}");
    }
}

/// How a pipeline ends whose member is fenced, so long after it lost a partition; `None` where it lost none.
fn fenced(lost_before: Option<Duration>) -> PipelineError {
    let world = world(7, Faults::default(), 9, 12, 2);
    runtime().block_on(async {
        let member = Member::join(&world);
        let running = tokio::spawn(pipeline(&world, 4).run(
            member.clone(),
            Sink(world.clone()),
            CancellationToken::new(),
        ));
        while !world.is_done() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if let Some(ago) = lost_before {
            member.take(true);
            tokio::time::sleep(ago).await;
        }
        member.fence();
        running.await.expect("no stage panics").expect_err("it is fenced")
    })
}

#[test]
fn a_member_fenced_soon_after_it_lost_its_partitions_is_fenced_by_itself_and_else_by_another_instance() {
    let by_itself = fenced(Some(Duration::from_secs(5)));
    assert!(matches!(by_itself, PipelineError::FencedByItself), "{by_itself:?}");
    for lost_before in [None, Some(Duration::from_secs(90))] {
        let by_another = fenced(lost_before);
        assert!(matches!(by_another, PipelineError::Failed(_)), "{by_another:?}");
        assert!(by_another.to_string().contains("another instance reads orders"), "{by_another}");
    }
}

#[test]
fn a_topic_refused_for_a_moment_again_and_again_stops_no_partition() {
    const PIECES: i64 = 100;
    const LATER: usize = 4;
    let world = world(7, Faults::default(), PIECES, 1, 1);
    runtime().block_on(async {
        let pipeline = pipeline(&world, 4);
        let (stopped, stop) = (pipeline.stopped.clone(), CancellationToken::new());
        let running = tokio::spawn(pipeline.run(Member::join(&world), Sink(world.clone()), stop.clone()));
        done(&world).await;
        for order in &orders(1 + LATER)[1..] {
            world.lock().refusals = 1;
            world.produce(0, order);
            done(&world).await;
            assert_eq!(world.lock().refusals, 0, "it was refused once");
            // Longer than a topic is refused that stops a partition, shorter than the refusal is remembered.
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        assert!(stopped.all().is_empty(), "{:?}", stopped.all());
        stop.cancel();
        running.await.expect("no stage panics").expect("it ends well");
    });
    holds(&world, 1 + LATER, PIECES);
}

#[test]
fn a_partition_that_the_broker_asked_does_not_know_yet_is_read_once_it_does() {
    const ORDERS: usize = 12;
    const PIECES: i64 = 9;
    let world = world(7, Faults::default(), PIECES, ORDERS, 2);
    world.lock().described = Some(1);
    runtime().block_on(async {
        let said = watch::Sender::new(Arc::default());
        let pipeline = Pipeline { news: TopicNews::of(&said), ..pipeline(&world, 4) };
        let stop = CancellationToken::new();
        let running = tokio::spawn(pipeline.run(Member::join(&world), Sink(world.clone()), stop.clone()));
        let say = |partitions: i32| {
            let described = Described::There { id: Some(topic_id()), partitions };
            said.send_replace([(ORDERS_TOPIC.to_owned(), described)].into());
        };
        let is_begun = |number: usize| world.lock().committed.contains_key(&partition(number));
        say(1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(is_begun(0) && !is_begun(1), "it is left out");
        // Another broker knows it; then all do.
        say(2);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!is_begun(1), "it is left out again");
        world.lock().described = None;
        say(2);
        done(&world).await;
        stop.cancel();
        running.await.expect("no stage panics").expect("it ends well");
    });
    holds(&world, ORDERS, PIECES);
}

#[test]
fn what_kafka_says_of_topics_is_heard_in_a_backlog() {
    let world = world(7, Faults::default(), 9, 12, 2);
    runtime().block_on(async {
        let source = Backlog::new(Member::join(&world));
        let (is_due, came) = (Arc::clone(&source.is_due), Arc::clone(&source.came));
        let pipeline = Pipeline { news: TopicNews::of(&source.news), ..pipeline(&world, 4) };
        let stop = CancellationToken::new();
        let running = tokio::spawn(pipeline.run(source, Sink(world.clone()), stop.clone()));
        done(&world).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        is_due.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let came = came.load(Ordering::SeqCst);
        assert!((1..BACKLOG / 100).contains(&came), "{came} came before it was heard");
        stop.cancel();
        running.await.expect("no stage panics").expect("it ends well");
    });
}

#[test]
fn a_member_fenced_while_the_database_is_away_ends_its_pipeline_soon() {
    let world = world(7, Faults::default(), 9, 12, 2);
    world.lock().away = true;
    let ended = runtime().block_on(async {
        let member = Member::join(&world);
        let running = tokio::spawn(pipeline(&world, 4).run(
            member.clone(),
            Sink(world.clone()),
            CancellationToken::new(),
        ));
        // Until a batch waits for the database.
        tokio::time::sleep(Duration::from_secs(60)).await;
        member.fence();
        let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
        ended.expect("it does not wait for the database").expect("no stage panics").expect_err("it is fenced")
    });
    assert!(matches!(ended, PipelineError::Failed(_)), "{ended:?}");
    assert!(ended.to_string().contains("another instance reads orders"), "{ended}");
}

/// A registry that nobody answers for.
fn registry_away() -> Arc<Registry> {
    let url = "http://127.0.0.1:1/".parse().expect("a URL");
    let args = RegistryArgs { schema_registry_url: Some(url), ..RegistryArgs::default() };
    Registry::named(&args).expect("no authorities to read").expect("one is named")
}

/// What is stopped once a pipeline has ended that waited for a schema.
fn stopped_after_waiting(
    world: &World,
    stopped: &StoppedPartitions,
    process_stop: CancellationToken,
) -> Vec<TopicPartition> {
    runtime().block_on(async {
        let pipeline = Pipeline {
            registry: Some(registry_away()),
            stopped: stopped.clone(),
            process_stop,
            ..pipeline(world, 4)
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(pipeline.run(Member::join(world), Sink(world.clone()), stop.clone()));
        let is_held = async {
            while stopped.all().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, is_held).await.expect("it is held");
        stop.cancel();
        running.await.expect("no stage panics").expect("it ends well");
    });
    stopped.all().into_iter().map(|(at, _)| at).collect()
}

#[test]
fn a_partition_held_for_a_schema_is_read_by_the_pipeline_that_comes_after() {
    let world = world(7, Faults::default(), 9, 12, 2);
    for record in &mut world.lock().log[1] {
        // By schema 7.
        record.value = Some(b"\0\0\0\0\x07{}".to_vec());
    }
    // What is held when the process stops is for its exit status to say.
    let process_stop = CancellationToken::new();
    process_stop.cancel();
    assert_eq!(stopped_after_waiting(&world, &StoppedPartitions::default(), process_stop), [partition(1)]);
    let stopped = StoppedPartitions::default();
    assert!(
        stopped_after_waiting(&world, &stopped, CancellationToken::new()).is_empty(),
        "nobody releases it"
    );
    runtime().block_on(async {
        // Without a registry its records are dead letters: it is read.
        let pipeline = Pipeline { stopped, ..pipeline(&world, 4) };
        let stop = CancellationToken::new();
        let running = tokio::spawn(pipeline.run(Member::join(&world), Sink(world.clone()), stop.clone()));
        done(&world).await;
        stop.cancel();
        running.await.expect("no stage panics").expect("it ends well");
    });
}
