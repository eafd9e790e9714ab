//! The table of bad input, through a real broker.

use std::collections::HashMap;
use std::time::Duration;

use stock_verifier::event::Record;

use crate::bad_input::{Expected, cases};
use crate::support::kafka::{Sent, header, order};
use crate::support::scene::Scene;

const STOCK: i64 = 1_000_000;
const PARTITIONS: i32 = 2;

fn value(record: &Record) -> serde_json::Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

#[test]
fn every_kind_of_bad_input_ends_as_the_table_says_and_harms_no_other() {
    let scene = Scene::new(PARTITIONS);
    scene.stock(&[("MUG", STOCK), ("CUP", STOCK), ("MATE", STOCK)]);
    let cases = cases();
    let mut records = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let to = i32::try_from(number).expect("a short table") % PARTITIONS;
        let key = Some(case.order_id.clone().into_bytes());
        let case =
            Sent { partition: Some(to), key, value: case.value.clone(), headers: case.headers.clone() };
        records.push(case);
        records.push(order(&format!("mate-{number}"), &[("MATE", 1)]).to(to));
    }
    scene.produce(&records);
    let verifier = scene.start("a", &[]);
    scene.done(Duration::from_secs(60));
    verifier.stop();
    scene.prove();

    let by_id = |topic: &str| -> HashMap<String, Record> {
        let records = scene.kafka.read(&scene.topic(topic));
        records
            .into_iter()
            .map(|record| (value(&record)["order_id"].as_str().expect("an id").to_owned(), record))
            .collect()
    };
    let (accepted, rejected) = (by_id("accepted"), by_id("rejected"));
    let mut dead = scene.kafka.read(&scene.topic("dead"));
    for (number, case) in cases.iter().enumerate() {
        let name = case.name;
        assert!(accepted.contains_key(&format!("mate-{number}")), "the mate of {name} came to harm");
        match &case.expected {
            Expected::Order(lines) if lines.iter().all(|(_, quantity)| *quantity <= STOCK) => {
                let published = value(&accepted[&case.order_id]);
                let published: Vec<_> = published["lines"]
                    .as_array()
                    .expect("lines")
                    .iter()
                    .map(|line| {
                        (line["sku"].as_str().expect("a SKU"), line["quantity"].as_i64().expect("a number"))
                    })
                    .collect();
                assert_eq!(&published, lines, "{name}");
            }
            Expected::Order(_) => {
                let published = value(&rejected[&case.order_id]);
                assert_eq!(published["reasons"][0]["reason"], "insufficient_stock", "{name}");
            }
            Expected::Invalid(faults) => {
                let published = value(&rejected[&case.order_id]);
                let reasons = published["reasons"].as_array().expect("reasons");
                assert_eq!(reasons.len(), faults.len(), "{name}");
                for (reason, (line, said)) in reasons.iter().zip(faults) {
                    assert_eq!(reason["reason"], "invalid_order", "{name}");
                    assert_eq!(reason["line"].as_u64(), line.map(u64::from), "{name}");
                    assert!(reason["detail"].as_str().expect("text").contains(said), "{name}: {reason}");
                }
            }
            Expected::DeadLetter(code) => {
                let key = Some(case.order_id.as_bytes());
                let place = dead
                    .iter()
                    .position(|letter| letter.key.as_deref() == key && letter.value == case.value)
                    .unwrap_or_else(|| panic!("{name} has no dead letter"));
                let letter = dead.swap_remove(place);
                let found = header(&letter, "__connect.errors.exception.class.name");
                assert_eq!(found, Some(code.name()), "{name}");
                assert_eq!(letter.headers[..case.headers.len()], case.headers, "{name}");
            }
        }
    }
    assert!(dead.is_empty(), "{} more dead letters than the table has", dead.len());
}

#[test]
fn a_record_as_large_as_the_topic_allows_does_not_stop_its_partition() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", STOCK)]);
    // Larger than librdkafka sends by itself, and no order: it comes out as a dead letter that is larger still.
    let large = Sent { key: Some(b"large".to_vec()), value: Some(vec![b'x'; 4_000_000]), ..Sent::default() };
    scene.produce(&[order("before", &[("MUG", 1)]), large, order("after", &[("MUG", 1)])]);
    let verifier = scene.start("a", &[]);
    scene.done(Duration::from_secs(60));
    verifier.stop();
    let ends = scene.prove();
    assert_eq!((ends.accepted, ends.dead), (2, 1));
}
