//! Settings, parsed once into typed parts.
//!
//! Every setting is a flag, an environment variable and a key of one TOML
//! file, under the same name and in that order of strength:
//! `--batch-max-orders`, `STOCK_VERIFIER_BATCH_MAX_ORDERS`, `batch-max-orders = …`.
//!
//! One file for each part of the settings; `secret.rs` says how the secrets among them are read.

mod batch;
mod database;
mod group;
mod http;
mod kafka;
mod levels;
mod mapping;
mod redis;
mod registry;
mod secret;
mod topics;

pub use self::batch::{BatchArgs, DEFAULT_BATCH_MAX_ORDERS};
pub(crate) use self::database::parse_database_url;
pub use self::database::{DatabaseArgs, DatabaseUrl};
pub use self::group::{GroupArgs, GroupProtocol};
pub use self::http::{HttpArgs, PrecheckSource};
pub use self::kafka::{KafkaArgs, Property};
pub use self::levels::LevelsArgs;
pub(crate) use self::mapping::parse_program;
pub use self::mapping::{MappingArgs, MappingSource, ProgramSource};
pub use self::redis::{RedisArgs, RedisUrl};
pub use self::registry::{RegistryArgs, RegistryLogin};
pub(crate) use self::secret::SecretParser;
pub use self::topics::TopicArgs;

// For a test of the clients, which compares them with what librdkafka itself has.
#[cfg(test)]
pub(crate) use self::kafka::ALIASES;
