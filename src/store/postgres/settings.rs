//! What a database must be for the ledger in it to be right: the one list. What a session can be given when it begins is
//! in `session.rs` instead.

use sqlx::PgConnection;

use super::failure::failed;
use crate::store::{StoreError, UnmetSetting};

/// One thing that correctness rests on.
struct Needed {
    /// What it is called.
    setting: &'static str,
    /// What asks PostgreSQL for it: an expression.
    asks: &'static str,
    /// Whether this will do.
    is_met: fn(&str) -> bool,
    /// What it must be, in words.
    needed: &'static str,
    /// What would go wrong.
    why: &'static str,
    /// What an operator can do.
    repair: &'static str,
    /// Whether the ledger is refused, or only warned of.
    refused: bool,
}

const NEEDED: &[Needed] = &[
    Needed {
        setting: "server_version_num",
        asks: "current_setting('server_version_num')",
        is_met: |found| found.parse().is_ok_and(|found: u32| found >= OLDEST),
        needed: "150000 or more",
        why: "the ledger's statements are written for PostgreSQL 15 or newer, and tried with nothing older",
        repair: "Use a newer server",
        refused: true,
    },
    Needed {
        setting: "server_encoding",
        asks: "current_setting('server_encoding')",
        is_met: |found| found == "UTF8",
        needed: "UTF8",
        why: "an id or a SKU in another script could not be stored, and the first of them would end every verifier",
        repair: "Make another database for the ledger: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        refused: true,
    },
    Needed {
        setting: "search_path",
        asks: "coalesce(current_schema()::text, 'without a schema that exists and may be used')",
        is_met: |found| !found.starts_with("without"),
        needed: "the name of a schema that exists",
        why: "the ledger's tables would have no place",
        repair: "CREATE SCHEMA, or GRANT USAGE ON SCHEMA, for the first name in search_path",
        refused: true,
    },
    Needed {
        setting: "synchronous_commit",
        asks: "current_setting('synchronous_commit')",
        is_met: |found| found != "off",
        // Batches see to it themselves all the same (`gate.rs`): who changes it later must not be noticed too late.
        needed: "on",
        why: "a published result could be lost in a crash",
        repair: "ALTER ROLE … SET synchronous_commit = on, or say so in the URL's options",
        refused: true,
    },
    Needed {
        setting: "fsync",
        asks: "current_setting('fsync')",
        is_met: |found| found == "on",
        needed: "on",
        why: "when the machine crashes, what was decided and published can be lost, and the ledger damaged",
        repair: "Set it to on in postgresql.conf; off is for tests alone",
        // A server for tests, which is thrown away after a crash, may have it off.
        refused: false,
    },
    Needed {
        setting: "session_replication_role",
        asks: "current_setting('session_replication_role')",
        is_met: |found| found == "origin",
        needed: "origin",
        why: "triggers and rules of the database would not fire for what the ledger writes: those of a logical \
              replica, say",
        repair: "ALTER ROLE … RESET session_replication_role, and the same for the database",
        refused: true,
    },
    Needed {
        setting: "zero_damaged_pages",
        asks: "current_setting('zero_damaged_pages')",
        is_met: |found| found == "off",
        needed: "off",
        why: "a damaged page would be taken for an empty one, and its decisions made again",
        repair: "ALTER DATABASE … RESET zero_damaged_pages, and restore a backup if it was needed",
        refused: true,
    },
    Needed {
        setting: "ignore_checksum_failure",
        asks: "current_setting('ignore_checksum_failure')",
        is_met: |found| found == "off",
        needed: "off",
        why: "a damaged page would be decided on",
        repair: "ALTER DATABASE … RESET ignore_checksum_failure, and restore a backup if it was needed",
        refused: true,
    },
];

/// The oldest version of PostgreSQL, as it numbers itself.
const OLDEST: u32 = 150_000;

/// Refuses the first that a ledger cannot do without, and warns of the others.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), StoreError> {
    unmet(connection).await?.into_iter().try_for_each(refuse_or_warn)
}

/// What is not as it must be. Asked at once for each of [`NEEDED`].
pub(super) async fn unmet(connection: &mut PgConnection) -> Result<Vec<UnmetSetting>, StoreError> {
    let asks: Vec<&str> = NEEDED.iter().map(|needed| needed.asks).collect();
    let found: Vec<String> = sqlx::query_scalar(&format!("SELECT ARRAY[{}]", asks.join(", ")))
        .fetch_one(connection)
        .await
        .map_err(failed("checking the database's settings"))?;
    Ok(NEEDED.iter().zip(found).filter_map(|(needed, found)| needed.unmet(found)).collect())
}

/// The same of the version alone, which is known when connecting: an older server refuses what a session is given then,
/// in other words. A server that does not say is asked later.
pub(super) fn check_version(found: Option<u32>) -> Result<(), StoreError> {
    let version = NEEDED.iter().find(|needed| needed.setting == "server_version_num");
    match (version, found) {
        (Some(version), Some(found)) => version.unmet(found.to_string()).map_or(Ok(()), refuse_or_warn),
        _ => Ok(()),
    }
}

impl Needed {
    fn unmet(&self, found: String) -> Option<UnmetSetting> {
        let Self { setting, needed, why, repair, refused, .. } = *self;
        (!(self.is_met)(&found)).then_some(UnmetSetting { setting, found, needed, why, repair, refused })
    }
}

fn refuse_or_warn(unmet: UnmetSetting) -> Result<(), StoreError> {
    let UnmetSetting { setting, found, needed, why, repair, refused } = unmet;
    if refused {
        return Err(StoreError::Unsuitable { setting, found, needed, why, repair });
    }
    tracing::warn!("{setting} is {found} on this database, but should be {needed}: {why}. {repair}");
    Ok(())
}

/// Whether a session that begins now could write.
pub(super) async fn check_writable(connection: &mut PgConnection) -> Result<(), StoreError> {
    let (standby, usual): (bool, bool) = sqlx::query_as(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean",
    )
    .fetch_one(connection)
    .await
    .map_err(failed("asking whether the database can be written"))?;
    if standby {
        return Err(StoreError::ReadOnly {
            why: "it is a standby (pg_is_in_recovery() is true). Promote it, or name the primary",
        });
    }
    if usual {
        return Err(StoreError::ReadOnly {
            why: "default_transaction_read_only is on, by an operator, or by a provider whose disk is nearly full. \
                  When writing is safe again: ALTER DATABASE … RESET default_transaction_read_only from another \
                  database (or within BEGIN READ WRITE), or the same for the role",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_too_old_is_refused_by_its_number() {
        let refused = check_version(Some(140_019)).unwrap_err().to_string();
        assert!(refused.contains("server_version_num is 140019"), "{refused}");
        check_version(Some(150_000)).unwrap();
        check_version(Some(180_001)).unwrap();
        check_version(None).unwrap();
    }
}
