//! The ledger in its order and the topics in theirs, side by side.

use std::collections::{HashMap, VecDeque};

use anyhow::Result;
use tokio::task::block_in_place;

use super::incarnations::Incarnations;
use super::replay_state::{Entry, PAGE, Pages};
use crate::event::Record;
use crate::kafka::reader::{OffsetRange, Reader};
use crate::ledger::{Source, TopicPartition};

/// A page of the ledger with the records its decisions were made of.
#[derive(Debug, Default)]
pub struct Page {
    /// Each decision, and its record where that is within what is read and there.
    pub decided: Vec<(Entry, Option<Record>)>,
    /// Records on the way that made no decision.
    pub others: Vec<Record>,
}

/// Reads a ledger together with ranges of the topics its records are in.
///
/// The records of one partition were decided in their order; so each partition is read once, in step with the ledger.
pub struct Join<'a> {
    pages: Pages<'a>,
    reader: Reader,
    ranges: HashMap<TopicPartition, OffsetRange>,
    incarnations: &'a Incarnations,
    /// Entries read and not joined yet.
    pending: VecDeque<Entry>,
    ended: bool,
}

impl<'a> Join<'a> {
    /// `reader` reads these `ranges`, which are of the last topics that the ledger's `incarnations` know.
    #[must_use]
    pub fn new(
        pages: Pages<'a>,
        reader: Reader,
        ranges: &[OffsetRange],
        incarnations: &'a Incarnations,
    ) -> Self {
        let ranges = ranges.iter().map(|range| (range.at.clone(), range.clone())).collect();
        Self { pages, reader, ranges, incarnations, pending: VecDeque::new(), ended: false }
    }

    /// The ledger's pages.
    pub fn pages(&mut self) -> &mut Pages<'a> {
        &mut self.pages
    }

    /// The record of a decision, where it is within what is read. That of an earlier topic of this name is not,
    /// wherever it stood.
    #[must_use]
    pub fn source_read<'e>(&self, entry: &'e Entry) -> Option<&'e Source> {
        let source = entry.decision.source.as_ref()?;
        let is_read = self.ranges.get(&source.at).is_some_and(|range| range.holds(source.offset))
            && self.incarnations.is_of_last(&entry.decision);
        is_read.then_some(source)
    }

    /// The next page; `None` at the end of both. After the ledger's end come the records that are left.
    ///
    /// # Errors
    /// When the ledger or the topics cannot be read.
    pub async fn next(&mut self) -> Result<Option<Page>> {
        if self.pending.is_empty() && !self.ended {
            self.pending = self.pages.next().await?.into();
            self.ended = self.pending.is_empty();
        }
        if !self.pending.is_empty() {
            return block_in_place(|| self.find_records()).map(Some);
        }
        let mut page = Page::default();
        block_in_place(|| {
            while page.others.len() < PAGE
                && let Some(record) = self.reader.take_next()?
            {
                page.others.push(record);
            }
            Ok((!page.others.is_empty()).then_some(page))
        })
    }

    /// Joins what is pending, until that is a page: records that made no decision may be many.
    fn find_records(&mut self) -> Result<Page> {
        let mut page = Page { decided: Vec::with_capacity(self.pending.len()), others: Vec::new() };
        while let Some(entry) = self.pending.front() {
            let mut found = None;
            if let Some(source) = self.source_read(entry) {
                while self.reader.peek(&source.at)?.is_some_and(|next| next.source.offset < source.offset) {
                    if page.others.len() == PAGE {
                        return Ok(page);
                    }
                    page.others.extend(self.reader.pop(&source.at)?);
                }
                if self.reader.peek(&source.at)?.is_some_and(|next| next.source.offset == source.offset) {
                    found = self.reader.pop(&source.at)?;
                }
            }
            page.decided.extend(self.pending.pop_front().map(|entry| (entry, found)));
        }
        Ok(page)
    }
}
