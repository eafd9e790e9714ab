//! What `run` does at a SIGHUP: it reads again what may change while it runs.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reads::Rereads;
use super::{log, settings_again};
use crate::causes;
use crate::config::{DatabaseArgs, HttpArgs, KafkaArgs};
use crate::store::Store;

/// What is read again, and who is told.
pub(super) struct Hangup {
    pub(super) database: DatabaseArgs,
    pub(super) kafka: KafkaArgs,
    pub(super) http: HttpArgs,
    pub(super) store: Arc<dyn Store>,
    pub(super) reads: Option<Rereads>,
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
        let mut kafka = self.kafka_password();
        while signal.recv().await.is_some() {
            say("the log's level", change_log());
            say("the password of the database", self.database());
            say("the token of HTTP", self.token());
            let now = self.kafka_password();
            if now != kafka {
                tracing::warn!(
                    "the password file of Kafka has changed: its clients keep what they were made with, so start this \
                     instance again when the old one is no good any more (it comes back without a rebalance)"
                );
                kafka = now;
            }
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

    /// Its digest, which tells whether it changed; `None` where there is none, or it cannot be read now.
    fn kafka_password(&self) -> Option<blake3::Hash> {
        let secret: SecretString = self.kafka.password().ok()??;
        Some(blake3::hash(secret.expose_secret().as_bytes()))
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
