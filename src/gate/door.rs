//! Letting orders in. Each is let in by a task of its own that runs to its end, whether or not anybody still waits: an
//! entry whose order was never handed to the producer would keep its pieces from others until its bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::Observer;
use super::cache::RedisCache;
use super::connection::ANSWER_LIMIT;
use super::level_reads::WantedLevels;
use super::rule::{Admission, Asked, LineRefusal, Millis};
use crate::event::Outgoing;
use crate::kafka::order_producer::{DELIVERY_LIMIT, Delivery, OrderProducer};
use crate::ledger::{Digest, Id, Item, Sku};

/// After so long nobody is still sending an order that is not known to be sent: an entry's time begins in Redis, whose answer
/// may take its time, and only then the order goes to Kafka. With room.
pub(super) const RESEND_AFTER: Duration =
    DELIVERY_LIMIT.saturating_add(ANSWER_LIMIT).saturating_add(Duration::from_secs(1));
/// How often an order that somebody is sending is looked at again before its asker is told so, and the pause in between: as
/// a rule it is sent by then, and noted.
const SENDING_LOOKS: u32 = 10;
const SENDING_PAUSE: Duration = Duration::from_millis(100);
/// Orders that wait to be noted as sent. What finds no room is not noted: its result says it too.
pub(super) const SENT_QUEUE: usize = 10_000;
/// Orders noted at once, at most.
const SENT_AT_ONCE: usize = 500;
/// How long noting waits: most have their result by then, which says it too, and are not written again. Shorter than who asks
/// again is kept waiting.
const SENT_AFTER: Duration = Duration::from_millis(100);

/// What is done with orders while the cache is away, or is being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenCacheIsAway {
    /// They pass without a judgement.
    Admit,
    /// They are refused for now.
    Refuse,
}

/// An order at the door.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) asked: Asked,
    pub(super) event: Outgoing,
}

/// What the door says.
#[derive(Debug)]
pub(super) enum Entrance {
    /// It is in Kafka.
    LetIn {
        undecided: bool,
        /// Whether it was there before, sent with the same content.
        repeated: bool,
    },
    /// The ledger has decided it.
    Decided,
    /// Not enough, by the estimate.
    Short(Vec<LineRefusal>),
    /// The id is taken by other content.
    Conflict,
    NotOpen {
        sku: Sku,
        opens_at: Option<Millis>,
    },
    BuyerLimit {
        sku: Sku,
        left: i64,
    },
    BuyerMissing {
        sku: Sku,
    },
    /// Somebody is sending it just now.
    Sending,
    /// It may be in Kafka.
    MaybeSent,
    /// It is not in Kafka.
    NotSent,
    /// It is larger than its topic takes.
    TooLarge,
    /// Nothing can be said now.
    CacheAway,
}

impl Entrance {
    /// All that [`Entrance::name`] says.
    pub(super) const NAMES: [&'static str; 14] = [
        "admitted",
        "undecided",
        "repeated",
        "decided",
        "not_enough",
        "conflict",
        "not_open",
        "buyer_limit",
        "buyer_missing",
        "sending",
        "kafka_unknown",
        "kafka_away",
        "too_large",
        "cache_away",
    ];

    /// What it is called in a label.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::LetIn { repeated: true, .. } => "repeated",
            Self::LetIn { undecided: false, .. } => "admitted",
            Self::LetIn { undecided: true, .. } => "undecided",
            Self::Decided => "decided",
            Self::Short(_) => "not_enough",
            Self::Conflict => "conflict",
            Self::NotOpen { .. } => "not_open",
            Self::BuyerLimit { .. } => "buyer_limit",
            Self::BuyerMissing { .. } => "buyer_missing",
            Self::Sending => "sending",
            Self::MaybeSent => "kafka_unknown",
            Self::NotSent => "kafka_away",
            Self::TooLarge => "too_large",
            Self::CacheAway => "cache_away",
        }
    }
}

/// The door.
pub(super) struct Door {
    pub(super) cache: RedisCache,
    pub(super) producer: OrderProducer,
    pub(super) when_away: WhenCacheIsAway,
    /// Asks for the cache to be filled.
    pub(super) fill: Arc<Notify>,
    pub(super) wanted: Arc<WantedLevels>,
    pub(super) sent: mpsc::Sender<(Id, Digest)>,
    pub(super) observer: Arc<dyn Observer>,
    /// The orders being let in.
    pub(super) under_way: TaskTracker,
}

impl Door {
    /// Lets an order in, or says why not. It keeps its place until then, whoever waits for it.
    pub(super) async fn enter(self: &Arc<Self>, order: Order, place: impl Send + 'static) -> Entrance {
        let door = Arc::clone(self);
        let begun = Instant::now();
        let entering = self.under_way.spawn(async move {
            let entrance = door.let_in(&order).await;
            drop((order, place));
            door.observer.answered(entrance.name(), Some(begun.elapsed()));
            entrance
        });
        // It does not panic; if it did, nobody would know.
        entering.await.unwrap_or(Entrance::MaybeSent)
    }

    async fn let_in(&self, order: &Order) -> Entrance {
        let asked = &order.asked;
        let mut looks = 0;
        let admission = loop {
            match self.cache.admit(asked, RESEND_AFTER).await {
                Ok(Admission::Sending) if looks < SENDING_LOOKS => looks += 1,
                admission => break admission,
            }
            sleep(SENDING_PAUSE).await;
        };
        let admission = match admission {
            Ok(admission) => admission,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "letting an order in");
                return self.without_cache(order).await;
            }
        };
        match admission {
            Admission::Admitted { undecided, at } => {
                if undecided {
                    // What is not known may be known to the ledger.
                    self.wanted.add(asked.lines.iter().map(|line| line.item.clone()).collect::<Vec<Item>>());
                }
                self.send(order, undecided, Some(at)).await
            }
            Admission::Resend { undecided } => self.send(order, undecided, None).await,
            Admission::Sent { undecided } => Entrance::LetIn { undecided, repeated: true },
            Admission::Sending => Entrance::Sending,
            Admission::Decided => Entrance::Decided,
            Admission::Conflict => Entrance::Conflict,
            Admission::Short(refusals) => Entrance::Short(refusals),
            Admission::NotOpen { sku, opens_at } => Entrance::NotOpen { sku, opens_at },
            Admission::BuyerLimit { sku, left } => Entrance::BuyerLimit { sku, left },
            Admission::BuyerMissing { sku } => Entrance::BuyerMissing { sku },
            Admission::Empty => {
                self.fill.notify_one();
                self.without_cache(order).await
            }
        }
    }

    async fn without_cache(&self, order: &Order) -> Entrance {
        match self.when_away {
            WhenCacheIsAway::Refuse => Entrance::CacheAway,
            // Where there is an entry all the same, since only the answer was lost, its result ends it.
            WhenCacheIsAway::Admit => self.send(order, true, None).await,
        }
    }

    /// Sends an order. `new` is the moment of an entry that was made for it just now.
    async fn send(&self, order: &Order, undecided: bool, new: Option<Millis>) -> Entrance {
        let delivery = self.producer.send(&order.event).await;
        match &delivery {
            Delivery::Written => {
                let Asked { id, digest, .. } = &order.asked;
                let _ = self.sent.try_send((id.clone(), *digest));
                Entrance::LetIn { undecided, repeated: false }
            }
            Delivery::NotWritten(error) => {
                tracing::debug!(%error, "an order was not sent");
                if let Some(at) = new
                    && let Err(error) = self.cache.give_back(&order.asked.id, at).await
                {
                    // Its bound gives it back.
                    tracing::debug!(error = &error as &dyn std::error::Error, "giving an entry back");
                }
                if delivery.is_too_large() { Entrance::TooLarge } else { Entrance::NotSent }
            }
            Delivery::Unknown(error) => {
                tracing::debug!(%error, "nobody knows whether an order was sent");
                Entrance::MaybeSent
            }
        }
    }
}

/// Notes which orders Kafka has, many at once, until nobody sends any more.
pub(super) async fn note_sent(cache: RedisCache, mut sent: mpsc::Receiver<(Id, Digest)>) {
    let mut all = Vec::with_capacity(SENT_AT_ONCE);
    while sent.recv_many(&mut all, SENT_QUEUE).await > 0 {
        sleep(SENT_AFTER).await;
        for some in all.chunks(SENT_AT_ONCE) {
            if let Err(error) = cache.sent(some).await {
                // Their results say it too.
                tracing::debug!(error = &error as &dyn std::error::Error, "noting orders as sent");
            }
        }
        all.clear();
    }
}
