//! Databases of tests that are over.
//!
//! PostgreSQL drops one only when every session of the server has heard of it, and one that waits for what its client copies
//! hears nothing. Tests freeze such clients, for half a minute, and each test that ended meanwhile waited. So nobody waits where
//! the shared server ends with the tests (tests/run says so), whatever is left on it by then.

use std::sync::LazyLock;
use std::sync::mpsc::{self, Sender};

use sqlx::{Connection as _, PgConnection};

use super::servers::wait_for;

/// Tries to drop a database, of some seconds each: PostgreSQL gives up after five where the sessions that it ends are slow to
/// end.
const TRIES: u8 = 10;

/// A database on each of these servers.
struct Dropped {
    servers: Vec<String>,
    name: String,
}

/// Drops a database of this name on these servers, now or soon.
pub(super) async fn drop_database(servers: Vec<String>, name: &str) {
    static LATER: LazyLock<Sender<Dropped>> = LazyLock::new(|| {
        let (later, dropped) = mpsc::channel::<Dropped>();
        std::thread::spawn(move || {
            for Dropped { servers, name } in dropped {
                if let Err(refused) = wait_for(drop_now(&servers, &name)) {
                    eprintln!("{refused}");
                }
            }
        });
        later
    });
    let ends = std::env::var_os("STOCK_VERIFIER_TEST_SERVERS_END").is_some();
    let shared = std::env::var("DATABASE_URL").unwrap_or_default();
    if ends && servers == [shared] {
        // Its thread ends with the tests.
        LATER.send(Dropped { servers, name: name.to_owned() }).expect("a thread that drops");
    } else if let Err(refused) = drop_now(&servers, name).await {
        println!("{refused}");
    }
}

/// Drops it now.
async fn drop_now(servers: &[String], name: &str) -> Result<(), String> {
    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    for server in servers {
        let mut tries = 0;
        // A server that was killed for good takes its databases along.
        while let Ok(mut connection) = PgConnection::connect(server).await {
            let Err(refused) = sqlx::raw_sql(&sql).execute(&mut connection).await else { break };
            tries += 1;
            if tries == TRIES {
                return Err(format!("{sql}: {refused}, the last of {TRIES} times"));
            }
        }
    }
    Ok(())
}
