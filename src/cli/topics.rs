//! `stock-verifier topics`: creates the topics, and says which exist already; checks them.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::start_checks::{self, Remark, TopicsToCheck};
use crate::config::{KafkaArgs, TopicArgs};
use crate::console;
use crate::kafka::admin::{Created, TopicPlan, create_topics, settings_of};

/// Largest dead letter, in bytes, where the records are not larger: twice as much as topics take by Kafka's own setting.
const DEAD_LETTER_BYTES: u64 = 2_097_152;

/// The commands about topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Create those that do not exist yet
    Create(CreateArgs),
    /// Check them as `run` does when it starts, and say what is wrong; nothing is started or changed
    ///
    /// Exit status: 0 when all is well, 1 when a topic is missing or not as it should be, or Kafka does not answer.
    Check(CheckArgs),
}

/// The arguments of `topics create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Partitions of each topic: the most instances that can share the work
    #[arg(long, env = "STOCK_VERIFIER_PARTITIONS", value_name = "N", default_value_t = 12,
          value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,

    /// Copies of each partition; -1 takes the brokers' default
    #[arg(long, env = "STOCK_VERIFIER_REPLICATION", value_name = "N", default_value_t = -1,
          allow_negative_numbers = true)]
    replication: i32,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
}

/// The arguments of `topics check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Run although the orders' or the adjustments' topic is compacted: Kafka removes commands from it, unread ones too
    #[arg(long, env = "STOCK_VERIFIER_ACCEPT_COMPACTED_TOPICS")]
    accept_compacted_topics: bool,

    /// Publish no levels; the levels topic need not be there
    #[arg(long, env = "STOCK_VERIFIER_NO_LEVELS")]
    no_levels: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    topics: TopicArgs,
}

/// Runs a command about topics.
///
/// # Errors
/// When Kafka cannot be reached or refuses a topic.
pub async fn run(command: TopicsCommand) -> Result<ExitCode> {
    match command {
        TopicsCommand::Create(args) => create(args).await,
        TopicsCommand::Check(args) => check(args).await,
    }
}

async fn check(args: CheckArgs) -> Result<ExitCode> {
    args.topics.check()?;
    let check = TopicsToCheck {
        kafka: args.kafka,
        topics: args.topics,
        levels: !args.no_levels,
        accept_compacted: args.accept_compacted_topics,
    };
    let found = start_checks::find(&check).await?;
    let mut is_well = found.are_all_there();
    let mut lines: Vec<Line> = Vec::new();
    lines.extend(found.there.iter().map(|(topic, partitions)| Line {
        topic: Some(topic.clone()),
        partitions: Some(*partitions),
        ..Line::new("there", format!("{topic}, {partitions} partitions"))
    }));
    let about = |state, topic: &String, what| Line { topic: Some(topic.clone()), ..Line::new(state, what) };
    lines.extend(found.missing.iter().map(|topic| about("missing", topic, topic.clone())));
    lines.extend(found.hidden.iter().map(|topic| {
        about("hidden", topic, format!("{topic}, there or not: this user may not see it (ACL: Describe)"))
    }));
    // Of a topic that is not there or not seen, Kafka says no more.
    if is_well {
        for remark in start_checks::kept(&check).await.into_iter().chain(start_checks::sizes(&check).await) {
            let (state, what) = match remark {
                Remark::Refused(what) | Remark::Warned(what) => ("wrong", what),
                Remark::Unknown(what) => ("unknown", what),
            };
            is_well &= state != "wrong";
            lines.push(Line::new(state, what));
        }
    }
    console::print(&written(&lines, args.json)?)?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is said of a topic, or of all.
#[derive(Debug, Serialize)]
struct Line {
    /// There, missing, hidden, wrong or unknown; created, exists or refused.
    state: &'static str,
    /// Which; absent where a remark is about several.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<usize>,
    /// For a person.
    what: String,
}

impl Line {
    fn new(state: &'static str, what: String) -> Self {
        Self { state, topic: None, partitions: None, what }
    }
}

fn written(lines: &[Line], json: bool) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(lines)? + "\n");
    }
    let line = |Line { state, what, .. }: &Line| format!("{state:<9} {what}\n");
    Ok(lines.iter().map(line).collect::<Vec<_>>().concat())
}

async fn create(args: CreateArgs) -> Result<ExitCode> {
    args.topics.check()?;
    let names = &args.topics;
    let plan = |name, settings: &[(&'static str, &str)]| TopicPlan {
        name,
        partitions: args.partitions,
        replication: args.replication,
        settings: settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    };
    let plans = [
        plan(&names.orders_topic, &[]),
        plan(&names.adjustments_topic, &[]),
        plan(&names.accepted_topic, &[]),
        plan(&names.rejected_topic, &[]),
        // Only the newest level of each SKU matters. An hour is enough for a reader to see a SKU's deletion.
        plan(
            &names.levels_topic,
            &[
                ("cleanup.policy", "compact"),
                ("delete.retention.ms", "3600000"),
                ("min.cleanable.dirty.ratio", "0.1"),
            ],
        ),
    ];
    let mut created = create_topics(&args.kafka, &plans).await?;
    // A dead letter is its record and some headers more: so once those are there that records come by.
    let letter_bytes = letter_bytes(&args).await.to_string();
    // Kept until someone has looked at them.
    let letters =
        plan(&names.dead_letter_topic, &[("retention.ms", "-1"), ("max.message.bytes", &letter_bytes)]);
    created.extend(create_topics(&args.kafka, &[letters]).await?);
    let lines: Vec<Line> = created
        .into_iter()
        .map(|topic| {
            let (state, name, what) = match topic {
                Created::Now(name) => ("created", name.clone(), name),
                Created::Before(name) => ("exists", name.clone(), name),
                Created::Refused(name, why) => ("refused", name.clone(), format!("{name}: {why}")),
            };
            Line { topic: Some(name), ..Line::new(state, what) }
        })
        .collect();
    let refused = lines.iter().filter(|line| line.state == "refused").count();
    console::print(&written(&lines, args.json)?)?;
    if refused > 0 {
        bail!("{refused} topics could not be created");
    }
    Ok(ExitCode::SUCCESS)
}

/// How large a dead letter must be able to be, so that any record can be kept whole.
async fn letter_bytes(args: &CreateArgs) -> u64 {
    // Where Kafka does not say, the usual is right; `run` looks again.
    let read = settings_of(&args.kafka, &args.topics.read()).await.unwrap_or_default();
    let largest = read.iter().filter_map(start_checks::largest_record).max().unwrap_or_default();
    DEAD_LETTER_BYTES.max(largest + start_checks::LETTER_ROOM)
}
