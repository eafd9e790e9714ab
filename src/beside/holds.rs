//! Holds whose time is over: asks for their end.
//!
//! Nothing ends here. The question is a record on the partition that the hold's order came by, and is decided there in
//! its turn, like any command: so it meets a confirmation in one order for everybody, is told exactly once, and a
//! question asked twice, or too late, is absorbed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::Sender;
use crate::event::hold_due;
use crate::store::{DueHold, Store};

/// How often to look for holds whose time is over.
const LOOK: Duration = Duration::from_secs(1);
/// Holds asked for at once.
const PAGE: usize = 1_000;
/// How long a hold that was asked for is left alone. Longer than a batch waits in any queue but a backlog's; in a
/// backlog it is asked for again, and all but the first question are absorbed.
const LEASE: Duration = Duration::from_secs(30);

/// Asks until `stop`.
pub(super) async fn ask(store: &dyn Store, sender: &Arc<Sender>, stop: &CancellationToken) {
    let mut failing = false;
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let asked = ask_due(store, sender).await;
        if let (false, Err(error)) = (failing, &asked) {
            tracing::warn!("the end of holds cannot be asked for now: {error:#}");
        }
        failing = asked.is_err();
    }
}

async fn ask_due(store: &dyn Store, sender: &Arc<Sender>) -> Result<()> {
    loop {
        let due = store.take_due_holds(PAGE, LEASE).await?;
        let found = due.len();
        if found > 0 {
            tracing::debug!(holds = found, "asking for their end");
            let questions = due.into_iter().map(|DueHold { order_id, at }| (hold_due(&order_id), at));
            sender.send(questions.collect()).await?;
        }
        if found < PAGE {
            return Ok(());
        }
    }
}
