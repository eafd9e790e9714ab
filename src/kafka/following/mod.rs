//! Reading on as topics grow, in no group: every process that follows reads all of it. Two ways share the client: [`topic`]
//! follows a whole topic from its beginning and says up to which moment it is known; [`partitions`] reads single ones from
//! given offsets on, and can be sent elsewhere.

pub mod partitions;
pub mod topic;

use anyhow::{Context as _, Result};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::config::KafkaArgs;
use crate::kafka::closing::BoundedClose;
use crate::kafka::password::WithPassword;

/// Says nothing: librdkafka goes on by itself; that Kafka is away, readiness says.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "following topics");
    }
}

impl ConsumerContext for Quiet {}

/// A client that reads what is committed. `buffers` says how much it fetches ahead; the user's properties count above it.
/// `group` is a name that librdkafka wants, and asks whether it may; nothing joins or commits.
fn consumer(
    kafka: &KafkaArgs,
    client_id: &str,
    group: &str,
    buffers: &[(&str, &str)],
) -> Result<BoundedClose<WithPassword<BaseConsumer<Quiet>>>> {
    let mut config = kafka.client()?;
    for (name, value) in buffers {
        config.set(*name, *value);
    }
    kafka.overlay(&mut config);
    config
        .set("client.id", client_id)
        .set("group.id", group)
        .set("allow.auto.create.topics", "false")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        // What retention took is gone: what is left is read.
        .set("auto.offset.reset", "earliest")
        .remove("group.instance.id");
    let client = config.create_with_context(Quiet).context("the Kafka configuration is refused")?;
    Ok(BoundedClose::new(WithPassword::consumer(client)))
}
