//! A Redis and topics of results that are others than they were: seen without any order or result that says so, and healed.

use stock_verifier::gate::rule::Standing;
use stock_verifier::ledger::{Id, TopicPartition};

use super::sale::{BOUND, SOON, Sale, fresh, order};
use crate::support::redis::MovingAddress;
use crate::support::servers::wait_for;
use crate::support::wait;

/// So long that no entry ends by it in a test.
const NO_BOUND: [&str; 2] = ["--entry-bound", "1h"];

#[test]
fn results_that_a_restored_redis_does_not_know_are_read_again_though_no_result_comes() {
    let mut sale = Sale::new(&[("MUG", 10)]);
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("gate", &NO_BOUND);
    let buy = |_| {
        let order = order(&fresh(), &[("MUG", 1)]);
        assert!(shopper.verdict(&order).is_accepted());
        order
    };
    let first: Vec<_> = (0..2).map(buy).collect();
    sale.comes_to_rest();
    let backup = sale.redis.backup();
    let later: Vec<_> = (0..4).map(buy).collect();
    sale.comes_to_rest();
    sale.redis.restore(backup.path());
    for order in &later {
        let id = Id::new(order["order_id"].as_str().unwrap()).unwrap();
        wait::until("Redis knows that it was decided", SOON, || {
            matches!(wait_for(sale.cache.standing(&id)), Ok(Some(Standing::Decided)))
        });
    }
    sale.comes_to_rest();
    // So nobody who was told so is told otherwise, or is let in a second time.
    let sent = sale.sent();
    for order in first.iter().chain(&later) {
        let again = shopper.order(order);
        assert!(again.is_accepted(), "{again:?}");
    }
    assert_eq!(sale.sent(), sent);
    gate.stop();
    verifier.stop();
}

#[test]
fn results_whose_offsets_a_filled_redis_does_not_know_are_read_again_from_their_beginning() {
    let sale = Sale::new(&[("MUG", 10)]);
    let verifier = sale.scene.start("a", &[]);
    let (mut gate, shopper) = sale.gate("gate", &NO_BOUND);
    let buy = || assert!(shopper.verdict(&order(&fresh(), &[("MUG", 1)])).is_accepted());
    // Of both partitions, as a rule.
    (0..4).for_each(|_| buy());
    sale.comes_to_rest();
    let topic = sale.scene.topic("accepted");
    let partitions = [0, 1].map(|number| TopicPartition::new(topic.as_str(), number));
    let known = || wait_for(sale.cache.offsets(&partitions)).expect("Redis answers");
    let before = known();
    // As a file has it that is older than the offsets.
    for number in 0..2 {
        sale.redis_command(&["DEL", &format!("offset:{topic}:{number}")]);
    }
    // No result need come.
    gate.said("Redis does not know any more how far results were settled", SOON);
    wait::until("they are settled again", SOON, || known() == before);
    // And where results come at once.
    for number in 0..2 {
        sale.redis_command(&["DEL", &format!("offset:{topic}:{number}")]);
    }
    (0..4).for_each(|_| buy());
    sale.comes_to_rest();
    assert_eq!(sale.in_ledger("MUG"), 2);
    gate.stop();
    verifier.stop();
}

#[test]
fn a_topic_of_results_that_is_made_anew_is_named_and_read_from_its_beginning() {
    let sale = Sale::new(&[("MUG", 10)]);
    let (mut gate, shopper) = sale.gate("gate", &NO_BOUND);
    let buy = || {
        let order = order(&fresh(), &[("MUG", 1)]);
        assert!(shopper.verdict(&order).is_accepted());
    };
    let verifier = sale.scene.start("a", &[]);
    (0..3).for_each(|_| buy());
    sale.comes_to_rest();
    verifier.stop();
    let topic = sale.scene.topic("accepted");
    sale.scene.kafka.delete(&topic);
    sale.scene.kafka.create(&topic, 1);
    gate.said("the topic was made anew", SOON);
    // Below the offsets of the one before, and still settled: no entry ends by its bound here.
    let verifier = sale.scene.start("b", &[]);
    buy();
    sale.comes_to_rest();
    assert_eq!(sale.in_ledger("MUG"), 6);
    gate.stop();
    verifier.stop();
}

#[test]
fn a_replica_that_takes_over_behind_the_same_address_is_found_and_nothing_is_sold_twice() {
    let mut sale = Sale::new(&[("MUG", 4)]);
    let address = MovingAddress::of(&sale.redis);
    sale.redis_url = format!("redis://{}/", address.address);
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("gate", &BOUND);
    let replica = sale.redis.replica();
    let first = order(&fresh(), &[("MUG", 1)]);
    assert!(shopper.verdict(&first).is_accepted());
    // The primary is one no more, and the gate is still connected to it.
    replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let port = replica.address().rsplit(':').next().unwrap().to_owned();
    sale.redis.command(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    let away = shopper.order(&order(&fresh(), &[("MUG", 1)]));
    assert_eq!((away.status, away.problem()), (503, "cache-away"), "{away:?}");
    address.move_to(&replica);
    let second = order(&fresh(), &[("MUG", 2)]);
    wait::until("the new primary is found", SOON, || shopper.order(&second).status == 202);
    assert!(shopper.verdict(&second).is_accepted());
    sale.cache = replica.cache_of(&sale.prefix);
    sale.comes_to_rest();
    assert!(shopper.verdict(&first).is_accepted());
    assert_eq!(shopper.order(&order(&fresh(), &[("MUG", 2)])).status, 409, "one is left");
    assert_eq!(sale.in_ledger("MUG"), 1);
    gate.stop();
    verifier.stop();
    sale.scene.audit();
}

#[test]
fn a_sentinel_is_refused_with_what_to_name_instead() {
    let mut sale = Sale::new(&[("MUG", 1)]);
    let sentinel = sale.redis.sentinel();
    sale.redis_url = sentinel.url();
    let mut command = sale.scene.gate(&sale.scene.kafka.brokers);
    sale.name_cache(&mut command).args(["--http-listen", "127.0.0.1:0"]);
    let mut refused = sale.scene.launch(command, "gate");
    let status = refused.wait(SOON);
    assert!(!status.success() && refused.log().contains("this is a Sentinel"), "{}", refused.log());
}

#[test]
fn a_new_password_of_redis_is_used_after_a_sighup() {
    let mut sale = Sale::new(&[("MUG", 10)]);
    let file = sale.scene.file("redis-password");
    let set = |sale: &Sale, password: &str| {
        let given = format!(">{password}");
        let words = ["ACL", "SETUSER", "gate", "on", "resetpass", &given, "~*", "&*", "+@all"];
        assert_eq!(sale.redis.command(&words).as_deref(), Some("OK"));
        std::fs::write(&file, password).expect("written");
    };
    set(&sale, "first");
    sale.redis_url = format!("redis://gate@{}/", sale.redis.address());
    let (mut gate, shopper) = sale.gate("gate", &["--redis-password-file", file.to_str().expect("UTF-8")]);
    assert_eq!(shopper.order(&order(&fresh(), &[("MUG", 1)])).status, 202);

    set(&sale, "second");
    gate.signal("HUP");
    gate.said("read again at SIGHUP", SOON);
    // Every connection from here on needs the new password.
    assert!(sale.redis.command(&["CLIENT", "KILL", "USER", "gate"]).is_some());
    wait::until("it connects with the new password", SOON, || {
        shopper.order(&order(&fresh(), &[("MUG", 1)])).status == 202
    });
    gate.stop();
}

#[test]
fn a_user_of_redis_who_was_locked_out_for_a_while_is_let_in_again() {
    let mut sale = Sale::new(&[("MUG", 10)]);
    let given = ["ACL", "SETUSER", "gate", "on", ">secret", "~*", "&*", "+@all"];
    assert_eq!(sale.redis.command(&given).as_deref(), Some("OK"));
    sale.redis_url = format!("redis://gate:secret@{}/", sale.redis.address());
    let (gate, shopper) = sale.gate("gate", &[]);
    let buy = || shopper.order(&order(&fresh(), &[("MUG", 1)])).status;
    assert_eq!(buy(), 202);
    let user =
        |word| assert_eq!(sale.redis.command(&["ACL", "SETUSER", "gate", word]).as_deref(), Some("OK"));
    user("off");
    assert!(sale.redis.command(&["CLIENT", "KILL", "USER", "gate"]).is_some());
    // More often than one connection is tried: each has failed for a reason of its own, and not by breaking.
    (0..4).for_each(|_| assert_eq!(buy(), 503));
    user("on");
    wait::until("it is let in", SOON, || buy() == 202);
    gate.stop();
}

#[test]
fn a_redis_that_falls_silent_is_left_for_the_one_that_its_address_leads_to() {
    let mut sale = Sale::new(&[("MUG", 4)]);
    let address = MovingAddress::of(&sale.redis);
    sale.redis_url = format!("redis://{}/", address.address);
    let (gate, shopper) = sale.gate("gate", &NO_BOUND);
    let replica = sale.redis.replica();
    replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    sale.redis.fall_silent();
    address.move_to(&replica);
    wait::until("the new primary is found", SOON, || {
        shopper.order(&order(&fresh(), &[("MUG", 1)])).status == 202
    });
    gate.stop();
}
