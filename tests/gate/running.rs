//! A gate at work.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use stock_verifier::gate::openapi::document;

use super::sale::{Answer, SOON, Sale, fresh, order};
use crate::support::kafka::{header, sent};
use crate::support::wait;

#[test]
fn a_gate_sells_what_there_is_and_tells_every_buyer_what_became_of_the_order() {
    let sale = Sale::new(&[("MUG", 3), ("HAT", 9)]);
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("gate", &[]);
    let (first, second) = (fresh(), fresh());
    let cart = order(&first, &[("MUG", 1), ("HAT", 2), ("MUG", 1)]);
    let bought = shopper.order_and_wait(&cart);
    assert!(bought.is_accepted(), "{bought:?}");
    assert_eq!(bought.body["order_id"], *first);
    sale.comes_to_rest();
    // The same again, in other words, is answered from the ledger, and nothing is sent.
    let again = shopper.order(&order(&first, &[("HAT", 2), ("MUG", 2)]));
    assert!(again.is_accepted(), "{again:?}");
    let other = shopper.order(&order(&first, &[("HAT", 1)]));
    assert_eq!((other.status, other.problem()), (422, "order-conflict"), "{other:?}");
    // Not enough: an estimate that names every line at fault, and is remembered nowhere.
    let short = order(&second, &[("MUG", 2), ("HAT", 8)]);
    for _ in 0..2 {
        let refused = shopper.order(&short);
        assert_eq!((refused.status, refused.problem()), (409, "not-enough"), "{refused:?}");
        let reasons = json!([
            {"reason": "insufficient_stock", "sku": "HAT", "requested": 8, "available": 7},
            {"reason": "insufficient_stock", "sku": "MUG", "requested": 2, "available": 1},
        ]);
        assert_eq!(refused.body["reasons"], reasons);
    }
    assert_eq!(shopper.get(&format!("/v1/orders/{second}")).status, 404);
    assert_eq!(sale.sent(), 1);
    sale.comes_to_rest();
    // What comes in is sold.
    let receipt = json!({"type": "stock.received", "adjustment_id": fresh(), "sku": "MUG", "quantity": 1});
    sale.scene.kafka.produce(&sale.scene.topic("adjustments"), &[sent("MUG", receipt.to_string())]);
    wait::until("the restock is seen", SOON, || sale.cached("MUG") == Some(2));
    let smaller = shopper.order(&order(&second, &[("MUG", 2)]));
    assert_eq!((smaller.status, &smaller.body["estimate"]), (202, &json!("enough")), "{smaller:?}");
    assert_eq!(smaller.header("location"), format!("/v1/orders/{second}"));
    let verdict = shopper.get(&format!("{}?wait=30s", smaller.header("location")));
    assert!(verdict.is_accepted(), "{verdict:?}");
    sale.comes_to_rest();
    assert_eq!(sale.in_ledger("MUG"), 0);
    wait::until("all levels are compared", SOON, || shopper.get("/v1/gate").body["drift_pieces"] == 0);
    let metrics = shopper.get("/metrics").body.as_str().unwrap().to_owned();
    for line in [
        "stock_verifier_gate_answers_total{answer=\"admitted\"} 2",
        "stock_verifier_gate_answers_total{answer=\"not_enough\"} 2",
        "stock_verifier_gate_answers_total{answer=\"conflict\"} 1",
        "stock_verifier_gate_answers_total{answer=\"decided\"} 1",
        "stock_verifier_gate_drift_pieces 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    gate.stop();
    verifier.stop();
    sale.scene.audit();
}

#[test]
fn what_cannot_be_judged_passes_and_says_so_and_its_pieces_are_subtracted_meanwhile() {
    let sale = Sale::new(&[("MUG", 3), ("HAT", 1)]);
    let (gate, shopper) = sale.gate("gate", &[]);
    let partial = json!({"order_id": fresh(), "policy": "partial", "lines": [{"sku": "MUG", "quantity": 2}]});
    let unknown = order(&fresh(), &[("CAP", 1)]);
    for passes in [&partial, &unknown] {
        let passed = shopper.order(passes);
        assert_eq!((passed.status, &passed.body["estimate"]), (202, &json!("undecided")), "{passed:?}");
    }
    // The same again is not one more that was let in.
    let again = shopper.order(&unknown);
    assert_eq!((again.status, &again.body["estimate"]), (202, &json!("undecided")), "{again:?}");
    let metrics = shopper.get("/metrics").body.as_str().unwrap().to_owned();
    for (answer, times) in [("undecided", 2), ("repeated", 1)] {
        let line = format!("stock_verifier_gate_answers_total{{answer=\"{answer}\"}} {times}\n");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    // No verifier runs yet, and still nobody is promised what the first may take.
    let refused = shopper.order(&order(&fresh(), &[("MUG", 2)]));
    assert_eq!((refused.status, &refused.body["reasons"][0]["available"]), (409, &json!(1)), "{refused:?}");
    let hold = json!({"order_id": fresh(), "hold_seconds": 900, "lines": [{"sku": "HAT", "quantity": 1}]});
    assert_eq!(shopper.order(&hold).body["estimate"], "enough");
    let verifier = sale.scene.start("a", &[]);
    let verdict = shopper.get(&format!("/v1/orders/{}?wait=30s", hold["order_id"].as_str().unwrap()));
    assert_eq!(verdict.body["standing"], "held", "{verdict:?}");
    let verdict = shopper.order_and_wait(&unknown);
    assert_eq!((verdict.status, &verdict.body["decision"]["accepted"]), (200, &json!(false)), "{verdict:?}");
    sale.comes_to_rest();
    assert_eq!((sale.in_ledger("MUG"), sale.in_ledger("HAT")), (1, 0));
    gate.stop();
    verifier.stop();
}

#[test]
fn a_sku_is_sold_from_its_time_on_to_each_buyer_within_the_limit_and_until_it_is_closed() {
    let sale = Sale::new(&[("MUG", 100)]);
    let (gate, shopper) = sale.gate("gate", &[]);
    let by = |buyer: &str, pieces: i64| {
        let mut order = order(&fresh(), &[("MUG", pieces)]);
        order["buyer_id"] = json!(buyer);
        order
    };
    assert_eq!(
        sale.command(&["open", "MUG", "--at", "2096-01-01T00:00:00Z"]),
        "MUG is sold from 2096-01-01T00:00:00.000000Z on.\n"
    );
    let early = shopper.order(&by("ann", 1));
    assert_eq!(
        (early.status, early.problem(), early.header("retry-after")),
        (409, "not-open", "3600"),
        "{early:?}"
    );
    assert_eq!(early.body["opens_at"], "2096-01-01T00:00:00.000000Z");
    sale.command(&["open", "MUG", "--buyer-limit", "2", "--buyer-window", "1h"]);
    assert_eq!(shopper.order(&order(&fresh(), &[("MUG", 1)])).problem(), "buyer-missing");
    assert_eq!(shopper.order(&by("ann", 2)).status, 202);
    let more = shopper.order(&by("ann", 1));
    assert_eq!(
        (more.status, more.problem(), &more.body["left"]),
        (409, "buyer-limit", &json!(0)),
        "{more:?}"
    );
    assert_eq!(shopper.order(&by("bob", 1)).status, 202);
    let status = sale.command(&["status"]);
    let row: Vec<&str> = status.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row, ["MUG", "97", "3", "yes", "2", "in", "1h"], "{status}");
    sale.command(&["close", "MUG"]);
    assert_eq!(shopper.order(&by("eve", 1)).problem(), "not-open");
    sale.command(&["open", "MUG"]);
    assert_eq!(shopper.order(&order(&fresh(), &[("MUG", 5)])).status, 202);
    gate.stop();
}

#[test]
fn what_is_no_order_is_refused_with_why_and_nothing_is_sent() {
    let sale = Sale::new(&[("MUG", 3)]);
    let token = sale.scene.file("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let (gate, shopper) = sale.gate("gate", &["--http-token-file", token.to_str().unwrap()]);
    let good = order(&fresh(), &[("MUG", 1)]).to_string();
    let post = |media: &str, body: &str| {
        let headers = [("content-type", media), ("authorization", "Bearer hunter2"), ("x-request-id", "r-1")];
        shopper.try_send("POST", "/v1/orders", &headers, body).unwrap()
    };
    let json = "application/json";
    let none = shopper.try_send("POST", "/v1/orders", &[("content-type", json)], &good).unwrap();
    assert_eq!((none.status, none.problem()), (401, "unauthorized"));
    for (media, body, status, problem) in [
        ("text/plain", &*good, 415, "blank"),
        (json, "{", 400, "invalid-body"),
        (json, r#"{"lines":[{"sku":"MUG","quantity":1}]}"#, 400, "invalid-body"),
        (json, r#"{"type":"order.cancelled","order_id":"o-1"}"#, 400, "invalid-body"),
        (json, r#"{"order_id":"o-1","lines":[{"sku":"MUG","quantity":0}]}"#, 422, "invalid-order"),
        (
            json,
            r#"{"order_id":"o-1","buyer_id":7,"lines":[{"sku":"MUG","quantity":1}]}"#,
            422,
            "invalid-order",
        ),
        (json, &*" ".repeat(950_001), 413, "blank"),
    ] {
        let refused = post(media, body);
        assert_eq!((refused.status, refused.problem()), (status, problem), "{refused:?}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
    }
    assert_eq!(post("application/json; charset=utf-8", &good).status, 202);
    let sent = sale.scene.kafka.read(&sale.scene.orders());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].value.as_deref(), Some(good.as_bytes()), "as it was handed in");
    assert_eq!(header(&sent[0], "ce_type"), Some("order.created"));
    assert!(header(&sent[0], "traceparent").unwrap().starts_with("00-"));
    gate.stop();
}

#[test]
fn the_audit_names_each_difference_of_the_cache_at_rest_and_puts_it_right() {
    let sale = Sale::new(&[("MUG", 3), ("HAT", 9), ("CAP", 2)]);
    let (gate, shopper) = sale.gate("gate", &[]);
    // One that stays open: what is subtracted for it is right.
    assert_eq!(shopper.order(&order(&fresh(), &[("MUG", 1)])).status, 202);
    gate.stop();
    let audit = |more: &[&str], status: i32| {
        let mut command = sale.scene.tool(&["audit", "--cache"]);
        let done = sale.name_cache(&mut command).args(more).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(status), "{text}{}", String::from_utf8_lossy(&done.stderr));
        text
    };
    assert!(audit(&[], 0).contains("✓  C  "));
    sale.redis_command(&["HSET", "item:MUG", "pending", "3"]);
    sale.redis_command(&["HSET", "item:HAT", "available", "10"]);
    sale.redis_command(&["DEL", "item:CAP"]);
    sale.redis_command(&["HSET", "item:OLD", "available", "1", "version", "7"]);
    let found = audit(&[], 1);
    for line in [
        "MUG: 3 pieces are subtracted, entries have 1",
        "HAT: the cache has 10 (version 1), the ledger 9 (version 1)",
        "CAP: the cache does not know it",
        "OLD: the ledger does not know it",
    ] {
        assert!(found.contains(&format!("        {line}\n")), "{line} is not in {found}");
    }
    let repaired = audit(&["--repair"], 0);
    assert_eq!(repaired.matches("Repaired: in the cache, ").count(), 4, "{repaired}");
    assert!(audit(&[], 0).contains("✓  C  "));
    assert_eq!((sale.cached("MUG"), sale.cached("HAT"), sale.cached("CAP")), (Some(2), Some(9), Some(2)));
}

/// Panics when an answer is not what the gate's document says.
fn check(method: &str, path: &str, answer: &Answer) {
    let document: Value = serde_json::from_str(document()).unwrap();
    let responses = &document["paths"][path][method]["responses"];
    let status = answer.status.to_string();
    let response = if responses[&status].is_null() { &responses["default"] } else { &responses[&status] };
    let schema = &response["content"][answer.header("content-type")]["schema"];
    assert!(!schema.is_null(), "{method} {path}: {answer:?} is not in the document");
    let whole = json!({"allOf": [schema], "components": document["components"]});
    if let Err(error) = jsonschema::validator_for(&whole).unwrap().validate(&answer.body) {
        panic!("{method} {path}: {answer:?} is not what the document says: {error}");
    }
}

#[test]
fn the_document_of_a_gate_is_served_and_says_what_is_answered() {
    let sale = Sale::new(&[("MUG", 3)]);
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("gate", &[]);
    let whole: Value = serde_json::from_str(document()).unwrap();
    assert_eq!(shopper.get("/openapi.json").body, whole);
    assert!(whole["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/v1/orders", "/v1/gate", "/v1/orders/{id}", "/v1/stock/{sku}", "/readyz"] {
        assert!(whole["paths"][path].is_object(), "{path}");
    }
    sale.command(&["open", "MUG", "--buyer-limit", "2"]);
    let mut bought = order(&fresh(), &[("MUG", 2)]);
    bought["buyer_id"] = json!("ann");
    let asked =
        json!({"allOf": [{"$ref": "#/components/schemas/OrderCreated"}], "components": whole["components"]});
    jsonschema::validator_for(&asked).unwrap().validate(&bought).unwrap();
    let let_in = shopper.order(&bought);
    assert_eq!(let_in.status, 202);
    let decided = shopper.verdict(&bought);
    bought["lines"][0]["quantity"] = json!(1);
    let conflict = shopper.order(&bought);
    bought["order_id"] = json!(fresh());
    bought["lines"][0]["quantity"] = json!(2);
    let short = shopper.order(&bought);
    assert_eq!((conflict.status, short.status), (422, 409));
    for answer in [let_in, decided, conflict, short, shopper.order(&json!({}))] {
        check("post", "/v1/orders", &answer);
    }
    let seen = shopper.get("/v1/gate");
    check("get", "/v1/gate", &seen);
    // Asked for the verdict it was let in again, or was decided by then.
    assert!(seen.body["answers"]["admitted"].as_u64() >= Some(1), "{seen:?}");
    assert_eq!(seen.body["cache"]["filled"], true);
    let sold = json!({"sku": "MUG", "left": 1, "of_entries": 0, "closed": false, "buyer_limit": 2});
    sale.comes_to_rest();
    assert_eq!(shopper.get("/v1/gate").body["cache"]["sales"], json!([sold]));
    gate.stop();
    verifier.stop();
}

#[test]
fn what_the_page_shows_is_what_a_gate_does() {
    const PAGE: &str = include_str!("../../docs/gate.md");
    let sale = Sale::new(&[("MUG", 3)]);
    let (gate, shopper) = sale.gate("gate", &[]);
    let blocks: Vec<&str> = PAGE.split("```").skip(1).step_by(2).collect();
    let curl = blocks.iter().find_map(|block| block.strip_prefix("sh\ncurl ")).expect("an order");
    let body = curl.split(" -d '").nth(1).unwrap().trim_end().trim_end_matches('\'');
    let shown = blocks.iter().find_map(|block| block.strip_prefix("json\n")).expect("an answer");
    let answer = shopper.order(&serde_json::from_str(body).unwrap());
    assert_eq!(answer.body, serde_json::from_str::<serde_json::Value>(shown).unwrap());
    let commands: Vec<&str> = blocks
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| line.strip_prefix("stock-verifier gate "))
        .collect();
    assert!(commands.len() >= 4, "{commands:?}");
    for command in commands.into_iter().filter(|command| !command.starts_with("--")) {
        let words: Vec<&str> = command.split_whitespace().collect();
        assert!(sale.command(&words).contains(if words[0] == "status" {
            "entries wait"
        } else {
            "MUG is sold"
        }));
    }
    // Every answer that is counted is on the page of metrics.
    let operations = include_str!("../../docs/operations.md");
    for answer in stock_verifier::gate::answers() {
        assert!(operations.contains(&format!("`{answer}`")), "{answer}");
    }
    gate.stop();
}

#[test]
fn a_partial_order_with_a_sku_that_nobody_stocks_comes_to_its_end() {
    let sale = Sale::new(&[("MUG", 3)]);
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("gate", &[]);
    let lines = json!([{"sku": "MUG", "quantity": 1}, {"sku": "NOPE", "quantity": 1}]);
    let partial = json!({"order_id": fresh(), "policy": "partial", "lines": lines});
    assert!(shopper.order_and_wait(&partial).is_accepted());
    sale.comes_to_rest();
    let kept = sale.redis.command(&["EXISTS", &format!("{}item:NOPE", sale.prefix)]);
    assert_eq!(kept.as_deref(), Some("0"));
    gate.stop();
    verifier.stop();
}

#[test]
fn who_waits_for_the_verdict_is_not_given_that_of_another_order_with_the_same_id() {
    let sale = Sale::new(&[("MUG", 3)]);
    let verifier = sale.scene.start("a", &[]);
    let (gate, shopper) = sale.gate("gate", &[]);
    // The cache remembers nothing of one that was rejected past it.
    let id = fresh();
    let lines = json!([{"sku": "MUG", "quantity": 9}]);
    let first = json!({"type": "order.created", "order_id": &id, "lines": lines});
    sale.scene.produce(&[sent(&id, first.to_string())]);
    wait::until("it is rejected", SOON, || shopper.get(&format!("/v1/orders/{id}")).status == 200);
    let other = shopper.order_and_wait(&order(&id, &[("MUG", 1)]));
    assert_eq!((other.status, other.problem()), (422, "order-conflict"), "{other:?}");
    wait::until("it is a dead letter", SOON, || sale.scene.kafka.count(&sale.scene.topic("dead")) == 1);
    gate.stop();
    verifier.stop();
}

#[test]
fn large_orders_that_do_not_come_keep_out_other_large_ones_for_a_moment_and_no_small_one() {
    /// Longest wait for a refusal; who is not refused is asked for the order itself.
    const REFUSED_WITHIN: Duration = Duration::from_millis(100);
    let sale = Sale::new(&[("MUG", 3)]);
    let (gate, shopper) = sale.gate("gate", &["--most-orders", "1"]);
    let head = "POST /v1/orders HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n";
    let mut silent = Vec::new();
    let refused = wait::value("there is no room for one more", SOON, || {
        let mut asking = TcpStream::connect(shopper.address()).expect("a connection");
        asking.write_all(head.as_bytes()).expect("sent");
        asking.set_read_timeout(Some(REFUSED_WITHIN)).expect("set");
        let mut answer = [0; 12];
        let is_answered = asking.read_exact(&mut answer).is_ok();
        silent.push(asking);
        is_answered.then_some(answer)
    });
    assert_eq!(str::from_utf8(&refused), Ok("HTTP/1.1 429"));
    let small = shopper.order(&order(&fresh(), &[("MUG", 1)]));
    assert_eq!(small.status, 202, "{small:?}");
    drop(silent);
    let large = format!("{}{}", order(&fresh(), &[("MUG", 1)]), " ".repeat(900_000));
    wait::until("there is room again", SOON, || {
        let json = [("content-type", "application/json")];
        let answer = shopper.try_send("POST", "/v1/orders", &json, &large);
        answer.is_some_and(|answer| answer.status == 202)
    });
    gate.stop();
}

#[test]
fn an_order_that_is_decided_is_not_called_let_in_where_the_database_does_not_show_it_yet() {
    let sale = Sale::new(&[("MUG", 3)]);
    let (gate, shopper) = sale.gate("gate", &[]);
    // As where a replica is behind.
    let id = fresh();
    sale.redis_command(&["HSET", &format!("order:{id}"), "standing", "decided"]);
    let bought = order(&id, &[("MUG", 1)]);
    let behind = shopper.order(&bought);
    assert_eq!(
        (behind.status, behind.problem(), behind.header("retry-after")),
        (503, "ledger-away", "1"),
        "{behind:?}"
    );
    assert_eq!(sale.sent(), 0);
    let verifier = sale.scene.start("a", &[]);
    let mut record = bought.clone();
    record["type"] = json!("order.created");
    sale.scene.produce(&[sent(&id, record.to_string())]);
    let decided = wait::value("a decision", SOON, || {
        Some(shopper.order(&bought)).filter(|answer| answer.status != 503)
    });
    assert!(decided.is_accepted(), "{decided:?}");
    let other = shopper.order(&order(&id, &[("MUG", 2)]));
    assert_eq!((other.status, other.problem()), (422, "order-conflict"), "{other:?}");
    gate.stop();
    verifier.stop();
}
