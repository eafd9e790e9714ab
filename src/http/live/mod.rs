//! The live page's data: one snapshot a second, made once for all who look and only while somebody does, and sent to each
//! of them as server-sent events.

mod history;
mod view;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::response::sse::Event;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::bounds::{LIVE_EVERY, LIVE_FRESH, LIVE_LEVELS_LIMIT, MAX_STREAMS, MEMBERS_EVERY, MEMBERS_LIMIT};
use super::health::{Health, written};
use super::problem::{Kind, Problem};
use crate::ledger::Item;
use crate::live::Watched;
use crate::store::{AsOf, ItemLevel, LedgerQueries};
use history::History;
pub(super) use view::LiveView;
use view::{About, GroupView};

/// Who is in the consumer group, and which partitions each was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it calls itself.
    pub client_id: String,
    /// Where it comes from.
    pub host: String,
    /// Its partitions, by topic.
    pub partitions: Vec<(String, Vec<i32>)>,
}

/// Asks who is in the group.
pub type AskMembers =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = anyhow::Result<Vec<Member>>> + Send>> + Send + Sync>;

/// What the live page shows.
pub struct Live {
    /// The process that is looked at.
    pub watched: Arc<dyn Watched>,
    /// Its name among the instances.
    pub instance: String,
    /// The consumer group.
    pub group: String,
    /// How Kafka is asked who is in it; `None` where this Kafka cannot say.
    pub members: Option<AskMembers>,
}

/// Who looks, and what at.
pub(super) struct Hub {
    watched: Arc<dyn Watched>,
    about: About,
    members: Option<AskMembers>,
    queries: Arc<dyn LedgerQueries>,
    health: Arc<Health>,
    /// The newest snapshot, as the text of its event; empty before the first, and while nobody looks.
    newest: watch::Sender<Arc<str>>,
    viewers: AtomicUsize,
    arrived: Notify,
    group: Mutex<GroupView>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Hub {
    /// Nobody looks yet. All streams end with `stop`.
    pub(super) fn new(
        live: Live,
        queries: Arc<dyn LedgerQueries>,
        health: Arc<Health>,
        stop: CancellationToken,
    ) -> Self {
        let group = if live.members.is_some() { GroupView::not_asked() } else { GroupView::never_asked() };
        let about = About::new(live.instance, live.group, &written(SystemTime::now()));
        Self {
            watched: live.watched,
            about,
            members: live.members,
            queries,
            health,
            newest: watch::Sender::new("".into()),
            viewers: AtomicUsize::new(0),
            arrived: Notify::new(),
            group: Mutex::new(group),
            permits: Arc::new(Semaphore::new(MAX_STREAMS)),
            stop,
        }
    }

    fn group(&self) -> MutexGuard<'_, GroupView> {
        // Only ever replaced as a whole.
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes snapshots while somebody looks, until stopped. How many orders each second had is noted all the while, so that
    /// who comes sees the last two minutes.
    pub(super) async fn run(&self) {
        tokio::join!(self.make_snapshots(), self.ask_members());
    }

    async fn make_snapshots(&self) {
        let begun = Instant::now();
        let mut ticks = interval_at(begun + LIVE_EVERY, LIVE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut history = History::new(self.watched.counts(), begun);
        let mut is_watched = false;
        // `None` while there is no snapshot.
        let mut made_at: Option<Instant> = None;
        loop {
            let is_due = tokio::select! {
                () = self.stop.cancelled() => return,
                // Who arrives has the newest one already; one of their own only if that says too little of now.
                () = self.arrived.notified() => made_at.is_none_or(|made| made.elapsed() > LIVE_FRESH),
                // Not the time it was due: what was counted in the meantime would be too much for a second.
                _ = ticks.tick() => {
                    history.add(self.watched.counts(), Instant::now());
                    true
                }
            };
            let was_watched = std::mem::replace(&mut is_watched, self.viewers.load(Ordering::SeqCst) > 0);
            if is_watched != was_watched {
                self.watched.set_watched(is_watched);
            }
            if is_watched && is_due {
                let snapshot = self.snapshot(&history).await;
                self.newest.send_replace(snapshot);
                made_at = Some(Instant::now());
            } else if was_watched && !is_watched {
                // The next one who looks is not shown what is over.
                self.newest.send_replace("".into());
                made_at = None;
            }
        }
    }

    async fn snapshot(&self, history: &History) -> Arc<str> {
        let glance = self.watched.glance();
        let items: Vec<Item> = glance.hot.iter().map(|hot| hot.item.clone()).collect();
        let levels = self.levels(&items).await;
        let group = self.group().clone();
        let readiness = self.health.readiness();
        let at = written(SystemTime::now());
        let view = LiveView::of(&self.about, at, &glance, levels.as_ref(), history, group, readiness);
        // Holds because the view is made of strings, numbers and lists.
        serde_json::to_string(&view).expect("a snapshot is always JSON").into()
    }

    /// What is left of these items; `None` where the database does not say in time.
    async fn levels(&self, items: &[Item]) -> Option<AsOf<Vec<ItemLevel>>> {
        match timeout(LIVE_LEVELS_LIMIT, self.queries.stock_of(items)).await {
            Ok(Ok(levels)) => Some(levels),
            Ok(Err(error)) => {
                // Readiness says it.
                tracing::debug!(error = &error as &dyn std::error::Error, "levels for the live page");
                None
            }
            Err(_) => None,
        }
    }

    async fn ask_members(&self) {
        let Some(members) = &self.members else { return };
        let mut seen = self.newest.subscribe();
        loop {
            // Somebody looks once there is a snapshot.
            let somebody_looks = async {
                let looked = seen.wait_for(|newest| !newest.is_empty()).await.map(drop);
                // Holds because this has the sender.
                looked.expect("snapshots can come");
            };
            if self.stop.run_until_cancelled(somebody_looks).await.is_none() {
                return;
            }
            let answer = timeout(MEMBERS_LIMIT, members()).await;
            let asked_at = written(SystemTime::now());
            *self.group() = match answer {
                Ok(Ok(members)) => GroupView::known(asked_at, members),
                Ok(Err(error)) => GroupView::unknown(asked_at, &format!("{error:#}")),
                Err(_) => GroupView::unknown(asked_at, "Kafka does not answer"),
            };
            if self.stop.run_until_cancelled(sleep(MEMBERS_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// Lets one in who looks.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Viewer, Problem> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            Problem::new(Kind::Busy, format!("{MAX_STREAMS} look already: close a page that is not needed"))
        })?;
        let mut newest = self.newest.subscribe();
        newest.mark_changed();
        self.viewers.fetch_add(1, Ordering::SeqCst);
        self.arrived.notify_one();
        Ok(Viewer { hub: Arc::clone(self), newest, _permit: permit })
    }
}

/// One who looks, until dropped.
pub(super) struct Viewer {
    hub: Arc<Hub>,
    newest: watch::Receiver<Arc<str>>,
    _permit: OwnedSemaphorePermit,
}

impl Viewer {
    /// The next snapshot; those that came while the one before was on its way are left out. `None` at the end.
    pub(super) async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            tokio::select! {
                () = self.hub.stop.cancelled() => return None,
                changed = self.newest.changed() => changed.ok()?,
            }
            let text = Arc::clone(&self.newest.borrow_and_update());
            if !text.is_empty() {
                let event = Event::default().event("snapshot").data(&*text);
                return Some((Ok(event), self));
            }
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.hub.viewers.fetch_sub(1, Ordering::SeqCst);
    }
}
