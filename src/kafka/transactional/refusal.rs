//! Which of a transaction's records Kafka refuses, and whether it ever will take them.
//!
//! A refused record fails its transaction, and with it everything beside it.
//! The delivery report names the record, but not always it alone: Kafka
//! checks records in sets as they were sent, so good ones are refused along
//! with a large one; and what may not be written at all is refused before it
//! is sent, with no report. So what is not clear is published again with more
//! care: topic by topic, and who is under suspicion alone.

use std::collections::BTreeSet;
use std::fmt;

use rdkafka::error::RDKafkaErrorCode;

use crate::config::TopicArgs;
use crate::event::{Channel, Outgoing};
use crate::kafka::error::ClientError;
use crate::kafka::record::topic;

/// Most records sent each alone in one transaction: at a few milliseconds each it ends well within its time.
const ALONE_MAX: usize = 200;

/// A record that Kafka refuses, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its index among what was published.
    pub index: usize,
    /// The topic it was for.
    pub topic: String,
    /// Why.
    pub why: RefusalCode,
}

/// Kafka's word for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalCode(RDKafkaErrorCode);

impl RefusalCode {
    /// The record is larger than its topic allows.
    pub const TOO_LARGE: Self = Self(RDKafkaErrorCode::MessageSizeTooLarge);
    /// This user may not write to the topic.
    pub const NOT_PERMITTED: Self = Self(RDKafkaErrorCode::TopicAuthorizationFailed);
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Refusal {
    /// Whether a smaller record would be taken.
    #[must_use]
    pub fn is_for_size(&self) -> bool {
        RefusalKind::of(self.why.0) == Some(RefusalKind::Size)
    }

    /// Whether it is its topic that nothing may be written to.
    #[must_use]
    pub fn is_for_topic(&self) -> bool {
        RefusalKind::of(self.why.0) == Some(RefusalKind::Topic)
    }
}

/// What a refusal is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusalKind {
    /// A record's size, or that of the set it was sent in.
    Size,
    /// One record's content.
    Record,
    /// Everything written to a topic.
    Topic,
}

impl RefusalKind {
    /// `None` where the next try may go well.
    fn of(code: RDKafkaErrorCode) -> Option<Self> {
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize => Some(Self::Size),
            RDKafkaErrorCode::InvalidRecord => Some(Self::Record),
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition => Some(Self::Topic),
            _ => None,
        }
    }
}

/// What a failed try taught.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    /// It may go well the next time.
    CanPass,
    /// It never will, but it is not clear yet for which records.
    LookCloser,
    /// The same, and too many are under suspicion to send each alone: fewer must be published at once.
    TooMany,
    /// These are refused.
    Known(Vec<Refusal>),
}

/// How carefully a transaction is published.
#[derive(Debug, Default)]
pub(super) struct Care {
    by_topic: bool,
    alone: BTreeSet<usize>,
}

impl Care {
    /// Topic by topic from the start, or all at once.
    pub(super) fn new(by_topic: bool) -> Self {
        Self { by_topic, alone: BTreeSet::new() }
    }

    /// Whether topics are published one after another.
    pub(super) fn is_by_topic(&self) -> bool {
        self.by_topic
    }

    /// What is sent together; the next group waits until the one before has arrived.
    pub(super) fn groups(&self, events: &[&Outgoing]) -> Vec<Vec<usize>> {
        let others = |channel: Option<Channel>| -> Vec<usize> {
            let is_meant = |index: &usize| channel.is_none_or(|channel| events[*index].channel == channel);
            (0..events.len()).filter(|index| is_meant(index) && !self.alone.contains(index)).collect()
        };
        let mut groups = if self.by_topic {
            let mut channels: Vec<Channel> = Vec::new();
            for event in events {
                if !channels.contains(&event.channel) {
                    channels.push(event.channel);
                }
            }
            channels.into_iter().map(|channel| others(Some(channel))).collect()
        } else {
            vec![others(None)]
        };
        groups.extend(self.alone.iter().map(|index| vec![*index]));
        groups.retain(|group| !group.is_empty());
        groups
    }

    /// Learns from a failed transaction: its error, the reports of its records, and the group sent last.
    pub(super) fn learn(
        &mut self,
        cause: &ClientError,
        failed: &[(usize, RDKafkaErrorCode)],
        group: &[usize],
        events: &[&Outgoing],
        topics: &TopicArgs,
    ) -> Lesson {
        if cause.code() == Some(RDKafkaErrorCode::InvalidTimestamp) {
            tracing::warn!(
                "Kafka refuses the time of records: this host's clock and the brokers' are further apart than a topic \
                 allows (message.timestamp.after.max.ms, message.timestamp.before.max.ms). Set the clocks right; until \
                 then nothing is published"
            );
            return Lesson::CanPass;
        }
        let refusal = |index: usize, why: RDKafkaErrorCode| Refusal {
            index,
            topic: topic(topics, events[index].channel).to_owned(),
            why: RefusalCode(why),
        };
        let named = |kind: RefusalKind| -> Vec<(usize, RDKafkaErrorCode)> {
            failed.iter().filter(|(_, code)| RefusalKind::of(*code) == Some(kind)).copied().collect()
        };
        // Everything for the topics of these is refused.
        let whole_topics = |refused: &[(usize, RDKafkaErrorCode)]| {
            let of = |index: usize| {
                refused.iter().find(|(named, _)| events[*named].channel == events[index].channel)
            };
            let indexes = (0..events.len()).filter_map(|index| Some((index, of(index)?.1)));
            Lesson::Known(indexes.map(|(index, why)| refusal(index, why)).collect())
        };

        let (of_record, of_topic, of_size) =
            (named(RefusalKind::Record), named(RefusalKind::Topic), named(RefusalKind::Size));
        // librdkafka (2.12) calls several that are refused together invalid, whatever Kafka said: that is the cause alone.
        let is_said = of_record.len() == 1 || cause.code() == Some(RDKafkaErrorCode::InvalidRecord);
        if !of_record.is_empty() && is_said {
            return Lesson::Known(of_record.into_iter().map(|(index, why)| refusal(index, why)).collect());
        }
        if !of_topic.is_empty() {
            return whole_topics(&of_topic);
        }
        if !of_size.is_empty() {
            let is_alone = |index: usize| of_size.len() == 1 || (group.len() == 1 && group[0] == index);
            if let [(index, why), ..] = of_size[..]
                && is_alone(index)
            {
                return Lesson::Known(vec![refusal(index, why)]);
            }
            self.alone.extend(of_size.iter().map(|(index, _)| *index));
            return if self.alone.len() > ALONE_MAX { Lesson::TooMany } else { Lesson::LookCloser };
        }
        // No record was refused by name: it may not even be sent.
        let Some(why) = cause.code().filter(|code| RefusalKind::of(*code) == Some(RefusalKind::Topic)) else {
            return Lesson::CanPass;
        };
        let Some(first) = group.first() else { return Lesson::CanPass };
        if group.iter().all(|index| events[*index].channel == events[*first].channel) {
            whole_topics(&[(*first, why)])
        } else {
            self.by_topic = true;
            Lesson::LookCloser
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;
    use rdkafka::error::RDKafkaErrorCode::{
        InvalidRecord, InvalidTimestamp, MessageSizeTooLarge, NotEnoughReplicas, PurgeQueue,
        TopicAuthorizationFailed,
    };

    use super::*;

    fn event(channel: Channel) -> Outgoing {
        Outgoing { channel, key: None, value: None, headers: Vec::new() }
    }

    fn topics() -> TopicArgs {
        let [orders, adjustments, accepted, rejected, levels, dead] =
            ["orders", "adjustments", "accepted", "rejected", "levels", "dead"].map(str::to_owned);
        TopicArgs {
            orders_topic: orders,
            adjustments_topic: adjustments,
            accepted_topic: accepted,
            rejected_topic: rejected,
            levels_topic: levels,
            dead_letter_topic: dead,
        }
    }

    /// What is learned from a failure of this group of an accept, a reject and a dead letter.
    fn learned(
        care: &mut Care,
        cause: RDKafkaErrorCode,
        failed: &[(usize, RDKafkaErrorCode)],
        group: &[usize],
    ) -> Lesson {
        let events = [Channel::Accepted, Channel::Rejected, Channel::DeadLetter].map(event);
        let events: Vec<&Outgoing> = events.iter().collect();
        care.learn(&KafkaError::Flush(cause).into(), failed, group, &events, &topics())
    }

    fn groups(care: &Care) -> Vec<Vec<usize>> {
        let events = [Channel::Accepted, Channel::Rejected, Channel::DeadLetter].map(event);
        care.groups(&events.iter().collect::<Vec<_>>())
    }

    fn known(index: usize, topic: &str, why: RDKafkaErrorCode) -> Lesson {
        Lesson::Known(vec![Refusal { index, topic: topic.to_owned(), why: RefusalCode(why) }])
    }

    #[test]
    fn what_can_pass_is_no_refusal() {
        let mut care = Care::default();
        let failed = [(0, NotEnoughReplicas), (1, PurgeQueue), (2, PurgeQueue)];
        assert_eq!(learned(&mut care, NotEnoughReplicas, &failed, &[0, 1, 2]), Lesson::CanPass);
        assert_eq!(groups(&care), [[0, 1, 2]]);
    }

    #[test]
    fn a_record_refused_by_itself_is_known_at_once() {
        let mut care = Care::default();
        let failed = [(2, MessageSizeTooLarge), (0, PurgeQueue)];
        assert_eq!(
            learned(&mut care, MessageSizeTooLarge, &failed, &[0, 1, 2]),
            known(2, "dead", MessageSizeTooLarge)
        );
        let failed = [(1, InvalidRecord)];
        assert_eq!(
            learned(&mut care, InvalidRecord, &failed, &[0, 1, 2]),
            known(1, "rejected", InvalidRecord)
        );
    }

    #[test]
    fn records_refused_for_this_hosts_clock_or_the_brokers_are_sent_again() {
        let mut care = Care::default();
        for failed in [
            // The one of its set that is refused has Kafka's own word; several have librdkafka's.
            vec![(0, InvalidTimestamp), (1, PurgeQueue)],
            vec![(0, InvalidRecord), (1, InvalidRecord), (2, PurgeQueue)],
        ] {
            assert_eq!(learned(&mut care, InvalidTimestamp, &failed, &[0, 1, 2]), Lesson::CanPass);
            assert_eq!(groups(&care), [[0, 1, 2]]);
        }
        // Where something else failed before, nobody knows Kafka's word for these.
        let failed = [(0, InvalidRecord), (1, InvalidRecord)];
        assert_eq!(learned(&mut care, NotEnoughReplicas, &failed, &[0, 1, 2]), Lesson::CanPass);
        let refused = learned(&mut care, InvalidRecord, &failed, &[0, 1, 2]);
        let Lesson::Known(known) = &refused else { panic!("{refused:?}") };
        assert_eq!(known.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn records_refused_together_for_their_size_are_sent_each_alone() {
        let mut care = Care::default();
        let failed = [(1, MessageSizeTooLarge), (2, MessageSizeTooLarge)];
        assert_eq!(learned(&mut care, MessageSizeTooLarge, &failed, &[0, 1, 2]), Lesson::LookCloser);
        assert_eq!(groups(&care), [[0], [1], [2]]);
        let failed = [(2, MessageSizeTooLarge)];
        assert_eq!(
            learned(&mut care, MessageSizeTooLarge, &failed, &[2]),
            known(2, "dead", MessageSizeTooLarge)
        );
    }

    #[test]
    fn a_topic_that_may_not_be_written_is_found_topic_by_topic() {
        let mut care = Care::default();
        let failed = [(0, PurgeQueue), (1, PurgeQueue), (2, PurgeQueue)];
        assert_eq!(learned(&mut care, TopicAuthorizationFailed, &failed, &[0, 1, 2]), Lesson::LookCloser);
        assert_eq!(groups(&care), [[0], [1], [2]]);
        assert_eq!(
            learned(&mut care, TopicAuthorizationFailed, &failed[1..2], &[1]),
            known(1, "rejected", TopicAuthorizationFailed)
        );
    }
}
