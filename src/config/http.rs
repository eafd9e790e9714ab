//! The read API: where it listens, and what it reads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use secrecy::SecretString;

use super::database::{DatabaseUrl, parse_database_url};
use super::secret::{SecretParser, read_secret_of};

/// The read API over HTTP.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// Answer reads, probes and metrics over HTTP at this address; without it nothing listens. It is not encrypted: beyond
    /// this machine let a proxy do that
    #[arg(long, env = "STOCK_VERIFIER_HTTP_LISTEN", value_name = "IP:PORT")]
    pub http_listen: Option<SocketAddr>,

    /// A file that holds the token that requests must bring (Authorization: Bearer TOKEN); probes need none
    #[arg(long, env = "STOCK_VERIFIER_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// A streaming replica of the ledger's database, for reads; may be given many times (in the environment: one a line).
    /// Each server that a URL names is one by itself, and none may be a balancer over several. The password file of the
    /// ledger's database counts here too
    #[arg(long, env = "STOCK_VERIFIER_READ_DATABASE_URL", value_name = "URL",
          value_parser = SecretParser(parse_database_url), value_delimiter = '\n',
          hide_env_values = true, hide_default_value = true)]
    pub read_database_url: Vec<DatabaseUrl>,

    /// Furthest that a replica may be behind; one that is further is left for the ledger's database until it has caught up
    #[arg(long, env = "STOCK_VERIFIER_READ_MAX_LAG", value_name = "TIME", default_value = "5s",
          value_parser = humantime::parse_duration)]
    pub read_max_lag: Duration,

    /// What prechecks are answered from
    #[arg(long, env = "STOCK_VERIFIER_PRECHECK_FROM", value_name = "SOURCE", value_enum,
          default_value_t = PrecheckSource::Database)]
    pub precheck_from: PrecheckSource,
}

/// What prechecks are answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecheckSource {
    /// The ledger's database, or its replicas
    Database,
    /// The levels topic, followed in memory; the database where that does not know an item or is behind. Levels are
    /// published some time after they moved, which the age of an answer does not count
    LevelsTopic,
}

impl HttpArgs {
    /// The token from its file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn token(&self) -> Result<Option<SecretString>> {
        self.http_token_file.as_deref().map(|file| read_secret_of("token", file)).transpose()
    }
}
