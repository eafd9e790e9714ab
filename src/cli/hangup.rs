//! What `run` and `gate` do at a SIGHUP: they read again what may change while they run.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reads::Rereads;
use super::{log, settings_again};
use crate::causes;
use crate::config::{DatabaseArgs, HttpArgs, KafkaArgs, RedisArgs};
use crate::kafka::set_password;
use crate::store::Store;

/// What is read again, and who is told.
pub(super) struct Hangup {
    pub(super) database: DatabaseArgs,
    pub(super) kafka: KafkaArgs,
    pub(super) http: HttpArgs,
    pub(super) store: Arc<dyn Store>,
    pub(super) reads: Option<Rereads>,
    pub(super) redis: Option<RedisAgain>,
}

/// Connects with a password from then on.
type ChangePassword = Box<dyn Fn(&SecretString) -> Result<()> + Send + Sync>;

/// The password of Redis, and how it is changed.
pub(super) struct RedisAgain {
    pub(super) args: RedisArgs,
    pub(super) change: ChangePassword,
}

/// Hears SIGHUP from here on, instead of ending by it.
///
/// # Errors
/// When signals cannot be heard.
pub(super) fn listen() -> Result<Signal> {
    signal(SignalKind::hangup()).context("SIGHUP cannot be heard")
}

impl Hangup {
    /// Reads again at each SIGHUP, for ever. What cannot be read stays as it is.
    pub(super) async fn run(self, mut signal: Signal) {
        while signal.recv().await.is_some() {
            say("the log's level", change_log());
            say("the password of the database", self.database());
            say("the token of HTTP", self.token());
            say("the password of Kafka", self.kafka());
            say("the password of Redis", self.redis());
            tracing::info!("read again at SIGHUP: the log's level and the password files");
        }
    }

    fn database(&self) -> Result<()> {
        if let Some(password) = self.database.url()?.password() {
            self.store.set_password(password);
            if let Some(reads) = &self.reads {
                reads.set_password(password);
            }
        }
        Ok(())
    }

    fn token(&self) -> Result<()> {
        if let (Some(reads), Some(token)) = (&self.reads, self.http.token()?) {
            reads.set_token(&token);
        }
        Ok(())
    }

    fn kafka(&self) -> Result<()> {
        self.kafka.password()?.map_or(Ok(()), |password| set_password(&self.kafka, &password))
    }

    fn redis(&self) -> Result<()> {
        let Some(RedisAgain { args, change }) = &self.redis else { return Ok(()) };
        args.password()?.map_or(Ok(()), |password| change(&password))
    }
}

fn change_log() -> Result<()> {
    log::change(settings_again()?.log.as_deref())
}

fn say(what: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::error!("{what} cannot be read again, and stays as it is: {}", causes::of(error.as_ref()));
    }
}
