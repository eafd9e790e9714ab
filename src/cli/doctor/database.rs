//! What is wrong with the database, judged by what it says of itself.

use super::diagnosis::Diagnosis;
use crate::store::{
    Answer, ConnectionCounts, DatabaseFacts, Examination, LockHolder, OverdueHolds, PostgresFacts,
    SqliteFacts, Standbys, StoreError, TransactionOwner, UsualSettings,
};

/// How far the database's clock may be from this machine's, in microseconds. Clocks that are kept by NTP differ by
/// milliseconds. Holds end by the database's clock and are asked for by clients with theirs.
const SKEW: i64 = 1_000_000;
/// How long a transaction may hold locks, in seconds: a batch takes milliseconds, and one that waits for another's locks
/// some seconds at most.
const HELD_LONG: i64 = 5;
/// How long one may read, in seconds, before it is worth a word: what it may still see cannot be cleaned up.
const READ_LONG: i64 = 600;

/// All of it. `needed` is how many connections a `run` with these settings opens.
pub(super) fn judge(facts: &Examination, group: &str, needed: u32) -> Vec<Diagnosis> {
    let mut diagnoses = match &facts.database {
        DatabaseFacts::Postgres(postgres) => server(postgres, needed),
        DatabaseFacts::Sqlite(sqlite) => file(sqlite),
    };
    diagnoses.push(tables(&facts.tables));
    diagnoses.push(writable(&facts.writable));
    // Without tables there is nothing to ask for.
    if facts.tables.is_ok() {
        diagnoses.push(owner(&facts.group, group));
        diagnoses.push(holds(&facts.overdue));
    }
    diagnoses
}

fn server(facts: &PostgresFacts, needed: u32) -> Vec<Diagnosis> {
    let mut diagnoses = Vec::new();
    diagnoses.push(match &facts.version {
        Ok(version) => Diagnosis::ok("database.version", format!("PostgreSQL {version}")),
        Err(error) => unknown("database.version", "the server's version", error),
    });
    settings(facts, &mut diagnoses);
    match &facts.usual {
        Ok(usual) => diagnoses.push(isolation(usual)),
        Err(error) => diagnoses.push(unknown("database.isolation", "what is usual for the role", error)),
    }
    diagnoses.push(match &facts.standbys {
        Ok(standbys) => replication(standbys),
        Err(error) => unknown("database.standbys", "the server's standbys", error),
    });
    diagnoses.push(match &facts.connections {
        Ok(counts) => connections(counts, needed),
        Err(error) => unknown("database.connections", "the number of connections", error),
    });
    diagnoses.push(match &facts.clock {
        Ok(reading) => clock(reading.ahead()),
        Err(error) => unknown("database.clock", "the database's clock", error),
    });
    match &facts.missing_grants {
        Ok(missing) if missing.is_empty() => {
            diagnoses.push(Diagnosis::ok("database.permissions", "the role may do all that `run` does"));
        }
        Ok(missing) => {
            let listed: Vec<String> =
                missing.iter().map(|lacks| format!("{} on {}", lacks.privilege, lacks.object)).collect();
            diagnoses.push(Diagnosis::error(
                "database.permissions",
                format!("the role lacks {}", listed.join(", ")),
                "Grant it as docs/permissions.md has it for the verifier; or, if this is another role than the \
                 verifier's, run doctor with the settings of `run`",
            ));
        }
        Err(error) => diagnoses.push(unknown("database.permissions", "the role's privileges", error)),
    }
    match &facts.lock_holders {
        Ok(holders) => {
            let held: Vec<Diagnosis> = holders.iter().filter_map(lock_holder).collect();
            if held.is_empty() {
                let what = "no transaction holds the ledger's locks for long";
                diagnoses.push(Diagnosis::ok("database.locks", what));
            }
            diagnoses.extend(held);
        }
        Err(error) => diagnoses.push(unknown("database.locks", "who holds locks on the ledger", error)),
    }
    diagnoses
}

fn file(facts: &SqliteFacts) -> Vec<Diagnosis> {
    let journal = match &facts.journal_mode {
        Ok(mode) if mode.eq_ignore_ascii_case("wal") => {
            Diagnosis::ok("database.settings", "SQLite, with a write-ahead log")
        }
        Ok(mode) => Diagnosis::note(
            "database.settings",
            format!("SQLite with journal_mode {mode}: readers and the writer wait for each other"),
            "The next command that writes sets it to wal. If it does not stay so, the file is on a file system that \
             cannot (a network's): put it on a local disk",
        ),
        Err(error) => unknown("database.settings", "the file's journal", error),
    };
    let lock = match &facts.write_lock {
        Ok(()) => Diagnosis::ok("database.locks", "nobody keeps the file's write lock"),
        Err(error) => Diagnosis::error(
            "database.locks",
            format!("the file's write lock cannot be had: {}", chain(error)),
            "Find the process that has the file open (fuser FILE) and end its transaction; check that this user may \
             write the file and its folder",
        ),
    };
    vec![journal, lock]
}

fn settings(facts: &PostgresFacts, diagnoses: &mut Vec<Diagnosis>) {
    let unmet = match &facts.settings {
        Ok(unmet) => unmet,
        Err(error) => {
            return diagnoses.push(unknown("database.settings", "the database's settings", error));
        }
    };
    if unmet.is_empty() {
        diagnoses.push(Diagnosis::ok(
            "database.settings",
            "encoding, durability and the other settings that correctness rests on",
        ));
    }
    for unmet in unmet {
        let must = if unmet.refused { "must" } else { "should" };
        let what =
            format!("{} is {}, but {must} be {}: {}", unmet.setting, unmet.found, unmet.needed, unmet.why);
        let judge = if unmet.refused { Diagnosis::error } else { Diagnosis::warning };
        diagnoses.push(judge("database.settings", what, unmet.repair));
    }
}

/// Batches say their isolation by themselves, so this is for the others in the same database.
fn isolation(usual: &UsualSettings) -> Diagnosis {
    let UsualSettings { isolation } = usual;
    if isolation == "read committed" {
        return Diagnosis::ok("database.isolation", "read committed is usual for the role");
    }
    Diagnosis::note(
        "database.isolation",
        format!(
            "default_transaction_isolation is {isolation} for this role: the verifier sets its own, but who writes to \
             the ledger with another program would miss what is decided meanwhile"
        ),
        "ALTER ROLE … RESET default_transaction_isolation, and the same for the database (ALTER DATABASE …)",
    )
}

/// How many standbys a commit waits for, by `synchronous_standby_names`: `ANY N (…)`, `FIRST N (…)` and `N (…)` say it; of a
/// list without a number it is one.
fn standbys_needed(names: &str) -> usize {
    let before = names.split_once('(').map_or("", |(before, _)| before);
    // Where the bracket is in a name that is quoted, these are no such words.
    let number = match &before.split_whitespace().collect::<Vec<_>>()[..] {
        [number] => number.parse().ok(),
        [method, number] if ["any", "first"].iter().any(|known| method.eq_ignore_ascii_case(known)) => {
            number.parse().ok()
        }
        _ => None,
    };
    number.unwrap_or(1)
}

fn replication(standbys: &Standbys) -> Diagnosis {
    let check = "database.standbys";
    let waits_for = &standbys.synchronous_names;
    let known: Vec<&str> = standbys.connected.iter().flatten().map(String::as_str).collect();
    let hidden = standbys.connected.len() - known.len();
    let synchronous = known.iter().filter(|state| matches!(**state, "sync" | "quorum")).count();
    if waits_for.is_empty() {
        return if standbys.connected.is_empty() {
            Diagnosis::ok(check, "no standby: what is committed is on this server alone")
        } else {
            Diagnosis::warning(
                check,
                format!(
                    "{} standbys follow, and no commit waits for one (synchronous_standby_names is empty): a failover \
                     can lose decisions whose results are published",
                    standbys.connected.len()
                ),
                "Set synchronous_standby_names, to ANY 1 (…) of two or more say; or know how to go on after a failover \
                 that lost commits (docs/replay.md, What to know of the database)",
            )
        };
    }
    let needed = standbys_needed(waits_for);
    if synchronous >= needed {
        return Diagnosis::ok(check, format!("commits wait for standbys: {waits_for}"));
    }
    if synchronous + hidden >= needed {
        return Diagnosis::note(
            check,
            format!(
                "commits wait for {waits_for}, so for {needed}; whether {needed} of the {hidden} standbys are such, this \
                 role may not see"
            ),
            "GRANT pg_monitor TO the role that doctor runs as",
        );
    }
    // Where some may not be seen, they are too few all the same.
    let there = synchronous + hidden;
    Diagnosis::error(
        check,
        format!(
            "every commit waits for {waits_for} (synchronous_standby_names): {needed} of them are needed, and {there} are \
             connected"
        ),
        "Bring the standby back; or, until then, need fewer: ALTER SYSTEM SET synchronous_standby_names = '…' (where it \
         is '', no commit waits) and SELECT pg_reload_conf(). What waits then goes on by itself: end no session that does",
    )
}

fn connections(counts: &ConnectionCounts, needed: u32) -> Diagnosis {
    let check = "database.connections";
    let left = counts.left();
    if left >= i64::from(needed) {
        return Diagnosis::ok(
            check,
            format!("{left} connections are left; one more `run` opens up to {needed}"),
        );
    }
    Diagnosis::warning(
        check,
        format!("{left} connections are left, and one more `run` opens up to {needed}"),
        "Raise max_connections (or the limit of the role or the database), end sessions that nobody needs, or start \
         fewer --workers. Where the instances run already, this counts for the next one, and for a restart that overlaps",
    )
}

fn clock(ahead: i64) -> Diagnosis {
    let check = "database.clock";
    if ahead.abs() <= SKEW {
        return Diagnosis::ok(
            check,
            "the database's clock and this machine's agree (brokers do not say what theirs is)",
        );
    }
    let (seconds, which) = (ahead.abs() / 1_000_000, if ahead > 0 { "ahead of" } else { "behind" });
    Diagnosis::warning(
        check,
        format!(
            "the database's clock is {seconds} s {which} this machine's: holds end by the database's, and times in \
             decisions are its"
        ),
        "Let NTP keep both (chronyc tracking, timedatectl)",
    )
}

fn lock_holder(holder: &LockHolder) -> Option<Diagnosis> {
    let check = "database.locks";
    let LockHolder { by, role, seconds, tables, writes, blocks, awaits_standby } = holder;
    let seconds = *seconds;
    let is_held_long = seconds.is_none_or(|seconds| seconds >= HELD_LONG);
    if !is_held_long {
        return None;
    }
    let since =
        seconds.map_or_else(|| "since when this role may not see".to_owned(), |s| format!("for {s} s"));
    let (tables, waiting) = (
        tables.join(", "),
        if *blocks > 0 { format!("; {blocks} sessions wait for it") } else { String::new() },
    );
    match by {
        TransactionOwner::Prepared { gid } => {
            let what = format!(
                "a prepared transaction {gid:?} of {role} holds locks on {tables}, {since}{waiting}: nothing but an \
                 operator or its coordinator ends it"
            );
            let advice = format!("COMMIT PREPARED or ROLLBACK PREPARED '{gid}', as its coordinator would");
            Some(Diagnosis::error(check, what, advice))
        }
        TransactionOwner::Session { pid, application, address, .. } if *awaits_standby => {
            let what = format!(
                "session {pid} ({application:?} of {role} from {address}) waits for a synchronous standby to have what it \
                 commits, {since}, and keeps its locks on {tables} until then{waiting}"
            );
            let advice = "Bring the standby back (see database.standbys), or need fewer by synchronous_standby_names: then \
                          it goes on by itself. Do not end it: what it committed would be seen here and be on no standby";
            let judge = if *blocks > 0 { Diagnosis::error } else { Diagnosis::warning };
            Some(judge(check, what, advice))
        }
        TransactionOwner::Session { pid, application, address, idle } => {
            let does = match idle {
                Some(true) => "idle in a transaction",
                Some(false) => "in a transaction",
                None => "in a transaction of another role",
            };
            let who = format!("session {pid} ({application:?} of {role} from {address}), {does}");
            let what = format!("{who}, holds locks on {tables}, {since}{waiting}");
            let end = format!(
                "End it: SELECT pg_terminate_backend({pid}). If it is a verifier's, that instance is frozen or cut off"
            );
            match (idle, writes, seconds) {
                _ if *blocks > 0 => Some(Diagnosis::error(check, what, end)),
                (Some(true), true, _) => Some(Diagnosis::error(check, what, end)),
                (_, true, Some(_)) => Some(Diagnosis::warning(check, what, end)),
                (None, true, None) => Some(Diagnosis::note(
                    check,
                    what,
                    "Look again: a batch takes milliseconds. To see since when, GRANT pg_monitor TO this role",
                )),
                (_, false, Some(seconds)) if seconds >= READ_LONG => Some(Diagnosis::note(
                    check,
                    format!(
                        "{who}, reads the ledger, {since}: what is changed meanwhile cannot be cleaned up"
                    ),
                    end,
                )),
                _ => None,
            }
        }
    }
}

fn tables(found: &Answer<()>) -> Diagnosis {
    let check = "database.migrations";
    match found {
        Ok(()) => Diagnosis::ok(check, "the ledger's tables are such that this program may run on them"),
        Err(error @ (StoreError::Unmigrated | StoreError::Outdated { .. })) => {
            Diagnosis::error(check, error.to_string(), "Run `stock-verifier migrate`")
        }
        Err(error @ StoreError::Newer { .. }) => {
            Diagnosis::error(check, error.to_string(), "Use the newer program for all that uses this ledger")
        }
        Err(error @ StoreError::Foreign { .. }) => {
            Diagnosis::error(check, error.to_string(), "Give the ledger a database or a schema of its own")
        }
        Err(error) => unknown(check, "the ledger's tables", error),
    }
}

fn writable(found: &Answer<()>) -> Diagnosis {
    let check = "database.writable";
    match found {
        Ok(()) => Diagnosis::ok(check, "the database takes writes"),
        Err(error @ StoreError::ReadOnly { .. }) => {
            Diagnosis::error(check, error.to_string(), "`run` waits until it is writable again")
        }
        Err(error) => unknown(check, "whether the database takes writes", error),
    }
}

fn owner(found: &Answer<Option<String>>, group: &str) -> Diagnosis {
    let check = "ledger.group";
    match found {
        Ok(Some(owner)) if owner != group => Diagnosis::error(
            check,
            format!("the ledger is of consumer group {owner:?}, and --group is {group:?}: `run` refuses it"),
            format!(
                "Give --group {owner}, or another database; or, if that group is gone for good, start once with \
                 --take-over-ledger"
            ),
        ),
        Ok(Some(owner)) => Diagnosis::ok(check, format!("the ledger is of consumer group {owner:?}")),
        Ok(None) => Diagnosis::ok(check, "the ledger is of no consumer group yet"),
        Err(error) => unknown(check, "whose ledger it is", error),
    }
}

fn holds(found: &Answer<Option<OverdueHolds>>) -> Diagnosis {
    let check = "ledger.holds";
    match found {
        Ok(None) => Diagnosis::ok(check, "no hold is overdue"),
        Ok(Some(OverdueHolds { count, oldest, since })) => Diagnosis::warning(
            check,
            format!(
                "{count} holds should have ended and did not, the oldest of order {oldest}, since {}",
                since.rfc3339()
            ),
            "See docs/replay.md, Holds that do not end: no verifier runs, the orders topic has a backlog, or the \
             verifier may not write to it",
        ),
        Err(error) => unknown(check, "overdue holds", error),
    }
}

pub(super) fn unknown(check: &'static str, what: &str, error: &StoreError) -> Diagnosis {
    let advice = if error.is_transient() {
        "Look again; if it stays so, somebody may hold a lock, or the server is overloaded"
    } else {
        "Allow this role to read it, as docs/permissions.md has it"
    };
    Diagnosis::unknown(check, what, &chain(error), advice)
}

/// An error with what it comes from.
pub(super) fn chain(error: &StoreError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Severity;
    use super::*;

    fn session(idle: Option<bool>, seconds: Option<i64>, writes: bool, blocks: i64) -> LockHolder {
        LockHolder {
            by: TransactionOwner::Session {
                pid: 42,
                application: "psql".to_owned(),
                address: "this host".to_owned(),
                idle,
            },
            role: "ops".to_owned(),
            seconds,
            tables: vec!["levels".to_owned()],
            writes,
            blocks,
            awaits_standby: false,
        }
    }

    #[test]
    fn who_holds_locks_is_judged_by_how_long_and_who_waits() {
        let judged = |holder: LockHolder| lock_holder(&holder).map(|diagnosis| diagnosis.severity);
        let table = [
            // A batch.
            (session(Some(false), Some(0), true, 3), None),
            (session(Some(true), Some(4), true, 0), None),
            (session(Some(true), Some(5), true, 0), Some(Severity::Error)),
            (session(Some(false), Some(9), true, 0), Some(Severity::Warning)),
            (session(Some(false), Some(9), true, 1), Some(Severity::Error)),
            // A reader is in nobody's way, but for who changes the table itself.
            (session(Some(true), Some(599), false, 0), None),
            (session(Some(true), Some(600), false, 0), Some(Severity::Note)),
            (session(Some(true), Some(9), false, 1), Some(Severity::Error)),
            // What may not be seen.
            (session(None, None, true, 0), Some(Severity::Note)),
            (session(None, None, true, 1), Some(Severity::Error)),
            (session(None, None, false, 0), None),
        ];
        for (holder, expected) in table {
            assert_eq!(judged(holder.clone()), expected, "{holder:?}");
        }
        let prepared = LockHolder {
            by: TransactionOwner::Prepared { gid: "shop-7".to_owned() },
            ..session(None, Some(60), true, 2)
        };
        let diagnosis = lock_holder(&prepared).unwrap();
        assert_eq!(diagnosis.severity, Severity::Error);
        assert!(diagnosis.what.contains("2 sessions wait for it"), "{}", diagnosis.what);
        assert!(diagnosis.advice.unwrap().contains("ROLLBACK PREPARED 'shop-7'"));
    }

    #[test]
    fn who_waits_for_a_standby_is_not_to_be_ended() {
        for (blocks, expected) in [(0, Severity::Warning), (3, Severity::Error)] {
            let holder = LockHolder { awaits_standby: true, ..session(Some(false), Some(60), true, blocks) };
            let diagnosis = lock_holder(&holder).unwrap();
            assert_eq!(diagnosis.severity, expected);
            let advice = diagnosis.advice.unwrap();
            assert!(advice.contains("Bring the standby back") && !advice.contains("terminate"), "{advice}");
        }
        let young = LockHolder { awaits_standby: true, ..session(Some(false), Some(0), true, 3) };
        assert_eq!(lock_holder(&young), None, "each commit waits for a moment");
    }

    #[test]
    fn standbys_are_judged_by_whether_a_commit_waits_for_one_that_is_there() {
        let state = |state: &str| Some(state.to_owned());
        let table = [
            ("", vec![], Severity::Ok),
            ("", vec![state("async")], Severity::Warning),
            ("", vec![None], Severity::Warning),
            ("ANY 1 (a, b)", vec![state("quorum"), state("async")], Severity::Ok),
            ("a", vec![state("async")], Severity::Error),
            ("a", vec![], Severity::Error),
            ("a", vec![None], Severity::Note),
            ("ANY 2 (a, b)", vec![state("quorum"), state("async")], Severity::Error),
            ("ANY 2 (a, b)", vec![state("quorum"), state("quorum")], Severity::Ok),
            ("FIRST 2 (a, b, c)", vec![state("sync"), state("potential")], Severity::Error),
            ("ANY 2 (a, b)", vec![None], Severity::Error),
            ("ANY 2 (a, b)", vec![None, None], Severity::Note),
        ];
        for (names, connected, expected) in table {
            let standbys = Standbys { synchronous_names: names.to_owned(), connected };
            assert_eq!(replication(&standbys).severity, expected, "{standbys:?}");
        }
        let few = Standbys { synchronous_names: "2 (a, b)".to_owned(), connected: vec![state("sync")] };
        let what = replication(&few).what;
        assert!(what.contains("2 of them are needed, and 1 are connected"), "{what}");
    }

    #[test]
    fn a_commit_waits_for_as_many_standbys_as_the_setting_says_in_any_of_its_forms() {
        for (names, needed) in [
            ("ANY 2 (a, b)", 2),
            ("any 3(a,b,c)", 3),
            ("FIRST 2 (a, b)", 2),
            ("First  2 ( \"a\" , b )", 2),
            ("2 (a, b)", 2),
            (" 2(*)", 2),
            ("a, b", 1),
            ("*", 1),
            ("2", 1),
            ("\"a (2)\", b", 1),
            ("\"a 2 (\", b", 1),
        ] {
            assert_eq!(standbys_needed(names), needed, "{names}");
        }
    }

    #[test]
    fn clocks_connections_and_isolation_are_judged_by_their_bounds() {
        assert_eq!(clock(SKEW).severity, Severity::Ok);
        let ahead = clock(90_000_000);
        assert!(ahead.severity == Severity::Warning && ahead.what.contains("90 s ahead of"), "{ahead:?}");
        assert!(clock(-2_000_000).what.contains("2 s behind"));
        let counts =
            |used| ConnectionCounts { most: 20, reserved: 3, used, of_role: None, of_database: None };
        assert_eq!(connections(&counts(11), 6).severity, Severity::Ok);
        assert_eq!(connections(&counts(12), 6).severity, Severity::Warning);
        let usual = |isolation: &str| UsualSettings { isolation: isolation.to_owned() };
        assert_eq!(isolation(&usual("read committed")).severity, Severity::Ok);
        assert_eq!(isolation(&usual("serializable")).severity, Severity::Note);
    }
}
