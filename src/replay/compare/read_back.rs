//! What was published, read back.

use anyhow::Result;
use serde::Deserialize;
use tokio::task::block_in_place;

use super::super::Progress;
use super::super::placement::Placement;
use super::super::published::{Event, letter_class, letter_of, time_of};
use super::super::reconciler::Reconciler;
use super::comparison::Comparison;
use super::retained::Kept;
use crate::event::{Channel, FaultCode, Record};
use crate::kafka::reader::Reader;
use crate::ledger::{Offset, Source, TopicPartition};

impl<R: Reconciler> Comparison<'_, R> {
    /// Reads back all that was published of the ranges; how much that was, and where it stands.
    pub(super) fn read_published(&mut self, progress: &Progress) -> Result<(u64, Vec<Placement>)> {
        block_in_place(|| {
            let names = self.over.scope.topics;
            let (mut published, mut placements) = (0, Vec::new());
            for (topic, channel) in [
                (&names.accepted_topic, Channel::Accepted),
                (&names.rejected_topic, Channel::Rejected),
                (&names.dead_letter_topic, Channel::DeadLetter),
            ] {
                let whole = self.over.topics.whole_topic(topic)?;
                let mut reader: Reader = self.over.topics.read(&whole)?;
                let mut placement = Placement::new(whole.len());
                while let Some(record) = reader.take_next()? {
                    if self.is_published_of_these(channel, &record)
                        && let Some(event) = Event::found(channel, &record)
                        && (self.meant.contains(&event.id) || !self.over.scope.filter.looks_inside())
                        && (event.is_ours() || self.over.scope.filter.is_everything())
                    {
                        if self.is_retained(channel, &record) {
                            published += 1;
                            let of = if channel == Channel::DeadLetter {
                                letter_of(&record)
                            } else {
                                published_source(&record)
                            };
                            placement.see(&record, &event.id, of);
                            self.reconciler.find(event, &record.source);
                        } else {
                            self.reconciler.find_unretained(event, &record.source);
                        }
                    }
                    progress.add(1)?;
                }
                placements.push(placement);
            }
            Ok((published, placements))
        })
    }

    /// Whether an event is of a record of the ranges, and of what was decided since when it was asked for.
    fn is_published_of_these(&self, channel: Channel, event: &Record) -> bool {
        if channel == Channel::DeadLetter {
            // What was decided and is lost is a finding of its own.
            return letter_class(event) != Some(FaultCode::UndecidedBelowPosition.name())
                && letter_of(event).is_some_and(|source| self.is_read(&source));
        }
        self.over.scope.since.is_none_or(|since| time_of(event).is_none_or(|time| time >= since))
            && published_source(event).is_none_or(|source| self.is_read(&source))
    }

    /// Whether one like this is expected: nothing as old is deleted from its partition.
    fn is_retained(&self, channel: Channel, event: &Record) -> bool {
        time_of(event)
            .is_none_or(|time| self.over.retained.keeps(channel, event.key.as_deref(), time) != Kept::No)
    }
}

/// The record that a result says it is of.
fn published_source(event: &Record) -> Option<Source> {
    #[derive(Deserialize)]
    struct Published<'a> {
        #[serde(borrow)]
        source: At<'a>,
    }
    #[derive(Deserialize)]
    struct At<'a> {
        #[serde(borrow)]
        topic: std::borrow::Cow<'a, str>,
        partition: i32,
        offset: i64,
    }
    let Published { source } = serde_json::from_slice(event.value.as_deref()?).ok()?;
    Some(Source { at: TopicPartition::new(&*source.topic, source.partition), offset: Offset(source.offset) })
}
