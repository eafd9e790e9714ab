//! Whether a Redis is one that a gate can rely on.

use anyhow::{Context as _, Result, bail};

use super::cache::RedisCache;

/// The oldest version: scripts with flags are from there on.
const OLDEST: u64 = 7;

/// Looks at the server.
///
/// # Errors
/// When it does not answer, or entries could be lost in it for no reason; the message says what to do.
pub(super) async fn check(cache: &RedisCache) -> Result<()> {
    // Of a Sentinel too, which knows fewer commands.
    let mut command = redis::cmd("INFO");
    command.arg("everything");
    let info: String = cache
        .ask(&command)
        .await
        .context("Redis does not answer (check --redis-url, and --redis-password-file)")?;
    judge(&info)
}

fn judge(info: &str) -> Result<()> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
    };
    // Valkey calls it otherwise.
    if [field("redis_mode"), field("server_mode")].contains(&"sentinel") {
        bail!(
            "this is a Sentinel, and a gate talks to the primary alone: name it by an address that follows it (--redis-url), \
             as a Kubernetes Service, a virtual IP or a proxy that asks Sentinel does"
        );
    }
    // Valkey says the version of Redis that it began as, 7.2, under this name.
    let version = field("redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    if major.is_none_or(|major| major < OLDEST) {
        bail!("Redis {version} is too old: a gate needs 7.0 or newer, or Valkey");
    }
    if field("cluster_enabled") == "1" {
        bail!(
            "this Redis is part of a cluster, and a gate needs one primary: a cart's SKUs would be on several, and no \
             script reaches them all at once. Name a Redis of its own (--redis-url); one is enough for a sale"
        );
    }
    let policy = field("maxmemory_policy");
    if !policy.is_empty() && policy != "noeviction" {
        bail!(
            "this Redis may remove keys when its memory is full (maxmemory-policy {policy}): entries that it removes would \
             be counted free while their orders still take stock. Set maxmemory-policy noeviction"
        );
    }
    if field("role") == "slave" {
        bail!("this Redis is a replica, which takes no writes: name its primary (--redis-url)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";

    #[test]
    fn a_redis_that_could_lose_entries_is_refused_with_why() {
        judge(GOOD).unwrap();
        for (from, to, why) in [
            ("cluster_enabled:0", "cluster_enabled:1", "part of a cluster"),
            ("noeviction", "allkeys-lru", "maxmemory-policy allkeys-lru"),
            ("role:master", "role:slave", "is a replica"),
            ("redis_version:7.0.15", "redis_version:6.2.14", "6.2.14 is too old"),
            ("redis_version", "redis_mode:sentinel\r\nredis_version", "is a Sentinel"),
            ("redis_version", "server_mode:sentinel\r\nredis_version", "is a Sentinel"),
        ] {
            let refused = judge(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
