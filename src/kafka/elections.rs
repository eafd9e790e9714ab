//! A group's coordinator, or a partition's leader, that is not there yet.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

/// Longest wait for a group to have a coordinator: a broker that has just started, or just become it, reads the group's
/// offsets first.
pub(super) const COORDINATOR_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a partition to have a leader that knows it is: after a topic is made, a broker ends, or a partition
/// moves. librdkafka (2.12) asks for a partition's offsets once, and gives such an answer back.
pub(super) const LEADER_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks again while the answer is that the coordinator is not there yet, for `limit` at most. Blocks.
///
/// # Errors
/// What Kafka answered last.
pub(super) fn wait_for_coordinator<T>(
    limit: Duration,
    ask: impl FnMut() -> KafkaResult<T>,
) -> KafkaResult<T> {
    wait(limit, ask, |code| {
        use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
        matches!(code, NotCoordinator | CoordinatorNotAvailable | CoordinatorLoadInProgress)
    })
}

/// Asks again while the answer is that the partition's leader is not there yet, or is another by now, for `limit` at most.
/// Blocks.
///
/// # Errors
/// What Kafka answered last.
pub(super) fn wait_for_leader<T>(limit: Duration, ask: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    wait(limit, ask, |code| {
        use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, OffsetNotAvailable};
        matches!(code, NotLeaderForPartition | LeaderNotAvailable | OffsetNotAvailable)
    })
}

fn wait<T>(
    limit: Duration,
    mut ask: impl FnMut() -> KafkaResult<T>,
    is_on_its_way: impl Fn(RDKafkaErrorCode) -> bool,
) -> KafkaResult<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(error)
                if error.rdkafka_error_code().is_some_and(&is_on_its_way) && begun.elapsed() < limit =>
            {
                tracing::debug!(%error, "waiting for a broker to take this over");
                std::thread::sleep(PAUSE.min(limit));
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;

    use super::*;

    const LOADING: KafkaError = KafkaError::GroupListFetch(RDKafkaErrorCode::CoordinatorLoadInProgress);

    #[test]
    fn a_coordinator_that_still_reads_its_groups_is_asked_again() {
        let mut answers = [Err(LOADING), Err(LOADING), Ok(7)].into_iter();
        let answer = wait_for_coordinator(COORDINATOR_LIMIT, || answers.next().expect("not asked once more"));
        assert_eq!(answer, Ok(7));
    }

    #[test]
    fn a_leader_that_is_another_by_now_is_asked_again() {
        let moved = KafkaError::MetadataFetch(RDKafkaErrorCode::NotLeaderForPartition);
        let mut answers = [Err(moved.clone()), Err(moved), Ok(7)].into_iter();
        let answer = wait_for_leader(LEADER_LIMIT, || answers.next().expect("not asked once more"));
        assert_eq!(answer, Ok(7));
    }

    #[test]
    fn a_leader_is_waited_for_within_a_bound() {
        let none = KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable);
        let answer = wait_for_leader(Duration::from_millis(10), || Err::<(), _>(none.clone()));
        assert_eq!(answer, Err(none));
    }

    #[test]
    fn a_coordinator_is_waited_for_within_a_bound() {
        let answer = wait_for_coordinator(Duration::from_millis(10), || Err::<(), _>(LOADING));
        assert_eq!(answer, Err(LOADING));
    }

    #[test]
    fn another_error_is_given_back_at_once() {
        let refused = KafkaError::GroupListFetch(RDKafkaErrorCode::GroupAuthorizationFailed);
        let mut answers = [Err::<(), _>(refused.clone())].into_iter();
        let answer = wait_for_coordinator(COORDINATOR_LIMIT, || answers.next().expect("asked once"));
        assert_eq!(answer, Err(refused));
    }
}
