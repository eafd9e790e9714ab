//! The consumer group, and who this instance is in it.

use std::sync::OnceLock;

use clap::{Args, ValueEnum};

/// The consumer group and this instance's membership of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Group")]
pub struct GroupArgs {
    /// The consumer group that shares the orders
    #[arg(long, env = "STOCK_VERIFIER_GROUP", value_name = "GROUP", default_value = "stock-verifier")]
    pub group: String,

    /// Names this instance: no other that runs may have this name, and over a restart it stays the same. Who comes back under
    /// it within its session (10 s) after a crash keeps its partitions. Default: the host's name; a second process of the
    /// group on this host gets -2 after it, a third -3
    #[arg(long, env = "STOCK_VERIFIER_INSTANCE_ID", value_name = "ID")]
    pub instance_id: Option<String>,

    /// Transactional id; default: the group and the instance id, joined by a colon. Each worker adds its number, and -b
    /// for the second of its two producers
    #[arg(long, env = "STOCK_VERIFIER_TRANSACTIONAL_ID", value_name = "ID")]
    pub transactional_id: Option<String>,

    /// Rebalance protocol: cooperative-sticky on the classic one, or KIP-848's
    #[arg(long, env = "STOCK_VERIFIER_GROUP_PROTOCOL", value_enum, default_value_t = GroupProtocol::Classic)]
    pub group_protocol: GroupProtocol,
}

/// The host's name: stable over a restart, and different for each container of a deployment.
fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        std::fs::read_to_string("/etc/hostname")
            .ok()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .or_else(|| std::env::var("HOSTNAME").ok())
            .unwrap_or_else(|| "instance".to_owned())
    })
}

impl GroupArgs {
    /// This instance's name: the host's where none is given.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.instance_id.as_deref().unwrap_or_else(|| host_name())
    }

    /// The transactional id of one worker.
    #[must_use]
    pub fn transactional_id(&self, worker: usize) -> String {
        match &self.transactional_id {
            Some(id) => format!("{id}-{worker}"),
            None => format!("{}:{}-{worker}", joinable(&self.group), joinable(self.instance())),
        }
    }
}

/// A name as it is joined with another: no two pairs of names give one text.
fn joinable(name: &str) -> String {
    name.replace('%', "%25").replace(':', "%3A")
}

/// How group members agree on their partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupProtocol {
    /// The classic protocol, cooperative-sticky.
    Classic,
    /// KIP-848, assigned by the broker.
    Consumer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_instances_have_one_transactional_id() {
        let id = |group: &str, instance: &str, worker| {
            let group = GroupArgs {
                group: group.to_owned(),
                instance_id: Some(instance.to_owned()),
                transactional_id: None,
                group_protocol: GroupProtocol::Classic,
            };
            group.transactional_id(worker)
        };
        assert_eq!(id("stock-verifier", "host-1", 0), "stock-verifier:host-1-0");
        let names =
            ["x", "x-eu", "eu-1", "1", "a:b", "b", "a", "a:", ":b", "b:b", "a%3Ab", "a%", "3Ab", "b-0", "-b"];
        let mut seen = std::collections::HashMap::new();
        for (group, instance) in names.iter().flat_map(|group| names.map(|instance| (*group, instance))) {
            for worker in [0, 1, 10] {
                for producer in ["", "-b"] {
                    let id = format!("{}{producer}", id(group, instance, worker));
                    let other = seen.insert(id.clone(), (group, instance, worker, producer));
                    assert_eq!(other, None, "{id} is also of {group}, {instance}, {worker}{producer}");
                }
            }
        }
    }
}
