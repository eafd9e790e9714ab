//! Where Redis is, and its password.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use secrecy::SecretString;

use super::secret::{SecretParser, read_secret};

/// Longest time that Redis is to keep something for. What is longer is a mistake; Redis refuses what its clock does not reach,
/// and would do so in the middle of letting an order in.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Where the gates keep what they count with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// Redis 7 or newer, or Valkey: redis://HOST:PORT/DB, rediss:// with TLS. One primary, without a cluster and without an
    /// eviction policy
    #[arg(long, env = "STOCK_VERIFIER_REDIS_URL", value_name = "URL", value_parser = SecretParser(parse_redis_url),
          default_value = "redis://127.0.0.1:6379/", hide_env_values = true, hide_default_value = true)]
    pub redis_url: RedisUrl,

    /// A file that holds the password of Redis, so that it is in no URL
    #[arg(long, env = "STOCK_VERIFIER_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// What the names of all keys in Redis begin with: one for each ledger
    #[arg(long, env = "STOCK_VERIFIER_REDIS_PREFIX", value_name = "TEXT", default_value = "stock:")]
    pub redis_prefix: String,

    /// How long it is remembered that an order was decided. Who sends it again within is answered from the ledger
    #[arg(long, env = "STOCK_VERIFIER_REDIS_REMEMBER", value_name = "TIME", default_value = "1h",
          value_parser = RedisArgs::parse_time)]
    pub redis_remember: Duration,
}

/// The URL of Redis; never printed.
#[derive(Debug, Clone)]
pub struct RedisUrl(SecretString);

fn parse_redis_url(text: &str) -> Result<RedisUrl, String> {
    match text.split_once("://").map(|(scheme, _)| scheme) {
        Some("redis" | "rediss") => Ok(RedisUrl(SecretString::from(text))),
        _ => Err("expected redis://… or rediss://…".to_owned()),
    }
}

impl RedisArgs {
    /// Reads a time that Redis is to keep something for.
    ///
    /// # Errors
    /// When it is none, or longer than ten years.
    pub fn parse_time(text: &str) -> Result<Duration, String> {
        let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if time > LONGEST { Err("expected ten years at most".to_owned()) } else { Ok(time) }
    }

    /// The URL, which may hold a password.
    #[must_use]
    pub fn url(&self) -> SecretString {
        self.redis_url.0.clone()
    }

    /// The password from its file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn password(&self) -> Result<Option<SecretString>> {
        self.redis_password_file.as_deref().map(read_secret).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_redis_cannot_keep_anything_for_is_refused() {
        assert_eq!(RedisArgs::parse_time("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(RedisArgs::parse_time("3650days"), Ok(LONGEST));
        for wrong in ["", "long", "3651days", "300000000years"] {
            RedisArgs::parse_time(wrong).unwrap_err();
        }
    }
}
