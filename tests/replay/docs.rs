//! The runbook: see docs/replay.md.
