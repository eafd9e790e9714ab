//! What every client of Kafka is configured with.

use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use secrecy::ExposeSecret as _;

use crate::config::{KafkaArgs, Property};

impl KafkaArgs {
    /// The client configuration that every consumer, producer and admin client starts from.
    ///
    /// # Errors
    /// When the password file cannot be read, or a property of the user's is refused.
    pub fn client(&self) -> Result<ClientConfig> {
        self.properties.iter().try_for_each(check)?;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.software.name", "stock-verifier")
            // A topic that was deleted stays so. A producer makes it anew else, where the broker allows that, by asking for it.
            .set("allow.auto.create.topics", "false");
        if let Some(password) = self.password()? {
            config.set("sasl.password", password.expose_secret());
        }
        Ok(config)
    }

    /// Whether the user sets this property.
    #[must_use]
    pub fn sets(&self, property: &str) -> bool {
        self.properties.iter().any(|given| given.key == property)
    }

    /// Lays the user's properties over a finished configuration.
    pub fn overlay(&self, config: &mut ClientConfig) {
        for property in &self.properties {
            config.set(&property.key, property.expose());
        }
    }
}

/// Refuses what librdkafka would refuse when a client is made, whose error repeats the value. That of a mistyped name
/// may be a password.
fn check(property: &Property) -> Result<()> {
    let (key, value) = (&property.key, property.expose());
    match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            bail!("librdkafka has no property {key:?}; those that there are stand in its CONFIGURATION.md")
        }
        Err(KafkaError::ClientConfig(_, why, ..)) if !repeats(&why, value) => {
            bail!("librdkafka refuses the property {key:?}: {}", why.trim_end())
        }
        Err(_) => bail!(
            "librdkafka does not take the value of {key:?}; what it may be stands in its CONFIGURATION.md"
        ),
    }
}

/// Whether a text has the value in it, or a part of one that is a list.
fn repeats(text: &str, value: &str) -> bool {
    value.split(',').map(str::trim).any(|part| !part.is_empty() && text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ALIASES;

    #[test]
    fn a_property_that_is_refused_is_named_without_its_value() {
        for (key, value) in [
            ("sasl.pasword", "hunter2"),
            ("security.protocol", "hunter2"),
            ("linger.ms", "hunter2"),
            ("linger.ms", "12345678"),
            ("debug", "conf,hunter2"),
        ] {
            let refused = format!("{:?}", check(&Property::new(key, value)).unwrap_err());
            assert!(refused.contains(key), "{refused}");
            assert!(!refused.contains("hunter2") && !refused.contains("12345678"), "{refused}");
        }
        let refused = check(&Property::new("enable.idempotence", "perhaps")).unwrap_err().to_string();
        assert!(refused.contains("true or false"), "{refused}");
        check(&Property::new("sasl.password", "hunter2")).unwrap();
    }

    #[test]
    fn an_alias_is_the_property_that_it_is_taken_for() {
        for (alias, name) in ALIASES {
            let number = ["17", "true", "none", "x"];
            let taken = number.iter().find_map(|value| {
                let set = ClientConfig::new().set(alias, *value).create_native_config().ok()?;
                Some((*value, set.get(name).unwrap()))
            });
            // What is not in this build cannot be set under either name.
            match taken {
                Some((value, taken)) => assert_eq!(value, taken, "{alias} is not {name}"),
                None => assert!(check(&Property::new(name, "x")).is_err(), "{alias}"),
            }
        }
    }
}
