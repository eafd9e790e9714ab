//! What is answered, on every store.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stock_verifier::store::Store;

use super::client::Client;
use super::{ask, serve};
use crate::on_every_store;
use crate::support::{
    TestDatabase, batch, cancelled, confirmed, extended, hold, limits, order, partial, received, records,
    released, returned, set,
};

on_every_store![
    stock_is_shown_at_one_location_or_at_all,
    a_batch_of_items_is_answered_in_the_order_asked,
    a_cart_is_checked_line_by_line_and_takes_nothing,
    an_order_is_shown_with_all_that_became_of_it,
    an_order_stands_as_its_last_end_says,
    movements_come_in_pages_of_any_size_newest_first,
    who_waits_gets_the_verdict_of_this_and_of_another_instance,
    what_is_committed_before_an_answer_is_in_it,
    odd_names_are_asked_for_as_they_are,
];

/// A ledger with some stock.
async fn stocked(database: &TestDatabase) -> Arc<dyn Store> {
    let store = database.ledger().await;
    store
        .apply(&batch(vec![
            set("s-1", "MUG", 10, None),
            set("s-2", "MUG@BERLIN", 3, None),
            set("s-3", "SHIRT", 5, None),
            limits("l-1", "SHIRT", 2, Some(6)),
        ]))
        .await
        .unwrap();
    store
}

/// The members of each object of a list.
fn members(list: &Value, names: &[&str]) -> Vec<Vec<Value>> {
    let list = list.as_array().unwrap();
    list.iter().map(|one| names.iter().map(|name| one[*name].clone()).collect()).collect()
}

async fn stock_is_shown_at_one_location_or_at_all(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        let all = client.get("/v1/stock/MUG");
        assert_eq!(all.status, 200, "{}", all.text);
        assert_eq!(all.body["sku"], "MUG");
        assert_eq!(all.body["more"], false);
        assert_eq!(all.header("stock-as-of"), all.body["as_of"].as_str().unwrap());
        let seen = members(&all.body["levels"], &["location", "available", "version"]);
        assert_eq!(seen, [json!([null, 10, 1]), json!(["BERLIN", 3, 1])].map(|row| list(&row)));
        let one = client.get("/v1/stock/MUG?location=BERLIN");
        assert_eq!(members(&one.body["levels"], &["location", "available"]), [list(&json!(["BERLIN", 3]))]);
        let default = client.get("/v1/stock/MUG?location=");
        assert_eq!(members(&default.body["levels"], &["location", "available"]), [list(&json!([null, 10]))]);
        let limited = client.get("/v1/stock/SHIRT");
        assert_eq!(limited.body["levels"][0]["backorder_limit"], 2);
        assert_eq!(limited.body["levels"][0]["order_limit"], 6);
        for path in ["/v1/stock/HAT", "/v1/stock/SHIRT?location=BERLIN", "/v1/stock/a%2Fb%20%C3%9F"] {
            let unknown = client.get(path);
            assert_eq!(unknown.status, 404, "{path}");
            assert_eq!(unknown.body["type"], "urn:stock-verifier:problem:unknown-sku");
        }
    })
    .await;
    server.stop().await;
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

async fn a_batch_of_items_is_answered_in_the_order_asked(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        let asked = json!({"items": [
            {"sku": "SHIRT"}, {"sku": "HAT", "location": "ROME"}, {"sku": "MUG", "location": "BERLIN"},
            {"sku": "MUG"}, {"sku": "SHIRT", "location": null},
        ]});
        let answer = client.post("/v1/stock:batch", &asked);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let seen = members(&answer.body["levels"], &["sku", "location", "available"]);
        let expected = [json!(["SHIRT", null, 5]), json!(["MUG", "BERLIN", 3]), json!(["MUG", null, 10])];
        assert_eq!(seen, expected.map(|row| list(&row)));
        assert_eq!(answer.body["unknown"], json!([{"sku": "HAT", "location": "ROME"}]));
    })
    .await;
    server.stop().await;
}

async fn a_cart_is_checked_line_by_line_and_takes_nothing(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        let cart = |lines: Value| json!({"lines": lines});
        let fits = client.post("/v1/precheck", &cart(json!([
            {"sku": "SHIRT", "quantity": 3}, {"sku": "MUG", "quantity": 10}, {"sku": "SHIRT", "quantity": 3},
        ])));
        assert_eq!((fits.status, &fits.body["acceptable"]), (200, &json!(true)), "{}", fits.text);
        let columns = ["sku", "requested", "granted", "backordered", "reason"];
        let expected = [json!(["MUG", 10, 10, 0, null]), json!(["SHIRT", 6, 6, 1, null])];
        assert_eq!(members(&fits.body["lines"], &columns), expected.map(|row| list(&row)));
        assert!(fits.body["age_seconds"].as_f64().unwrap() < 60.0);

        let short = json!([
            {"sku": "MUG", "location": "BERLIN", "quantity": 4}, {"sku": "MUG", "quantity": 1},
            {"sku": "HAT", "quantity": 1}, {"sku": "SHIRT", "quantity": 7},
        ]);
        let rejected = client.post("/v1/precheck", &cart(short.clone()));
        assert_eq!(rejected.body["acceptable"], false);
        let reasons: Vec<&Value> =
            rejected.body["lines"].as_array().unwrap().iter().map(|line| &line["reason"]["reason"]).collect();
        assert_eq!(
            reasons,
            ["unknown_sku", "null", "insufficient_stock", "limit_exceeded"]
                .map(|word| { if word == "null" { Value::Null } else { json!(word) } })
                .iter()
                .collect::<Vec<_>>()
        );
        assert!(rejected.body["lines"].as_array().unwrap().iter().all(|line| line["granted"] == 0));

        let partial = client.post("/v1/precheck", &json!({"lines": short, "policy": "partial"}));
        assert_eq!(partial.body["acceptable"], true);
        let granted = members(&partial.body["lines"], &["sku", "granted"]);
        let expected = [json!(["HAT", 0]), json!(["MUG", 1]), json!(["MUG", 3]), json!(["SHIRT", 6])];
        assert_eq!(granted, expected.map(|row| list(&row)));
        assert_eq!(client.get("/v1/stock/MUG").body["levels"][0]["available"], 10, "nothing was taken");
    })
    .await;
    server.stop().await;
}

async fn an_order_is_shown_with_all_that_became_of_it(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    let life = vec![
        hold("o-1", 600, &[("MUG", 4), ("SHIRT", 2)]),
        extended("e-1", "o-1", 60),
        confirmed("c-1", "o-1", Some(&[("MUG", 3), ("SHIRT", 2)])),
        returned("r-1", "o-1", &[("MUG", 1)]),
        returned("r-2", "o-1", &[("SHIRT", 9)]),
        // Of another order, under the id of this one.
        order("o-2", &[("MUG", 1)]),
        returned("o-1", "o-2", &[("MUG", 1)]),
    ];
    store.apply(&records(0, 0, life)).await.unwrap();
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        let answer = client.get("/v1/orders/o-1");
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = &answer.body;
        assert_eq!((&body["order_id"], &body["standing"]), (&json!("o-1"), &json!("confirmed")));
        assert_eq!(body["decision"]["accepted"], true);
        assert_eq!(body["decision"]["source"], json!({"topic": "orders", "partition": 0, "offset": 0}));
        let lines = members(&body["lines"], &["sku", "taken", "returned"]);
        assert_eq!(lines, [json!(["MUG", 4, 2]), json!(["SHIRT", 2, 0])].map(|row| list(&row)));
        let moved: Vec<_> = body["movements"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                json!([one["sku"], one["quantity"], one["balance"], one["cause"]["type"], one["cause"]["id"]])
            })
            .collect();
        assert_eq!(
            moved,
            [
                json!(["MUG", -4, 6, "order.created", "o-1"]),
                json!(["SHIRT", -2, 3, "order.created", "o-1"]),
                json!(["MUG", 1, 7, "order.confirmed", "c-1"]),
                json!(["MUG", 1, 8, "order.returned", "r-1"]),
            ]
        );
        let returns = members(&body["returns"], &["return_id", "accepted", "lines"]);
        assert_eq!(
            returns,
            [json!(["r-1", true, [{"sku": "MUG", "quantity": 1}]]), json!(["r-2", false, []]),]
                .map(|row| list(&row))
        );
        assert_eq!(body["returns"][1]["reasons"][0]["reason"], "return_exceeds_deducted");
        assert!(body.get("hold").is_none());
        let kinds: Vec<_> = body["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["command"]["id"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["o-1", "e-1", "c-1", "r-1", "r-2"]);
        let unknown = client.get("/v1/orders/o-9");
        assert_eq!(unknown.body["type"], "urn:stock-verifier:problem:no-decision");
    })
    .await;
    server.stop().await;
}

async fn an_order_stands_as_its_last_end_says(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    let all = vec![
        order("accepted", &[("MUG", 1)]),
        order("rejected", &[("MUG", 100)]),
        partial("partly", &[("MUG", 100)]),
        order("cancelled", &[("SHIRT", 1)]),
        cancelled("cancelled"),
        cancelled("undecided"),
        hold("held", 600, &[("SHIRT", 1)]),
        hold("released", 600, &[("SHIRT", 1)]),
        released("released"),
        hold("confirmed", 600, &[("SHIRT", 1)]),
        confirmed("confirmed", "confirmed", None),
    ];
    store.apply(&batch(all)).await.unwrap();
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        for standing in ["accepted", "rejected", "cancelled", "undecided", "held", "released", "confirmed"] {
            let answer = client.get(&format!("/v1/orders/{standing}"));
            assert_eq!(answer.body["standing"], standing, "{}", answer.text);
            assert_eq!(answer.body["decision"].is_null(), standing == "undecided");
        }
        let held = client.get("/v1/orders/held");
        assert_eq!(held.body["hold"]["over"], false);
        let partly = client.get("/v1/orders/partly");
        assert_eq!(partly.body["decision"]["short"][0]["reason"], "insufficient_stock");
        let rejected = client.get("/v1/orders/rejected");
        assert_eq!(rejected.body["decision"]["reasons"][0]["available"], 9);
    })
    .await;
    server.stop().await;
}

async fn movements_come_in_pages_of_any_size_newest_first(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    for number in 0..7 {
        let at_both = vec![
            order(&format!("o-{number}"), &[("MUG", 1)]),
            received(&format!("r-{number}"), "MUG@BERLIN", 1),
        ];
        store.apply(&records(0, number * 2, at_both)).await.unwrap();
    }
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        let pages = |start: &str, limit: usize| -> Vec<Value> {
            let (mut all, mut before) = (Vec::new(), String::new());
            loop {
                let page = client.get(&format!("/v1/movements?sku=MUG&limit={limit}{start}{before}"));
                assert_eq!(page.status, 200, "{}", page.text);
                let movements = page.body["movements"].as_array().unwrap();
                assert!(movements.len() <= limit);
                all.extend(movements.iter().cloned());
                match page.body["next"].as_str() {
                    Some(next) => before = format!("&before={next}"),
                    None => return all,
                }
            }
        };
        let whole = pages("", 500);
        assert_eq!(whole.len(), 16);
        for limit in [1, 2, 3, 8, 15, 16] {
            assert_eq!(pages("", limit), whole, "{limit} at a time");
        }
        let versions =
            |all: &[Value]| -> Vec<i64> { all.iter().map(|one| one["version"].as_i64().unwrap()).collect() };
        for place in ["&location=", "&location=BERLIN"] {
            let one = pages(place, 3);
            assert_eq!(versions(&one), [8, 7, 6, 5, 4, 3, 2, 1], "{place}");
        }
        let newest = &pages("&location=", 1)[0];
        assert_eq!((&newest["quantity"], &newest["balance"]), (&json!(-1), &json!(3)));
        assert_eq!(newest["cause"], json!({"type": "order.created", "id": "o-6"}));
        assert_eq!(newest["source"], json!({"topic": "orders", "partition": 0, "offset": 12}));
        let decided_at = newest["decided_at"].as_str().unwrap().to_owned();
        assert_eq!(client.get("/v1/orders/o-6").body["decision"]["decided_at"], decided_at.as_str());
        assert_eq!(client.get("/v1/movements?sku=HAT").body["movements"], json!([]));
    })
    .await;
    server.stop().await;
}

async fn who_waits_gets_the_verdict_of_this_and_of_another_instance(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    let (server, client) = serve(&store).await;
    let told = server.ledger(store.clone());
    let waiting = |id: &'static str| {
        let client = client.clone();
        tokio::task::spawn_blocking(move || client.get(&format!("/v1/orders/{id}?wait=30s")))
    };
    let (own, others) = (waiting("own"), waiting("others"));
    let asked = Instant::now();
    told.apply(&batch(vec![order("own", &[("MUG", 1)])])).await.unwrap();
    // Nobody here is told of this one.
    store.apply(&batch(vec![order("others", &[("MUG", 1)])])).await.unwrap();
    for answer in [own.await.unwrap(), others.await.unwrap()] {
        assert_eq!((answer.status, &answer.body["standing"]), (200, &json!("accepted")), "{}", answer.text);
    }
    assert!(asked.elapsed() < Duration::from_secs(20), "both came before their time was over");
    let there = ask(&client, |client: Client| client.get("/v1/orders/own?wait=30s")).await;
    assert_eq!(there.status, 200, "what is decided already is not waited for");
    let at_once = ask(&client, |client: Client| client.get("/v1/orders/never?wait=0s")).await;
    assert_eq!(at_once.status, 404, "{}", at_once.text);
    let never = ask(&client, |client: Client| client.get("/v1/orders/never?wait=1s")).await;
    assert_eq!((never.status, &never.body["type"]), (404, &json!("urn:stock-verifier:problem:no-decision")));
    // One who waits does not hold up a stop.
    let last = waiting("last");
    let begun = Instant::now();
    while ask(&client, |client: Client| client.get("/livez")).await.status != 200 {}
    server.stop().await;
    drop(last);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

async fn what_is_committed_before_an_answer_is_in_it(database: Arc<TestDatabase>) {
    let store = stocked(&database).await;
    let (server, client) = serve(&store).await;
    let mut before = String::new();
    for number in 0..20 {
        store.apply(&batch(vec![received(&format!("r-{number}"), "MUG", 1)])).await.unwrap();
        let answer = ask(&client, |client: Client| client.get("/v1/stock/MUG?location=")).await;
        assert_eq!(answer.body["levels"][0]["available"], 11 + number);
        let order = ask(&client, |client: Client| client.get("/v1/movements?sku=MUG&limit=1")).await;
        let decided = order.body["movements"][0]["decided_at"].as_str().unwrap().to_owned();
        let as_of = answer.body["as_of"].as_str().unwrap().to_owned();
        assert!(decided <= as_of && before <= as_of, "{decided} and {before} are not after {as_of}");
        before = as_of;
    }
    server.stop().await;
}

/// Percent-encodes everything.
fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "%{byte:02X}");
        text
    })
}

async fn odd_names_are_asked_for_as_they_are(database: Arc<TestDatabase>) {
    const ODD: [&str; 8] =
        ["a/b", "a%2Fb", "a:b", "..", "?x=y&z#", " lead", "Größe 42 / 红", "\u{2028}\u{10ffff}"];
    let store = database.ledger().await;
    for name in ODD {
        let there = format!("{name}@{name}");
        let all = vec![
            set(&format!("s {name}"), &there, 5, None),
            order(name, &[(&there, 1)]),
            order(&format!("{name} again"), &[(&there, 1)]),
        ];
        store.apply(&batch(all)).await.unwrap();
    }
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        for name in ODD {
            let escaped = encoded(name);
            let stock = client.get(&format!("/v1/stock/{escaped}?location={escaped}"));
            assert_eq!(stock.status, 200, "{name:?}: {}", stock.text);
            assert_eq!(
                (&stock.body["sku"], &stock.body["levels"][0]["location"]),
                (&json!(name), &json!(name))
            );
            let cart = json!({"lines": [{"sku": name, "location": name, "quantity": 3}]});
            assert_eq!(client.post("/v1/precheck", &cart).body["acceptable"], true, "{name:?}");
            let order = client.get(&format!("/v1/orders/{escaped}?wait=1s"));
            assert_eq!((order.status, &order.body["order_id"]), (200, &json!(name)), "{}", order.text);
            let (mut versions, mut before) = (Vec::new(), String::new());
            loop {
                let page = client.get(&format!("/v1/movements?sku={escaped}&limit=1{before}"));
                assert_eq!(page.status, 200, "{name:?}: {}", page.text);
                versions.push(page.body["movements"][0]["version"].as_i64().unwrap());
                let Some(next) = page.body["next"].as_str() else { break };
                before = format!("&before={}", encoded(next));
            }
            assert_eq!(versions, [3, 2, 1], "{name:?}");
        }
    })
    .await;
    server.stop().await;
}
