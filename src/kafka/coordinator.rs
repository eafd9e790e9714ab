//! A group's coordinator that is not there yet.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// Longest wait for a group to have a coordinator: a broker that has just started, or just become it, reads the group's
/// offsets first.
pub(super) const COORDINATOR_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks again while the answer is that the coordinator is not there yet, for `limit` at most. Blocks.
///
/// # Errors
/// What Kafka answered last.
pub(super) fn wait_for_coordinator<T>(
    limit: Duration,
    mut ask: impl FnMut() -> KafkaResult<T>,
) -> KafkaResult<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(error) if is_on_its_way(&error) && begun.elapsed() < limit => {
                tracing::debug!(%error, "waiting for the group's coordinator");
                std::thread::sleep(PAUSE.min(limit));
            }
            answer => return answer,
        }
    }
}

/// Whether a group's coordinator is only not there yet.
fn is_on_its_way(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADING: KafkaError = KafkaError::GroupListFetch(RDKafkaErrorCode::CoordinatorLoadInProgress);

    #[test]
    fn a_coordinator_that_still_reads_its_groups_is_asked_again() {
        let mut answers = [Err(LOADING), Err(LOADING), Ok(7)].into_iter();
        let answer = wait_for_coordinator(COORDINATOR_LIMIT, || answers.next().expect("not asked once more"));
        assert_eq!(answer, Ok(7));
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
