//! Why something failed, in one line.

use std::error::Error;

/// An error with its causes, from what was being done to why it failed. A cause whose words end the line already is left
/// out: sqlx's and librdkafka's errors say their cause's words themselves.
#[must_use]
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !line.ends_with(&words) {
            line = format!("{line}: {words}");
        }
        cause = next.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};

    use super::*;

    #[test]
    fn each_cause_is_said_and_none_twice() {
        let full = std::io::Error::other("the disk is full");
        let error = Err::<(), _>(sqlx::Error::Io(full)).context("locking the levels").unwrap_err();
        assert_eq!(
            of(error.as_ref()),
            "locking the levels: error communicating with database: the disk is full"
        );
        let timed_out = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        let error = anyhow!(timed_out).context("no answer about topic orders");
        let line = of(error.as_ref());
        assert!(line.starts_with("no answer about topic orders: Meta data fetch error: "), "{line}");
        assert_eq!(line.matches("OperationTimedOut").count(), 1, "{line}");
        assert_eq!(of(anyhow!("alone").as_ref()), "alone");
    }
}
