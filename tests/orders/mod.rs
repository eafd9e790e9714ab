//! `orders show` on every store.

use std::sync::Arc;

use serde_json::{Value, json};
use stock_verifier::cli::orders::{OrdersCommand, ShowArgs, execute};
use stock_verifier::event::{TraceContext, result};
use stock_verifier::ledger::{CommandKey, CommandKind, Id};
use stock_verifier::store::Store;

use crate::on_every_store;
use crate::support::process::program;
use crate::support::{TestDatabase, batch, cancelled, hold, limits, order, partial, records, returned, set};

on_every_store![
    an_order_is_shown_with_all_that_followed_it_and_its_events_byte_for_byte,
    a_rejected_order_says_every_reason,
    an_order_that_got_less_and_one_that_is_held_say_so,
    an_unknown_order_says_what_to_do_and_another_commands_id_says_whose_it_is,
];

async fn show(store: &Arc<dyn Store>, id: &str, json: bool) -> anyhow::Result<String> {
    execute(OrdersCommand::Show(ShowArgs { id: id.to_owned(), json }), &**store).await
}

async fn as_json(store: &Arc<dyn Store>, id: &str) -> Value {
    serde_json::from_str(&show(store, id, true).await.unwrap()).unwrap()
}

/// What is published of a decision, by the ledger.
async fn event(store: &Arc<dyn Store>, kind: CommandKind, id: &str) -> String {
    let key = CommandKey { id: Id::new(id).unwrap(), kind };
    let decision = store.decision(&key).await.unwrap().unwrap();
    String::from_utf8(result(&decision, None, TraceContext::NONE).value.unwrap()).unwrap()
}

async fn an_order_is_shown_with_all_that_followed_it_and_its_events_byte_for_byte(
    database: Arc<TestDatabase>,
) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None), set("a-2", "HAT@BERLIN", 5, None)])).await.unwrap();
    let told = vec![
        order("o-1", &[("MUG", 3), ("HAT@BERLIN", 1)]),
        returned("r-1", "o-1", &[("MUG", 1)]),
        returned("r-2", "o-1", &[("MUG", 9)]),
        cancelled("o-1"),
    ];
    store.apply(&records(3, 40, told)).await.unwrap();

    let shown = as_json(&store, "o-1").await;
    assert_eq!((&shown["order_id"], &shown["standing"]), (&json!("o-1"), &json!("cancelled")), "{shown:#}");
    assert_eq!(shown["decision"]["source"], json!({"topic": "orders", "partition": 3, "offset": 40}));
    let moved: Vec<_> = shown["movements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            (line["sku"].as_str().unwrap(), line["quantity"].as_i64().unwrap(), line["balance"].as_i64())
        })
        .collect();
    let expected = [
        ("HAT", -1, Some(4)),
        ("MUG", -3, Some(7)),
        ("MUG", 1, Some(8)),
        ("HAT", 1, Some(5)),
        ("MUG", 2, Some(10)),
    ];
    assert_eq!(moved, expected);
    assert_eq!(shown["returns"][1]["reasons"][0]["reason"], "return_exceeds_deducted");
    let published: Vec<_> = shown["published"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["channel"].as_str().unwrap(), event["ce_id"].as_str().unwrap()))
        .collect();
    let expected = [
        ("accepted", "order.created/o-1"),
        ("accepted", "order.returned/r-1"),
        ("rejected", "order.returned/r-2"),
        ("accepted", "order.cancelled/o-1"),
    ];
    assert_eq!(published, expected);

    let (text, raw) = (show(&store, "o-1", false).await.unwrap(), show(&store, "o-1", true).await.unwrap());
    assert!(text.starts_with("The order o-1 was cancelled"), "{text}");
    assert!(text.contains("record orders[3]@40"), "{text}");
    assert!(text.contains("return_exceeds_deducted (sku MUG, requested 9, left 2)"), "{text}");
    for (kind, id) in [
        (CommandKind::OrderCreated, "o-1"),
        (CommandKind::OrderReturned, "r-1"),
        (CommandKind::OrderReturned, "r-2"),
        (CommandKind::OrderCancelled, "o-1"),
    ] {
        let event = event(&store, kind, id).await;
        assert!(text.contains(&event) && raw.contains(&event), "{event} is not in\n{text}\n{raw}");
    }
}

async fn a_rejected_order_says_every_reason(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 1, None)])).await.unwrap();
    store.apply(&records(0, 0, vec![order("o-1", &[("MUG", 2), ("HUT", 1)])])).await.unwrap();
    let text = show(&store, "o-1", false).await.unwrap();
    assert!(text.starts_with("The order o-1 was rejected, and took nothing.\n"), "{text}");
    for says in
        ["insufficient_stock (sku MUG, requested 2, available 1)", "unknown_sku (sku HUT, requested 1)"]
    {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    assert!(!text.contains("MOVED"), "nothing moved: {text}");
    assert_eq!(as_json(&store, "o-1").await["published"][0]["channel"], "rejected");
}

async fn an_order_that_got_less_and_one_that_is_held_say_so(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let levels = vec![set("a-1", "MUG", 3, None), limits("a-2", "MUG", 0, None)];
    store.apply(&batch(levels)).await.unwrap();
    store
        .apply(&records(0, 0, vec![hold("o-1", 3_600, &[("MUG", 1)]), partial("o-2", &[("MUG", 9)])]))
        .await
        .unwrap();
    let held = as_json(&store, "o-1").await;
    let text = show(&store, "o-1", false).await.unwrap();
    let until = held["hold"]["expires_at"].as_str().unwrap();
    assert!(text.contains(&format!("It is held until {until}.")), "{text}");
    let text = show(&store, "o-2", false).await.unwrap();
    assert!(
        text.contains(
            "It got less than it asked for: insufficient_stock (sku MUG, requested 9, available 2)"
        ),
        "{text}"
    );
}

async fn an_unknown_order_says_what_to_do_and_another_commands_id_says_whose_it_is(
    database: Arc<TestDatabase>,
) {
    let store = database.ledger().await;
    store.apply(&batch(vec![set("a-1", "MUG", 10, None)])).await.unwrap();
    store
        .apply(&records(0, 0, vec![order("o-1", &[("MUG", 1)]), returned("r-1", "o-1", &[("MUG", 1)])]))
        .await
        .unwrap();
    let error = show(&store, "o-2", false).await.unwrap_err().to_string();
    assert!(error.starts_with("nothing about the order o-2 was decided"), "{error}");
    assert!(error.contains("`stock-verifier replay diff --order-id"), "{error}");
    let error = show(&store, "r-1", false).await.unwrap_err().to_string();
    assert!(error.starts_with("r-1 is no order: it is the id of order.returned of the order o-1"), "{error}");
    let error = show(&store, "a-1", false).await.unwrap_err().to_string();
    assert!(
        error.starts_with("a-1 is no order: it is the id of a command of another kind, adjustment"),
        "{error}"
    );
    let error = show(&store, "", false).await.unwrap_err();
    assert!(format!("{error:#}").contains("the order id \"\""), "{error:#}");
}

#[test]
fn the_program_ends_with_1_for_an_order_it_does_not_know_and_with_2_for_wrong_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = program();
        command
            .current_dir(folder.path())
            .args(words)
            .env("STOCK_VERIFIER_DATABASE_URL", "sqlite://ledger.db");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["migrate"]).0, Some(0));
    let (status, said) = run(&["orders", "show", "o-1"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("nothing about the order o-1 was decided"), "{said}");
    assert_eq!(run(&["orders", "show"]).0, Some(2));
}
