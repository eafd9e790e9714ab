//! The ledger in its order and the topics in theirs, side by side.

use std::collections::HashMap;

use anyhow::Result;
use tokio::task::block_in_place;

use super::past::{Entry, Pages};
use super::topics::{Reader, Stretch};
use crate::event::Record;
use crate::ledger::TopicPartition;

/// A page of the ledger with the records its decisions were made of.
#[derive(Debug, Default)]
pub struct Page {
    /// Each decision, and its record where that is within what is read and there.
    pub decided: Vec<(Entry, Option<Record>)>,
    /// Records on the way that made no decision.
    pub others: Vec<Record>,
}

/// Reads a ledger together with stretches of the topics its records are in.
///
/// The records of one partition were decided in their order; so each partition is read once, in step with the ledger.
pub struct Join<'a> {
    pages: Pages<'a>,
    reader: Reader,
    stretches: HashMap<TopicPartition, Stretch>,
    ended: bool,
}

impl<'a> Join<'a> {
    /// `reader` reads these `stretches`.
    #[must_use]
    pub fn new(pages: Pages<'a>, reader: Reader, stretches: &[Stretch]) -> Self {
        let stretches = stretches.iter().map(|stretch| (stretch.at.clone(), stretch.clone())).collect();
        Self { pages, reader, stretches, ended: false }
    }

    /// The ledger's pages.
    pub fn pages(&mut self) -> &mut Pages<'a> {
        &mut self.pages
    }

    /// Whether the record of a decision is within what is read.
    #[must_use]
    pub fn reads(&self, entry: &Entry) -> bool {
        entry.decision.source.as_ref().is_some_and(|source| {
            self.stretches.get(&source.at).is_some_and(|stretch| stretch.holds(source.offset))
        })
    }

    /// The next page; `None` at the end of both. After the ledger's end come the records that are left.
    ///
    /// # Errors
    /// When the ledger or the topics cannot be read.
    pub async fn next(&mut self) -> Result<Option<Page>> {
        if !self.ended {
            let entries = self.pages.next().await?;
            if !entries.is_empty() {
                return block_in_place(|| self.find_records(entries)).map(Some);
            }
            self.ended = true;
        }
        let mut page = Page::default();
        block_in_place(|| {
            while page.others.len() < super::past::PAGE
                && let Some(record) = self.reader.take_next()?
            {
                page.others.push(record);
            }
            Ok((!page.others.is_empty()).then_some(page))
        })
    }

    fn find_records(&mut self, entries: Vec<Entry>) -> Result<Page> {
        let mut page = Page { decided: Vec::with_capacity(entries.len()), others: Vec::new() };
        for entry in entries {
            let mut found = None;
            if let Some(source) = entry.decision.source.as_ref().filter(|_| self.reads(&entry)) {
                while self.reader.peek(&source.at)?.is_some_and(|next| next.source.offset < source.offset) {
                    page.others.extend(self.reader.pop(&source.at)?);
                }
                if self.reader.peek(&source.at)?.is_some_and(|next| next.source.offset == source.offset) {
                    found = self.reader.pop(&source.at)?;
                }
            }
            page.decided.push((entry, found));
        }
        Ok(page)
    }
}
