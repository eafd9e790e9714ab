//! A database with the ledger's tables that others are copied from, which takes less than half of what making the tables takes.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use sqlx::{Connection as _, PgConnection};
use stock_verifier::store::LedgerAdmin as _;
use stock_verifier::store::postgres::{Connections, PostgresStore};
use tokio::sync::OnceCell;

use super::database::{unique, url_of};

/// The name of the one on this server, which is made where it is not there. It is named by the migrations and stays, for other
/// runs.
pub async fn migrated(server: &str) -> String {
    static OF_SHARED: OnceCell<String> = OnceCell::const_new();
    if std::env::var("DATABASE_URL").is_ok_and(|shared| shared == server) {
        OF_SHARED.get_or_init(|| find(server)).await.clone()
    } else {
        // A test's own, after which another may be at the same address.
        find(server).await
    }
}

async fn find(server: &str) -> String {
    let name = format!("sv_template_{:016x}", hash_of_migrations());
    let mut connection = PgConnection::connect(server).await.expect("PostgreSQL is reached");
    let is_there = format!("SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')");
    if sqlx::query_scalar(&is_there).fetch_one(&mut connection).await.expect("databases are listed") {
        return name;
    }
    // Under another name until it is whole.
    let new = unique("template");
    run(&mut connection, &format!("CREATE DATABASE {new}")).await.expect("a database");
    let connections = Connections { batches: 1, readers: 1, others: 1 };
    let store = PostgresStore::open(&url_of(server, &new), connections).await.expect("PostgreSQL is reached");
    store.migrate().await.expect("migrated");
    store.close().await;
    if run(&mut connection, &format!("ALTER DATABASE {new} RENAME TO {name}")).await.is_err() {
        // Another run was quicker.
        run(&mut connection, &format!("DROP DATABASE {new}")).await.expect("dropped");
        let there: bool =
            sqlx::query_scalar(&is_there).fetch_one(&mut connection).await.expect("databases are listed");
        assert!(there, "{new} could not be named {name}");
    }
    name
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}

fn hash_of_migrations() -> u64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("migrations").map(|file| file.expect("a file").path()).collect();
    files.sort_unstable();
    let mut hasher = DefaultHasher::new();
    for file in files {
        (file.file_name(), fs::read(&file).expect("a migration")).hash(&mut hasher);
    }
    hasher.finish()
}
