//! What the tests have in common.

mod commands;
mod leniency;
mod mapped;
mod results;
mod robust;
mod schemas;
mod wrapped;

use super::*;
use crate::ledger::{
    Action, CommandKey, CommandKind, Decision, Digest, Id, Item, Location, Offset, Quantity, Reason, Seq,
    Sku, Stamp, Terms, TopicPartition,
};

fn record(value: impl Into<Vec<u8>>) -> Record {
    Record {
        source: Source { at: TopicPartition::new("orders", 3), offset: Offset(8841) },
        key: Some(b"k-1".to_vec()),
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp_ms: None,
        decoded: None,
    }
}

fn header(name: &str, value: &[u8]) -> Header {
    Header { name: name.to_owned(), value: Some(value.to_vec()) }
}

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

/// `MUG`, or `MUG@berlin` at a location.
fn item(text: &str) -> Item {
    let (sku, location) = text.split_once('@').map_or((text, None), |(sku, location)| (sku, Some(location)));
    Item { sku: Sku::new(sku).unwrap(), location: location.map(|location| Location::new(location).unwrap()) }
}

fn lines(lines: &[(&str, i64)]) -> Vec<(Item, Quantity)> {
    lines.iter().map(|(text, quantity)| (item(text), Quantity::new(*quantity).unwrap())).collect()
}

fn order(order_id: &str, asked: &[(&str, i64)]) -> Command {
    Command::order_created(id(order_id), lines(asked), Terms::default())
}

fn decision(accepted: bool, detail: &str) -> Decision {
    decision_of(CommandKind::OrderCreated, "o-1001", accepted, detail)
}

fn decision_of(kind: CommandKind, command_id: &str, accepted: bool, detail: &str) -> Decision {
    Decision {
        key: CommandKey { id: id(command_id), kind },
        seq: Seq(7),
        digest: Digest([0; 16]),
        accepted,
        detail: detail.to_owned(),
        source: Some(Source { at: TopicPartition::new("orders", 3), offset: Offset(8841) }),
        decided_at: Stamp(1_767_323_045_678_901),
    }
}

fn shown(outgoing: &Outgoing) -> String {
    use std::fmt::Write as _;
    let text = |bytes: Option<&[u8]>| {
        bytes.map_or("(none)".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let mut shown = format!("{:?}\nkey: {}\n", outgoing.channel, text(outgoing.key.as_deref()));
    for header in &outgoing.headers {
        writeln!(shown, "{}: {}", header.name, text(header.value.as_deref())).unwrap();
    }
    shown + &text(outgoing.value.as_deref())
}

/// What is read from a value, in short.
fn read(value: &str) -> String {
    match read_command(&record(value)) {
        Ok(Command { key, action, .. }) => match action {
            Action::Refuse(reasons) => {
                let details = reasons.into_iter().map(|reason| match reason {
                    Reason::InvalidOrder { line: None, detail } => detail,
                    Reason::InvalidOrder { line: Some(line), detail } => format!("line {line}: {detail}"),
                    other => panic!("{other:?}"),
                });
                format!("{key} refused: {}", details.collect::<Vec<_>>().join(" | "))
            }
            action => format!("{key} {action:?}"),
        },
        Err(fault) => fault.to_string(),
    }
}
