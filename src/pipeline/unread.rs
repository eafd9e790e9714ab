//! Partitions that no member of the group reads.
//!
//! With the classic protocol a partition goes from one member to another in two rebalances: by the first its owner lets go of
//! it and joins again, and so begins the second, which gives it to the other. An owner that was killed in between, and is back
//! under its static name before its session ends, is given what the first left it, and no second one begins (KIP-345): what it
//! was to let go of nobody reads until somebody joins or leaves. So each instance looks; where some stay unread, the first
//! instance of the group leaves it and joins anew, then the second, and so on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use crate::causes;
use crate::config::{GroupArgs, KafkaArgs, TopicArgs};
use crate::kafka::asker::Asker;
use crate::kafka::consumer::{Role, client_id};
use crate::kafka::groups::GroupDescription;
use crate::kafka::topic_ids::Described;

/// How often to look: two small requests.
const LOOK: Duration = Duration::from_secs(5);
/// How long partitions stay unread before the first instance joins anew; each next one waits as long again. Between two
/// rebalances it takes an owner the time of its batches in hand.
const STANDS: Duration = Duration::from_secs(20);
/// Instances that one waits for at most.
const MOST_BEFORE: u32 = 1_000;
/// How often that time is doubled at most, where joining anew did not help.
const MOST_DOUBLED: u32 = 6;
/// What Kafka calls a group in which no rebalance goes on.
const STABLE: &str = "Stable";

/// Partitions, each with its topic.
type Partitions = BTreeSet<(String, i32)>;

/// Looks whether a group reads all its partitions.
pub(super) struct UnreadWatch {
    kafka: KafkaArgs,
    group: GroupArgs,
    topics: [String; 2],
    patience: Patience,
}

impl UnreadWatch {
    /// Of this group, which reads these topics.
    pub(super) fn new(kafka: &KafkaArgs, group: &GroupArgs, topics: &TopicArgs) -> Self {
        let topics = [topics.orders_topic.clone(), topics.adjustments_topic.clone()];
        Self { kafka: kafka.clone(), group: group.clone(), topics, patience: Patience::default() }
    }

    /// Comes back when this instance is to join anew, as partitions stay unread.
    ///
    /// # Errors
    /// When the Kafka configuration is refused.
    pub(super) async fn is_to_join_anew(&mut self) -> Result<()> {
        let own = client_id(&self.group, Some(Role::Orders));
        let mut unread = Unread::default();
        tokio::time::sleep(LOOK).await;
        let mut asker = Asker::new(&self.kafka, &client_id(&self.group, None), None)?;
        loop {
            let looked;
            (asker, looked) = self.look(asker).await?;
            match looked {
                Ok((group, all)) => {
                    unread.seen(unread_of(&group, all), Instant::now());
                    if let Some(stood) = unread.stood()
                        && stood >= self.patience.of(place_of(&own, &group))
                    {
                        self.patience.ended();
                        let names: Vec<String> =
                            unread.partitions.iter().map(|(topic, at)| format!("{topic}[{at}]")).collect();
                        tracing::warn!(
                            "no member of the group reads {}, as happens when one is killed while the group moves them: joining \
                             it anew, so that it shares them again",
                            names.join(", ")
                        );
                        return Ok(());
                    }
                    if group.state == STABLE && unread.partitions.is_empty() {
                        self.patience = Patience::default();
                    }
                }
                // It says nothing for or against.
                Err(error) => {
                    tracing::debug!("cannot look for unread partitions: {}", causes::of(error.as_ref()));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The group, and all partitions there are; on a thread that may block. Gives the client back.
    async fn look(&self, asker: Asker) -> Result<(Asker, Result<(GroupDescription, Partitions)>)> {
        let (group, topics) = (self.group.group.clone(), self.topics.clone());
        spawn_blocking(move || {
            let looked = look(&asker, &group, &topics);
            (asker, looked)
        })
        .await
        .context("looking for unread partitions panicked")
    }
}

fn look(asker: &Asker, group: &str, topics: &[String; 2]) -> Result<(GroupDescription, Partitions)> {
    let described = asker.describe(&topics.each_ref().map(String::as_str))?;
    let counts = topics.iter().zip(described).map(|(topic, described)| match described {
        Described::There { partitions, .. } => (topic, partitions),
        Described::Absent | Described::NotPermitted => (topic, 0),
    });
    let all = counts.flat_map(|(topic, count)| (0..count).map(|at| (topic.clone(), at))).collect();
    Ok((asker.group(group)?, all))
}

/// Those of all partitions that no member of a group at rest was given; none while it rebalances.
fn unread_of(group: &GroupDescription, mut all: Partitions) -> Partitions {
    if group.state != STABLE {
        return Partitions::new();
    }
    for (topic, partitions) in group.members.iter().flat_map(|member| &member.partitions) {
        for at in partitions {
            all.remove(&(topic.clone(), *at));
        }
    }
    all
}

/// How many instances of the group come before this one, by their names.
fn place_of(own: &str, group: &GroupDescription) -> u32 {
    let suffix = format!("-{}", Role::Orders.name());
    let others = group.members.iter().map(|member| member.client_id.as_str());
    let before: BTreeSet<&str> = others.filter(|other| other.ends_with(&suffix) && *other < own).collect();
    u32::try_from(before.len()).unwrap_or(MOST_BEFORE).min(MOST_BEFORE)
}

/// How long an instance waits until it joins anew: twice as long as before each time that this did not help.
#[derive(Debug, Default)]
struct Patience {
    /// How often it was in vain.
    tries: u32,
}

impl Patience {
    /// How long who has this place in the group waits.
    fn of(&self, place: u32) -> Duration {
        STANDS * (1 + place) * 2_u32.pow(self.tries)
    }

    /// It joins anew, in vain for all that it knows.
    fn ended(&mut self) {
        self.tries = MOST_DOUBLED.min(self.tries + 1);
    }
}

/// What was unread at each of the last looks.
#[derive(Debug, Default)]
struct Unread {
    partitions: Partitions,
    /// When all of them were seen first and last.
    since: Option<(Instant, Instant)>,
}

impl Unread {
    fn seen(&mut self, mut now: Partitions, at: Instant) {
        let still: Partitions = self.partitions.intersection(&now).cloned().collect();
        self.since = match self.since {
            Some((first, _)) if !still.is_empty() => {
                now = still;
                Some((first, at))
            }
            _ if now.is_empty() => None,
            _ => Some((at, at)),
        };
        self.partitions = now;
    }

    /// How long some have been unread.
    fn stood(&self) -> Option<Duration> {
        self.since.map(|(first, last)| last - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::groups::MemberDescription;

    fn partitions(of: &[i32]) -> Partitions {
        of.iter().map(|at| ("o".to_owned(), *at)).collect()
    }

    fn group(state: &str, members: &[(&str, &[i32])]) -> GroupDescription {
        let members = members.iter().map(|(id, given)| MemberDescription {
            client_id: (*id).to_owned(),
            host: String::new(),
            partitions: [("o".to_owned(), given.iter().copied().collect())].into(),
        });
        GroupDescription {
            name: "g".to_owned(),
            state: state.to_owned(),
            members: members.collect(),
            operations: None,
        }
    }

    #[test]
    fn unread_is_what_no_member_of_a_group_at_rest_was_given() {
        let shared = [("a-orders", &[0, 1][..]), ("b-orders", &[3])];
        assert_eq!(unread_of(&group(STABLE, &shared), partitions(&[0, 1, 2, 3])), partitions(&[2]));
        assert_eq!(unread_of(&group("PreparingRebalance", &shared), partitions(&[2])), Partitions::new());
    }

    #[test]
    fn it_stands_as_long_as_the_same_ones_are_unread() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut unread = Unread::default();
        unread.seen(partitions(&[1, 2]), begin);
        unread.seen(partitions(&[2, 3]), begin + second);
        assert_eq!(unread.stood(), Some(second));
        // Others than those: a rebalance went by.
        unread.seen(partitions(&[3]), begin + 2 * second);
        assert_eq!(unread.stood(), Some(Duration::ZERO));
        unread.seen(Partitions::new(), begin + 3 * second);
        assert_eq!(unread.stood(), None);
    }

    #[test]
    fn who_joins_anew_in_vain_waits_twice_as_long_but_not_for_ever() {
        let mut patience = Patience::default();
        assert_eq!([0, 1, 2].map(|place| patience.of(place)), [STANDS, STANDS * 2, STANDS * 3]);
        patience.ended();
        assert_eq!([0, 1].map(|place| patience.of(place)), [STANDS * 2, STANDS * 4]);
        for _ in 0..100 {
            patience.ended();
        }
        assert_eq!(patience.of(0), STANDS * 64);
        // However large the group is: no overflow.
        assert!(patience.of(MOST_BEFORE) > STANDS * 64_000);
    }

    #[test]
    fn one_instance_after_the_other_is_the_next() {
        let members = [("b-orders", &[][..]), ("b-orders", &[]), ("b-adjustments", &[]), ("a-orders", &[])];
        let places = ["a-orders", "b-orders", "c-orders"].map(|own| place_of(own, &group(STABLE, &members)));
        assert_eq!(places, [0, 1, 2]);
    }
}
