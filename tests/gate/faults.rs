//! Gates that die, a Redis that dies or knows less than it did, and a Kafka that is away: whatever happens, every entry
//! ends, the cached amount comes to be the ledger's, and nothing is oversold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use stock_verifier::gate::rule::Admission;
use stock_verifier::ledger::Id;
use tokio_util::sync::CancellationToken;

use super::sale::{BOUND, SOON, Sale, asked, fresh, fresh_in, order};
use crate::support::kafka::sent;
use crate::support::proxy::{Act, Proxy, Wire, api, api_key};
use crate::support::redis::Redis;
use crate::support::servers::{heavy_behind_kafkas_proxy, setting, wait_for};
use crate::support::wait;

/// A proxy before Kafka that acts on every record that is sent, while it is told to.
fn before_kafka(act: Act) -> (Proxy, String, Arc<AtomicBool>) {
    let (brokers, upstream) = (setting("KAFKA_PROXY_BROKERS"), setting("KAFKA_PROXY_UPSTREAM"));
    let acts = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&acts);
    let proxy = Proxy::start(Wire::Kafka, &brokers, &upstream, move |request| {
        if api_key(request) == api::PRODUCE && asked.load(Ordering::SeqCst) { act } else { Act::Pass }
    });
    (proxy, brokers, acts)
}

/// So that a connection that breaks is soon there again.
const RECONNECTS: [&str; 4] = ["-X", "reconnect.backoff.ms=20", "-X", "reconnect.backoff.max.ms=100"];

#[test]
fn the_entry_of_a_gate_that_was_killed_before_kafka_had_the_order_is_given_back_by_another() {
    let _address = heavy_behind_kafkas_proxy();
    is_given_back_by_another(&Sale::new(&[("MUG", 1)]), &fresh(), || ());
}

#[test]
fn so_is_one_whose_partition_ends_with_the_mark_of_a_transaction_which_no_position_passes() {
    let _address = heavy_behind_kafkas_proxy();
    let sale = Sale::new(&[("MUG", 1)]);
    let id = fresh_in(0);
    // Aborted when it is dropped.
    is_given_back_by_another(&sale, &id, || drop(sale.scene.kafka.open_transaction(&sale.scene.orders())));
}

/// Meanwhile this is done.
fn is_given_back_by_another(sale: &Sale, id: &str, meanwhile: impl FnOnce()) {
    let verifier = sale.scene.start("a", &[]);
    let (_proxy, brokers, _) = before_kafka(Act::Cut);
    let (mut dies, dying) = sale.gate_at(&brokers, "dies", &RECONNECTS);
    // Before the entry's time begins.
    let (gate, shopper) = sale.gate("lives", &BOUND);
    meanwhile();
    let bought = order(id, &[("MUG", 1)]);
    let asking = std::thread::spawn({
        let bought = bought.clone();
        move || dying.try_order(&bought, "")
    });
    sale.unsettled(1);
    dies.kill();
    assert!(asking.join().unwrap().is_none(), "it died before it answered");
    let second = order(&fresh(), &[("MUG", 1)]);
    assert_eq!(shopper.order(&second).status, 409, "somebody may still be sending the first");
    sale.unsettled(0);
    assert_eq!(sale.cached("MUG"), Some(1));
    assert!(shopper.order_and_wait(&second).is_accepted());
    assert_eq!(shopper.order(&bought).status, 409, "whoever asks again comes too late");
    sale.comes_to_rest();
    gate.stop();
    verifier.stop();
    sale.scene.audit();
}

#[test]
fn an_order_that_an_open_transaction_hides_is_not_given_back() {
    let sale = Sale::new(&[("MUG", 2)]);
    let (gate, shopper) = sale.gate("gate", &BOUND);
    // Somebody else's transaction stays open before the one order; where the other would be, one has ended.
    let open = sale.scene.kafka.open_transaction_at(&sale.scene.orders(), 0);
    drop(sale.scene.kafka.open_transaction_at(&sale.scene.orders(), 1));
    let hidden = order(&fresh_in(0), &[("MUG", 1)]);
    assert_eq!(shopper.order(&hidden).status, 202);
    let lost = asked(&fresh_in(1), "MUG");
    let admitted = wait_for(sale.cache.admit(&lost, SOON)).expect("Redis answers");
    assert!(matches!(admitted, Admission::Admitted { .. }), "{admitted:?}");
    let standing = |id: &Id| wait_for(sale.cache.standing(id)).expect("Redis answers");
    wait::until("the one that was never sent is given back", SOON, || standing(&lost.id).is_none());
    let id = Id::new(hidden["order_id"].as_str().expect("an id")).expect("an id");
    assert!(standing(&id).is_some(), "it will be decided");
    drop(open);
    let verifier = sale.scene.start("a", &[]);
    assert!(shopper.verdict(&hidden).is_accepted());
    sale.comes_to_rest();
    gate.stop();
    verifier.stop();
}

#[test]
fn entries_of_a_partition_that_stands_still_keep_no_others_from_their_end() {
    let sale = Sale::new(&[("MUG", 10_000)]);
    // One that nobody decides.
    let as_java_does = [("partitioner", "murmur2_random")];
    sale.scene.kafka.produce_with(&sale.scene.orders(), &[sent(&fresh_in(0), "{}")], &as_java_does);
    let (gate, _) = sale.gate("gate", &BOUND);
    let admit = |partition| {
        let asked = asked(&fresh_in(partition), "MUG");
        let admitted = wait_for(sale.cache.admit(&asked, SOON)).expect("Redis answers");
        assert!(matches!(admitted, Admission::Admitted { .. }), "{admitted:?}");
        asked.id
    };
    // More than one look takes up.
    let waiting: Vec<Id> = (0..1_100).map(|_| admit(0)).collect();
    let last = admit(1);
    wait::until("the youngest is given back", SOON, || {
        wait_for(sale.cache.standing(&last)).expect("Redis answers").is_none()
    });
    sale.unsettled(u64::try_from(waiting.len()).expect("a number"));
    gate.stop();
}

#[test]
fn filling_does_not_wait_for_a_position_to_pass_the_mark_of_a_transaction() {
    let sale = Sale::new(&[("MUG", 1)]);
    let verifier = sale.scene.start("a", &[]);
    drop(sale.scene.kafka.open_transaction(&sale.scene.orders()));
    let (mut gate, _) = sale.gate("gate", &[]);
    gate.said("the cache is filled", SOON);
    assert!(!gate.log().contains("without waiting any longer"), "{}", gate.log());
    gate.stop();
    verifier.stop();
}

#[test]
fn the_entry_of_a_gate_that_was_killed_before_it_could_answer_is_settled_by_its_result() {
    let _address = heavy_behind_kafkas_proxy();
    let sale = Sale::new(&[("MUG", 2)]);
    let (_proxy, brokers, _) = before_kafka(Act::Delay(60));
    let (mut dies, shopper) = sale.gate_at(&brokers, "dies", &RECONNECTS);
    let bought = order(&fresh(), &[("MUG", 1)]);
    let asking = std::thread::spawn({
        let bought = bought.clone();
        move || shopper.try_order(&bought, "")
    });
    // Within the five seconds after which the gate answers that it does not know.
    let orders = sale.scene.orders();
    wait::until("Kafka has the order", SOON, || {
        sale.scene.kafka.ends(&orders, "read_uncommitted").iter().sum::<i64>() == 1
    });
    dies.kill();
    assert!(asking.join().unwrap().is_none(), "it died before it answered");
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("lives", &[]);
    sale.comes_to_rest();
    assert!(shopper.order(&bought).is_accepted(), "who asks again is told");
    assert_eq!((sale.sent(), sale.in_ledger("MUG")), (1, 1));
    gate.stop();
    verifier.stop();
}

#[test]
fn while_kafka_is_away_nobody_knows_and_a_repetition_finds_the_entry_and_sends_it_again() {
    let _address = heavy_behind_kafkas_proxy();
    let sale = Sale::new(&[("MUG", 5)]);
    let (_proxy, brokers, acts) = before_kafka(Act::Cut);
    let mut more = RECONNECTS.to_vec();
    more.extend(["--most-orders", "1", "--entry-bound", "60s"]);
    let (gate, shopper) = sale.gate_at(&brokers, "gate", &more);
    let bought = order(&fresh(), &[("MUG", 1)]);
    let asking = std::thread::spawn({
        let (shopper, bought) = (shopper.clone(), bought.clone());
        move || shopper.order(&bought)
    });
    sale.unsettled(1);
    let over = shopper.order(&order(&fresh(), &[("MUG", 1)]));
    assert_eq!(
        (over.status, over.problem(), over.header("retry-after")),
        (429, "too-many-orders", "1"),
        "{over:?}"
    );
    let unknown = asking.join().unwrap();
    assert_eq!((unknown.status, unknown.problem()), (503, "maybe-sent"), "{unknown:?}");
    let soon = shopper.order(&bought);
    assert_eq!(
        (soon.status, soon.problem(), soon.header("retry-after")),
        (503, "maybe-sent", "1"),
        "{soon:?}"
    );
    acts.store(false, Ordering::SeqCst);
    let sent = wait::value("it is sent again", SOON, || {
        Some(shopper.order(&bought)).filter(|sent| sent.status != 503)
    });
    assert_eq!((sent.status, &sent.body["estimate"]), (202, &json!("enough")), "{sent:?}");
    let verifier = sale.scene.start("a", &[]);
    assert!(shopper.verdict(&bought).is_accepted());
    sale.comes_to_rest();
    assert_eq!(sale.in_ledger("MUG"), 4);
    gate.stop();
    verifier.stop();
}

#[test]
fn a_redis_that_was_killed_comes_back_with_what_it_knew_and_meanwhile_orders_are_refused() {
    let mut sale = Sale::new(&[("MUG", 3)]);
    let (gate, shopper) = sale.gate("gate", &[]);
    let first = order(&fresh(), &[("MUG", 2)]);
    assert_eq!(shopper.order(&first).status, 202);
    sale.redis.kill();
    let away = shopper.order(&order(&fresh(), &[("MUG", 1)]));
    assert_eq!(
        (away.status, away.problem(), away.header("retry-after")),
        (503, "cache-away", "1"),
        "{away:?}"
    );
    sale.redis.restart();
    let second = wait::value("Redis is reached again", SOON, || {
        Some(shopper.order(&order(&fresh(), &[("MUG", 2)]))).filter(|answer| answer.status != 503)
    });
    assert_eq!(second.status, 409, "the first is still subtracted: {second:?}");
    let verifier = sale.scene.start("a", &[]);
    assert!(shopper.verdict(&first).is_accepted());
    sale.comes_to_rest();
    gate.stop();
    verifier.stop();
}

#[test]
fn a_redis_that_lost_everything_is_filled_again_once_the_ledger_has_what_was_on_its_way() {
    let mut sale = Sale::on(Redis::start_with(&["--appendonly", "no"]), &[("MUG", 3)]);
    let (gate, shopper) = sale.gate("gate", &["--when-cache-is-away", "admit"]);
    let first = order(&fresh(), &[("MUG", 2)]);
    assert_eq!(shopper.order(&first).status, 202);
    sale.redis.kill();
    sale.redis.restart();
    let passes = wait::value("Redis is reached again", SOON, || {
        let passes = shopper.order(&order(&fresh(), &[("MUG", 2)]));
        Some(passes).filter(|answer| answer.status == 202)
    });
    assert_eq!(passes.body["estimate"], "undecided", "nothing is known yet: {passes:?}");
    let verifier = sale.scene.start("a", &[]);
    sale.filled();
    sale.comes_to_rest();
    assert_eq!(sale.in_ledger("MUG"), 1, "one of the two is accepted, whichever came first");
    assert!(shopper.order_and_wait(&order(&fresh(), &[("MUG", 1)])).is_accepted());
    sale.comes_to_rest();
    gate.stop();
    verifier.stop();
    sale.scene.audit();
}

#[test]
fn a_redis_that_was_restored_to_an_older_file_is_healed() {
    let mut sale = Sale::new(&[("MUG", 10)]);
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("gate", &BOUND);
    let buy = |_| {
        let order = order(&fresh(), &[("MUG", 1)]);
        assert!(shopper.verdict(&order).is_accepted());
        order
    };
    let mut bought: Vec<_> = (0..2).map(buy).collect();
    // Saved while an entry is open: what the file knows of it is old when it is restored.
    let open = order(&fresh(), &[("MUG", 1)]);
    assert_eq!(shopper.order(&open).status, 202);
    let backup = sale.redis.backup();
    bought.extend((0..4).map(buy));
    sale.redis.restore(backup.path());
    sale.comes_to_rest();
    assert_eq!(sale.in_ledger("MUG"), 3);
    // Those that the file knows nothing of, too: their results are read again.
    for order in bought.iter().chain([&open]) {
        let again = shopper.verdict(order);
        assert!(again.is_accepted(), "{again:?}");
    }
    sale.comes_to_rest();
    bought.extend((0..3).map(buy));
    assert_eq!(shopper.order(&order(&fresh(), &[("MUG", 1)])).status, 409);
    sale.comes_to_rest();
    gate.stop();
    verifier.stop();
    sale.scene.audit();
}

#[test]
fn two_gates_of_which_one_is_killed_again_and_again_sell_each_piece_once_and_leave_none() {
    const PIECES: usize = 40;
    const BUYERS: usize = 120;
    const PAUSE: Duration = Duration::from_millis(50);
    let sale = Sale::new(&[("MUG", PIECES as i64)]);
    let verifier = sale.scene.start("a", &[]);
    let (gate, steady) = sale.gate("steady", &BOUND);
    let (mut killed, shopper) = sale.gate("killed", &BOUND);
    let shaky = std::sync::Mutex::new(shopper);
    let (accepted, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = CancellationToken::new();
    std::thread::scope(|scope| {
        // Else buyers would ask for ever.
        let guard = failed.clone().drop_guard();
        let buyers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= BUYERS {
                            return;
                        }
                        let order = order(&fresh(), &[("MUG", 1)]);
                        // Whoever was let in, or does not know, asks again until the ledger has spoken; who was refused asks
                        // until that was so although no entry was open any more.
                        loop {
                            let shopper = if number.is_multiple_of(2) {
                                steady.clone()
                            } else {
                                shaky.lock().unwrap().clone()
                            };
                            if failed.is_cancelled() {
                                return;
                            }
                            let is_open = sale.open_entries() > 0;
                            match shopper.try_order(&order, "?wait=2s") {
                                Some(answer) if answer.status == 200 => {
                                    accepted.fetch_add(usize::from(answer.is_accepted()), Ordering::SeqCst);
                                    break;
                                }
                                Some(answer) if answer.status == 409 && !is_open => break,
                                _ => std::thread::sleep(PAUSE),
                            }
                        }
                    }
                })
            })
            .collect();
        for kill in 1..=3 {
            wait::until("some are sold", SOON, || {
                next.load(Ordering::SeqCst) >= kill * 15
                    || buyers.iter().all(std::thread::ScopedJoinHandle::is_finished)
            });
            killed.kill();
            let (again, shopper) = sale.gate("killed", &BOUND);
            killed = again;
            *shaky.lock().unwrap() = shopper;
        }
        guard.disarm();
    });
    sale.comes_to_rest();
    assert_eq!((accepted.into_inner(), sale.in_ledger("MUG")), (PIECES, 0));
    gate.stop();
    killed.stop();
    verifier.stop();
    sale.scene.audit();
}
