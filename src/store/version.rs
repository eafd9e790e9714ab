//! Whether a database's tables are those of this program, or of a newer one beside which it may run; the same question for
//! every store.
//!
//! A migration says in its own name which programs may still run on what it makes: `0007_NAME_oldest_5.sql` lets those run
//! whose newest migration is 5. sqlx keeps the name in `_sqlx_migrations`, so programs read it that know nothing of the
//! migration. What says nothing, only programs that know it may run on.

use sqlx::migrate::Migrator;

use super::StoreError;

/// Stands in a migration's description before the oldest program's newest migration.
const OLDEST: &str = " oldest ";

/// A row of `_sqlx_migrations`.
#[derive(Debug, Clone)]
pub(super) struct FoundMigration {
    version: i64,
    description: String,
    checksum: Vec<u8>,
}

impl FoundMigration {
    /// The newest migration of the oldest program that may run on what this one made.
    fn oldest_program(&self) -> i64 {
        let said = self.description.rsplit_once(OLDEST).and_then(|(_, oldest)| oldest.parse().ok());
        said.unwrap_or(self.version)
    }
}

/// The rows of `_sqlx_migrations`: version, description and checksum.
pub(super) fn applied(rows: Vec<(i64, String, Vec<u8>)>) -> Vec<FoundMigration> {
    rows.into_iter()
        .map(|(version, description, checksum)| FoundMigration { version, description, checksum })
        .collect()
}

/// Compares the migrations a database has with those built into this program.
///
/// `found` is what is in the database's `_sqlx_migrations`; nothing where that table is absent or empty.
///
/// # Errors
/// [`StoreError::Unmigrated`] or [`StoreError::Outdated`] when there are fewer; [`StoreError::Newer`] when there are more, and
/// one of them does not let this program run; [`StoreError::Foreign`] when they are another program's.
pub(super) fn check(migrator: &Migrator, found: &[FoundMigration]) -> Result<(), StoreError> {
    let known = newest_known(migrator);
    let Some(newest) = found.iter().map(|migration| migration.version).max() else {
        return Err(StoreError::Unmigrated);
    };
    // The table has one name for every program that migrates with the same library. A ledger begins with our first
    // migration, which never changes; what is above our newest may be of a newer version of this program.
    let ours = |found: &FoundMigration| {
        migrator.iter().any(|own| own.version == found.version && *own.checksum == *found.checksum)
    };
    let begins =
        migrator.iter().next().is_some_and(|first| found.iter().any(|found| found.version == first.version));
    if let Some(foreign) = found.iter().find(|found| !ours(found) && (!begins || found.version <= known)) {
        return Err(StoreError::Foreign { version: foreign.version });
    }
    if newest < known {
        return Err(StoreError::Outdated { found: newest, needed: known });
    }
    let unknown = found.iter().filter(|found| found.version > known);
    match unknown.map(FoundMigration::oldest_program).max() {
        Some(oldest) if oldest > known => Err(StoreError::Newer { found: newest, oldest, known }),
        Some(_) => {
            tracing::info!(
                ledger = newest,
                program = known,
                "a newer program migrated the ledger, and lets this one run"
            );
            Ok(())
        }
        None => Ok(()),
    }
}

/// Whether the migrations are to be run. Not where a newer program migrated and lets this one run.
///
/// Asked before the migrations run, because their own message is worse.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Foreign`]. Everything else can be brought up to date.
pub(super) fn is_to_be_migrated(migrator: &Migrator, found: &[FoundMigration]) -> Result<bool, StoreError> {
    match check(migrator, found) {
        Err(refused @ (StoreError::Newer { .. } | StoreError::Foreign { .. })) => Err(refused),
        _ => Ok(found.iter().all(|found| found.version <= newest_known(migrator))),
    }
}

fn newest_known(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}
