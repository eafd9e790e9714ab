//! Holds whose time is over: asks for their end.
//!
//! Nothing ends here. The question is a record among the orders, and is decided there in its turn, like any command: so
//! it meets a confirmation in one order for everybody, is published exactly once, and a question asked twice, or too late, is
//! absorbed. It goes to the partition that the hold's order came by, where it stands behind what was sent of the order
//! before. Where nobody reads that any more (another orders topic since, or one made anew with fewer partitions), and
//! for an operator's own order, it goes where the orders' producers would send it today: which partition it is decides
//! nothing, since the order's levels are locked before its hold is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::Sender;
use crate::causes;
use crate::event::hold_due;
use crate::kafka::partitioner::partition_of;
use crate::ledger::TopicPartition;
use crate::store::{DueHold, OVERDUE, WorkQueue};

/// How often to look for holds whose time is over.
const LOOK: Duration = Duration::from_secs(1);
/// Holds asked for at once.
const PAGE: usize = 1_000;
/// How long a hold that was asked for is left alone. Longer than a batch waits in any queue but a backlog's; in a
/// backlog it is asked for again, and all but the first question are absorbed.
const LEASE: Duration = Duration::from_secs(30);
/// How often to look for holds that should have ended long ago: one more question of the database, so not each time.
const OVERDUE_LOOK: Duration = Duration::from_secs(10);
/// How often the log says that there are some.
const OVERDUE_SAY: Duration = Duration::from_secs(60);

/// Asks until `stop`. `orders_topic` is the one that is read today.
pub(super) async fn ask(
    queue: &dyn WorkQueue,
    sender: &Arc<Sender>,
    orders_topic: &str,
    stop: &CancellationToken,
) {
    let mut failing = false;
    let mut overdue = Overdue::default();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let asked = ask_due(queue, sender, orders_topic).await;
        if let (false, Err(error)) = (failing, &asked) {
            tracing::warn!("the end of holds cannot be asked for now: {}", causes::of(error.as_ref()));
        }
        failing = asked.is_err();
        overdue.look(queue).await;
    }
}

/// Asks for the end of all that are due. A question that cannot be sent holds no other up, and is asked again after its
/// lease.
async fn ask_due(queue: &dyn WorkQueue, sender: &Arc<Sender>, orders_topic: &str) -> Result<()> {
    let (mut asked, mut unasked) = (0, 0);
    let mut first = None;
    loop {
        let due = queue.take_due_holds(PAGE, LEASE).await?;
        let found = due.len();
        if found > 0 {
            tracing::debug!(holds = found, "asking for their end");
            let partitions = sender.partitions(orders_topic).await?;
            let questions = due
                .iter()
                .map(|hold| {
                    (hold_due(&hold.order_id), Some(answering_partition(hold, orders_topic, partitions)))
                })
                .collect();
            let lost = sender.send(questions).await?;
            asked += found;
            unasked += lost.len();
            let none_arrived = lost.len() == found;
            if first.is_none() {
                first = lost.into_iter().next().map(|lost| (due[lost.index].order_id.clone(), lost.error));
            }
            if none_arrived {
                break;
            }
        }
        if found < PAGE {
            break;
        }
    }
    if let Some((order_id, error)) = first {
        bail!("{unasked} of {asked} questions did not arrive; the first is of order {order_id}: {error}");
    }
    Ok(())
}

/// Where the question is read today.
fn answering_partition(hold: &DueHold, orders_topic: &str, partitions: i32) -> TopicPartition {
    match &hold.at {
        Some(at) if *at.topic == *orders_topic && (0..partitions).contains(&at.partition) => at.clone(),
        _ => TopicPartition::new(orders_topic, partition_of(hold.order_id.as_str().as_bytes(), partitions)),
    }
}

/// Names holds that should have ended long ago.
#[derive(Default)]
struct Overdue {
    looked: Option<Instant>,
    said: Option<Instant>,
}

impl Overdue {
    async fn look(&mut self, queue: &dyn WorkQueue) {
        // Not at once: after a start, those that were over meanwhile are asked for first.
        if self.looked.get_or_insert_with(Instant::now).elapsed() < OVERDUE_LOOK {
            return;
        }
        self.looked = Some(Instant::now());
        match queue.overdue_holds(OVERDUE).await {
            Ok(Some(overdue)) if self.said.is_none_or(|said| said.elapsed() >= OVERDUE_SAY) => {
                self.said = Some(Instant::now());
                tracing::warn!(
                    holds = overdue.count,
                    order_id = %overdue.oldest,
                    over_since = overdue.since.rfc3339(),
                    "holds are over since more than {OVERDUE:?} and have not ended, this order's the longest: their stock is \
                     not given back. Is the orders topic read without a backlog, and may the verifier write to it?"
                );
            }
            Ok(_) => {}
            // The database is away: who decides says so.
            Err(error) => tracing::debug!(%error, "looking for overdue holds"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::config::{KafkaArgs, TopicArgs};
    use crate::kafka::in_process::MockBroker;
    use crate::ledger::{Id, Item};
    use crate::store::{OverdueHolds, StoreError};

    /// Holds that are due, given a page at a time.
    struct Due(Mutex<Vec<DueHold>>);

    #[async_trait]
    impl WorkQueue for Due {
        async fn take_due_holds(&self, limit: usize, _: Duration) -> Result<Vec<DueHold>, StoreError> {
            let mut due = self.0.lock().unwrap();
            let page = limit.min(due.len());
            Ok(due.drain(..page).collect())
        }

        async fn overdue_holds(&self, _: Duration) -> Result<Option<OverdueHolds>, StoreError> {
            Ok(None)
        }

        async fn take_unannounced(&self, _: usize) -> Result<Vec<Item>, StoreError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn questions_that_kafka_refuses_hold_up_no_later_page() {
        const HOLDS: usize = PAGE + 5;
        let broker = MockBroker::start().unwrap();
        broker.create("o", 2).unwrap();
        // The first request: one of the two partitions, or a part of it.
        broker.refuse_next_records();
        let kafka = KafkaArgs {
            brokers: broker.bootstrap_servers(),
            kafka_password_file: None,
            properties: Vec::new(),
        };
        let name = |name: &str| name.to_owned();
        let topics = TopicArgs {
            orders_topic: name("o"),
            adjustments_topic: name("a"),
            accepted_topic: name("s.a"),
            rejected_topic: name("s.r"),
            levels_topic: name("s.l"),
            dead_letter_topic: name("d"),
        };
        let hold = |number: usize| DueHold {
            order_id: Id::new(&format!("o-{number}")).unwrap(),
            at: Some(TopicPartition::new("o", i32::from(number.is_multiple_of(2)))),
        };
        let due = Due(Mutex::new((0..HOLDS).map(hold).collect()));
        let sender = Arc::new(Sender::new(&kafka, &topics).unwrap());
        let error = ask_due(&due, &sender, "o").await.unwrap_err().to_string();
        assert!(error.contains(&format!("of {HOLDS} questions did not arrive")), "{error}");
        assert!(due.0.lock().unwrap().is_empty(), "all pages are taken");
    }

    #[test]
    fn a_question_goes_to_its_orders_partition_or_where_todays_producers_send() {
        let hold = |at: Option<(&str, i32)>| DueHold {
            order_id: Id::new("foobar").expect("an id"),
            at: at.map(|(topic, partition)| TopicPartition::new(topic, partition)),
        };
        let of_key = |partitions| TopicPartition::new("orders", partition_of(b"foobar", partitions));
        assert_eq!(
            answering_partition(&hold(Some(("orders", 7))), "orders", 8),
            TopicPartition::new("orders", 7)
        );
        assert_eq!(answering_partition(&hold(Some(("orders", 7))), "orders", 7), of_key(7));
        assert_eq!(answering_partition(&hold(Some(("old-orders", 1))), "orders", 8), of_key(8));
        assert_eq!(answering_partition(&hold(None), "orders", 8), of_key(8));
    }
}
