//! Notes what passes by. A few numbers and the latest faults always, a batch at a time; what would cost deciding only
//! while somebody looks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::hot::HotItems;
use super::{Counts, DeadLetter, DecisionCount, Glance, Latency, Stages};
use crate::ledger::{Action, CommandKind, Decision, Outcome, Request};

/// Rejections and dead letters that are kept: as many as a page shows.
const KEPT: usize = 20;
/// Hot items that are shown.
const SHOWN_HOT: usize = 12;
/// Orders of a batch whose items are counted: the others are taken to be like them.
const SAMPLED_ORDERS: usize = 1_000;
/// Lines of a batch that are counted at most, whatever its orders have.
const SAMPLED_LINES: usize = 4_000;
/// Most bytes that are kept of what a dead letter says of its fault.
const DETAIL_BYTES: usize = 300;
/// Longest latency kept apart, in milliseconds; a longer one counts as this long.
const LATENCY_MAX_MS: u64 = 3_600_000;

/// What is noted of one process.
pub struct Recorder {
    is_watched: AtomicBool,
    inner: Mutex<Noted>,
}

struct Noted {
    decisions: Vec<DecisionCount>,
    rejections: VecDeque<Arc<Decision>>,
    dead_letters: VecDeque<DeadLetter>,
    applied: (u64, Duration),
    published: (u64, Duration),
    latency: Histogram<u64>,
    hot: HotItems,
}

impl Default for Recorder {
    fn default() -> Self {
        // Holds because the bounds are constants the library accepts: 1 < LATENCY_MAX_MS, 2 digits.
        let latency = Histogram::new_with_max(LATENCY_MAX_MS, 2).expect("valid histogram bounds");
        let noted = Noted {
            decisions: Vec::new(),
            rejections: VecDeque::with_capacity(KEPT),
            dead_letters: VecDeque::with_capacity(KEPT),
            applied: (0, Duration::ZERO),
            published: (0, Duration::ZERO),
            latency,
            hot: HotItems::new(Instant::now()),
        };
        Self { is_watched: AtomicBool::new(false), inner: Mutex::new(noted) }
    }
}

/// Puts something new before what is known, and lets go of the oldest.
fn keep<T>(kept: &mut VecDeque<T>, new: T) {
    kept.truncate(KEPT - 1);
    kept.push_front(new);
}

fn add(sum: &mut (u64, Duration), took: Duration) {
    sum.0 += 1;
    sum.1 += took;
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        // A panic between two changes leaves a number wrong, nothing worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody begins to look, or nobody does any more.
    pub fn set_watched(&self, is_watched: bool) {
        if is_watched && !self.is_watched.load(Ordering::Relaxed) {
            let mut noted = self.lock();
            noted.hot = HotItems::new(Instant::now());
            noted.latency.reset();
        }
        self.is_watched.store(is_watched, Ordering::Relaxed);
    }

    fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// A batch was applied: what it asked, what was answered, how many decisions ended alike, and how long it took.
    pub fn applied(
        &self,
        requests: &[Request],
        outcomes: &[Outcome],
        counts: &[DecisionCount],
        took: Duration,
    ) {
        let has_rejections = counts.iter().any(|known| known.reason.is_some());
        let mut noted = self.lock();
        add(&mut noted.applied, took);
        for new in counts {
            let known =
                noted.decisions.iter_mut().find(|known| (known.kind, known.reason) == (new.kind, new.reason));
            match known {
                Some(known) => known.count += new.count,
                None => noted.decisions.push(*new),
            }
        }
        if has_rejections {
            noted.reject(outcomes);
        }
        if self.is_watched() {
            noted.want(requests, Instant::now());
        }
    }

    /// A transaction published the results of records that were produced at these moments, in milliseconds since 1970.
    pub fn published(&self, produced_ms: impl Iterator<Item = i64>, now_ms: i64, took: Duration) {
        let mut noted = self.lock();
        add(&mut noted.published, took);
        if self.is_watched() {
            for produced_ms in produced_ms {
                noted.latency.saturating_record(u64::try_from(now_ms - produced_ms).unwrap_or(0));
            }
        }
    }

    /// A dead letter was published.
    pub fn dead_letter(&self, mut letter: DeadLetter) {
        if letter.detail.len() > DETAIL_BYTES {
            let end = (0..=DETAIL_BYTES).rev().find(|end| letter.detail.is_char_boundary(*end));
            letter.detail.truncate(end.unwrap_or(0));
            letter.detail.push('…');
        }
        keep(&mut self.lock().dead_letters, letter);
    }

    /// How much was done so far.
    pub fn counts(&self) -> Counts {
        let noted = self.lock();
        let mut counts = Counts::default();
        for known in noted.decisions.iter().filter(|known| known.kind == CommandKind::OrderCreated) {
            counts.orders += known.count;
            counts.rejected_orders += if known.reason.is_some() { known.count } else { 0 };
        }
        counts
    }

    /// All that is noted here. Times are of what was done since the glance before.
    pub fn glance(&self) -> Glance {
        let mut noted = self.lock();
        noted.hot.fade(Instant::now());
        let stages = Stages {
            applied: std::mem::take(&mut noted.applied),
            published: std::mem::take(&mut noted.published),
            latency: noted.latency(),
        };
        let mut decisions = noted.decisions.clone();
        decisions.sort_unstable_by_key(|known| (std::cmp::Reverse(known.count), known.kind, known.reason));
        Glance {
            decisions,
            stages,
            hot: noted.hot.top(SHOWN_HOT),
            rejections: noted.rejections.iter().cloned().collect(),
            dead_letters: noted.dead_letters.iter().cloned().collect(),
            ..Glance::default()
        }
    }
}

impl Noted {
    /// Keeps the last rejections of a batch.
    fn reject(&mut self, outcomes: &[Outcome]) {
        let rejected = outcomes.iter().rev().filter_map(|outcome| match outcome {
            Outcome::Decided(decision) if !decision.accepted => Some(decision),
            _ => None,
        });
        let new: Vec<_> = rejected.take(KEPT).cloned().collect();
        for decision in new.into_iter().rev() {
            keep(&mut self.rejections, decision);
        }
    }

    /// Counts what orders ask for.
    fn want(&mut self, requests: &[Request], now: Instant) {
        self.hot.fade(now);
        let stride = requests.len().div_ceil(SAMPLED_ORDERS).max(1);
        let stands_for = f64::from(u32::try_from(stride).unwrap_or(u32::MAX));
        let lines = requests.iter().step_by(stride).filter_map(|request| match &request.command.action {
            Action::Take { lines, .. } => Some(lines),
            _ => None,
        });
        for line in lines.flatten().take(SAMPLED_LINES) {
            // A sum of quantities, each far below 2^52.
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let pieces = line.quantity as f64;
            self.hot.add(&line.item, pieces * stands_for);
        }
    }

    /// The latency since the glance before.
    fn latency(&mut self) -> Latency {
        let at = |quantile| Duration::from_millis(self.latency.value_at_quantile(quantile));
        let latency = Latency {
            records: self.latency.len(),
            mean: Duration::try_from_secs_f64(self.latency.mean() / 1_000.0).unwrap_or_default(),
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
        };
        self.latency.reset();
        latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{
        Command, CommandKey, Digest, Id, Item, Offset, Quantity, Seq, Sku, Source, Stamp, Terms,
        TopicPartition,
    };

    fn order(number: usize, sku: &str, pieces: i64) -> Request {
        let item: Item = Sku::new(sku).unwrap().into();
        let id = Id::new(&format!("o-{number}")).unwrap();
        let lines = vec![(item, Quantity::new(pieces).unwrap())];
        Request { command: Command::order_created(id, lines, Terms::default()), source: None }
    }

    fn decided(number: usize, accepted: bool) -> Outcome {
        let key =
            CommandKey { id: Id::new(&format!("o-{number}")).unwrap(), kind: CommandKind::OrderCreated };
        let (seq, digest, decided_at) = (Seq(1), Digest([0; 16]), Stamp(1));
        Outcome::Decided(Arc::new(Decision {
            key,
            seq,
            digest,
            accepted,
            detail: String::new(),
            source: None,
            decided_at,
        }))
    }

    fn count(reason: Option<&'static str>, count: u64) -> DecisionCount {
        DecisionCount { kind: CommandKind::OrderCreated, reason, count }
    }

    fn ids(glance: &Glance) -> Vec<&str> {
        glance.rejections.iter().map(|decision| decision.key.id.as_str()).collect()
    }

    #[test]
    fn what_costs_is_noted_only_while_somebody_looks() {
        let recorder = Recorder::default();
        let requests = [order(1, "MUG", 3)];
        let note = || {
            recorder.applied(&requests, &[decided(1, true)], &[count(None, 1)], Duration::from_millis(2));
            recorder.published([1_000].into_iter(), 1_250, Duration::from_millis(4));
        };
        note();
        let glance = recorder.glance();
        assert_eq!((glance.hot, glance.stages.latency.records), (Vec::new(), 0));
        assert_eq!(glance.stages.applied, (1, Duration::from_millis(2)));
        assert_eq!(glance.stages.published, (1, Duration::from_millis(4)));
        recorder.set_watched(true);
        note();
        let glance = recorder.glance();
        assert_eq!(glance.hot[0].item.sku.as_str(), "MUG");
        assert_eq!(glance.stages.latency.records, 1);
        // Two digits are kept.
        assert!((248..=252).contains(&glance.stages.latency.p99.as_millis()), "{:?}", glance.stages);
        assert_eq!(recorder.glance().stages, Stages::default(), "times are of what is new");
        assert_eq!(recorder.counts(), Counts { orders: 2, rejected_orders: 0 });
    }

    #[test]
    fn a_part_of_a_large_batch_stands_for_all_of_it() {
        let recorder = Recorder::default();
        recorder.set_watched(true);
        let of_which = |number: usize| if (number / 16).is_multiple_of(4) { "A" } else { "B" };
        let requests: Vec<_> = (0..16_000).map(|number| order(number, of_which(number), 1)).collect();
        recorder.applied(&requests, &[], &[], Duration::ZERO);
        recorder.applied(&[order(0, "C", 4_000)], &[], &[], Duration::ZERO);
        let glance = recorder.glance();
        let wanted =
            |sku: &str| glance.hot.iter().find(|hot| hot.item.sku.as_str() == sku).unwrap().wanted_per_second;
        assert!((2.99..3.01).contains(&(wanted("B") / wanted("A"))), "{:?}", glance.hot);
        assert!((0.99..1.01).contains(&(wanted("C") / wanted("A"))), "{:?}", glance.hot);
    }

    #[test]
    fn the_latest_faults_are_kept_newest_first_and_no_more_than_a_few() {
        let recorder = Recorder::default();
        let outcomes: Vec<_> = (0..100).map(|number| decided(number, number % 2 == 0)).collect();
        let counts = [count(None, 50), count(Some("unknown_sku"), 50)];
        recorder.applied(&[], &outcomes, &counts, Duration::ZERO);
        let glance = recorder.glance();
        assert_eq!(glance.rejections.len(), KEPT);
        assert_eq!(ids(&glance)[..2], ["o-99", "o-97"]);
        recorder.applied(&[], &[decided(7, false), decided(8, false)], &counts[1..], Duration::ZERO);
        assert_eq!(ids(&recorder.glance())[..3], ["o-8", "o-7", "o-99"]);
        for offset in 0..30 {
            recorder.dead_letter(DeadLetter {
                source: Source { at: TopicPartition::new("orders", 0), offset: Offset(offset) },
                error: "malformed",
                detail: "ü".repeat(400),
                at_ms: 0,
            });
        }
        let letters = recorder.glance().dead_letters;
        assert_eq!((letters.len(), letters[0].source.offset), (KEPT, Offset(29)));
        assert_eq!(letters[0].detail.chars().count(), DETAIL_BYTES / 2 + 1);
    }
}
