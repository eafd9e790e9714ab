//! How what the verifier depends on is, and since when: looked at beside the requests, so that a probe is answered at
//! once, and costs nobody anything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::answer::time_schema;
use super::bounds::{HEALTH_EVERY, HEALTH_LIMIT};
use crate::ledger::{Stamp, TopicPartition};

/// How a dependency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DependencyState {
    /// It answered when it was last asked.
    Up,
    /// It did not.
    Down,
    /// It was not asked yet.
    Unknown,
}

/// A dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Dependency {
    /// Which one: `database` or `kafka`.
    name: &'static str,
    /// How it is.
    state: DependencyState,
    /// Since when it is so, by this machine's clock.
    #[schema(schema_with = time_schema)]
    since: String,
}

/// A partition that is read no more, since something of it cannot be published. A person must look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct StoppedView {
    topic: String,
    partition: i32,
    /// Since when, by this machine's clock.
    #[schema(schema_with = time_schema)]
    since: String,
}

/// Whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Whether all dependencies are up, no partition is stopped, and the process goes on.
    pub(super) ready: bool,
    /// Whether the process was told to stop: it finishes what it has in hand, and ends.
    stopping: bool,
    /// What it depends on.
    dependencies: Vec<Dependency>,
    /// Partitions that were stopped.
    stopped_partitions: Vec<StoppedView>,
}

/// Names the partitions that are stopped, with since when each is.
pub type Stopped = dyn Fn() -> Vec<(TopicPartition, SystemTime)> + Send + Sync;

/// What is known of the dependencies.
pub(super) struct Health {
    dependencies: Mutex<Vec<Dependency>>,
    stopped: Box<Stopped>,
    /// Cancelled once the process was told to stop.
    stopping: CancellationToken,
}

impl Health {
    /// Nothing is known of these dependencies yet.
    pub(super) fn new(
        dependencies: &[&'static str],
        stopped: Box<Stopped>,
        stopping: CancellationToken,
    ) -> Self {
        let unknown = dependencies.iter().map(|name| Dependency {
            name,
            state: DependencyState::Unknown,
            since: written(SystemTime::now()),
        });
        Self { dependencies: Mutex::new(unknown.collect()), stopped, stopping }
    }

    fn dependencies(&self) -> MutexGuard<'_, Vec<Dependency>> {
        // A panic while it was held left it whole.
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a dependency is. Its `since` moves when that is another than before.
    pub(super) fn note(&self, name: &str, is_up: bool) {
        let state = if is_up { DependencyState::Up } else { DependencyState::Down };
        let mut dependencies = self.dependencies();
        if let Some(known) = dependencies.iter_mut().find(|known| known.name == name && known.state != state)
        {
            known.state = state;
            known.since = written(SystemTime::now());
        }
    }

    /// How everything is now.
    pub(super) fn readiness(&self) -> Readiness {
        let dependencies = self.dependencies().clone();
        let stopped: Vec<_> = (self.stopped)()
            .into_iter()
            .map(|(at, since)| StoppedView {
                topic: at.topic.to_string(),
                partition: at.partition,
                since: written(since),
            })
            .collect();
        let all_up = dependencies.iter().all(|known| known.state == DependencyState::Up);
        let stopping = self.stopping.is_cancelled();
        Readiness {
            ready: all_up && stopped.is_empty() && !stopping,
            stopping,
            dependencies,
            stopped_partitions: stopped,
        }
    }

    /// Asks a dependency how it is, again and again, until stopped.
    pub(super) async fn watch<F, T, E>(
        self: Arc<Self>,
        name: &'static str,
        ask: impl Fn() -> F,
        stop: CancellationToken,
    ) where
        F: Future<Output = Result<T, E>>,
        E: std::fmt::Display,
    {
        let mut ticks = interval(HEALTH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let answer = timeout(HEALTH_LIMIT, ask()).await;
            if let Ok(Err(error)) = &answer {
                // Who needs it says it louder.
                tracing::debug!("{name} is down: {error:#}");
            }
            self.note(name, matches!(answer, Ok(Ok(_))));
        }
    }
}

/// A time of this machine's clock, as every answer writes it.
pub(super) fn written(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)).rfc3339()
}

/// The same of milliseconds since 1970.
pub(super) fn written_ms(ms: i64) -> String {
    Stamp(ms.saturating_mul(1_000)).rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_moves_only_when_the_state_does_and_a_stopped_partition_is_not_ready() {
        let stopped = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&stopped);
        let seen = Box::new(move || seen.lock().unwrap().clone());
        let health = Health::new(&["database", "kafka"], seen, CancellationToken::new());
        assert!(!health.readiness().ready);
        health.note("database", true);
        assert!(!health.readiness().ready);
        health.note("kafka", true);
        let ready = health.readiness();
        assert!(ready.ready);
        health.note("kafka", true);
        assert_eq!(health.readiness(), ready);
        health.note("kafka", false);
        assert!(!health.readiness().ready);
        health.note("kafka", true);
        stopped.lock().unwrap().push((TopicPartition::new("orders", 3), UNIX_EPOCH));
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.stopped_partitions[0].since, "1970-01-01T00:00:00.000000Z");
    }
}
