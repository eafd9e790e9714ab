//! Damaged by hand: every damage is named. What the databases are damaged by SQL for in `tests/audit`.

use std::sync::Arc;

use super::super::MemoryStore;
use super::super::ledger::Ledger;
use super::audit;
use crate::ledger::{
    Command, CommandKey, CommandKind, Decision, Hold, HoldSeconds, Id, Item, Level, Limits, Location,
    OrderState, OrderStock, Quantity, Request, Seq, Sku, Stamp, Terms,
};
use crate::store::{Breach, CommandBatch, LedgerAdmin as _, LedgerWriter as _, StoredMovement};

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

/// `MUG` at the default location, `MUG@BERLIN` at another.
fn item(name: &str) -> Item {
    let (sku, location) = name.split_once('@').map_or((name, None), |(sku, place)| (sku, Some(place)));
    Item { sku: Sku::new(sku).unwrap(), location: location.map(|place| Location::new(place).unwrap()) }
}

fn lines(lines: &[(&str, i64)]) -> Vec<(Item, Quantity)> {
    lines.iter().map(|(name, pieces)| (item(name), Quantity::new(*pieces).unwrap())).collect()
}

fn set(name: &str, available: i64) -> Command {
    Command::stock_set(id(&format!("a-{name}")), item(name), available, None)
}

fn order(order_id: &str, wanted: &[(&str, i64)]) -> Command {
    Command::order_created(id(order_id), lines(wanted), Terms::default())
}

fn hold(order_id: &str, wanted: &[(&str, i64)]) -> Command {
    let terms = Terms { hold: Some(HoldSeconds::new(60).unwrap()), ..Terms::default() };
    Command::order_created(id(order_id), lines(wanted), terms)
}

fn batch(commands: Vec<Command>) -> CommandBatch {
    let requests = commands.into_iter().map(|command| Request { command, source: None }).collect();
    CommandBatch { requests, ..CommandBatch::default() }
}

/// An order for each way to give back and each way a hold goes but by its time, named after it.
async fn store() -> MemoryStore {
    let store = MemoryStore::new(|| Stamp(0));
    let commands = vec![
        set("MUG", 20),
        set("HAT", 10),
        set("HAT@BERLIN", 10),
        order("plain", &[("MUG", 5), ("HAT", 2)]),
        order("cancelled", &[("MUG", 3)]),
        hold("open", &[("MUG", 1)]),
        hold("part", &[("HAT@BERLIN", 4), ("MUG", 1)]),
        hold("whole", &[("MUG", 1)]),
        hold("released", &[("HAT", 1)]),
        Command::order_returned(id("r-1"), id("plain"), lines(&[("MUG", 2)])),
        Command::order_returned(id("r-2"), id("plain"), lines(&[("MUG", 1), ("HAT", 1)])),
        Command::order_cancelled(id("cancelled")),
        Command::order_confirmed(id("c-1"), id("part"), Some(lines(&[("HAT@BERLIN", 1), ("MUG", 1)]))),
        Command::order_confirmed(id("whole"), id("whole"), None),
        Command::order_released(id("released")),
        order("too much", &[("HAT", 99)]),
    ];
    store.apply(&batch(commands)).await.unwrap();
    store
}

/// Damages that ledger, audits it, and expects each text in a finding of its invariant.
async fn expect_named(damage: impl FnOnce(&mut Ledger), named: &[(u8, &str)]) {
    let store = store().await;
    let mut ledger = store.ledger();
    damage(&mut ledger);
    let found = audit(&ledger).findings;
    for (invariant, text) in named {
        assert!(
            found.iter().any(|one| one.invariant == *invariant && one.what.to_string().contains(text)),
            "{text:?} of invariant {invariant} is not in {found:#?}"
        );
    }
}

fn level<'l>(ledger: &'l mut Ledger, name: &str) -> &'l mut Level {
    ledger.levels.get_mut(&item(name)).unwrap()
}

fn movement<'l>(ledger: &'l mut Ledger, name: &str, version: i64) -> &'l mut StoredMovement {
    let is_it = |one: &&mut StoredMovement| one.item == item(name) && one.version == version;
    ledger.movements.values_mut().flatten().find(is_it).unwrap()
}

/// Where the decision of a command stands.
fn seq(ledger: &Ledger, kind: CommandKind, command_id: &str) -> Seq {
    ledger.decision(&CommandKey { id: id(command_id), kind }).unwrap().seq
}

fn decision<'l>(ledger: &'l mut Ledger, kind: CommandKind, command_id: &str) -> &'l mut Decision {
    let seq = seq(ledger, kind, command_id);
    Arc::make_mut(ledger.decisions.get_mut(&seq).unwrap())
}

fn state<'l>(ledger: &'l mut Ledger, order_id: &str) -> &'l mut OrderState {
    ledger.orders.get_mut(&id(order_id)).unwrap()
}

fn line<'l>(ledger: &'l mut Ledger, order_id: &str, name: &str) -> &'l mut OrderStock {
    state(ledger, order_id).lines.iter_mut().find(|line| line.item == item(name)).unwrap()
}

#[tokio::test]
async fn a_healthy_ledger_has_no_findings_and_is_counted() {
    let audit = audit(&store().await.ledger());
    assert_eq!(audit.findings, []);
    assert_eq!((audit.skus, audit.movements, audit.decisions), (3, 17, 16));
}

#[tokio::test]
async fn a_level_that_is_not_what_its_movements_say_is_named() {
    expect_named(
        |ledger| {
            level(ledger, "MUG").available = 400;
            level(ledger, "HAT").version = 40;
            ledger.levels.insert(item("NEW"), Level { available: 5, ..Level::default() });
            ledger.levels.remove(&item("HAT@BERLIN"));
        },
        &[
            (2, "SKU MUG: its level is 400, its movements add up to 15"),
            (2, "SKU HAT: its level has version 40, its newest movement 5"),
            (2, "SKU NEW: a level of 5, but no movements"),
            (2, "SKU HAT at BERLIN: 3 movements, but no level"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_below_what_may_be_promised_is_named() {
    let damage = |ledger: &mut Ledger| {
        level(ledger, "MUG").available = -5;
        level(ledger, "HAT").available = -5;
        level(ledger, "HAT").limits.backorder = 4;
        movement(ledger, "HAT@BERLIN", 2).balance = -1;
        movement(ledger, "HAT", 2).balance = -4;
    };
    let named = [
        (1, "SKU MUG: its level is -5, below zero"),
        (1, "SKU HAT: its level is -5, below -4"),
        (1, "SKU HAT at BERLIN: movement 2 left -1, below zero"),
    ];
    expect_named(damage, &named).await;
    // What a limit allowed once is no fault.
    let store = store().await;
    let limits = |name: &str, backorder: i64| {
        Command::limits_set(id(name), item("MUG"), Limits { backorder, order: None })
    };
    let commands = vec![limits("l-1", 9), order("promised", &[("MUG", 20)])];
    store.apply(&batch(commands)).await.unwrap();
    let restock = Command::stock_set(id("again"), item("MUG"), 1, None);
    store.apply(&batch(vec![restock, limits("l-2", 0)])).await.unwrap();
    assert_eq!(audit(&store.ledger()).findings, []);
}

#[tokio::test]
async fn movements_that_are_not_one_chain_are_named() {
    expect_named(
        |ledger| {
            movement(ledger, "MUG", 3).quantity = -1;
            movement(ledger, "HAT", 5).balance = 9;
            let cancelled = seq(ledger, CommandKind::OrderCreated, "released");
            ledger.movements.remove(&cancelled);
        },
        &[
            (2, "SKU MUG: movement 3 moved -1 and left 12, but 15 was there before"),
            (3, "command cancelled: movement 3 of SKU MUG (-1, leaving 12) is not what its decision says"),
            (2, "SKU HAT: movement 4 comes after movement 2"),
            (2, "SKU HAT: its level is 9, its movements add up to 10"),
            (3, "command released: it was accepted for SKU HAT, but no movement took effect"),
        ],
    )
    .await;
    let newest = |ledger: &mut Ledger| movement(ledger, "HAT", 5).balance = 7;
    expect_named(newest, &[(2, "SKU HAT: its level is 9, its newest movement left 7")]).await;
}

#[tokio::test]
async fn a_missing_decision_is_named_by_what_it_did() {
    expect_named(
        |ledger| {
            for (kind, command_id) in [
                (CommandKind::OrderCreated, "plain"),
                (CommandKind::OrderReturned, "r-1"),
                (CommandKind::OrderConfirmed, "whole"),
                (CommandKind::OrderCreated, "open"),
            ] {
                let seq = seq(ledger, kind, command_id);
                ledger.decisions.remove(&seq);
            }
        },
        &[
            (3, "SKU MUG: movement 2 is of command plain, which has no decision"),
            (3, "order plain, SKU MUG: 5 pieces are noted as taken, its decision took 0"),
            (3, "order plain, SKU MUG: 3 pieces are noted as given back, its decisions gave back 1"),
            (3, "order whole: its hold is neither open, nor confirmed, nor given back"),
            (3, "order open: a hold is open that no order asked for"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_decision_that_is_not_what_was_moved_is_named() {
    expect_named(
        |ledger| {
            let twice = decision(ledger, CommandKind::OrderCreated, "plain").clone();
            ledger.decisions.insert(Seq(1_000), Arc::new(Decision { seq: Seq(1_000), ..twice }));
            decision(ledger, CommandKind::OrderReturned, "r-1").accepted = false;
            let other = decision(ledger, CommandKind::OrderCancelled, "cancelled");
            other.detail = other.detail.replace("\"quantity\":3", "\"quantity\":2");
            decision(ledger, CommandKind::OrderCreated, "released").detail = "{\"lines\":[".into();
            movement(ledger, "HAT@BERLIN", 2).cause.id = id("somebody");
        },
        &[
            (3, "command plain (kind 1): 2 decisions"),
            (3, "command plain: it was accepted for SKU MUG, but no movement took effect"),
            (3, "command r-1 was rejected, yet movement 7 of SKU MUG took effect"),
            (3, "command cancelled: movement 9 of SKU MUG (3, leaving 15) is not what its decision says"),
            (3, "order cancelled, SKU MUG: 3 pieces are noted as given back, its decisions gave back 2"),
            (3, "command released: its decision is not readable JSON"),
            (3, "movement 2 is of command somebody, which has no decision"),
        ],
    )
    .await;
    // Each movement is what a line says, and one line has none.
    let says_more = |ledger: &mut Ledger| {
        let more = decision(ledger, CommandKind::OrderReturned, "r-1");
        let line = "\"returned\":[{\"sku\":\"HAT\",\"quantity\":1,\"balance\":1},";
        more.detail = more.detail.replace("\"returned\":[", line);
    };
    expect_named(says_more, &[(3, "command r-1: it was accepted for SKU HAT, but no movement took effect")])
        .await;
}

#[tokio::test]
async fn an_accepted_order_that_names_no_line_is_named() {
    let takes_nothing = |ledger: &mut Ledger| {
        let rejected = decision(ledger, CommandKind::OrderCreated, "too much");
        rejected.accepted = true;
        rejected.detail = "{\"lines\":[]}".to_owned();
    };
    expect_named(takes_nothing, &[(3, "command too much: it was accepted, and names no line")]).await;
}

#[tokio::test]
async fn what_is_noted_otherwise_than_it_came_back_is_named() {
    expect_named(
        |ledger| {
            line(ledger, "plain", "MUG").returned = 6;
            line(ledger, "plain", "HAT").deducted = 7;
            line(ledger, "part", "HAT@BERLIN").returned = -1;
            ledger.orders.remove(&id("cancelled"));
            let line = OrderStock { item: item("MUG"), deducted: 2, returned: 1 };
            ledger.orders.insert(id("nobody"), OrderState { lines: vec![line], hold: None });
        },
        &[
            (3, "order plain: 6 of 5 pieces of SKU MUG came back"),
            (3, "order plain, SKU MUG: 6 pieces are noted as given back, its decisions gave back 3"),
            (3, "order plain, SKU HAT: 7 pieces are noted as taken, its decision took 2"),
            (3, "order part: -1 of 4 pieces of SKU HAT at BERLIN came back"),
            (3, "order cancelled, SKU MUG: 0 pieces are noted as given back, its decisions gave back 3"),
            (3, "order nobody, SKU MUG: 2 pieces are noted as taken, its decision took 0"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_hold_that_is_open_or_not_as_it_should_be_is_named() {
    expect_named(
        |ledger| {
            state(ledger, "open").hold = None;
            for order_id in ["plain", "part", "whole", "released"] {
                state(ledger, order_id).hold = Some(Hold { expires_at: Stamp(0), at: None });
            }
        },
        &[
            (3, "order open: its hold is neither open, nor confirmed, nor given back"),
            (3, "order plain: a hold is open that no order asked for"),
            (3, "order part: its hold is open, yet it was confirmed or given back"),
            (3, "order whole: its hold is open, yet it was confirmed or given back"),
            (3, "order released: its hold is open, yet it was confirmed or given back"),
        ],
    )
    .await;
}

#[tokio::test]
async fn findings_are_bounded_and_say_that_there_are_more() {
    let store = MemoryStore::new(|| Stamp(0));
    let stock = (0..200).map(|number| set(&format!("SKU-{number}"), 10)).collect();
    store.apply(&batch(stock)).await.unwrap();
    let mut ledger = store.ledger();
    ledger.levels.values_mut().for_each(|level| level.available = 11);
    let found = audit(&ledger).findings;
    assert_eq!((found.len(), &found[20].what), (21, &Breach::More));
}

#[tokio::test]
async fn levels_are_repaired_where_their_movements_are_one_chain() {
    let store = store().await;
    let whole = store.ledger().levels.clone();
    {
        let mut ledger = store.ledger();
        level(&mut ledger, "MUG").available = 400;
        ledger.levels.remove(&item("HAT@BERLIN"));
        movement(&mut ledger, "HAT", 2).balance = 9;
        level(&mut ledger, "HAT").version = 4;
    }
    let wrong = store.repairable_levels().await.unwrap();
    let wrong: Vec<_> = wrong.into_iter().map(|one| (one.item, one.level)).collect();
    let named = ["HAT@BERLIN", "MUG"].map(|name| (item(name), whole[&item(name)]));
    assert_eq!(wrong, named);

    let restated = named.iter().map(|(item, level)| {
        let repair = id(&format!("repair {item}"));
        Command::stock_set(repair, item.clone(), level.available, Some(level.version))
    });
    let outcomes = store.repair(&batch(restated.collect())).await.unwrap().outcomes;
    assert_eq!(outcomes.len(), 2);
    let ledger = store.ledger();
    for (item, level) in named {
        assert_eq!(ledger.levels[&item], Level { version: level.version + 1, ..level });
    }
    assert_eq!(ledger.levels[&item("HAT")].version, 4, "nothing tells which of its movements is wrong");
}
