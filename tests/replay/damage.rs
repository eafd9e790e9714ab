//! Ledgers and topics damaged by hand: each damage is named for what it is.

use tokio_util::sync::CancellationToken;

use super::{SOON, lived, report, run};
use crate::support::database::Database;
use crate::support::kafka::{Sent, header, order};
use crate::support::scene::Scene;
use crate::support::servers::Servers;
use crate::support::wait;

/// Audits a ledger against the scene's topics, and expects each text beside its invariant's number.
#[track_caller]
pub(super) fn names(scene: &Scene, ledger: &Database, more: &[&str], says: &[(u8, &str)]) {
    let mut command = scene.tool(&["audit", "--topics"]);
    // The last one given counts.
    command.args(["--database-url", &ledger.url()]).args(more);
    let (status, out, log) = run(command);
    assert_eq!(status, 1, "{out}\n{log}");
    for (invariant, text) in says {
        let part = out.split(&format!("✗  {invariant}  ")).nth(1).unwrap_or_default();
        let part = part.split(['✓', '✗']).next().unwrap_or_default();
        assert!(part.contains(text), "{text:?} of invariant {invariant} is not in:\n{out}");
    }
}

/// A copy of a topic with other records in it.
pub(super) fn copy(
    scene: &Scene,
    which: &str,
    name: &str,
    change: impl Fn(Vec<Sent>) -> Vec<Sent>,
) -> String {
    let records = scene.kafka.read(&scene.topic(which));
    let records = records.into_iter().map(|record| Sent {
        partition: Some(record.source.at.partition),
        key: record.key,
        value: record.value,
        headers: record.headers,
    });
    let topic = scene.topic(name);
    scene.kafka.create(&topic, 3);
    scene.kafka.produce(&topic, &change(records.collect()));
    topic
}

#[test]
fn damages_of_a_ledger_are_each_named() {
    let scene = lived(100);
    let orders = scene.orders();
    let one = |sql: &str, says: &[(u8, &str)]| {
        let ledger = scene.database.backup();
        ledger.run(sql);
        names(&scene, &ledger, &[], says);
    };
    // Damages that do not touch each other, in one ledger: an audit of a whole life takes seconds.
    one(
        r#"UPDATE levels SET available = available + 1 WHERE sku = 'LIFE';
           UPDATE holds SET expires_at = expires_at + interval '1 hour';
           INSERT INTO decisions VALUES (99, now(), null, null, 1, false, 'nowhere', null,
               '\x00000000000000000000000000000000', '{"reasons":[{"reason":"invalid_order","detail":"x"}]}');
           UPDATE levels SET order_limit = 3 WHERE sku = 'SKU-001'"#,
        &[
            (2, "SKU LIFE: its level is"),
            (5, "order h-4: its hold ends at"),
            (4, "order.created/nowhere: it is decided, but of no record"),
            (5, "SKU SKU-001: its limits are"),
        ],
    );
    one(
        "DELETE FROM movements WHERE sku = 'LIFE' AND version = 2",
        &[(2, "SKU LIFE: movement 3 comes after movement 1"), (5, "its movements are none; the rules:")],
    );
    one(
        "UPDATE decisions SET accepted = NOT accepted WHERE id = 'late'",
        &[
            (3, "command late was rejected, yet movement 2 of SKU SKU-NEW took effect"),
            (4, "order.created/late: what was published at"),
            (5, "order.created/late: stored: rejected"),
        ],
    );
    one(
        "UPDATE decisions SET detail = replace(detail, '\"balance\":3', '\"balance\":2') WHERE id = 'late';
         UPDATE movements SET balance = 2 WHERE id = 'late'; UPDATE levels SET available = 2 WHERE sku = 'SKU-NEW'",
        &[
            (2, "SKU SKU-NEW: movement 2 moved -1 and left 2, but 4 was there before"),
            (4, "order.created/late: what was published at"),
            (5, "order.created/late: stored: accepted"),
        ],
    );
    // A rejection that was not justified, in a ledger that is whole in itself.
    one(
        r#"UPDATE decisions SET detail = '{"reasons":[{"reason":"insufficient_stock","sku":"SKU-NEW","requested":9,"available":4}]}'
           WHERE id = 'later'"#,
        &[(5, "order.created/later: stored: rejected"), (4, "order.created/later: what was published at")],
    );
    one(
        "DELETE FROM decisions WHERE id = 'later'",
        &[
            (4, "order.created/later: its record"),
            (4, "is done, but no decision is stored"),
            (4, "order.created/later: it was published at"),
        ],
    );
    // A decision that moved nothing, moved in the ledger's order.
    one(
        "UPDATE decisions SET seq = 1 WHERE id = 'later'",
        &[(5, "has a later ledger sequence than the one at offset")],
    );
    one(
        "UPDATE holds SET partition = partition + 1 WHERE order_id = 'h-4'",
        &[(5, "order h-4: its hold's end is asked for on"), (5, "its order came by")],
    );
    one(
        &format!(
            "UPDATE positions SET next_offset = next_offset - 3 WHERE topic = '{orders}' AND partition = 0"
        ),
        &[(6, "but the ledger's position there is"), (6, &format!("{orders}[0]: the ledger is at"))],
    );
    one(
        &format!(
            "UPDATE positions SET next_offset = next_offset + 3 WHERE topic = '{orders}' AND partition = 0"
        ),
        &[(6, &format!("{orders}[0]: the ledger is at"))],
    );
}

#[test]
fn a_restored_backup_is_named_by_what_is_published_and_unknown_to_it() {
    let scene = lived(100);
    let backup = scene.database.backup();
    scene.produce(&[order("after-the-backup", &[("SKU-NEW", 1)])]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    names(&scene, &backup, &[], &[(6, "Kafka's committed offset is")]);
    let mut command = scene.tool(&["replay", "republish", "--execute"]);
    command.args(["--database-url", &backup.url()]);
    let (status, _, log) = run(command);
    assert_eq!(status, 2);
    assert!(log.contains("the database is behind"), "{log}");
}

#[test]
fn a_result_missing_doubled_altered_or_unknown_is_named_and_a_missing_one_is_republished() {
    let scene = lived(100);
    let is_late = |record: &Sent| record.key.as_deref() == Some(b"late".as_slice());
    let value = |record: &Sent, from: &str, to: &str| {
        let value = String::from_utf8(record.value.clone().expect("a value")).expect("UTF-8");
        Some(value.replace(from, to).into_bytes())
    };
    let missing = copy(&scene, "accepted", "missing", |mut records| {
        records.retain(|record| !is_late(record));
        records
    });
    names(
        &scene,
        &scene.database,
        &["--accepted-topic", &missing],
        &[(4, "order.created/late: it was never published")],
    );
    let doubled = copy(&scene, "accepted", "doubled", |mut records| {
        let again = records.iter().find(|record| is_late(record)).expect("it was published").clone();
        records.push(again);
        records
    });
    names(
        &scene,
        &scene.database,
        &["--accepted-topic", &doubled],
        &[(4, "order.created/late: it was published 2 times")],
    );
    let altered = copy(&scene, "accepted", "altered", |mut records| {
        for record in records.iter_mut().filter(|record| is_late(record)) {
            record.value = value(record, "\"balance\":3", "\"balance\":4");
        }
        records
    });
    names(
        &scene,
        &scene.database,
        &["--accepted-topic", &altered],
        &[(4, "order.created/late: what was published at")],
    );
    let unknown = copy(&scene, "accepted", "unknown", |mut records| {
        let mut more = records.iter().find(|record| is_late(record)).expect("it was published").clone();
        for header in more.headers.iter_mut().filter(|header| header.name == "ce_id") {
            header.value = Some(b"order.created/nobody".to_vec());
        }
        records.push(more);
        records
    });
    names(
        &scene,
        &scene.database,
        &["--accepted-topic", &unknown],
        &[(4, "order.created/nobody: it was published at"), (4, "but the ledger has no such decision")],
    );

    // What was never published is repaired, and only that.
    let before = scene.kafka.count(&missing);
    let (status, out, log) = run({
        let mut command = scene.tool(&["audit", "--topics", "--repair"]);
        command.args(["--accepted-topic", &missing]);
        command
    });
    assert_eq!(status, 0, "{out}\n{log}");
    assert!(out.contains("Repaired: 1 results that were never published are published now"), "{out}");
    assert_eq!(scene.kafka.count(&missing), before + 1);
    let published = scene.kafka.read(&missing);
    assert_eq!(header(published.last().expect("a record"), "ce_specversion"), Some("1.0"));
    for topic in [missing, doubled, altered, unknown] {
        scene.kafka.delete_if_there(&[&topic]);
    }
}

#[test]
fn a_result_or_dead_letter_with_another_key_or_header_and_one_from_nowhere_are_named() {
    let scene = lived(100);
    let is_late = |record: &Sent| record.key.as_deref() == Some(b"late".as_slice());
    let changed = |name: &str, change: &dyn Fn(&mut Sent)| {
        let topic = copy(&scene, "accepted", name, |mut records| {
            records.iter_mut().filter(|record| is_late(record)).for_each(change);
            records
        });
        let says = "order.created/late: what was published at";
        names(
            &scene,
            &scene.database,
            &["--accepted-topic", &topic],
            &[(4, says), (4, "its key or a header")],
        );
        topic
    };
    let without =
        |name: &'static str| move |record: &mut Sent| record.headers.retain(|header| header.name != name);
    let others = [
        changed("keyed", &|record| record.key = Some(b"another".to_vec())),
        changed("keyless", &|record| record.key = None),
        changed("untraced", &without("traceparent")),
        changed("sourceless", &without("ce_source")),
        changed("untyped", &without("content-type")),
    ];
    let foreign = copy(&scene, "accepted", "foreign", |mut records| {
        let foreign = records.iter().find(|record| is_late(record)).expect("it was published").clone();
        records.push(Sent { headers: Vec::new(), ..foreign });
        records
    });
    names(
        &scene,
        &scene.database,
        &["--accepted-topic", &foreign],
        &[(4, "a record without an event's id: it was published at")],
    );
    let elsewhere = copy(&scene, "accepted", "elsewhere", |mut records| {
        let at = records.iter().position(is_late).expect("it was published");
        let mut late = records.remove(at);
        late.partition = late.partition.map(|partition| (partition + 1) % 3);
        records.push(late);
        records
    });
    names(
        &scene,
        &scene.database,
        &["--accepted-topic", &elsewhere],
        &[(4, "order.created/late: it stands at"), (4, "its key belongs on partition")],
    );
    let behind = copy(&scene, "accepted", "behind", |mut records| {
        let at = records.iter().position(|record| record.partition == Some(0)).expect("one there");
        let first = records.remove(at);
        records.push(first);
        records
    });
    let mut command = scene.tool(&["audit", "--topics"]);
    command.args(["--accepted-topic", &behind]);
    let (status, out, log) = run(command);
    assert_eq!(status, 0, "a repair does this too: {out}\n{log}");
    assert!(out.contains("results stand behind one of a later record of their partition"), "{out}");
    scene.kafka.delete_if_there(&[&elsewhere, &behind]);
    let staged = copy(&scene, "dead", "staged", |mut records| {
        for record in &mut records {
            record.headers.retain(|header| header.name != "__connect.errors.stage");
        }
        records
    });
    names(
        &scene,
        &scene.database,
        &["--dead-letter-topic", &staged],
        &[(4, "dead letter of"), (4, "its key or a header")],
    );
    let unsaid = copy(&scene, "dead", "unsaid", |mut records| {
        for record in &mut records {
            record.headers.retain(|header| header.name != "__connect.errors.exception.message");
        }
        records
    });
    names(
        &scene,
        &scene.database,
        &["--dead-letter-topic", &unsaid],
        &[(4, "dead letter of"), (4, "its key or a header")],
    );
    scene.kafka.delete_if_there(&[&foreign, &staged, &unsaid]);
    for topic in &others {
        scene.kafka.delete_if_there(&[topic]);
    }
}

#[test]
fn a_wrong_last_record_of_the_levels_topic_is_named_and_an_older_level_is_a_note() {
    let scene = lived(100);
    let is_new = |record: &Sent| record.key.as_deref() == Some(b"SKU-NEW".as_slice());
    let changed = |name: &str, change: &dyn Fn(&mut Sent)| {
        copy(&scene, "levels", name, |mut records| {
            let mut last = records.iter().rfind(|record| is_new(record)).expect("it was published").clone();
            change(&mut last);
            records.push(last);
            records
        })
    };
    let replaced = |from: &'static str, to: &'static str| {
        move |record: &mut Sent| {
            let value = String::from_utf8(record.value.take().expect("a value")).expect("UTF-8");
            assert!(value.contains(from), "{value}");
            record.value = Some(value.replace(from, to).into_bytes());
        }
    };
    let subject = "level of SKU SKU-NEW: the last record of its key";
    let topics = [
        (changed("otherwise", &replaced("\"available\":3", "\"available\":4")), "version 2, which left 3"),
        (
            changed("unknown", &replaced("\"version\":2", "\"version\":7")),
            "says version 7; the ledger's newest is 2",
        ),
        (changed("tombstone", &|record| record.value = None), "is no level"),
        (changed("untyped", &|record| record.headers.clear()), "version 2, which left 3"),
    ];
    for (topic, says) in &topics {
        names(&scene, &scene.database, &["--levels-topic", topic], &[(4, subject), (4, says)]);
    }
    let foreign = copy(&scene, "levels", "keyless", |mut records| {
        records.push(Sent { value: Some(b"what is this?".to_vec()), ..Sent::default() }.to(0));
        records
    });
    names(&scene, &scene.database, &["--levels-topic", &foreign], &[(4, "record"), (4, "is no level")]);
    // Who published the newest may have been killed before.
    let older = copy(&scene, "levels", "older", |mut records| {
        records.iter_mut().filter(|record| is_new(record)).for_each(|record| {
            for (from, to) in [("\"available\":3", "\"available\":4"), ("\"version\":2", "\"version\":1")] {
                if String::from_utf8_lossy(record.value.as_deref().expect("a value")).contains(from) {
                    replaced(from, to)(record);
                }
            }
            for header in record.headers.iter_mut().filter(|header| header.name == "ce_id") {
                header.value = Some(b"stock.level/SKU-NEW/1".to_vec());
            }
        });
        records
    });
    let mut command = scene.tool(&["audit", "--topics"]);
    // The last one given counts.
    command.args(["--levels-topic", &older]);
    let (status, out, log) = run(command);
    assert_eq!(status, 0, "{out}\n{log}");
    assert!(out.contains("older levels than the ledger of 1 items"), "{out}");
    for topic in topics.iter().map(|(topic, _)| topic).chain([&foreign, &older]) {
        scene.kafka.delete_if_there(&[topic]);
    }
}

#[test]
fn dead_letters_that_retention_deleted_are_a_note_and_no_finding() {
    let scene = lived(100);
    let dead = scene.topic("dead");
    let ends = scene.kafka.ends(&dead, "read_committed");
    let partition = ends.iter().position(|end| *end > 0).expect("there are dead letters");
    scene.kafka.delete_records(&dead, i32::try_from(partition).expect("few"), ends[partition]);
    let (status, out, log) = run(scene.tool(&["audit", "--topics"]));
    assert_eq!(status, 0, "{out}\n{log}");
    assert!(out.contains("dead letters are not there: their topic was shortened"), "{out}");
    assert!(out.contains(&format!("{dead}[{partition}] before offset {}", ends[partition])), "{out}");
}

#[test]
fn a_level_changed_by_hand_is_repaired_with_a_ledger_line_and_a_broken_chain_is_left_alone() {
    let scene = lived(100);
    scene
        .database
        .run("UPDATE levels SET available = 77 WHERE sku = 'SKU-NEW'; DELETE FROM levels WHERE sku = 'LIFE'");
    let (status, out, log) = run(scene.tool(&["audit", "--repair"]));
    assert_eq!(status, 0, "{out}\n{log}");
    assert!(
        out.contains(
            "Repaired: SKU SKU-NEW: its level is 3 again, as its movements say (adjustment/audit-repair-"
        ),
        "{out}"
    );
    assert_eq!(scene.database.number("SELECT available FROM levels WHERE sku = 'SKU-NEW'"), 3);
    assert_eq!(
        scene.database.number("SELECT count(*) FROM decisions WHERE id LIKE 'audit-repair-%' AND accepted"),
        2
    );
    let found = report(&scene, 0, &["audit"]);
    assert_eq!(found["findings"], serde_json::json!([]), "{found:#}");

    // It is said too where what comes after it cannot be done.
    scene.database.run("UPDATE levels SET available = 77 WHERE sku = 'SKU-NEW'");
    let mut without_cache = scene.tool(&["audit", "--repair", "--cache", "--json"]);
    without_cache.args(["--redis-url", "redis://127.0.0.1:1"]);
    let (status, out, log) = run(without_cache);
    assert_eq!((status, out.as_str()), (2, ""), "{log}");
    assert!(log.contains("Repaired: SKU SKU-NEW: its level is 3 again"), "{log}");

    // What is promised and not there stays promised.
    scene.produce(&[order("below", &[("SKU-001", 4)])]);
    let verifier = scene.start("a", &[]);
    scene.done(SOON);
    verifier.stop();
    let level = "SELECT available FROM levels WHERE sku = 'SKU-001'";
    assert_eq!(scene.database.number(level), -1);
    for damage in
        ["UPDATE levels SET available = 2 WHERE sku = 'SKU-001'", "DELETE FROM levels WHERE sku = 'SKU-001'"]
    {
        scene.database.run(damage);
        let (_, out, _) = run(scene.tool(&["audit", "--repair"]));
        assert!(out.contains("Repaired: SKU SKU-001: its level is -1 again"), "{out}");
        assert_eq!(scene.database.number(level), -1);
    }

    scene.database.run("UPDATE movements SET quantity = quantity - 1 WHERE sku = 'SKU-NEW' AND version = 2");
    let (status, out, _) = run(scene.tool(&["audit", "--repair"]));
    assert_eq!(status, 1, "{out}");
    assert!(!out.contains("Repaired"), "{out}");
}

#[test]
fn the_groups_offsets_moved_by_hand_are_named() {
    let scene = lived(100);
    let ends = scene.kafka.ends(&scene.orders(), "read_committed");
    for offset in [ends[1] - 4, ends[1] + 4] {
        scene.kafka.commit(scene.group(), &scene.orders(), 1, offset);
        let says = format!(
            "{}[1]: the ledger is at {}, Kafka's committed offset is {offset}",
            scene.orders(),
            ends[1]
        );
        names(&scene, &scene.database, &[], &[(6, &says)]);
    }
}

#[test]
fn a_ledger_that_has_lost_its_positions_is_not_where_the_offsets_are() {
    let scene = lived(100);
    let empty = Database::fresh(&Servers::shared().database_url);
    let mut audit = scene.tool(&["audit", "--offsets"]);
    audit.args(["--database-url", &empty.url()]);
    let (status, out, log) = run(audit);
    assert_eq!(status, 1, "{out}\n{log}");
    assert!(out.contains(&format!("{}[0]: the ledger was never here", scene.orders())), "{out}");
}

#[test]
fn results_behind_an_open_transaction_are_not_republished() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    let hanging = scene.kafka.open_transaction(&scene.topic("accepted"));
    let verifier = scene.start("a", &["--no-levels"]);
    scene.produce(&(0..20).map(|n| order(&format!("o-{n}"), &[("MUG", 1)])).collect::<Vec<_>>());
    wait::until("everything is published", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(20)]
    });
    verifier.stop();
    // Kafka may still be marking the end of the last transaction in the results. It lets the same producers begin anew only
    // when it has.
    let mut again = scene.start("a", &["--no-levels"]);
    again.said("reading partition", SOON);
    again.stop();
    let published = scene.kafka.ends(&scene.topic("accepted"), "read_uncommitted");
    let is_said = |words: &[&str]| {
        let (status, out, log) = run(scene.tool(words));
        assert_ne!(status, 0, "{out}\n{log}");
        assert!(log.contains("a transaction stays open"), "{out}\n{log}");
        assert!(
            log.contains(&format!("{}[0] from offset 0 to {}", scene.topic("accepted"), published[0])),
            "{log}"
        );
    };
    // Side by side: each waits for a while first.
    std::thread::scope(|threads| {
        for words in [&["audit", "--topics", "--repair"][..], &["audit", "--topics"], &["replay", "diff"]] {
            threads.spawn(|| is_said(words));
        }
    });
    assert_eq!(
        scene.kafka.ends(&scene.topic("accepted"), "read_uncommitted"),
        published,
        "nothing was republished"
    );
    drop(hanging);
    let (status, out, log) = run(scene.tool(&["audit", "--topics", "--repair"]));
    assert_eq!(status, 0, "{out}\n{log}");
    assert_eq!(scene.published("accepted").len(), 20);
}

#[test]
fn results_behind_a_transaction_that_ends_are_waited_for() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    let open = scene.kafka.open_transaction(&scene.topic("accepted"));
    let verifier = scene.start("a", &["--no-levels"]);
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    wait::until("everything is published", SOON, || {
        scene.kafka.committed(scene.group(), &scene.orders()) == [Some(1)]
    });
    verifier.stop();
    let mut audit = scene.tool(&["audit", "--topics", "--repair"]);
    audit.env("RUST_LOG", "stock_verifier=debug");
    let mut audit = scene.launch(audit, "audit");
    audit.said("waiting for the end of a transaction", SOON);
    drop(open);
    assert_eq!(audit.wait(SOON).code(), Some(0), "{}", audit.log());
    assert_eq!(scene.published("accepted").len(), 1);
}

#[test]
fn a_repair_while_orders_are_published_publishes_nothing_twice() {
    /// Orders that wait to be decided, at most.
    const MOST_WAITING: usize = 1_000;
    let scene = Scene::new(4);
    scene.stock(&[("MUG", 1_000_000)]);
    let orders = |round: usize| -> Vec<Sent> {
        (0..100).map(|number| order(&format!("o-{round}-{number}"), &[("MUG", 1)])).collect()
    };
    let verifier = scene.start("a", &["--batch-max-orders", "50"]);
    // Some at any time, so that there always is a transaction.
    let ended = CancellationToken::new();
    let produced = std::thread::scope(|threads| {
        let producer = threads.spawn(|| {
            let mut round = 0;
            while !ended.is_cancelled() {
                // No faster than they are decided, which may be slowly: all must be in the end.
                if (scene.database.decided() as usize) + MOST_WAITING > round * 100 {
                    scene.produce(&orders(round));
                    round += 1;
                } else {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
            round
        });
        // A failure ends it too.
        let end = ended.clone().drop_guard();
        wait::until("orders are decided", SOON, || scene.database.decided() > 200);
        for _ in 0..3 {
            let decided = scene.database.decided();
            let (status, out, log) = run(scene.tool(&["audit", "--topics", "--repair"]));
            assert_eq!(status, 0, "{out}\n{log}");
            assert!(!out.contains("Repaired"), "{out}");
            wait::until("orders went on meanwhile", SOON, || scene.database.decided() > decided);
        }
        drop(end);
        producer.join().expect("the producer")
    });
    scene.done(SOON);
    verifier.stop();
    assert_eq!(scene.prove().accepted, produced * 100);
}
