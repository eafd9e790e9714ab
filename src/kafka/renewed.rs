//! A plain idempotent producer that is made anew when a fatal error broke it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};

use super::closing::BoundedClose;
use super::password::{WithPassword, renewed};

/// The shortest life of a producer before another replaces it: what broke it may break the next at once, and each
/// is connections and threads.
pub(super) const RENEW_PAUSE: Duration = Duration::from_secs(5);

/// A producer as it is handed out.
pub(super) type Producer<C> = BoundedClose<WithPassword<ThreadedProducer<C>>>;

/// Whoever sends asks it for the producer each time.
pub(super) struct RenewedProducer<C: ProducerContext + 'static> {
    /// What it sends, for the log.
    what: &'static str,
    config: ClientConfig,
    made: Mutex<Made<C>>,
}

struct Made<C: ProducerContext + 'static> {
    producer: Arc<Producer<C>>,
    at: Instant,
}

impl<C: ProducerContext + Default + 'static> RenewedProducer<C> {
    /// # Errors
    /// When the configuration is refused.
    pub(super) fn new(what: &'static str, config: ClientConfig) -> Result<Self> {
        let made = Mutex::new(Made { producer: make(&config)?, at: Instant::now() });
        Ok(Self { what, config, made })
    }

    /// The producer, made anew when it is broken.
    ///
    /// # Errors
    /// When it is broken and was made only just now.
    pub(super) fn get(&self) -> Result<Arc<Producer<C>>> {
        // Holds no state that a panic could leave half changed: the process ends with one anyway.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, reason)) = made.producer.client().fatal_error() {
            if made.at.elapsed() < RENEW_PAUSE {
                bail!("the producer is broken, and made anew in a moment: {reason}");
            }
            tracing::warn!(reason, "the producer of {} is broken, and made anew", self.what);
            // First the time: should making it fail, the next try waits as well.
            made.at = Instant::now();
            let broken = std::mem::replace(&mut made.producer, make(&self.config)?);
            // Its end can take a while, and nobody waits for it: it sends nothing any more.
            std::thread::spawn(move || drop(broken));
        }
        Ok(Arc::clone(&made.producer))
    }
}

fn make<C: ProducerContext + Default + 'static>(config: &ClientConfig) -> Result<Arc<Producer<C>>> {
    let config = renewed(config);
    let producer =
        config.create_with_context(C::default()).context("the producer's configuration is refused")?;
    Ok(Arc::new(BoundedClose::new(WithPassword::producer(producer))))
}
