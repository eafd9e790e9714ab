//! Which topic has which role.

use anyhow::{Result, bail};
use clap::Args;

/// The names of the topics.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Topics")]
pub struct TopicArgs {
    /// Orders in, and all that follows them, keyed by order id. The end of holds is asked for here too, so the verifier
    /// must be allowed to write
    #[arg(long, env = "STOCK_VERIFIER_ORDERS_TOPIC", value_name = "TOPIC", default_value = "orders")]
    pub orders_topic: String,

    /// Stock received, adjusted, set and limited in, keyed by SKU
    #[arg(
        long,
        env = "STOCK_VERIFIER_ADJUSTMENTS_TOPIC",
        value_name = "TOPIC",
        default_value = "stock-adjustments"
    )]
    pub adjustments_topic: String,

    /// Accept events out
    #[arg(
        long,
        env = "STOCK_VERIFIER_ACCEPTED_TOPIC",
        value_name = "TOPIC",
        default_value = "stock.accepted"
    )]
    pub accepted_topic: String,

    /// Reject events out
    #[arg(
        long,
        env = "STOCK_VERIFIER_REJECTED_TOPIC",
        value_name = "TOPIC",
        default_value = "stock.rejected"
    )]
    pub rejected_topic: String,

    /// Stock levels out, compacted, keyed by SKU
    #[arg(long, env = "STOCK_VERIFIER_LEVELS_TOPIC", value_name = "TOPIC", default_value = "stock.levels")]
    pub levels_topic: String,

    /// Records no command could be read from, or that conflict with one already decided
    #[arg(
        long,
        env = "STOCK_VERIFIER_DEAD_LETTER_TOPIC",
        value_name = "TOPIC",
        default_value = "orders.dlq"
    )]
    pub dead_letter_topic: String,
}

impl TopicArgs {
    /// The topics that commands come by.
    #[must_use]
    pub fn read(&self) -> [&str; 2] {
        [&self.orders_topic, &self.adjustments_topic]
    }

    /// Refuses a topic that is given two roles: what is written to a topic that is read comes back for ever.
    ///
    /// # Errors
    /// Names both flags.
    pub fn check(&self) -> Result<()> {
        let named = self.named();
        named.iter().enumerate().try_for_each(|(index, (flag, name))| apart(&named[..index], flag, name))
    }

    /// Refuses another topic that has a role already.
    ///
    /// # Errors
    /// Names both flags.
    pub fn check_other(&self, flag: &str, name: &str) -> Result<()> {
        apart(&self.named(), flag, name)
    }

    /// All of them, each with its flag.
    #[must_use]
    pub fn named(&self) -> [(&str, &str); 6] {
        [
            ("--orders-topic", &self.orders_topic),
            ("--adjustments-topic", &self.adjustments_topic),
            ("--accepted-topic", &self.accepted_topic),
            ("--rejected-topic", &self.rejected_topic),
            ("--levels-topic", &self.levels_topic),
            ("--dead-letter-topic", &self.dead_letter_topic),
        ]
    }
}

fn apart(named: &[(&str, &str)], flag: &str, name: &str) -> Result<()> {
    if let Some((other, _)) = named.iter().find(|(_, taken)| *taken == name) {
        bail!("{other} and {flag} both name {name:?}: each topic has one role, so give them different names");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_with_two_roles_is_refused_and_both_flags_are_named() {
        let name = |name: &str| name.to_owned();
        let mut topics = TopicArgs {
            orders_topic: name("o"),
            adjustments_topic: name("a"),
            accepted_topic: name("s.a"),
            rejected_topic: name("s.r"),
            levels_topic: name("s.l"),
            dead_letter_topic: name("d"),
        };
        topics.check().unwrap();
        topics.dead_letter_topic = name("o");
        let error = topics.check().unwrap_err().to_string();
        assert!(error.contains("--orders-topic") && error.contains("--dead-letter-topic"), "{error}");
        assert!(topics.check_other("--to-topic", "x").is_ok());
        assert!(topics.check_other("--to-topic", "s.a").is_err());
        topics.dead_letter_topic = name("s.l");
        let error = topics.check().unwrap_err().to_string();
        assert!(error.contains("--levels-topic") && error.contains("--dead-letter-topic"), "{error}");
    }
}
