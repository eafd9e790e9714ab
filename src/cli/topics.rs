//! `stock-verifier topics create`: creates the topics, and says which exist already.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::start_checks;
use crate::config::{KafkaArgs, TopicArgs};

/// Longest wait for the brokers.
const ADMIN_LIMIT: Duration = Duration::from_secs(30);

/// Largest dead letter, in bytes, where the records are not larger: twice as much as topics take by Kafka's own setting.
const DEAD_LETTER_BYTES: u64 = 2_097_152;

/// The commands about topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Create those that do not exist yet
    Create(CreateArgs),
}

/// The arguments of `topics create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,

    /// Partitions of each topic: the most instances that can share the work
    #[arg(long, env = "STOCK_VERIFIER_PARTITIONS", value_name = "N", default_value_t = 12,
          value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,

    /// Copies of each partition; -1 takes the brokers' default
    #[arg(long, env = "STOCK_VERIFIER_REPLICATION", value_name = "N", default_value_t = -1,
          allow_negative_numbers = true)]
    replication: i32,
}

/// Creates the topics.
///
/// # Errors
/// When Kafka cannot be reached or refuses a topic.
pub async fn run(command: TopicsCommand) -> Result<ExitCode> {
    let TopicsCommand::Create(args) = command;
    args.topics.check()?;
    let mut config = args.kafka.client()?;
    args.kafka.overlay(&mut config);
    let admin: AdminClient<DefaultClientContext> =
        config.create().context("the Kafka configuration is refused")?;
    let names = &args.topics;
    let topic = |name| NewTopic::new(name, args.partitions, TopicReplication::Fixed(args.replication));
    let topics = [
        topic(&names.orders_topic),
        topic(&names.adjustments_topic),
        topic(&names.accepted_topic),
        topic(&names.rejected_topic),
        // Only the newest level of each SKU matters. An hour is enough for a reader to see a SKU's deletion.
        topic(&names.levels_topic)
            .set("cleanup.policy", "compact")
            .set("delete.retention.ms", "3600000")
            .set("min.cleanable.dirty.ratio", "0.1"),
    ];
    let options = AdminOptions::new().operation_timeout(Some(ADMIN_LIMIT)).request_timeout(Some(ADMIN_LIMIT));
    let no_answer = || format!("no answer from Kafka at {}", args.kafka.brokers);
    let mut created = admin.create_topics(&topics, &options).await.with_context(no_answer)?;
    // A dead letter is its record and some headers more: so once those are there that records come by.
    let letter_bytes = letter_bytes(&args).await.to_string();
    // Kept until someone has looked at them.
    let letters =
        topic(&names.dead_letter_topic).set("retention.ms", "-1").set("max.message.bytes", &letter_bytes);
    created.extend(admin.create_topics([&letters], &options).await.with_context(no_answer)?);
    let mut refused = 0;
    for result in created {
        match result {
            Ok(name) => println!("created   {name}"),
            Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => println!("exists    {name}"),
            Err((name, error)) => {
                refused += 1;
                println!("refused   {name}: {error}");
            }
        }
    }
    if refused > 0 {
        bail!("{refused} topics could not be created");
    }
    Ok(ExitCode::SUCCESS)
}

/// How large a dead letter must be able to be, so that any record can be kept whole.
async fn letter_bytes(args: &CreateArgs) -> u64 {
    // Where Kafka does not say, the usual is right; `run` looks again.
    let read = start_checks::settings_of(&args.kafka, &args.topics.read()).await.unwrap_or_default();
    let largest = read.iter().filter_map(start_checks::largest_record).max().unwrap_or_default();
    DEAD_LETTER_BYTES.max(largest + start_checks::LETTER_ROOM)
}
