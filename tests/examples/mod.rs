//! The programs in `examples/` do what they say.

/// The programs themselves. Nobody calls their `main` here.
#[expect(dead_code, reason = "main is for `cargo run --example`")]
#[path = "../../examples"]
mod programs {
    pub mod apply_to_sqlite;
    pub mod decide_a_batch;
    pub mod read_a_level;
}

use self::programs::{apply_to_sqlite, decide_a_batch, read_a_level};

#[test]
fn a_batch_is_decided_in_memory() {
    let said = decide_a_batch::run().unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[0].starts_with("o-1: accepted "), "{said}");
    assert!(lines[1].starts_with("o-2: rejected ") && lines[1].contains("insufficient_stock"), "{said}");
    assert_eq!(lines[2], "o-1: Repeated");
    assert_eq!(lines[3], "MUG: 2 left, version 2");
}

#[tokio::test]
async fn a_batch_is_applied_to_sqlite_once_and_its_level_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stock.db");
    let file = file.to_str().unwrap();
    let said = apply_to_sqlite::run(file).await.unwrap();
    assert_eq!(said, "adjustment/a-1: accepted\norder.created/o-1: accepted\n");
    for _ in 0..2 {
        let said = read_a_level::run(file, "MUG").await.unwrap();
        assert_eq!(said, "MUG: 2 left, version 2\n");
        let said = apply_to_sqlite::run(file).await.unwrap();
        assert_eq!(said, "decided before\ndecided before\n");
    }
    let said = read_a_level::run(file, "MUGG").await.unwrap();
    assert_eq!(said, "MUGG: no stock of it was ever recorded\n");
}
