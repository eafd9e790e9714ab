//! Whether what follows an order stands on its partition: only there is it decided after it.

use super::diagnosis::Diagnosis;
use super::facts::Known;
use crate::kafka::examiner::Cluster;
use crate::kafka::partitioner::{crc32_partition_of, partition_of};
use crate::ledger::CommandKind;
use crate::store::{FollowerApart, Followers};

const CHECK: &str = "kafka.partitioner";

/// What to do where they stand apart.
const ADVICE: &str = "Key both by the order's id, and give all producers one partitioner: Kafka's own clients have murmur2; \
    librdkafka and what is built on it (Python, Go, .NET, Rust, kcat) need partitioner=murmur2_random. See docs/contract.md. \
    If the topic was given more partitions, it passes with the orders from before";

/// Judges the newest commands that follow orders.
pub(super) fn judge(found: &Known<Followers>, cluster: &Cluster) -> Diagnosis {
    let followers = match found {
        Ok(followers) => followers,
        Err(why) => {
            return Diagnosis::unknown(CHECK, "where commands that follow orders stand", why, "Look again");
        }
    };
    let count = followers.looked_at;
    let Some(newest) = followers.apart.first() else {
        return Diagnosis::ok(
            CHECK,
            match count {
                0 => "nothing that follows an order was decided lately".to_owned(),
                _ => format!("the last {count} commands that follow an order stand on its partition"),
            },
        );
    };
    let apart = followers.apart.len();
    let what = newest.kind.map_or("a command", CommandKind::name);
    Diagnosis::warning(
        CHECK,
        format!(
            "{apart} of the last {count} commands that follow an order stand on another partition than it, and may be decided \
             before it, and so rejected: the newest is {what} of {} on partition {}, whose order is on {}{}",
            newest.order_id,
            newest.partition,
            newest.of_order,
            partitioners(newest, cluster),
        ),
        ADVICE,
    )
}

/// Which partitioners the two came by, where both are known ones.
fn partitioners(apart: &FollowerApart, cluster: &Cluster) -> &'static str {
    let partitions = cluster.topics.get(&*apart.of_order.topic).map_or(0, Vec::len);
    let Ok(partitions) = i32::try_from(partitions) else { return "" };
    let key = apart.order_id.as_str().as_bytes();
    let (murmur2, crc32) = (partition_of(key, partitions), crc32_partition_of(key, partitions));
    let stand_on = (apart.of_order.partition, apart.partition);
    if stand_on == (murmur2, crc32) {
        "; the order is where Kafka's own clients put its id, the other where librdkafka does by default"
    } else if stand_on == (crc32, murmur2) {
        "; the order is where librdkafka puts its id by default, the other where Kafka's own clients do"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Severity;
    use super::*;
    use crate::kafka::examiner::PartitionLayout;
    use crate::ledger::{Id, TopicPartition};

    const PARTITIONS: i32 = 6;

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        let layout = (0..PARTITIONS).map(|partition| PartitionLayout {
            partition,
            led: true,
            replicas: 1,
            in_sync: 1,
        });
        cluster.topics.insert("o".to_owned(), layout.collect());
        cluster
    }

    fn judged(looked_at: usize, apart: &[(i32, i32)]) -> Diagnosis {
        let apart = apart.iter().map(|(of_order, partition)| FollowerApart {
            order_id: Id::new("o-2").unwrap(),
            of_order: TopicPartition::new("o", *of_order),
            kind: Some(CommandKind::OrderCancelled),
            partition: *partition,
        });
        judge(&Ok(Followers { looked_at, apart: apart.collect() }), &cluster())
    }

    #[test]
    fn nothing_and_what_stands_together_are_well() {
        for looked_at in [0, 7] {
            assert_eq!(judged(looked_at, &[]).severity, Severity::Ok);
        }
    }

    #[test]
    fn a_command_apart_from_its_order_is_named_with_the_partitioners_it_came_by() {
        let (murmur2, crc32) = (partition_of(b"o-2", PARTITIONS), crc32_partition_of(b"o-2", PARTITIONS));
        for (of_order, partition, says) in [
            (murmur2, crc32, "the order is where Kafka's own clients put its id"),
            (crc32, murmur2, "the order is where librdkafka puts its id by default"),
        ] {
            let found = judged(9, &[(of_order, partition), (0, 1)]);
            assert_eq!(found.severity, Severity::Warning);
            let place =
                format!("order.cancelled of o-2 on partition {partition}, whose order is on o[{of_order}]");
            for words in ["2 of the last 9", &place, says] {
                assert!(found.what.contains(words), "{}", found.what);
            }
            assert!(found.advice.unwrap().contains("murmur2_random"));
        }
        let other =
            judged(9, &[(murmur2, (0..PARTITIONS).find(|one| ![murmur2, crc32].contains(one)).unwrap())]);
        assert!(!other.what.contains("puts its id") && !other.what.contains("put its id"), "{}", other.what);
    }

    #[test]
    fn what_cannot_be_looked_at_is_a_note() {
        assert_eq!(judge(&Err("no".to_owned()), &cluster()).severity, Severity::Note);
    }
}
