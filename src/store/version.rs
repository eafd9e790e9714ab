//! Whether a database's tables are those of this program; the same question for every store.

use sqlx::migrate::{AppliedMigration, Migrator};

use super::StoreError;

/// The rows of `_sqlx_migrations`: version and checksum.
pub(super) fn applied(rows: Vec<(i64, Vec<u8>)>) -> Vec<AppliedMigration> {
    rows.into_iter()
        .map(|(version, checksum)| AppliedMigration { version, checksum: checksum.into() })
        .collect()
}

/// Compares the migrations a database has with those built into this program.
///
/// `found` is what is in the database's `_sqlx_migrations`; nothing where that table is absent or empty.
///
/// # Errors
/// [`StoreError::Unmigrated`], [`StoreError::Outdated`] or [`StoreError::Newer`] when they are not the same;
/// [`StoreError::Foreign`] when they are another program's.
pub(super) fn check(migrator: &Migrator, found: &[AppliedMigration]) -> Result<(), StoreError> {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    let Some(newest) = found.iter().map(|migration| migration.version).max() else {
        return Err(StoreError::Unmigrated);
    };
    // The table has one name for every program that migrates with the same library. A ledger begins with our first
    // migration, which never changes; what is above our newest may be of a newer version of this program.
    let ours = |found: &AppliedMigration| {
        migrator.iter().any(|own| own.version == found.version && own.checksum == found.checksum)
    };
    let begins =
        migrator.iter().next().is_some_and(|first| found.iter().any(|found| found.version == first.version));
    if let Some(foreign) = found.iter().find(|found| !ours(found) && (!begins || found.version <= known)) {
        return Err(StoreError::Foreign { version: foreign.version });
    }
    match newest {
        found if found < known => Err(StoreError::Outdated { found, needed: known }),
        found if found > known => Err(StoreError::Newer { found, known }),
        _ => Ok(()),
    }
}

/// Refuses to migrate what a newer program or another one migrated. Everything else can be brought up to date.
///
/// Asked before the migrations run, because theirs is a worse message.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Foreign`].
pub(super) fn check_can_migrate(migrator: &Migrator, found: &[AppliedMigration]) -> Result<(), StoreError> {
    match check(migrator, found) {
        Err(refused @ (StoreError::Newer { .. } | StoreError::Foreign { .. })) => Err(refused),
        _ => Ok(()),
    }
}
