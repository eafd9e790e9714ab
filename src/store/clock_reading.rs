//! How far a database's clock is from this machine's.

use crate::ledger::Stamp;

/// A clock that was asked, and when by this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// This machine's clock before the question.
    pub before: Stamp,
    /// The database's answer.
    pub answered: Stamp,
    /// This machine's clock after it.
    pub after: Stamp,
}

impl ClockReading {
    /// How far the database's clock is ahead of this machine's at least, in microseconds; negative when it is behind;
    /// 0 where the answer fits between question and end.
    #[must_use]
    pub fn ahead(&self) -> i64 {
        if self.answered.0 > self.after.0 {
            self.answered.0.saturating_sub(self.after.0)
        } else if self.answered.0 < self.before.0 {
            self.answered.0.saturating_sub(self.before.0)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_only_said_to_differ_by_what_the_way_does_not_explain() {
        let reading =
            |answered| ClockReading { before: Stamp(100), answered: Stamp(answered), after: Stamp(200) };
        assert_eq!(reading(100).ahead(), 0);
        assert_eq!(reading(200).ahead(), 0);
        assert_eq!(reading(250).ahead(), 50);
        assert_eq!(reading(40).ahead(), -60);
    }
}
