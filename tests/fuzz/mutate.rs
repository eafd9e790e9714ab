//! Other inputs out of those there are.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::MOST_BYTES;
use super::samples::Input;

/// What reading looks for, and what tends to break readers.
const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"true",
    b"-0",
    b"1e999999999",
    b"1E-400",
    b"99999999999999999999999",
    b"-9223372036854775808",
    b"0.00000000000001",
    b"2.0000",
    b"\"2\"",
    b"NaN",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\0\0\0\0\x01",
    b"\0\0\0\0\x02",
    b"\0\0\0\0\x03",
    b"\x01",
    b"\x1f\x8b",
    b"\"type\":",
    b"\"order.created\"",
    b"\"order.cancelled\"",
    b"\"order.returned\"",
    b"\"order.confirmed\"",
    b"\"stock.set\"",
    b"\"stock.received\"",
    b"\"order_id\":",
    b"\"lines\":",
    b"\"sku\":",
    b"\"quantity\":",
    b"\"location\":",
    b"\"schema\":",
    b"\"payload\":",
    b"\"data\":",
    b"\"data_base64\":",
    b"\"op\":\"c\"",
    b"\"after\":",
    b"\"before\":null",
    b"\"aggregatetype\":\"o\"",
    b"\"aggregateid\":\"1\"",
    b"\"specversion\":\"1.0\"",
    b"\"parameters\":{\"scale\":\"1000\"}",
    b"\"name\":\"org.apache.kafka.connect.data.Decimal\"",
    b"\"name\":\"io.debezium.data.VariableScaleDecimal\"",
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x02\x02\x02\x02",
];

/// Headers that reading looks at.
const HEADERS: [(&str, &[u8]); 6] = [
    ("ce_type", b"order.created"),
    ("ce_type", b"\xff"),
    ("content-type", b"application/cloudevents+json; charset=utf-8"),
    ("content-type", b"application/cloudevents-batch+json"),
    ("__value_schema_id", b"\0\0\0\0\x01"),
    ("__value_schema_id", b"\0\0\0\0\x02\x02\x02"),
];

/// One that was made of one or two of these.
pub fn one_of(kept: &[Input], random: &mut StdRng) -> Input {
    let mut input = kept.choose(random).expect("some").clone();
    // Mostly a little, so that it stays what it nearly is.
    let times = 1 << random.random_range(0..5);
    for _ in 0..times {
        change(&mut input, kept, random);
    }
    input.value.truncate(MOST_BYTES);
    input
}

fn change(input: &mut Input, kept: &[Input], random: &mut StdRng) {
    let value = &mut input.value;
    let at = random.random_range(0..=value.len());
    let until = (at + (1_usize << random.random_range(0..10))).min(value.len());
    match random.random_range(0..12) {
        0 if at < value.len() => value[at] ^= 1 << random.random_range(0..8),
        1 if at < value.len() => value[at] = random.random(),
        2 => value.insert(at, random.random()),
        3 => drop(value.drain(at..until)),
        4 => {
            let again = value[at..until].to_vec();
            value.splice(at..at, again);
        }
        5 => {
            // Deep, or many.
            let word = *WORDS.choose(random).expect("some");
            let times = 1 << random.random_range(0..12);
            value.splice(at..at, word.repeat(times));
        }
        6 | 7 => drop(value.splice(at..at, WORDS.choose(random).expect("some").iter().copied())),
        8 => {
            let other = &kept.choose(random).expect("some").value;
            let from = random.random_range(0..=other.len());
            value.truncate(at);
            value.extend_from_slice(&other[from..]);
        }
        9 => wrap(value, random),
        10 => {
            let (name, header) = HEADERS.choose(random).expect("some");
            input.headers.push(((*name).to_owned(), header.to_vec()));
        }
        _ => drop(input.headers.pop()),
    }
}

/// Puts a value into something that is looked into.
fn wrap(value: &mut Vec<u8>, random: &mut StdRng) {
    let text = String::from_utf8_lossy(value).into_owned();
    *value = match random.random_range(0..7) {
        0 => serde_json::Value::from(text).to_string(),
        1 => format!("[{text}]"),
        2 => format!(r#"{{"schema":{{"type":"struct"}},"payload":{text}}}"#),
        3 => format!(r#"{{"op":"u","before":null,"after":{text}}}"#),
        4 => {
            format!(r#"{{"specversion":"1.0","id":"e","source":"/s","type":"order.created","data":{text}}}"#)
        }
        5 => format!(
            r#"{{"aggregatetype":"o","aggregateid":"1","type":"order.created","payload":{}}}"#,
            serde_json::Value::from(text)
        ),
        _ => {
            value.splice(0..0, [0, 0, 0, 0, random.random_range(1..6)]);
            return;
        }
    }
    .into_bytes();
}
