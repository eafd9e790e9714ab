//! How a worker, or a stage of its pipeline, ends before it is told to, and what is done then.

use super::failure::Failure;
use crate::causes;
use crate::kafka;

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A stop that leaves something to the next start, which finishes it. Nothing is lost.
    #[error(
        "stopped before everything in hand was decided and published; the next start goes on there: {}",
        causes::of(.0.as_ref())
    )]
    Unfinished(anyhow::Error),
    /// A static member was silent past its session and joined again, and librdkafka took the answer to a question under its
    /// old name for another instance's doing. Its successor, made by the same process, goes on.
    #[error("this member was silent for too long and is fenced by its own successor in the group")]
    FencedByItself,
    /// It cannot go on, and a successor could not either.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<Failure> for PipelineError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.into())
    }
}

impl From<kafka::Error> for PipelineError {
    fn from(error: kafka::Error) -> Self {
        Self::Failed(error.into())
    }
}
