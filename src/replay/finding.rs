//! What a comparison comes to.

use serde::Serialize;

/// Findings of each kind kept at most; all are counted.
const MOST_FINDINGS: u64 = 1_000;

/// What kind of difference it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It is there, and says something else.
    Differing,
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Extra,
}

impl Class {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Differing => "differing",
            Self::Missing => "missing",
            Self::Extra => "extra",
        }
    }
}

/// A difference, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which invariant of the design it breaks: 4 to 6.
    pub invariant: u8,
    /// What kind it is.
    pub class: Class,
    /// What it is about: a command, an event, a record, a partition.
    pub subject: String,
    /// What was found, and what should be.
    pub what: String,
}

/// What a comparison came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AuditReport {
    /// Decisions compared.
    pub decisions: u64,
    /// Records that were absorbed, as they should be: repeats, and holds that were not over.
    pub absorbed: u64,
    /// Records that are dead letters, as they should be.
    pub dead_letters: u64,
    /// Results and dead letters that were read back.
    pub published: u64,
    /// How many differences of each kind there are.
    pub differing: u64,
    /// Things that should be there and are not.
    pub missing: u64,
    /// Things that are there and should not be.
    pub extra: u64,
    /// The differences; the first thousand of each kind.
    pub findings: Vec<Finding>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl AuditReport {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differing + self.missing + self.extra == 0
    }

    /// Counts a difference, and keeps it while there is room.
    pub(super) fn add(
        &mut self,
        invariant: u8,
        class: Class,
        subject: &impl ToString,
        what: impl Into<String>,
    ) {
        let count = match class {
            Class::Differing => &mut self.differing,
            Class::Missing => &mut self.missing,
            Class::Extra => &mut self.extra,
        };
        *count += 1;
        // Each kind by itself, so that none crowds another out.
        if *count <= MOST_FINDINGS {
            let (subject, what) = (subject.to_string(), what.into());
            self.findings.push(Finding { invariant, class, subject, what });
        }
    }
}
