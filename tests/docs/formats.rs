//! What docs/formats.md shows is read as it says.

use stock_verifier::event::{Record, read_command};
use stock_verifier::ledger::{Command, Offset, Source, TopicPartition};

use super::FORMATS;

/// The code blocks of a section, in their order.
fn blocks(heading: &str) -> Vec<&'static str> {
    let section = FORMATS.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let parts = section.split("```").skip(1).step_by(2);
    parts.map(|part| part.split_once('\n').expect("a block of more than one line").1).collect()
}

fn read(value: &str) -> Command {
    let record = Record {
        source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    // What an earlier version made of it is not what it says.
    Command { refused_as: None, ..read_command(&record).unwrap_or_else(|fault| panic!("{value}: {fault}")) }
}

#[test]
fn the_lines_of_a_block_are_one_command() {
    let blocks: Vec<&str> = ["Numbers", "Wrappings"].into_iter().flat_map(blocks).collect();
    assert!(blocks.len() >= 3);
    for text in blocks {
        let mut lines = text.lines();
        let plain = read(lines.next().expect("a command"));
        let mut others = 0;
        for line in lines {
            assert_eq!(read(line), plain, "{line}");
            others += 1;
        }
        assert!(others > 0, "nothing beside {plain:?}");
    }
}
