//! Databases for the tests that every store passes, and short ways to say commands.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{Connection, PgConnection, SqliteConnection};
use stock_verifier::ledger::{
    Command, HoldSeconds, Id, Item, Limits, Location, NextOffset, Offset, Outcome, Policy, Quantity, Request,
    Sku, Source, Stamp, Terms, TopicPartition,
};
use stock_verifier::store::memory::MemoryStore;
use stock_verifier::store::postgres::{Connections, PostgresStore};
use stock_verifier::store::sqlite::SqliteStore;
use stock_verifier::store::{Advance, CommandBatch, LedgerAdmin as _, Store};

use super::database::{unique, url_of};
use super::dropped::drop_database;
use super::servers::take_permit;
use super::template;

/// Connections of one PostgreSQL store: as many as the suite's busiest test has tasks.
const CONNECTIONS: u32 = 8;
/// Shards of a distributed ledger: several on each node.
pub const CITUS_SHARDS: u16 = 8;
/// Tries to add a node to a cluster.
const NODE_TRIES: u8 = 5;

/// A ledger of one test's own, empty at first: what outlives the stores on it.
pub enum TestDatabase {
    /// What stores in memory share. Its time is this machine's.
    Memory(MemoryStore),
    /// A file that goes with its folder.
    Sqlite { folder: tempfile::TempDir },
    /// A database on the server `DATABASE_URL` names.
    Postgres { server: String, name: String },
    /// A database on the cluster whose coordinator `CITUS_URL` names: the coordinator, then the other nodes.
    Citus { nodes: Vec<String>, name: String },
}

impl TestDatabase {
    /// A ledger in memory.
    pub fn memory() -> Self {
        take_permit();
        Self::Memory(MemoryStore::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            Stamp(i64::try_from(since.as_micros()).expect("before the year 290,000"))
        }))
    }

    /// A SQLite file.
    pub fn sqlite() -> Self {
        take_permit();
        Self::Sqlite { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A new database on the PostgreSQL server that `DATABASE_URL` names, without tables. Never skipped: without a server it
    /// fails.
    pub async fn postgres() -> Self {
        Self::on_postgres(None).await
    }

    /// The same with the ledger's tables and nothing in them.
    pub async fn postgres_migrated() -> Self {
        take_permit();
        let template = template::migrated(&postgres_server()).await;
        Self::on_postgres(Some(&template)).await
    }

    async fn on_postgres(template: Option<&str>) -> Self {
        take_permit();
        let server = postgres_server();
        let name = unique("sv_test");
        let clause = template.map_or_else(String::new, |template| format!(" TEMPLATE {template}"));
        execute_postgres(&server, &format!("CREATE DATABASE {name}{clause}")).await;
        Self::Postgres { server, name }
    }

    /// A new database on every node of the cluster whose coordinator `CITUS_URL` names: a database of it, where
    /// `pg_dist_node` has the others. Its user may make databases and extensions on all of them.
    pub async fn citus() -> Self {
        take_permit();
        let coordinator = std::env::var("CITUS_URL").unwrap_or_default();
        assert!(
            coordinator.starts_with("postgres"),
            "CITUS_URL names no coordinator of a Citus cluster, which this test needs"
        );
        let mut connection = PgConnection::connect(&coordinator).await.expect("connects to the coordinator");
        let others: Vec<(String, i32)> = sqlx::query_as(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid > 0 AND noderole = 'primary' AND isactive",
        )
        .fetch_all(&mut connection)
        .await
        .expect("the nodes of the cluster");
        assert!(others.len() > 1, "a cluster of one worker shows nothing: {others:?}");
        let name = unique("sv_test");
        let mut nodes = vec![coordinator.clone()];
        for (host, port) in others {
            let mut url = url::Url::parse(&coordinator).expect("CITUS_URL is a URL");
            url.set_host(Some(&host)).expect("a host");
            url.set_port(Some(u16::try_from(port).expect("a port"))).expect("a port");
            nodes.push(url.into());
        }
        let cluster = Self::Citus { nodes: nodes.clone(), name: name.clone() };
        for node in &nodes {
            execute_postgres(node, &format!("CREATE DATABASE {name}")).await;
            execute_postgres(&url_of(node, &name), "CREATE EXTENSION citus").await;
        }
        for (number, node) in nodes.iter().enumerate() {
            let url = url::Url::parse(node).expect("a URL");
            let (host, port) = (url.host_str().expect("a host"), url.port().unwrap_or(5432));
            let add = if number == 0 { "citus_set_coordinator_host" } else { "citus_add_node" };
            add_node(&cluster.url(), &format!("SELECT {add}('{host}', {port})")).await;
        }
        cluster
    }

    /// Another ledger of the same kind.
    pub async fn another(&self) -> Self {
        match self {
            Self::Memory(_) => Self::memory(),
            Self::Sqlite { .. } => Self::sqlite(),
            Self::Postgres { .. } => Self::postgres().await,
            Self::Citus { .. } => Self::citus().await,
        }
    }

    /// The URL a user would give.
    pub fn url(&self) -> String {
        match self {
            Self::Memory(_) => panic!("a ledger in memory has no URL: this is a test for databases alone"),
            Self::Sqlite { folder } => format!("sqlite://{}/ledger.db", folder.path().display()),
            Self::Postgres { server, name } => url_of(server, name),
            Self::Citus { nodes, name } => url_of(&nodes[0], name),
        }
    }

    /// Another store on this database, whatever its tables.
    pub async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::new(store.connect()),
            Self::Sqlite { .. } => Arc::new(SqliteStore::open(&self.url()).await.expect("opens")),
            Self::Postgres { .. } | Self::Citus { .. } => Arc::new(self.open_postgres(CONNECTIONS).await),
        }
    }

    async fn open_postgres(&self, batches: u32) -> PostgresStore {
        let connections = Connections { batches, readers: CONNECTIONS, others: CONNECTIONS };
        PostgresStore::open(&self.url(), connections).await.expect("opens")
    }

    /// Another store on this database, its tables ready.
    pub async fn ledger(&self) -> Arc<dyn Store> {
        let store = self.open().await;
        store.migrate().await.expect("migrates");
        if let Self::Citus { .. } = self {
            let distributing = self.open_postgres(1).await;
            distributing.distribute(Some(CITUS_SHARDS)).await.expect("distributes");
            distributing.close().await;
        }
        store.check().await.expect("is what this program needs");
        store
    }

    /// Which of these is said to this database.
    pub fn by_dialect<'s>(&self, sqlite: &'s str, postgres: &'s str) -> &'s str {
        match self {
            Self::Memory(_) => panic!("a ledger in memory has no SQL: this is a test for databases alone"),
            Self::Sqlite { .. } => sqlite,
            Self::Postgres { .. } | Self::Citus { .. } => postgres,
        }
    }

    /// Runs statements as someone with a database shell would.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Memory(_) => panic!("a ledger in memory has no SQL: this is a test for databases alone"),
            Self::Sqlite { .. } => {
                let mut conn = SqliteConnection::connect(&self.url()).await.expect("connects");
                sqlx::raw_sql(sql).execute(&mut conn).await.expect(sql);
                conn.close().await.expect("closes");
            }
            Self::Postgres { .. } | Self::Citus { .. } => execute_postgres(&self.url(), sql).await,
        }
    }

    /// Removes the database. Not reached when a test fails, so that one can look.
    pub async fn remove(&self) {
        match self {
            Self::Postgres { server, name } => drop_database(vec![server.clone()], name).await,
            Self::Citus { nodes, name } => drop_database(nodes.clone(), name).await,
            Self::Memory(_) | Self::Sqlite { .. } => {}
        }
    }
}

/// The server that `DATABASE_URL` names.
fn postgres_server() -> String {
    let server = std::env::var("DATABASE_URL").unwrap_or_default();
    assert!(
        server.starts_with("postgres"),
        "DATABASE_URL names no PostgreSQL server: run the tests with tests/run, which starts one"
    );
    server
}

/// Adds a node, which Citus breaks off where its own background work, in the extension just made, is in the way.
async fn add_node(url: &str, sql: &str) {
    for _ in 0..NODE_TRIES {
        let mut conn = PgConnection::connect(url).await.expect("connects to the coordinator");
        match sqlx::raw_sql(sql).execute(&mut conn).await {
            Ok(_) => return,
            Err(error) => println!("{sql}: {error}"),
        }
    }
    panic!("{sql} was refused {NODE_TRIES} times");
}

async fn execute_postgres(url: &str, sql: &str) {
    let mut conn = PgConnection::connect(url).await.expect("connects to PostgreSQL");
    sqlx::raw_sql(sql).execute(&mut conn).await.expect(sql);
    conn.close().await.expect("closes");
}

/// Makes each case a test on every store, in a module named after it.
///
/// A case is an `async fn(Arc<TestDatabase>)`; its database is removed when it passes.
#[macro_export]
macro_rules! on_every_store {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                $crate::support::on(super::$case, $crate::support::TestDatabase::memory()).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                $crate::support::on(super::$case, $crate::support::TestDatabase::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let database = $crate::support::TestDatabase::postgres_migrated().await;
                $crate::support::on(super::$case, database).await;
            })+
        }
        mod citus {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs a Citus cluster: CITUS_URL=… tests/run --all"]
            async fn $case() {
                $crate::support::on(super::$case, $crate::support::TestDatabase::citus().await).await;
            })+
        }
    };
}

/// The same on databases alone, for a case that a ledger in memory cannot have: each list says why.
#[macro_export]
macro_rules! on_every_database {
    ($($case:ident),+ $(,)?) => {
        mod databases {
            mod sqlite {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    $crate::support::on(super::super::$case, $crate::support::TestDatabase::sqlite()).await;
                })+
            }
            mod postgres {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let database = $crate::support::TestDatabase::postgres().await;
                    $crate::support::on(super::super::$case, database).await;
                })+
            }
            mod citus {
                $(#[tokio::test(flavor = "multi_thread")]
                #[ignore = "needs a Citus cluster: CITUS_URL=… tests/run --all"]
                async fn $case() {
                    let database = $crate::support::TestDatabase::citus().await;
                    $crate::support::on(super::super::$case, database).await;
                })+
            }
        }
    };
}

/// Runs a case on a database, and removes that when the case passes.
pub async fn on(case: impl AsyncFnOnce(Arc<TestDatabase>), database: TestDatabase) {
    let database = Arc::new(database);
    case(Arc::clone(&database)).await;
    database.remove().await;
}

/// The SKU of this name.
pub fn sku(name: &str) -> Sku {
    Sku::new(name).expect("a SKU")
}

/// The location of this name.
pub fn location(name: &str) -> Location {
    Location::new(name).expect("a location")
}

/// The item of this name: `MUG` at the default location, `MUG@BERLIN` at another.
pub fn item(name: &str) -> Item {
    match name.split_once('@') {
        None => sku(name).into(),
        Some((name, place)) => Item { sku: sku(name), location: Some(location(place)) },
    }
}

fn id(text: &str) -> Id {
    Id::new(text).expect("an id")
}

fn items(lines: &[(&str, i64)]) -> Vec<(Item, Quantity)> {
    lines.iter().map(|(name, pieces)| (item(name), Quantity::new(*pieces).expect("a quantity"))).collect()
}

fn seconds(number: i64) -> HoldSeconds {
    HoldSeconds::new(number).expect("a hold's length")
}

/// A command from no record.
fn own(command: Command) -> Request {
    Request { command, source: None }
}

/// An order on these terms, from no record.
pub fn order_on(order_id: &str, lines: &[(&str, i64)], terms: Terms) -> Request {
    own(Command::order_created(id(order_id), items(lines), terms))
}

/// An order for these lines, for good, all or none.
pub fn order(order_id: &str, lines: &[(&str, i64)]) -> Request {
    order_on(order_id, lines, Terms::default())
}

/// An order that takes what there is.
pub fn partial(order_id: &str, lines: &[(&str, i64)]) -> Request {
    order_on(order_id, lines, Terms { policy: Policy::Partial, ..Terms::default() })
}

/// An order that holds its lines for so many seconds.
pub fn hold(order_id: &str, length: i64, lines: &[(&str, i64)]) -> Request {
    order_on(order_id, lines, Terms { hold: Some(seconds(length)), ..Terms::default() })
}

/// All of an order is given back.
pub fn cancelled(order_id: &str) -> Request {
    own(Command::order_cancelled(id(order_id)))
}

/// These lines of an order come back.
pub fn returned(return_id: &str, order_id: &str, lines: &[(&str, i64)]) -> Request {
    own(Command::order_returned(id(return_id), id(order_id), items(lines)))
}

/// A hold becomes final: these lines of it, or all.
pub fn confirmed(confirmation_id: &str, order_id: &str, lines: Option<&[(&str, i64)]>) -> Request {
    own(Command::order_confirmed(id(confirmation_id), id(order_id), lines.map(items)))
}

/// A hold is given back.
pub fn released(order_id: &str) -> Request {
    own(Command::order_released(id(order_id)))
}

/// A hold lasts so many seconds longer.
pub fn extended(extension_id: &str, order_id: &str, by: i64) -> Request {
    own(Command::hold_extended(id(extension_id), id(order_id), seconds(by)))
}

/// A hold ends, if its time is over.
pub fn expired(order_id: &str) -> Request {
    own(Command::hold_expired(id(order_id)))
}

/// States a level.
pub fn set(adjustment_id: &str, name: &str, available: i64, expected_version: Option<i64>) -> Request {
    own(Command::stock_set(id(adjustment_id), item(name), available, expected_version))
}

/// Pieces come in.
pub fn received(adjustment_id: &str, name: &str, pieces: i64) -> Request {
    let pieces = Quantity::new(pieces).expect("a quantity");
    own(Command::stock_received(id(adjustment_id), item(name), pieces))
}

/// Pieces are found, or missing.
pub fn adjusted(adjustment_id: &str, name: &str, by: i64) -> Request {
    own(Command::stock_adjusted(id(adjustment_id), item(name), by))
}

/// States limits.
pub fn limits(adjustment_id: &str, name: &str, backorder: i64, order: Option<i64>) -> Request {
    own(Command::limits_set(id(adjustment_id), item(name), Limits { backorder, order }))
}

/// A partition of the orders topic.
pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("orders", number)
}

/// The request as read from a record.
pub fn at(number: i32, offset: i64, request: Request) -> Request {
    Request { source: Some(Source { at: partition(number), offset: Offset(offset) }), ..request }
}

/// How far a batch takes a partition.
pub fn advance(number: i32, expected: i64, next: i64) -> Advance {
    Advance {
        at: partition(number),
        expected: NextOffset(expected),
        next: NextOffset(next),
        applied: None,
        published: None,
    }
}

/// A batch of commands that came from no record.
pub fn batch(requests: Vec<Request>) -> CommandBatch {
    CommandBatch { advances: Vec::new(), requests, epoch: None }
}

/// A batch of one partition's records, from `first` on without a gap.
pub fn records(number: i32, first: i64, requests: Vec<Request>) -> CommandBatch {
    let requests: Vec<_> =
        (first..).zip(requests).map(|(offset, request)| at(number, offset, request)).collect();
    let next = first + i64::try_from(requests.len()).expect("few");
    CommandBatch { advances: vec![advance(number, first, next)], requests, epoch: None }
}

/// What a command became, in short: for tests that do not look at sequences and times.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Decided(decision) if decision.accepted => "accepted",
        Outcome::Decided(_) => "rejected",
        Outcome::Republished(_) => "republished",
        Outcome::Repeated => "repeated",
        Outcome::Conflict { .. } => "conflict",
        Outcome::NotDue => "not due",
        Outcome::Undecided => "undecided",
    }
}

/// [`word`] for each.
pub fn words(outcomes: &[Outcome]) -> Vec<&'static str> {
    outcomes.iter().map(word).collect()
}

/// Every level as name (`MUG`, `MUG at BERLIN`), pieces and version.
pub async fn levels(store: &dyn Store) -> Vec<(String, i64, i64)> {
    let levels = store.levels(None).await.expect("levels");
    levels
        .into_iter()
        .map(|level| (level.item.to_string(), level.level.available, level.level.version))
        .collect()
}
