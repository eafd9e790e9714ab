//! Places in the write-ahead log, pure: where the primary's ends, and what may be said of a replica by that.
//!
//! Places can be compared in one history alone. A failover begins another: the new primary's log goes on, on a timeline of
//! its own, from where its copy of the old one ended. A replica that had copied more of the old one stands where the new one
//! will soon be too, with commits that the ledger lost. No standby says, to every role and at once, which timeline it
//! replays: its control file does minutes later. But that one cannot go on. So a replica is taken for one of this history
//! when it is seen to go on, or to stand right where the log ended, and for one of another when it is ahead of the primary.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::ledger::Stamp;

/// Samples of the primary kept: five minutes of them. A replica that is further behind is older than any.
const SAMPLES: usize = 1_200;

/// A place in the write-ahead log, in bytes from its beginning.
pub(super) type Lsn = i64;

/// Where the primary's log ended, and when. Whatever was committed until then is before that end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Which history is written: another one after each failover.
    pub(super) timeline: u32,
    pub(super) end: Lsn,
    /// By the primary's clock.
    pub(super) at: Stamp,
    /// By this process's, before it was asked for.
    pub(super) asked: Instant,
}

/// The primary's last samples, the newest last; all of one history.
#[derive(Debug, Default)]
pub(super) struct Samples {
    last: VecDeque<Sample>,
    /// How many histories there were.
    history: u64,
}

impl Samples {
    pub(super) fn push(&mut self, sample: Sample) {
        let begins = |last: &Sample| last.timeline != sample.timeline || last.end > sample.end;
        // Another server is the primary now, or the same one lost the end of its log: what was known is of a history that
        // ended.
        if self.last.back().is_none_or(begins) {
            self.last.clear();
            self.history += 1;
        }
        if self.last.len() == SAMPLES {
            self.last.pop_front();
        }
        self.last.push_back(sample);
    }

    /// The number of the history that they are of.
    pub(super) fn history(&self) -> u64 {
        self.history
    }

    /// The newest that lies before this place of the log, or right there.
    pub(super) fn reached(&self, replayed: Lsn) -> Option<Sample> {
        self.last.iter().rfind(|sample| sample.end <= replayed).copied()
    }

    /// Whether the log ended right there.
    fn ended_at(&self, place: Lsn) -> bool {
        self.last.iter().rev().any(|sample| sample.end == place)
    }

    /// Whether the log ended before this place though the primary was asked after a replica had said it.
    fn ended_before(&self, replayed: Replayed) -> bool {
        let after = self.last.iter().find(|sample| sample.asked >= replayed.said);
        after.is_some_and(|sample| sample.end < replayed.up_to)
    }
}

/// How far a standby has replayed the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replayed {
    pub(super) up_to: Lsn,
    /// Before it was asked.
    pub(super) asked: Instant,
    /// Once it had answered.
    pub(super) said: Instant,
}

/// What a replica's log is to the primary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descent {
    /// A copy of it.
    OfIt,
    /// Not known yet: the next look may say it.
    Unknown,
    /// Of another history.
    OfAnother,
}

/// What is known of a replica's descent, look by look.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The history that the rest is about.
    history: u64,
    last: Option<Replayed>,
    is_of_it: bool,
    is_of_another: bool,
}

impl Looks {
    /// After one more look.
    pub(super) fn look(&mut self, samples: &Samples, now: Replayed) -> Descent {
        let was_rewound = self.last.is_some_and(|last| now.up_to < last.up_to);
        if was_rewound || self.history != samples.history {
            *self = Self { history: samples.history, ..Self::default() };
        }
        if let Some(last) = self.last.replace(now) {
            self.is_of_it |= now.up_to > last.up_to;
            // A primary has written what it sends.
            self.is_of_another |= samples.ended_before(last);
        }
        self.is_of_it |= samples.ended_at(now.up_to);
        match (self.is_of_another, self.is_of_it) {
            (true, _) => Descent::OfAnother,
            (false, true) => Descent::OfIt,
            (false, false) => Descent::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What is said at moments that are so many milliseconds apart.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, millis: u64) -> Instant {
            self.0 + Duration::from_millis(millis)
        }

        fn sample(&self, millis: u64, timeline: u32, end: Lsn) -> Sample {
            let at = Stamp(i64::try_from(millis).unwrap());
            Sample { timeline, end, at, asked: self.at(millis) }
        }

        fn replayed(&self, millis: u64, up_to: Lsn) -> Replayed {
            Replayed { up_to, asked: self.at(millis), said: self.at(millis + 1) }
        }
    }

    fn clock() -> Clock {
        Clock(Instant::now())
    }

    #[test]
    fn a_replica_has_all_of_the_last_sample_whose_end_it_replayed() {
        let (clock, mut samples) = (clock(), Samples::default());
        for (millis, end) in [(1, 100), (2, 100), (3, 200), (4, 300)] {
            samples.push(clock.sample(millis, 1, end));
        }
        let reached = |replayed| samples.reached(replayed).map(|sample| sample.at.0);
        assert_eq!(reached(99), None);
        assert_eq!(reached(100), Some(2), "nothing was written in between");
        assert_eq!(reached(299), Some(3));
        assert_eq!(reached(1_000), Some(4));
    }

    #[test]
    fn a_primary_whose_log_is_shorter_or_on_another_timeline_is_another() {
        let (clock, mut samples) = (clock(), Samples::default());
        samples.push(clock.sample(1, 1, 500));
        samples.push(clock.sample(2, 1, 400));
        assert_eq!(samples.reached(450).map(|sample| sample.at.0), Some(2));
        let before = samples.history();
        samples.push(clock.sample(3, 2, 450));
        assert_eq!(
            samples.reached(449).map(|sample| sample.at.0),
            None,
            "what was known is of the old timeline"
        );
        assert_eq!(samples.history(), before + 1);
        for millis in 4..2_000 {
            samples.push(clock.sample(millis, 2, 600));
        }
        assert_eq!(samples.last.len(), SAMPLES, "its bound");
        assert_eq!(samples.history(), before + 1);
    }

    #[test]
    fn a_replica_that_is_ahead_of_the_primary_is_of_another_history_until_there_is_another_primary() {
        let (clock, mut samples, mut looks) = (clock(), Samples::default(), Looks::default());
        samples.push(clock.sample(0, 2, 1_000));
        // It had copied more of the old primary's log than the new primary had.
        assert_eq!(looks.look(&samples, clock.replayed(10, 1_500)), Descent::Unknown);
        assert!(samples.reached(1_500).is_some(), "by its place alone it is fresh");
        samples.push(clock.sample(250, 2, 1_100));
        assert_eq!(looks.look(&samples, clock.replayed(260, 1_500)), Descent::OfAnother);
        // The primary passes its place, which changes nothing.
        samples.push(clock.sample(500, 2, 1_500));
        samples.push(clock.sample(750, 2, 2_000));
        assert_eq!(looks.look(&samples, clock.replayed(760, 1_500)), Descent::OfAnother);
        // It was its primary that was away, and is back.
        samples.push(clock.sample(1_000, 3, 1_500));
        assert_eq!(looks.look(&samples, clock.replayed(1_010, 1_500)), Descent::OfIt);
    }

    #[test]
    fn a_replica_that_stands_still_between_two_samples_is_not_taken_for_one_of_this_history() {
        let (clock, mut samples, mut looks) = (clock(), Samples::default(), Looks::default());
        samples.push(clock.sample(0, 2, 1_000));
        assert_eq!(looks.look(&samples, clock.replayed(10, 1_500)), Descent::Unknown);
        // The primary wrote so much at once that it was never seen behind the replica.
        samples.push(clock.sample(250, 2, 9_000));
        assert_eq!(looks.look(&samples, clock.replayed(260, 1_500)), Descent::Unknown);
        // One that follows goes on.
        assert_eq!(looks.look(&samples, clock.replayed(510, 8_000)), Descent::OfIt);
        samples.push(clock.sample(750, 2, 9_500));
        assert_eq!(
            looks.look(&samples, clock.replayed(760, 8_000)),
            Descent::OfIt,
            "slow is no other history"
        );
    }

    #[test]
    fn a_replica_that_was_rewound_is_looked_at_anew() {
        let (clock, mut samples, mut looks) = (clock(), Samples::default(), Looks::default());
        samples.push(clock.sample(0, 2, 1_000));
        looks.look(&samples, clock.replayed(10, 1_500));
        samples.push(clock.sample(250, 2, 1_100));
        assert_eq!(looks.look(&samples, clock.replayed(260, 1_500)), Descent::OfAnother);
        assert_eq!(looks.look(&samples, clock.replayed(510, 900)), Descent::Unknown);
        samples.push(clock.sample(750, 2, 1_200));
        assert_eq!(looks.look(&samples, clock.replayed(760, 1_200)), Descent::OfIt);
    }

    #[test]
    fn a_replica_that_is_where_an_idle_primary_is_is_known_at_once() {
        let (clock, mut samples, mut looks) = (clock(), Samples::default(), Looks::default());
        assert_eq!(looks.look(&samples, clock.replayed(0, 500)), Descent::Unknown, "nothing to compare with");
        samples.push(clock.sample(10, 1, 500));
        assert_eq!(looks.look(&samples, clock.replayed(20, 500)), Descent::OfIt);
        // What it said before the primary wrote on was not ahead of it.
        samples.push(clock.sample(250, 1, 700));
        assert_eq!(looks.look(&samples, clock.replayed(260, 700)), Descent::OfIt);
    }
}
