//! What a server says of itself to who looks for faults: catalogues and settings, read one by one.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::admin::MIGRATIONS;
use super::connection::CLOSE_LIMIT;
use super::distributed::{self, Layout};
use super::failure::failed;
use super::{PostgresStore, followers, gate, settings};
use crate::ledger::Stamp;
use crate::store::examination::Deadline;
use crate::store::{
    Answer, ClockReading, ClusterFacts, ConnectionCounts, DatabaseFacts, Examination, Followers,
    LedgerAdmin as _, LedgerExaminer, LedgerHistory as _, LedgerWriter as _, LockHolder, MissingGrant,
    OVERDUE, PostgresFacts, Standbys, StoreError, TransactionOwner, UsualSettings, WorkQueue as _, version,
};

/// What a verifier's role must be allowed, beside reading: the same as docs/permissions.md, whose test would fail too.
const NEEDED_GRANTS: [(&str, &[&str]); 12] = [
    ("_sqlx_migrations", &["SELECT"]),
    ("decisions", &["SELECT", "INSERT"]),
    ("movements", &["SELECT", "INSERT"]),
    ("levels", &["SELECT", "INSERT", "UPDATE"]),
    ("positions", &["SELECT", "INSERT", "UPDATE"]),
    ("unannounced_levels", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("order_lines", &["SELECT", "INSERT", "UPDATE"]),
    ("topic_incarnations", &["SELECT", "INSERT", "UPDATE"]),
    ("ledger_group", &["SELECT", "INSERT", "UPDATE"]),
    ("mapping_programs", &["SELECT", "INSERT", "DELETE"]),
    ("holds", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    // Of a distributed ledger alone.
    ("node_barrier", &["SELECT", "UPDATE"]),
];
/// The one sequence, and what must be allowed of it.
const SEQUENCE: (&str, &str) = ("ledger_seq", "USAGE");

/// How long after the first look for locks the second is, where it is needed. A batch takes milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[async_trait]
impl LedgerExaminer for PostgresStore {
    /// What only catalogues know is asked on one connection, since none of that waits for a lock; each table on one of its
    /// own, since it may be locked.
    async fn examine(&self, limit: Duration) -> Examination {
        let deadline = Deadline::after(limit);
        let (catalogues, tables, writable, group, overdue) = tokio::join!(
            catalogues(self, deadline),
            deadline.wait("reading the ledger's version", tables(self)),
            deadline.wait("asking whether the database can be written", self.check_writable()),
            deadline.wait("reading whose ledger it is", self.group()),
            deadline.wait("looking for overdue holds", self.overdue_holds(OVERDUE)),
        );
        let database = DatabaseFacts::Postgres(Box::new(catalogues));
        Examination { tables, writable, group, overdue, database }
    }

    async fn followers(&self) -> Result<Followers, StoreError> {
        let layout = self.layout().await?;
        self.with(async |connection| followers::read(connection, layout).await).await
    }
}

async fn tables(store: &PostgresStore) -> Answer<()> {
    version::check(&MIGRATIONS, &store.migrations().await?)
}

async fn catalogues(store: &PostgresStore, deadline: Deadline) -> PostgresFacts {
    macro_rules! ask {
        ($doing:literal, $ask:path) => {
            deadline.wait($doing, store.with($ask)).await
        };
    }
    // The most telling first, should the server become slow.
    let lock_holders = ask!("looking who holds locks", lock_holders);
    let settings = ask!("checking the database's settings", settings::unmet);
    let version = ask!("asking for the server's version", server_version);
    let standbys = ask!("looking for standbys", standbys);
    // On a connection of its own, which is over when connections are counted.
    let usual = deadline.wait("asking what is usual for the role", usual(store)).await;
    let over = usual.as_ref().ok().map(|(_, session)| *session);
    PostgresFacts {
        lock_holders,
        settings,
        version,
        standbys,
        usual: usual.map(|(usual, _)| usual),
        connections: deadline.wait("counting connections", connections(store, over)).await,
        clock: ask!("asking for the time", clock),
        missing_grants: ask!("asking for privileges", missing_grants),
        cluster: deadline.wait("asking the nodes of the cluster", cluster(store)).await,
    }
}

async fn cluster(store: &PostgresStore) -> Answer<Option<ClusterFacts>> {
    match store.layout().await? {
        Layout::Plain => Ok(None),
        Layout::Distributed => store.with(distributed::examine).await.map(Some),
    }
}

/// What is usual, and the server's process of the session that said so.
async fn usual(store: &PostgresStore) -> Answer<(UsualSettings, i32)> {
    let mut connection = store.pool.session().connect_bare().await?;
    let found: Result<(String, i32), _> =
        sqlx::query_as("SELECT current_setting('default_transaction_isolation'), pg_backend_pid()")
            .fetch_one(&mut connection)
            .await;
    // It has said what it was asked for; how it ends changes nothing.
    let _ = tokio::time::timeout(CLOSE_LIMIT, connection.close()).await;
    let (isolation, session) = found.map_err(failed("asking what is usual for the role"))?;
    Ok((UsualSettings { isolation }, session))
}

async fn server_version(connection: &mut PgConnection) -> Answer<String> {
    sqlx::query_scalar("SELECT current_setting('server_version')")
        .fetch_one(connection)
        .await
        .map_err(failed("asking for the server's version"))
}

async fn standbys(connection: &mut PgConnection) -> Answer<Standbys> {
    // By a logical slot some tables are followed, which nobody fails over to; a tool that copies the log is no server. Whom a
    // commit waits for counts all the same, and who may be one of those where this role may not see it.
    let (synchronous_names, connected) = sqlx::query_as(
        "SELECT current_setting('synchronous_standby_names'),
                ARRAY(SELECT sync_state FROM pg_stat_replication AS sender
                      WHERE sync_state IN ('sync', 'quorum')
                            OR sync_state IS NULL AND current_setting('synchronous_standby_names') <> ''
                            OR state IS DISTINCT FROM 'backup'
                               AND coalesce(application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal')
                               AND NOT EXISTS (SELECT FROM pg_replication_slots AS slot
                                               WHERE slot.active_pid = sender.pid AND slot.slot_type = 'logical'))",
    )
    .fetch_one(connection)
    .await
    .map_err(failed("looking for standbys"))?;
    Ok(Standbys { synchronous_names, connected })
}

/// Counted are the sessions of others: without one that is `over`, should its process still be there, and without those that
/// the store's pools have now. One that they are about to open is taken for a session already, so that too few are counted
/// rather than too many.
async fn connections(store: &PostgresStore, over: Option<i32>) -> Answer<ConnectionCounts> {
    let all = store.with(async |connection| all_connections(connection, over).await).await?;
    let own: i64 = store.connections().iter().map(|pool| i64::from(pool.used) + i64::from(pool.idle)).sum();
    Ok(all.without(own))
}

async fn all_connections(connection: &mut PgConnection, without: Option<i32>) -> Answer<ConnectionCounts> {
    // Who is connected everybody may see, by role and database; the server's own workers lack one of the two.
    let doing = failed("counting connections");
    let row = sqlx::query(
        "WITH session AS MATERIALIZED (
             SELECT usename, usesysid, datname, datid FROM pg_stat_activity WHERE pid IS DISTINCT FROM $1
         )
         SELECT current_setting('max_connections')::bigint AS most,
                current_setting('superuser_reserved_connections')::bigint
                    + coalesce(current_setting('reserved_connections', true)::bigint, 0) AS reserved,
                (SELECT count(*) FROM session WHERE usesysid IS NOT NULL AND datid IS NOT NULL) AS used,
                (SELECT nullif(rolconnlimit, -1)::bigint FROM pg_roles WHERE rolname = session_user) AS role_most,
                (SELECT count(*) FROM session WHERE usename = session_user) AS role_used,
                (SELECT nullif(datconnlimit, -1)::bigint FROM pg_database WHERE datname = current_database())
                    AS database_most,
                (SELECT count(*) FROM session
                 WHERE datname = current_database() AND usesysid IS NOT NULL) AS database_used",
    )
    .bind(without)
    .fetch_one(connection)
    .await
    .map_err(&doing)?;
    let read = |row: &PgRow| {
        let limit = |most: Option<i64>, used: i64| most.map(|most| (most, used));
        Ok(ConnectionCounts {
            most: row.try_get("most")?,
            reserved: row.try_get("reserved")?,
            used: row.try_get("used")?,
            of_role: limit(row.try_get("role_most")?, row.try_get("role_used")?),
            of_database: limit(row.try_get("database_most")?, row.try_get("database_used")?),
        })
    };
    read(&row).map_err(&doing)
}

async fn clock(connection: &mut PgConnection) -> Answer<ClockReading> {
    let mut ask = async || {
        let before = now();
        let answered: i64 =
            sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
                .fetch_one(&mut *connection)
                .await
                .map_err(failed("asking for the time"))?;
        Ok::<_, StoreError>(ClockReading { before, answered: Stamp(answered), after: now() })
    };
    // The first time the statement is prepared, which takes a trip more.
    ask().await?;
    ask().await
}

fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

async fn missing_grants(connection: &mut PgConnection) -> Answer<Vec<MissingGrant>> {
    let wanted = NEEDED_GRANTS
        .iter()
        .flat_map(|(table, privileges)| privileges.iter().map(move |privilege| (*table, *privilege)))
        .chain([SEQUENCE]);
    let (objects, privileges): (Vec<&str>, Vec<&str>) = wanted.unzip();
    // What is not there is a matter of the tables' version.
    let missing: Vec<(String, String)> = sqlx::query_as(
        "SELECT object, privilege FROM UNNEST($1::text[], $2::text[]) AS wanted (object, privilege)
         WHERE CASE WHEN to_regclass(object) IS NULL THEN false
                    WHEN object = $3 THEN NOT has_sequence_privilege(to_regclass(object), privilege)
                    ELSE NOT has_table_privilege(to_regclass(object), privilege) END",
    )
    .bind(objects)
    .bind(privileges)
    .bind(SEQUENCE.0)
    .fetch_all(connection)
    .await
    .map_err(failed("asking for privileges"))?;
    Ok(missing.into_iter().map(|(object, privilege)| MissingGrant { object, privilege }).collect())
}

/// Those whose age this role may not see are looked for twice: a batch is over by then.
async fn lock_holders(connection: &mut PgConnection) -> Answer<Vec<LockHolder>> {
    let mut found = held(connection).await?;
    if found.iter().any(|(_, holder)| holder.seconds.is_none()) {
        tokio::time::sleep(LOOK_AGAIN).await;
        let still: BTreeSet<String> = held(connection).await?.into_iter().map(|(name, _)| name).collect();
        found.retain(|(name, holder)| holder.seconds.is_some() || still.contains(name));
    }
    Ok(found.into_iter().map(|(_, holder)| holder).collect())
}

/// Transactions that hold locks now, each with the name that the server has for it.
async fn held(connection: &mut PgConnection) -> Answer<Vec<(String, LockHolder)>> {
    let tables: Vec<&str> = NEEDED_GRANTS.iter().map(|(table, _)| *table).collect();
    let doing = failed("looking who holds locks");
    // A prepared transaction has no session: its name is found by the number that it has locked as its own. What a role
    // may not see of another's session is null.
    let rows = sqlx::query(
        "WITH held AS (
             SELECT pid, virtualtransaction,
                    array_agg(DISTINCT coalesce(class.relname::text, 'the gate of the batches')
                              ORDER BY coalesce(class.relname::text, 'the gate of the batches')) AS tables,
                    bool_or(mode NOT IN ('AccessShareLock', 'ShareLock') OR locktype = 'advisory') AS writes
             FROM pg_locks LEFT JOIN pg_class AS class ON locktype = 'relation' AND class.oid = relation
             WHERE granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND (locktype = 'relation' AND class.relname = ANY($1)
                            AND class.relnamespace = to_regnamespace(quote_ident(current_schema()))
                        OR locktype = 'advisory' AND objsubid = 1
                            AND (classid::bigint << 32 | objid::bigint) = $2)
                   AND pid IS DISTINCT FROM pg_backend_pid()
             GROUP BY pid, virtualtransaction
         ), waiting AS MATERIALIZED (
             SELECT pid, pg_blocking_pids(pid) AS blockers
             FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND pid IS NOT NULL) AS waiting
         )
         SELECT held.pid, held.virtualtransaction AS name, tables, writes,
                coalesce(session.usename::text, prepared.owner::text, '?') AS role,
                coalesce(session.application_name, '?') AS application,
                coalesce(host(session.client_addr), 'this host') AS address,
                session.state LIKE 'idle in transaction%' AS idle,
                extract(epoch FROM clock_timestamp() - coalesce(session.xact_start, prepared.prepared))::bigint AS seconds,
                coalesce(prepared.gid, '?') AS gid,
                coalesce(session.wait_event = 'SyncRep', false) AS awaits_standby,
                (SELECT count(*) FROM waiting WHERE coalesce(held.pid, 0) = ANY(blockers)) AS blocks
         FROM held
         LEFT JOIN pg_stat_activity AS session ON session.pid = held.pid
         LEFT JOIN pg_locks AS own ON held.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
                                      AND own.virtualtransaction = held.virtualtransaction
         LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
         ORDER BY seconds DESC NULLS LAST, held.pid",
    )
    .bind(tables)
    .bind(gate::GATE)
    .fetch_all(connection)
    .await
    .map_err(&doing)?;
    rows.iter().map(|row| lock_holder(row).map_err(&doing)).collect()
}

fn lock_holder(row: &PgRow) -> Result<(String, LockHolder), sqlx::Error> {
    let by = match row.try_get("pid")? {
        Some(pid) => TransactionOwner::Session {
            pid,
            application: row.try_get("application")?,
            address: row.try_get("address")?,
            idle: row.try_get("idle")?,
        },
        None => TransactionOwner::Prepared { gid: row.try_get("gid")? },
    };
    let holder = LockHolder {
        by,
        role: row.try_get("role")?,
        seconds: row.try_get("seconds")?,
        tables: row.try_get("tables")?,
        writes: row.try_get("writes")?,
        blocks: row.try_get("blocks")?,
        awaits_standby: row.try_get("awaits_standby")?,
    };
    Ok((row.try_get("name")?, holder))
}
