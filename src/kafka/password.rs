//! A new password for clients that run.
//!
//! librdkafka takes one for the connections that it makes from then on. A client does not know when others are told, so all
//! that are made here are listed while they live.

use std::ffi::{CString, c_char};
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafka;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::KafkaArgs;

/// The clients of this process, and what they are told last.
static CLIENTS: Mutex<Clients> = Mutex::new(Clients { living: Vec::new(), told: None });

struct Clients {
    living: Vec<Native>,
    /// Who was made meanwhile, of what was read before, is told as well.
    told: Option<Credentials>,
}

/// A user's name and password. Both end in NUL, as librdkafka wants them.
struct Credentials {
    username: CString,
    password: CString,
}

#[derive(PartialEq, Eq)]
struct Native(*mut RDKafka);

// SAFETY: librdkafka's clients may be used by every thread; what is done with it here locks within.
#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
unsafe impl Send for Native {}

// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
unsafe impl Sync for Native {}

fn clients() -> MutexGuard<'static, Clients> {
    // A list of what lives is whole after every change.
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Native {
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn tell(&self, Credentials { username, password }: &Credentials) {
        let (username, password): (*const c_char, *const c_char) = (username.as_ptr(), password.as_ptr());
        // SAFETY: the client lives, since it takes itself off the list before it ends, for which it needs the lock that is
        // held here; both texts end in NUL, and are copied.
        let error = unsafe { native::rd_kafka_sasl_set_credentials(self.0, username, password) };
        // Only for a missing text.
        debug_assert!(error.is_null());
    }
}

/// Tells every client that runs, and those that are made from here on.
///
/// # Errors
/// When there is no name that goes with it, or one of both cannot be told.
pub fn set_password(kafka: &KafkaArgs, password: &SecretString) -> Result<()> {
    if kafka.sets("sasl.password") {
        bail!("-X sasl.password is given too, which counts: leave it out");
    }
    let username = kafka.properties.iter().rfind(|property| property.key == "sasl.username");
    let username = username.context("no -X sasl.username goes with it")?;
    let credentials = Credentials {
        username: CString::new(username.expose()).context("sasl.username has a NUL in it")?,
        // Not with the error's source, which repeats it.
        password: CString::new(password.expose_secret())
            .map_err(|_| anyhow::anyhow!("the password has a NUL in it"))?,
    };
    let mut clients = clients();
    clients.living.iter().for_each(|client| client.tell(&credentials));
    clients.told = Some(credentials);
    Ok(())
}

/// The configuration with the password that was told last, for a client that is made of it again.
pub(super) fn renewed(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    if let Some(Credentials { password, .. }) = &clients().told
        && let Ok(password) = password.to_str()
    {
        config.set("sasl.password", password);
    }
    config
}

/// On the list as long as it lives.
struct Listed(Native);

impl Listed {
    fn new(client: *mut RDKafka) -> Self {
        let mut clients = clients();
        if let Some(told) = &clients.told {
            Native(client).tell(told);
        }
        clients.living.push(Native(client));
        Self(Native(client))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        clients().living.retain(|client| *client != self.0);
    }
}

/// A client that is told of a new password. It is used like the client itself.
pub(super) struct WithPassword<C> {
    // Before the client: fields are dropped in their order.
    _listed: Listed,
    client: C,
}

impl<C: ConsumerContext> WithPassword<BaseConsumer<C>> {
    pub(super) fn consumer(client: BaseConsumer<C>) -> Self {
        Self { _listed: Listed::new(client.client().native_ptr()), client }
    }
}

impl<C: ProducerContext + 'static> WithPassword<ThreadedProducer<C>> {
    pub(super) fn producer(client: ThreadedProducer<C>) -> Self {
        Self { _listed: Listed::new(client.client().native_ptr()), client }
    }
}

impl<C> Deref for WithPassword<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.client
    }
}
