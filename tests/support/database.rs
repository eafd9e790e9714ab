//! A database for each test.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use stock_verifier::store::LedgerAdmin as _;
use stock_verifier::store::postgres::{Connections, PostgresStore};

use super::dropped::drop_database;
use super::servers::wait_for;
use super::template;
use super::{CITUS_SHARDS, TestDatabase};

/// A name no other test of this or any other run has.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    format!("{prefix}_{}_{}_{count}", now.as_millis() % 10_000_000_000, std::process::id())
}

/// A database of one test. It stays when the test fails, to be looked at.
pub struct Database {
    server: String,
    /// The other nodes of the cluster that it is on.
    others: Vec<String>,
    name: String,
    pool: PgPool,
}

impl Database {
    /// An empty one, without the ledger's tables.
    pub fn empty(server: &str) -> Self {
        Self::create(server, "")
    }

    /// One with the ledger's tables and nothing in them.
    pub fn fresh(server: &str) -> Self {
        let template = wait_for(template::migrated(server));
        Self::create(server, &format!("TEMPLATE {template}"))
    }

    fn create(server: &str, clause: &str) -> Self {
        let name = unique("test");
        run_on(server, &format!("CREATE DATABASE {name} {clause}"));
        Self::of(server, Vec::new(), name)
    }

    /// One with a plain ledger, on every node of the cluster whose coordinator `CITUS_URL` names.
    pub fn undistributed_on_cluster() -> Self {
        let TestDatabase::Citus { mut nodes, name } = wait_for(TestDatabase::citus()) else {
            unreachable!("made so")
        };
        let database = Self::of(&nodes.remove(0), nodes, name);
        wait_for(database.store().migrate()).expect("migrated");
        database
    }

    /// One with a distributed ledger there.
    pub fn on_cluster() -> Self {
        let database = Self::undistributed_on_cluster();
        wait_for(database.store().distribute(Some(CITUS_SHARDS))).expect("distributed");
        database
    }

    /// Brings the tables of a distributed ledger back to its coordinator, as plain ones.
    pub fn gather(&self) {
        for table in ["levels", "movements", "decisions", "order_lines", "holds"] {
            self.run(&format!("SELECT undistribute_table('{table}')"));
        }
    }

    /// Its URLs on the other nodes of its cluster.
    pub fn other_nodes(&self) -> Vec<String> {
        self.others.iter().map(|node| url_of(node, &self.name)).collect()
    }

    fn of(server: &str, others: Vec<String>, name: String) -> Self {
        let url = url_of(server, &name);
        // Inside the runtime, where the pool's own tasks live.
        let options: PgConnectOptions = url.parse().expect("a database URL");
        // Compiling a proof's queries takes longer than running them.
        let options = options.options([("jit", "off")]);
        let pool = wait_for(async { PgPoolOptions::new().max_connections(4).connect_lazy_with(options) });
        Self { server: server.to_owned(), others, name, pool }
    }

    /// What is in it now, as another database: a backup.
    pub fn backup(&self) -> Self {
        // A template must have no connections, and a verifier that runs would be back at once.
        self.let_in(false);
        self.disconnect_all();
        let copy = Self::create(&self.server, &format!("TEMPLATE {}", self.name));
        self.let_in(true);
        copy
    }

    /// Changes places with another: each has the other's name from here on, as after a failover to a standby. Whoever is
    /// connected is disconnected.
    pub fn swap(&self, other: &Self) {
        for database in [self, other] {
            // A name in use cannot be changed.
            database.let_in(false);
            database.disconnect_all();
        }
        let (ours, theirs, aside) = (self.name.clone(), other.name.clone(), unique("aside"));
        let renamed = [(&ours, &aside), (&theirs, &ours), (&aside, &theirs)]
            .map(|(from, to)| format!("ALTER DATABASE {from} RENAME TO {to};"));
        // In one transaction: nobody finds the name gone.
        run_on(&self.server, &renamed.concat());
        self.let_in(true);
        other.let_in(true);
    }

    /// Whether anybody may connect.
    pub fn let_in(&self, everybody: bool) {
        run_on(&self.server, &format!("ALTER DATABASE {} ALLOW_CONNECTIONS {everybody}", self.name));
    }

    /// Ends every connection to it, as an operator would.
    pub fn disconnect_all(&self) {
        run_on(
            &self.server,
            &format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'",
                self.name
            ),
        );
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, password and all.
    pub fn url(&self) -> String {
        url_of(&self.server, &self.name)
    }

    /// The verifier's own store on it.
    pub fn store(&self) -> PostgresStore {
        let url = self.url();
        wait_for(
            async move { PostgresStore::open(&url, Connections { batches: 2, readers: 2, others: 2 }).await },
        )
        .expect("PostgreSQL is reached")
    }

    /// Does something for its effect.
    pub fn run(&self, sql: &str) {
        wait_for(sqlx::raw_sql(sql).execute(&self.pool)).expect(sql);
    }

    /// Does something while a transaction that has made this query stays open.
    pub fn holding(&self, sql: &str, work: impl FnOnce()) {
        let transaction = wait_for(async {
            let mut transaction = self.pool.begin().await.expect("a transaction");
            sqlx::raw_sql(sql).execute(&mut *transaction).await.expect(sql);
            transaction
        });
        // Rolled back where that failed too: dropped on a thread that unwinds it would end all tests.
        let done = catch_unwind(AssertUnwindSafe(work));
        let rolled_back = wait_for(transaction.rollback());
        match done {
            Ok(()) => rolled_back.expect("rolled back"),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// All rows of a query.
    pub fn rows(&self, sql: &str) -> Vec<PgRow> {
        wait_for(sqlx::query(sql).fetch_all(&self.pool)).expect(sql)
    }

    /// The one number a query gives; 0 for null.
    pub fn number(&self, sql: &str) -> i64 {
        self.try_number(sql).expect(sql)
    }

    /// The same, while the server may be away.
    pub fn try_number(&self, sql: &str) -> Result<i64, sqlx::Error> {
        let row = wait_for(sqlx::query(sql).fetch_one(&self.pool))?;
        Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))
    }

    /// Orders decided so far.
    pub fn decided(&self) -> i64 {
        self.number("SELECT count(*) FROM decisions WHERE kind = 1")
    }

    /// Records applied so far, of all partitions.
    pub fn applied(&self) -> i64 {
        self.number("SELECT sum(next_offset)::bigint FROM positions")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        wait_for(async {
            self.pool.close().await;
            let servers = std::iter::once(&self.server).chain(&self.others).cloned().collect();
            drop_database(servers, &self.name).await;
        });
    }
}

pub(super) fn url_of(server: &str, name: &str) -> String {
    let mut url = url::Url::parse(server).expect("DATABASE_URL is a URL");
    url.set_path(name);
    url.into()
}

async fn connect(url: &str) -> Result<sqlx::PgConnection, sqlx::Error> {
    <sqlx::PgConnection as sqlx::Connection>::connect(url).await
}

/// Runs one statement on a connection of its own.
pub fn run_on(url: &str, sql: &str) {
    wait_for(async {
        let mut connection = connect(url).await.expect("PostgreSQL is reached");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
    });
}

/// What a database says to a question of yes or no, on a connection of its own.
pub fn boolean_on(url: &str, what: &str) -> bool {
    wait_for(async {
        let mut connection = connect(url).await.expect("PostgreSQL is reached");
        sqlx::query_scalar(what).fetch_one(&mut connection).await.expect(what)
    })
}
