//! Gates that die, a Redis that dies or knows less than it did, and a Kafka that is away: whatever happens, every entry
//! ends, the cached amount comes to be the ledger's, and nothing is oversold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use stock_verifier::kafka::partitioner::partition_of;

use super::sale::{BOUND, SOON, Sale, fresh, order};
use crate::support::proxy::{Act, Proxy, Wire, api, api_key};
use crate::support::redis::Redis;
use crate::support::servers::{heavy_behind_kafkas_proxy, setting};
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
    let is_there = |id: &String| partition_of(id.as_bytes(), 2) == 0;
    let id = std::iter::repeat_with(fresh).find(is_there).unwrap();
    // Aborted when it is dropped.
    is_given_back_by_another(&sale, &id, || drop(sale.scene.kafka.open_transaction(&sale.scene.orders())));
}

/// Meanwhile this is done.
fn is_given_back_by_another(sale: &Sale, id: &str, meanwhile: impl FnOnce()) {
    let verifier = sale.scene.start("a", &[]);
    let (_proxy, brokers, _) = before_kafka(Act::Cut);
    let (mut dies, shopper) = sale.gate_at(&brokers, "dies", &RECONNECTS);
    meanwhile();
    let bought = order(id, &[("MUG", 1)]);
    let asking = std::thread::spawn({
        let bought = bought.clone();
        move || shopper.try_order(&bought, "")
    });
    sale.unsettled(1);
    dies.kill();
    assert!(asking.join().unwrap().is_none(), "it died before it answered");
    let (gate, shopper) = sale.gate("lives", &BOUND);
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
    wait::until("Kafka has the order", SOON, || sale.sent() == 1);
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
    std::thread::scope(|scope| {
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
    });
    sale.comes_to_rest();
    assert_eq!((accepted.into_inner(), sale.in_ledger("MUG")), (PIECES, 0));
    gate.stop();
    killed.stop();
    verifier.stop();
    sale.scene.audit();
}
