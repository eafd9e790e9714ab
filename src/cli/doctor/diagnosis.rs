//! What a look comes to: one line for a person, one object for a machine.

use serde::Serialize;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Nothing wrong, but somebody should know: what could not be looked at too.
    Note,
    /// It works now, and will not always.
    Warning,
    /// `run` does not work with this, or not rightly.
    Error,
}

impl Severity {
    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Diagnosis {
    /// How bad it is.
    pub(super) severity: Severity,
    /// What was looked at; stays the same from version to version.
    pub(super) check: &'static str,
    /// What was found.
    pub(super) what: String,
    /// What to do; `None` where there is nothing to do.
    pub(super) advice: Option<String>,
}

impl Diagnosis {
    /// As it should be.
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, check, what: what.into(), advice: None }
    }

    /// Somebody should know.
    pub(super) fn note(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::bad(Severity::Note, check, what, advice)
    }

    /// It works now, and will not always.
    pub(super) fn warning(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::bad(Severity::Warning, check, what, advice)
    }

    /// `run` does not work with this.
    pub(super) fn error(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::bad(Severity::Error, check, what, advice)
    }

    /// What could not be looked at, and why: never silently well.
    pub(super) fn unknown(
        check: &'static str,
        what: &str,
        why: &dyn std::fmt::Display,
        advice: impl Into<String>,
    ) -> Self {
        Self::note(check, format!("cannot look at {what}: {why}"), advice)
    }

    fn bad(
        severity: Severity,
        check: &'static str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { severity, check, what: what.into(), advice: Some(advice.into()) }
    }
}
