//! Why Kafka did not do what was asked, and whether it may when asked again. Other rooms know no more of it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::admin_request::NoAnswer;

/// What was asked of Kafka, and why it was not done.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: String,
    #[source]
    cause: Cause,
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error(transparent)]
    JoinedAnew(#[from] JoinedAnew),
}

impl Error {
    /// Whether the same may be done when it is asked again: it is all but what this user is not allowed to do.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let Cause::Kafka(kafka) = &self.cause else { return true };
        !matches!(
            kafka.rdkafka_error_code(),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)
        )
    }
}

impl Error {
    /// A client is closed, or about to be.
    pub(super) fn ended() -> Self {
        Self { what: "this client is closed".to_owned(), cause: KafkaError::Canceled.into() }
    }
}

impl From<JoinedAnew> for Error {
    fn from(why: JoinedAnew) -> Self {
        Self { what: "cannot go on as this member of the group".to_owned(), cause: why.into() }
    }
}

/// The group gave this member up, and it joined anew. librdkafka (2.12, `JoinGroup` answered by `UNKNOWN_MEMBER_ID`) keeps
/// the partitions it had, and so may the group; but another instance had them in between.
#[derive(Debug, thiserror::Error)]
#[error(
    "the group had given this member up, and has it as another now: its partitions may have been another's meanwhile"
)]
pub struct JoinedAnew;

/// Why the client did not do something, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ClientError(#[from] pub(super) KafkaError);

impl ClientError {
    /// It was not done, since who should do it is closed.
    pub const CLOSED: Self = Self(KafkaError::Canceled);

    /// Whether it refuses a transactional producer, which the next try would meet again.
    #[must_use]
    pub fn is_final_for_producer(&self) -> bool {
        matches!(
            self.code(),
            Some(
                RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::InvalidTransactionTimeout
                    | RDKafkaErrorCode::UnsupportedVersion
                    | RDKafkaErrorCode::SaslAuthenticationFailed
            )
        )
    }

    /// Kafka's code for it, where it has one.
    pub(super) fn code(&self) -> Option<RDKafkaErrorCode> {
        self.0.rdkafka_error_code()
    }
}

/// Says what was being done when it failed.
pub(super) trait Doing<T> {
    /// With these words.
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, Error>;
}

impl<T, C: Into<Cause>> Doing<T> for Result<T, C> {
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, Error> {
        self.map_err(|cause| Error { what: what().into(), cause: cause.into() })
    }
}
