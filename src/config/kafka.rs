//! How to reach Kafka, and librdkafka's properties.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use super::secret::{SecretParser, read_secret};

/// How to reach Kafka.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Kafka brokers to begin with: HOST:PORT[,HOST:PORT…]
    #[arg(long, env = "STOCK_VERIFIER_BROKERS", value_name = "LIST", default_value = "127.0.0.1:9092")]
    pub brokers: String,

    /// A file that holds the SASL password (sasl.password), so that it is on no command line
    #[arg(long, env = "STOCK_VERIFIER_KAFKA_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,

    /// Any librdkafka property, as kcat has it; may be given many times (in the environment: one a line)
    #[arg(short = 'X', long = "property", env = "STOCK_VERIFIER_PROPERTY", value_name = "KEY=VALUE",
          value_parser = SecretParser(parse_property), value_delimiter = '\n',
          hide_env_values = true, hide_default_value = true)]
    pub properties: Vec<Property>,
}

impl KafkaArgs {
    /// The password from its file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub(crate) fn password(&self) -> Result<Option<SecretString>> {
        self.kafka_password_file.as_deref().map(read_secret).transpose()
    }
}

/// One librdkafka property. Its value may be a secret: it is never printed.
#[derive(Debug, Clone)]
pub struct Property {
    /// Its name in librdkafka's CONFIGURATION.md.
    pub key: String,
    value: SecretString,
}

impl Property {
    /// A property by its name and value.
    #[must_use]
    pub fn new(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), value: SecretString::from(value) }
    }

    /// Its value.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

/// Properties that the protocol rests on.
const OWN_PROPERTIES: [&str; 9] = [
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "transactional.id",
    "enable.idempotence",
    "delivery.report.only.error",
];

/// Other names that librdkafka has for a property, each with the one that is used here. Under both names at once, which one
/// counts would be chance.
pub(crate) const ALIASES: [(&str, &str); 12] = [
    ("metadata.broker.list", "bootstrap.servers"),
    ("auto.commit.enable", "enable.auto.commit"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

fn parse_property(text: &str) -> Result<Property, String> {
    let (given, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let given = given.trim();
    let key = ALIASES.iter().find(|(alias, _)| *alias == given).map_or(given, |(_, name)| name);
    if OWN_PROPERTIES.contains(&key) {
        return Err(format!("{given} is set by the verifier itself and cannot be changed"));
    }
    Ok(Property::new(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_propertys_value_is_not_in_the_debug_text() {
        let property = parse_property("sasl.password=hunter2").unwrap();
        assert!(!format!("{property:?}").contains("hunter2"));
    }

    #[test]
    fn properties_the_protocol_rests_on_cannot_be_changed() {
        assert!(parse_property("enable.auto.commit=true").unwrap_err().contains("cannot be changed"));
        for alias in [
            "metadata.broker.list=elsewhere:9092",
            " bootstrap.servers =elsewhere",
            "auto.commit.enable=true",
        ] {
            assert!(parse_property(alias).unwrap_err().contains("cannot be changed"), "{alias}");
        }
        assert_eq!(parse_property("compression.codec=zstd").unwrap().key, "compression.type");
        let property = parse_property("sasl.jaas=a=b").unwrap();
        assert_eq!((&*property.key, property.expose()), ("sasl.jaas", "a=b"));
    }
}
