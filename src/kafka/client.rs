//! What every client of Kafka is configured with.

use anyhow::Result;
use rdkafka::ClientConfig;
use secrecy::ExposeSecret as _;

use crate::config::{KafkaArgs, Property, read_secret};

impl KafkaArgs {
    /// The client configuration that every consumer, producer and admin client starts from.
    ///
    /// # Errors
    /// When the password file cannot be read.
    pub fn client(&self) -> Result<ClientConfig> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.software.name", "stock-verifier");
        if let Some(file) = &self.kafka_password_file {
            config.set("sasl.password", read_secret(file)?.expose_secret());
        }
        Ok(config)
    }

    /// Whether the user sets this property.
    #[must_use]
    pub fn sets(&self, property: &str) -> bool {
        self.properties.iter().any(|Property { key, .. }| key == property)
    }

    /// Lays the user's properties over a finished configuration.
    pub fn overlay(&self, config: &mut ClientConfig) {
        for Property { key, value } in &self.properties {
            config.set(key, value);
        }
    }
}
