//! The gate's page: what it does now, for people.

use crate::http::{Page, embedded};

/// Its own files; style and tools are those of the verifier's page.
pub(super) static PAGE: Page = Page {
    index: embedded!("index.html", "text/html; charset=utf-8"),
    files: &[embedded!("gate.js", "text/javascript; charset=utf-8")],
};
