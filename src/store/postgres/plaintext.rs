//! Says that a password goes to another host without encryption.

use std::net::ToSocketAddrs as _;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection};

use super::session::ACQUIRE_TIMEOUT;
use super::warn_once;

/// Warns, where it does.
pub(super) async fn warn_of(options: &PgConnectOptions, has_password: bool) {
    if !has_password || is_local(options).await {
        return;
    }
    let why = match options.get_ssl_mode() {
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => return,
        // sqlx takes the one for the other.
        PgSslMode::Disable | PgSslMode::Allow => "sslmode says so",
        PgSslMode::Prefer if offers_tls(options).await => return,
        PgSslMode::Prefer => "the server offers no TLS, and sslmode is prefer",
    };
    warn_once(&format!(
        "the connection to PostgreSQL on {} is not encrypted ({why}): who is on the way can learn the password and read \
         all data. Say ?sslmode=verify-full&sslrootcert=FILE at the end of the database URL",
        options.get_host()
    ));
}

/// Whether nothing leaves this host. A name that is not found is not: what fails is said by who connects.
async fn is_local(options: &PgConnectOptions) -> bool {
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    if options.get_socket().is_some() || host.starts_with('/') {
        return true;
    }
    let addresses = tokio::task::spawn_blocking(move || (&*host, port).to_socket_addrs());
    match addresses.await {
        Ok(Ok(mut addresses)) => addresses.all(|address| address.ip().to_canonical().is_loopback()),
        _ => false,
    }
}

/// Whether the server encrypts when it is asked to: it answers that before a password is sent.
async fn offers_tls(options: &PgConnectOptions) -> bool {
    let options = options.clone().ssl_mode(PgSslMode::Require);
    let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options)).await;
    match connected {
        Ok(Ok(connection)) => {
            let _ = connection.close().await;
            true
        }
        Ok(Err(sqlx::Error::Tls(_))) => false,
        // Anything else comes after the answer, or has nothing to do with it.
        _ => true,
    }
}
