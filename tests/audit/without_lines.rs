//! Decisions that were accepted and name nothing: no movement and no line betrays them.

use std::sync::Arc;

use super::ledger;
use crate::on_every_database;
use crate::support::{TestDatabase, adjusted, batch, cancelled, word, words};

// Damaged by SQL. What is in memory is damaged where it is seen, in src/store/memory/audit/tests.rs.
on_every_database![an_accepted_order_or_adjustment_that_names_no_line_is_named_and_nothing_else_is];

async fn an_accepted_order_or_adjustment_that_names_no_line_is_named_and_nothing_else_is(
    database: Arc<TestDatabase>,
) {
    let store = ledger(&database).await;
    // A cancellation of nothing gives nothing back, and may.
    let requests = vec![adjusted("a-3", "MUG", -99), cancelled("o-9")];
    let outcomes = store.apply(&batch(requests)).await.unwrap().outcomes;
    assert_eq!((word(&outcomes[0]), word(&outcomes[1])), ("rejected", "accepted"), "{:?}", words(&outcomes));
    assert_eq!(store.audit().await.unwrap().findings, []);
    // Both were rejected, so that they moved nothing.
    database
        .execute(
            r#"UPDATE decisions SET accepted = NOT accepted, detail = '{"lines":[]}' WHERE id = 'o-3';
               UPDATE decisions SET accepted = NOT accepted, detail = '{}' WHERE id = 'a-3'"#,
        )
        .await;
    let findings = store.audit().await.unwrap().findings;
    let mut found: Vec<_> =
        findings.into_iter().map(|found| (found.invariant, found.what.to_string())).collect();
    found.sort();
    let named = ["a-3", "o-3"].map(|id| (3_u8, format!("command {id}: it was accepted, and names no line")));
    assert_eq!(found, named);
    store.close().await;
}
