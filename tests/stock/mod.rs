//! `stock import`, `set`, `limits` and `get` on every store.

mod embedded;
mod watch;

use std::io::Write as _;
use std::sync::Arc;

use stock_verifier::cli::stock::{
    AdjustArgs, FeedArgs, GetArgs, ImportArgs, LimitsArgs, MoveArgs, ReceiveArgs, SetArgs, StockCommand,
    execute,
};
use stock_verifier::ledger::Limits;
use stock_verifier::store::{MAX_BATCH, Store};

use crate::support::process::program;
use crate::support::{TestDatabase, batch, levels, order, received};
use crate::{on_every_database, on_every_store};

on_every_store![
    a_file_is_imported_and_each_level_is_a_movement,
    a_file_with_one_bad_row_imports_nothing,
    every_row_is_set_whatever_the_lines_end_with,
    the_same_file_again_changes_nothing_unless_it_has_another_name,
    a_level_is_set_and_shown,
    a_level_at_another_version_is_not_set,
    an_unknown_sku_is_named,
    locations_are_set_imported_and_shown_each_for_itself,
    limits_are_stated_and_shown,
    limits_that_cannot_be_are_not_set,
    pieces_are_received_and_adjusted_and_the_level_is_shown,
    the_same_id_counts_once,
    what_was_rejected_stays_so_under_its_id,
    what_the_rules_refuse_is_said_in_words,
    a_dry_run_says_what_an_import_would_do_and_does_nothing,
    what_changes_levels_prints_json_too,
    a_delivery_is_added_once,
    rows_that_were_rejected_are_so_when_their_file_is_imported_again,
    rows_that_are_read_otherwise_than_before_are_named_and_the_others_are_done,
    a_delivery_that_is_read_otherwise_than_before_is_not_received_once_more,
    bad_lines_are_skipped_and_named_where_that_is_asked,
    a_feed_as_a_shop_writes_it_is_imported,
];

// What is there is taken back by SQL.
on_every_database![
    an_import_of_several_transactions_goes_on_where_it_stopped,
    what_is_exported_is_imported_as_it_was,
];

async fn import(store: &Arc<dyn Store>, content: &str, name: &str) -> anyhow::Result<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    let args = ImportArgs { file: file.path().to_owned(), name: name.to_owned(), ..ImportArgs::default() };
    execute(StockCommand::Import(args), store).await
}

/// What an import would do.
async fn dry_run(store: &Arc<dyn Store>, content: &str) -> anyhow::Result<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    let args = ImportArgs { file: file.path().to_owned(), dry_run: true, ..ImportArgs::default() };
    execute(StockCommand::Import(args), store).await
}

/// An import of this content with other arguments than usual.
async fn import_with(
    store: &Arc<dyn Store>,
    content: impl AsRef<[u8]>,
    args: ImportArgs,
) -> anyhow::Result<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    execute(StockCommand::Import(ImportArgs { file: file.path().to_owned(), ..args }), store).await
}

fn under(adjustment_id: Option<&str>) -> MoveArgs {
    MoveArgs { location: None, adjustment_id: adjustment_id.map(str::to_owned), json: false }
}

async fn receive(
    store: &Arc<dyn Store>,
    sku: &str,
    quantity: i64,
    adjustment_id: Option<&str>,
) -> anyhow::Result<String> {
    let args = ReceiveArgs { sku: sku.to_owned(), quantity, common: under(adjustment_id) };
    execute(StockCommand::Receive(args), store).await
}

async fn adjust(
    store: &Arc<dyn Store>,
    sku: &str,
    by: i64,
    adjustment_id: Option<&str>,
) -> anyhow::Result<String> {
    let args = AdjustArgs { sku: sku.to_owned(), by, common: under(adjustment_id) };
    execute(StockCommand::Adjust(args), store).await
}

async fn set(
    store: &Arc<dyn Store>,
    sku: &str,
    available: i64,
    expected_version: Option<i64>,
) -> anyhow::Result<String> {
    set_at(store, sku, None, available, expected_version).await
}

async fn set_at(
    store: &Arc<dyn Store>,
    sku: &str,
    location: Option<&str>,
    available: i64,
    expected_version: Option<i64>,
) -> anyhow::Result<String> {
    let location = location.map(str::to_owned);
    let args = SetArgs { sku: sku.to_owned(), available, location, expected_version, json: false };
    execute(StockCommand::Set(args), store).await
}

async fn limit(
    store: &Arc<dyn Store>,
    sku: &str,
    backorder_limit: i64,
    order_limit: Option<i64>,
) -> anyhow::Result<String> {
    let args = LimitsArgs { sku: sku.to_owned(), location: None, backorder_limit, order_limit, json: false };
    execute(StockCommand::Limits(args), store).await
}

async fn get(store: &Arc<dyn Store>, skus: &[&str], json: bool) -> anyhow::Result<String> {
    let skus = skus.iter().map(|sku| (*sku).to_owned()).collect();
    execute(StockCommand::Get(GetArgs { skus, json }), store).await
}

async fn a_file_is_imported_and_each_level_is_a_movement(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let text = import(&store, "sku,available\nMUG,10\n\"HAT, red\",0\n", "").await.unwrap();
    assert!(text.starts_with("2 levels set"), "{text}");
    assert_eq!(levels(&*store).await, [("HAT, red".into(), 0, 1), ("MUG".into(), 10, 1)]);
    let audit = store.audit().await.unwrap();
    assert_eq!((audit.movements, audit.findings.len()), (2, 0));
}

async fn a_file_with_one_bad_row_imports_nothing(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let error = import(&store, "sku,quantity\nMUG,10\nHAT,many\n", "").await.unwrap_err();
    assert!(format!("{error:#}").contains("line 3, column quantity"), "{error:#}");
    assert!(levels(&*store).await.is_empty());
}

async fn every_row_is_set_whatever_the_lines_end_with(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    for (number, end) in ["\n", "\r\n", "\r"].into_iter().enumerate() {
        let file = ["sku,available", "CUP,7", "MUG,12", "TEE,3", ""].join(end);
        let text = import(&store, &file, "").await.unwrap();
        assert!(text.starts_with("3 levels set"), "{end:?}: {text}");
        let version = i64::try_from(number).unwrap() + 1;
        let set = [("CUP".into(), 7, version), ("MUG".into(), 12, version), ("TEE".into(), 3, version)];
        assert_eq!(levels(&*store).await, set, "{end:?}");
        let again = import(&store, &file, "").await.unwrap();
        assert!(again.starts_with("0 levels set") && again.contains("3 rows were set by"), "{again}");
    }
    let text = import(&store, "sku,available\r\nCUP,8\rMUG,13\nTEE,\"4\r\n\"", "").await.unwrap();
    assert!(text.starts_with("3 levels set"), "{text}");
    assert_eq!(levels(&*store).await, [("CUP".into(), 8, 4), ("MUG".into(), 13, 4), ("TEE".into(), 4, 4)]);
}

async fn the_same_file_again_changes_nothing_unless_it_has_another_name(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let file = "sku,available\nMUG,10\n";
    import(&store, file, "").await.unwrap();
    store.apply(&batch(vec![order("o-1", &[("MUG", 3)])])).await.unwrap();
    let again = import(&store, file, "").await.unwrap();
    assert!(again.contains("0 levels set") && again.contains("give the import another --name"), "{again}");
    assert_eq!(levels(&*store).await, [("MUG".into(), 7, 2)]);
    import(&store, file, "monday").await.unwrap();
    assert_eq!(levels(&*store).await, [("MUG".into(), 10, 3)]);
}

async fn an_import_of_several_transactions_goes_on_where_it_stopped(database: Arc<TestDatabase>) {
    use std::fmt::Write as _;
    let store = database.ledger().await;
    let mut file = String::from("sku,available\n");
    for n in 0..=MAX_BATCH {
        writeln!(file, "SKU-{n:06},{n}").unwrap();
    }
    import(&store, &file, "").await.unwrap();
    // As if the last transactions had never been: an import killed half way.
    database
        .execute(
            "DELETE FROM decisions WHERE id IN (SELECT id FROM movements WHERE sku >= 'SKU-050000');
             DELETE FROM movements WHERE sku >= 'SKU-050000'; DELETE FROM levels WHERE sku >= 'SKU-050000'",
        )
        .await;
    let again = import(&store, &file, "").await.unwrap();
    assert!(again.starts_with("50001 levels set") && again.contains("50000 rows were set by"), "{again}");
    let audit = store.audit().await.unwrap();
    assert_eq!((audit.skus, audit.findings.len()), (100_001, 0));
}

async fn a_level_is_set_and_shown(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    set(&store, "MUG", 10, None).await.unwrap();
    let text = set(&store, "MUG", 12, Some(1)).await.unwrap();
    assert!(text.contains("MUG") && text.contains("12"), "{text}");
    set(&store, "HAT", 3, Some(0)).await.unwrap();
    let table = get(&store, &[], false).await.unwrap();
    assert!(table.find("HAT").unwrap() < table.find("MUG").unwrap(), "{table}");
    let json: serde_json::Value = serde_json::from_str(&get(&store, &["MUG"], true).await.unwrap()).unwrap();
    assert_eq!(json, serde_json::json!([{"sku": "MUG", "available": 12, "version": 2}]));
}

async fn a_level_at_another_version_is_not_set(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    set(&store, "MUG", 10, None).await.unwrap();
    let error = set(&store, "MUG", 12, Some(0)).await.unwrap_err().to_string();
    assert_eq!(error, "not set: MUG has version 1 now, with 10 available");
    let error = set(&store, "HAT", 12, Some(4)).await.unwrap_err().to_string();
    assert_eq!(error, "not set: HAT is not known yet, so its version is 0");
    assert_eq!(levels(&*store).await, [("MUG".into(), 10, 1)]);
}

async fn an_unknown_sku_is_named(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    assert_eq!(get(&store, &[], false).await.unwrap(), "No stock was ever recorded.\n");
    set(&store, "MUG", 10, None).await.unwrap();
    let error = get(&store, &["MUG", "HAT"], false).await.unwrap_err().to_string();
    assert_eq!(error, "no stock of these SKUs was ever recorded: HAT");
}

async fn locations_are_set_imported_and_shown_each_for_itself(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    import(&store, "sku,location,available\nMUG,BERLIN,10\nMUG,,3\nHAT,,1\n", "").await.unwrap();
    let text = set_at(&store, "MUG", Some("BERLIN"), 12, Some(1)).await.unwrap();
    assert!(text.contains("LOCATION") && text.contains("BERLIN") && text.contains("12"), "{text}");
    let error = set_at(&store, "MUG", Some("PARIS"), 1, Some(1)).await.unwrap_err().to_string();
    assert_eq!(error, "not set: MUG at PARIS is not known yet, so its version is 0");
    let error = set_at(&store, "MUG", Some("BERLIN"), 1, Some(1)).await.unwrap_err().to_string();
    assert_eq!(error, "not set: MUG at BERLIN has version 2 now, with 12 available");
    let json: serde_json::Value = serde_json::from_str(&get(&store, &["MUG"], true).await.unwrap()).unwrap();
    let expected = serde_json::json!([
        {"sku": "MUG", "available": 3, "version": 1},
        {"sku": "MUG", "location": "BERLIN", "available": 12, "version": 2},
    ]);
    assert_eq!(json, expected);
    assert!(!get(&store, &["HAT"], false).await.unwrap().contains("LOCATION"));
}

async fn limits_are_stated_and_shown(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    set(&store, "MUG", 2, None).await.unwrap();
    let text = limit(&store, "MUG", 5, Some(6)).await.unwrap();
    assert!(text.contains("BACKORDER LIMIT") && text.contains("ORDER LIMIT"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&get(&store, &["MUG"], true).await.unwrap()).unwrap();
    let expected = serde_json::json!([
        {"sku": "MUG", "available": 2, "version": 2, "backorder_limit": 5, "order_limit": 6},
    ]);
    assert_eq!(json, expected);
    store.apply(&batch(vec![order("o-1", &[("MUG", 6)]), order("o-2", &[("MUG", 7)])])).await.unwrap();
    assert_eq!(levels(&*store).await, [("MUG".into(), -4, 3)]);
    // Both are stated: the one that is left out is lifted.
    limit(&store, "MUG", 4, None).await.unwrap();
    let level = store.levels(None).await.unwrap()[0].level;
    assert_eq!((level.limits, level.version), (Limits { backorder: 4, order: None }, 4));
    let audit = store.audit().await.unwrap();
    assert_eq!((audit.movements, audit.findings.len()), (4, 0));
}

async fn limits_that_cannot_be_are_not_set(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let error = limit(&store, "MUG", 5, None).await.unwrap_err().to_string();
    assert_eq!(error, "not limited: no stock of MUG was ever recorded, so set its level first");
    set(&store, "MUG", 2, None).await.unwrap();
    limit(&store, "MUG", 5, None).await.unwrap();
    store.apply(&batch(vec![order("o-1", &[("MUG", 6)])])).await.unwrap();
    let error = limit(&store, "MUG", 3, None).await.unwrap_err().to_string();
    assert_eq!(error, "not limited: 4 pieces of MUG are promised beyond what is there, more than 3");
    let level = store.levels(None).await.unwrap()[0].level;
    assert_eq!((level.limits.backorder, level.version), (5, 3));
}

async fn what_is_exported_is_imported_as_it_was(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let export = async |store: &Arc<dyn Store>| execute(StockCommand::Export, store).await.unwrap();
    assert_eq!(export(&store).await, "sku,available\n");
    let file = "sku,location,available\n\"HAT, \"\"red\"\"\",,3\nMUG,,0\nMUG,BERLIN,10\n";
    import(&store, file, "").await.unwrap();
    assert_eq!(export(&store).await, file);
    let before = levels(&*store).await;
    store.apply(&batch(vec![order("o-1", &[("MUG@BERLIN", 4)])])).await.unwrap();
    import(&store, &export(&store).await.replace(",6\n", ",10\n"), "back").await.unwrap();
    let numbers =
        |levels: Vec<(String, i64, i64)>| levels.into_iter().map(|(name, pieces, _)| (name, pieces));
    assert!(numbers(levels(&*store).await).eq(numbers(before)));
    // What no import can set is left out.
    limit(&store, "MUG", 5, None).await.unwrap();
    store.apply(&batch(vec![order("o-2", &[("MUG", 2)]), received("r-1", " TEE", 1)])).await.unwrap();
    let left = export(&store).await;
    assert_eq!(left, "sku,location,available\n\"HAT, \"\"red\"\"\",,3\nMUG,BERLIN,10\n");
    // Without locations, the column is not there.
    set(&store, "MUG", 1, None).await.unwrap();
    database.execute("DELETE FROM levels WHERE location <> ''").await;
    assert_eq!(export(&store).await, "sku,available\n\"HAT, \"\"red\"\"\",3\nMUG,1\n");
}

async fn pieces_are_received_and_adjusted_and_the_level_is_shown(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let text = receive(&store, "MUG", 500, None).await.unwrap();
    assert!(text.contains("MUG") && text.contains("500"), "{text}");
    receive(&store, "MUG", 500, None).await.unwrap();
    let text = adjust(&store, "MUG", -3, None).await.unwrap();
    assert!(text.contains("997"), "{text}");
    adjust(&store, "MUG", 1, None).await.unwrap();
    assert_eq!(levels(&*store).await, [("MUG".into(), 998, 4)]);
    let audit = store.audit().await.unwrap();
    assert_eq!((audit.movements, audit.findings.len()), (4, 0));
}

async fn the_same_id_counts_once(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    receive(&store, "MUG", 10, Some("delivery-7")).await.unwrap();
    let again = receive(&store, "MUG", 10, Some("delivery-7")).await.unwrap();
    assert!(again.starts_with("delivery-7 was decided before, and is not done again.\n"), "{again}");
    let error = receive(&store, "MUG", 11, Some("delivery-7")).await.unwrap_err().to_string();
    assert_eq!(error, "not received: delivery-7 was decided before, and was another command");
    let error = adjust(&store, "MUG", -1, Some("delivery-7")).await.unwrap_err().to_string();
    assert_eq!(error, "not adjusted: delivery-7 was decided before, and was another command");
    assert_eq!(levels(&*store).await, [("MUG".into(), 10, 1)]);
}

async fn what_was_rejected_stays_so_under_its_id(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    receive(&store, "MUG", 3, None).await.unwrap();
    let error = adjust(&store, "MUG", -5, Some("d-77")).await.unwrap_err().to_string();
    assert_eq!(error, "not adjusted: 5 pieces of MUG cannot be missing where 3 are");
    receive(&store, "MUG", 10, None).await.unwrap();
    for json in [false, true] {
        let common = MoveArgs { json, ..under(Some("d-77")) };
        let again = StockCommand::Adjust(AdjustArgs { sku: "MUG".to_owned(), by: -5, common });
        let error = execute(again, &store).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "not adjusted: d-77 was decided before, and rejected then: 5 pieces of MUG cannot be missing where 3 are. \
             Another id is needed to try again"
        );
    }
    assert_eq!(levels(&*store).await, [("MUG".into(), 13, 2)]);
    adjust(&store, "MUG", -5, Some("d-78")).await.unwrap();
    receive(&store, "MUG", 1_000_000_000_000, Some("r-1")).await.unwrap_err();
    set(&store, "MUG", 0, None).await.unwrap();
    let error = receive(&store, "MUG", 1_000_000_000_000, Some("r-1")).await.unwrap_err().to_string();
    assert!(
        error.starts_with("not received: r-1 was decided before, and rejected then: MUG has room"),
        "{error}"
    );
    assert_eq!(levels(&*store).await, [("MUG".into(), 0, 4)]);
}

async fn what_the_rules_refuse_is_said_in_words(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let error = adjust(&store, "MUG", 1, None).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "not adjusted: no stock of MUG was ever recorded: `stock receive` or `stock set` begins it"
    );
    set(&store, "MUG", 2, None).await.unwrap();
    let error = adjust(&store, "MUG", -3, None).await.unwrap_err().to_string();
    assert_eq!(error, "not adjusted: 3 pieces of MUG cannot be missing where 2 are");
    let error = receive(&store, "MUG", 1_000_000_000_000, None).await.unwrap_err().to_string();
    assert_eq!(error, "not received: MUG has room for 999999999998 pieces more, of 1000000000000");
    assert_eq!(levels(&*store).await, [("MUG".into(), 2, 1)]);
}

async fn a_dry_run_says_what_an_import_would_do_and_does_nothing(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let file = "sku,available\nMUG,10\nHAT,5\nTEE,3\n";
    set(&store, "MUG", 8, None).await.unwrap();
    set(&store, "HAT", 5, None).await.unwrap();
    let before = levels(&*store).await;
    let text = dry_run(&store, file).await.unwrap();
    for says in [
        "Nothing was changed.",
        "would set 3 levels: 1 of items that are not known yet, 1 to another number, 1 to what they are.",
        "   2  MUG    8    10\n",
        "   4  TEE    -     3\n",
    ] {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    assert_eq!(levels(&*store).await, before);
    import(&store, file, "").await.unwrap();
    let text = dry_run(&store, file).await.unwrap();
    assert!(text.contains("would set 0 levels") && text.contains("3 rows were set by an earlier"), "{text}");
    let error = dry_run(&store, "sku,available\nMUG,x\n").await.unwrap_err();
    assert!(format!("{error:#}").contains("line 2, column available"), "{error:#}");
}

async fn what_changes_levels_prints_json_too(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let read =
        |text: anyhow::Result<String>| serde_json::from_str::<serde_json::Value>(&text.unwrap()).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all("sku,location,available\nMUG,,10\nHAT,BERLIN,5\nTEE\u{a0}x,,3\n".as_bytes()).unwrap();
    let import =
        |dry_run| ImportArgs { file: file.path().to_owned(), dry_run, json: true, ..ImportArgs::default() };
    execute(
        StockCommand::Set(SetArgs {
            sku: "MUG".to_owned(),
            available: 8,
            location: None,
            expected_version: None,
            json: false,
        }),
        &store,
    )
    .await
    .unwrap();
    let name = file.path().display().to_string();
    let hidden = serde_json::json!([{"line": 4, "sku": "TEE\u{a0}x"}]);
    assert_eq!(
        read(execute(StockCommand::Import(import(true)), &store).await),
        serde_json::json!({"file": name, "would_set": 3, "new": 2, "same": 0,
            "changes": [{"line": 2, "sku": "MUG", "from": 8, "to": 10}],
            "new_levels": [{"line": 3, "sku": "HAT", "location": "BERLIN", "to": 5}, {"line": 4, "sku": "TEE\u{a0}x", "to": 3}],
            "set_before": 0, "hidden": hidden})
    );
    assert_eq!(
        read(execute(StockCommand::Import(import(false)), &store).await),
        serde_json::json!({"file": name, "set": 3, "set_before": 0, "hidden": hidden})
    );
    let common = || MoveArgs {
        location: Some("BERLIN".to_owned()),
        adjustment_id: Some("a-7".to_owned()),
        json: true,
    };
    let receive =
        || StockCommand::Receive(ReceiveArgs { sku: "HAT".to_owned(), quantity: 2, common: common() });
    let hat = serde_json::json!({"sku": "HAT", "location": "BERLIN", "available": 7, "version": 2});
    assert_eq!(read(execute(receive(), &store).await), hat);
    let mut again = hat;
    again["repeated"] = true.into();
    assert_eq!(read(execute(receive(), &store).await), again);
    let limits = LimitsArgs {
        sku: "MUG".to_owned(),
        location: None,
        backorder_limit: 5,
        order_limit: None,
        json: true,
    };
    let mug = serde_json::json!({"sku": "MUG", "available": 10, "version": 3, "backorder_limit": 5});
    assert_eq!(read(execute(StockCommand::Limits(limits), &store).await), mug);
}

async fn a_delivery_is_added_once(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    set(&store, "MUG", 8, None).await.unwrap();
    let file = "sku,quantity\nMUG,10\nHAT,5\n";
    let add = || ImportArgs { add: true, ..ImportArgs::default() };
    let text = import_with(&store, file, ImportArgs { dry_run: true, ..add() }).await.unwrap();
    assert!(
        text.contains("would add to 2 levels: 1 of items that are not known yet, 1 to another"),
        "{text}"
    );
    assert!(text.contains("   2  MUG    8    18\n"), "{text}");
    let text = import_with(&store, file, add()).await.unwrap();
    assert!(text.starts_with("2 deliveries received"), "{text}");
    let again = import_with(&store, file, add()).await.unwrap();
    assert!(again.contains("2 rows were received by an earlier import"), "{again}");
    assert_eq!(levels(&*store).await, [("HAT".into(), 5, 1), ("MUG".into(), 18, 2)]);
    // The same file as what there is, is another import.
    import(&store, file, "").await.unwrap();
    assert_eq!(levels(&*store).await, [("HAT".into(), 5, 2), ("MUG".into(), 10, 3)]);
    let error = import_with(&store, "sku,quantity\nMUG,0\n", add()).await.unwrap_err();
    assert!(format!("{error:#}").contains("must be a whole number from 1 to"), "{error:#}");
    let full = "sku,quantity\nMUG,1000000000000\nHAT,1\n";
    let error = import_with(&store, full, add()).await.unwrap_err().to_string();
    assert!(
        error.starts_with("1 deliveries received") && error.contains("1 rows were rejected:\nline 2: "),
        "{error}"
    );
    assert!(error.contains("limit_exceeded"), "{error}");
    assert_eq!(levels(&*store).await, [("HAT".into(), 6, 3), ("MUG".into(), 10, 3)]);
}

async fn rows_that_were_rejected_are_so_when_their_file_is_imported_again(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    set(&store, "MUG", 10, None).await.unwrap();
    let file = "sku,quantity\nMUG,1000000000000\nHAT,1\n";
    let add = || ImportArgs { add: true, ..ImportArgs::default() };
    import_with(&store, file, add()).await.unwrap_err();
    // There is room now, but what was decided stays so.
    set(&store, "MUG", 0, None).await.unwrap();
    for (json, received) in
        [(false, "\n1 rows were received by an earlier import"), (true, "\"received_before\": 1,")]
    {
        let error = import_with(&store, file, ImportArgs { json, ..add() }).await.unwrap_err().to_string();
        for says in [
            received,
            "1 rows were rejected:\nline 2: adjustment/receipt-",
            "was rejected limit_exceeded, when this file was imported before\n",
            "import them alone under another --name",
        ] {
            assert!(error.contains(says), "{says:?} is not in {error}");
        }
    }
    let dry_run = async |json: bool| {
        let args = ImportArgs { dry_run: true, json, ..add() };
        import_with(&store, file, args).await.unwrap()
    };
    let text = dry_run(false).await;
    assert!(text.contains("would add to 0 levels") && text.contains("\n1 rows were received by"), "{text}");
    assert!(text.contains("\n1 rows were rejected by an earlier import of this very file"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&dry_run(true).await).unwrap();
    for (name, number) in [("would_receive", 0_i64), ("received_before", 1), ("rejected_before", 1)] {
        assert_eq!(json[name], number, "{name} of {json}");
    }
    assert_eq!(levels(&*store).await, [("HAT".into(), 1, 1), ("MUG".into(), 0, 2)]);
    let again = ImportArgs { name: "again".to_owned(), ..add() };
    import_with(&store, "sku,quantity\nMUG,1000000000000\n", again).await.unwrap();
    assert_eq!(levels(&*store).await, [("HAT".into(), 1, 1), ("MUG".into(), 1_000_000_000_000, 3)]);
}

/// How a file with more than one column of numbers is read.
fn by_column(available: &str) -> FeedArgs {
    let columns = vec![format!("available={available}").parse().unwrap()];
    FeedArgs { columns, ignore_extra: true, ..FeedArgs::default() }
}

async fn rows_that_are_read_otherwise_than_before_are_named_and_the_others_are_done(
    database: Arc<TestDatabase>,
) {
    let store = database.ledger().await;
    // More rows than one transaction takes, of which the first import reads three.
    let others: Vec<String> = (0..2_100).map(|n| format!("SKU-{n:04},x,7\n")).collect();
    let file = format!("sku,here,there\nMUG,10,10\nHAT,1,2\nTEE,3,4\n{}", others.concat());
    let import_by = async |column: &str, args: ImportArgs| {
        import_with(&store, &file, ImportArgs { feed: by_column(column), ..args }).await
    };
    import_by("here", ImportArgs { skip_bad: true, ..ImportArgs::default() }).await.unwrap();
    let said = "2 rows were read otherwise by an earlier import of this very file, as with other --columns or --thousands. \
                What that decided of them stays so:\n  line 3: HAT\n  line 4: TEE\nTo set all rows";
    let dry_run = || ImportArgs { dry_run: true, ..ImportArgs::default() };
    let text = import_by("there", dry_run()).await.unwrap();
    assert!(text.contains("would set 2100 levels: 2100 of items that are not known yet"), "{text}");
    assert!(text.contains("\n1 rows were set by an earlier import") && text.contains(said), "{text}");
    let text = import_by("there", ImportArgs { json: true, ..dry_run() }).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["conflicts"], serde_json::json!([{"line": 3, "sku": "HAT"}, {"line": 4, "sku": "TEE"}]));
    assert_eq!((json["would_set"].as_i64(), json["set_before"].as_i64()), (Some(2_100), Some(1)));

    let error = import_by("there", ImportArgs::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("2100 levels set") && error.contains("\n1 rows were set by"), "{error}");
    assert!(error.contains(said) && error.ends_with("give the import another --name."), "{error}");
    let level = async |sku: &str| {
        store.levels(None).await.unwrap().into_iter().find(|level| level.item.sku.as_str() == sku)
    };
    for (sku, available) in [("MUG", 10), ("HAT", 1), ("TEE", 3), ("SKU-0000", 7), ("SKU-2099", 7)] {
        assert_eq!(level(sku).await.map(|level| level.level.available), Some(available), "{sku}");
    }
    // Under another name all of it counts, as it is read now.
    import_by("there", ImportArgs { name: "there".to_owned(), ..ImportArgs::default() }).await.unwrap();
    for (sku, available) in [("MUG", 10), ("HAT", 2), ("TEE", 4)] {
        assert_eq!(level(sku).await.map(|level| level.level.available), Some(available), "{sku}");
    }
}

async fn a_delivery_that_is_read_otherwise_than_before_is_not_received_once_more(
    database: Arc<TestDatabase>,
) {
    let store = database.ledger().await;
    let file = "sku,here,there\nMUG,10,10\nHAT,1,2\n";
    let add = |column: &str| ImportArgs { add: true, feed: by_column(column), ..ImportArgs::default() };
    import_with(&store, file, add("here")).await.unwrap();
    let dry_run = ImportArgs { dry_run: true, ..add("there") };
    let text = import_with(&store, file, dry_run).await.unwrap();
    let error = import_with(&store, file, add("there")).await.unwrap_err().to_string();
    assert!(error.starts_with("0 deliveries received"), "{error}");
    for text in [text, error] {
        for says in [
            "\n1 rows were received by an earlier import",
            "1 rows were read otherwise by an earlier import of this very file",
            "\n  line 3: HAT\nAnother --name would receive once more",
            "by `stock adjust` instead.",
        ] {
            assert!(text.contains(says), "{says:?} is not in {text}");
        }
    }
    assert_eq!(levels(&*store).await, [("HAT".into(), 1, 1), ("MUG".into(), 10, 1)]);
}

async fn bad_lines_are_skipped_and_named_where_that_is_asked(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let bad = (0..30).map(|n| format!("BAD-{n},x")).collect::<Vec<_>>().join("\n") + "\n";
    let file = format!("sku,available\nMUG,10\n{bad}CUP,1\nCUP,2\nHAT,5\n");
    let skipping = || ImportArgs { skip_bad: true, ..ImportArgs::default() };
    for dry_run in [true, false] {
        let text = import_with(&store, &file, ImportArgs { dry_run, ..skipping() }).await.unwrap();
        assert!(text.contains("32 lines were refused:\n  line 3, column available: must be"), "{text}");
        for line in (3..=32).map(|line| format!("  line {line}, column available: ")) {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(text.contains("  line 33, column sku: CUP is on line 34 too\n"), "{text}");
    }
    assert_eq!(levels(&*store).await, [("HAT".into(), 5, 1), ("MUG".into(), 10, 1)]);
    let error = import_with(&store, "sku,available\nMUG,x\n", skipping()).await.unwrap_err().to_string();
    assert!(error.contains("no row is good") && error.contains("line 2"), "{error}");
}

async fn a_feed_as_a_shop_writes_it_is_imported(database: Arc<TestDatabase>) {
    let store = database.ledger().await;
    let feed = FeedArgs {
        columns: vec!["sku=Artikel".parse().unwrap(), "available=Bestand".parse().unwrap()],
        ignore_extra: true,
        encoding: Some("windows-1252".parse().unwrap()),
        thousands: Some(".".parse().unwrap()),
        ..FeedArgs::default()
    };
    let args = ImportArgs { feed, ..ImportArgs::default() };
    let file = b"Artikel;Preis;Bestand\r\n\"Gr\xf6\xdfe 7\";9,99;1.234,0\r\n007;1;3\r\n";
    import_with(&store, file, args).await.unwrap();
    assert_eq!(levels(&*store).await, [("007".into(), 3, 1), ("Größe 7".into(), 1234, 1)]);
    let google = "store code\tid\tquantity\tprice\nN\t007\t2\t9.99 EUR\n";
    import_with(&store, google, ImportArgs::default()).await.unwrap();
    let json = get(&store, &["007"], true).await.unwrap();
    assert!(json.contains("\"location\": \"N\""), "{json}");
}

#[test]
fn a_file_that_cannot_be_imported_is_named_and_no_ledger_is_made_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger.db");
    let write = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
    write("empty.csv", b"");
    write("header.csv", b"sku,available\r");
    write("wrong.csv", b"sku,available\rA,1\rB,x\r");
    std::fs::create_dir(folder.path().join("folder.csv")).unwrap();
    for (file, says) in [
        ("missing.csv", "cannot read missing.csv: No such file"),
        ("folder.csv", "cannot read folder.csv: Is a directory"),
        ("empty.csv", "empty.csv: nothing imported: the file is empty"),
        ("header.csv", "header.csv: nothing imported: the file has no rows below its header"),
        ("wrong.csv", "wrong.csv: nothing imported: line 3, column available: must be a whole number"),
    ] {
        let mut command = program();
        command.current_dir(folder.path()).args(["stock", "--database-url"]);
        command.arg(format!("sqlite://{}", ledger.display())).args(["import", file]);
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{file}: {log}");
        assert!(log.contains(says), "{file}: {log}");
        assert!(!ledger.exists(), "{file}");
    }
}
