//! A database's URL, read: where its servers are, and what else it says.
//!
//! sqlx reads a URL of one server. Besides it there are here: several servers (`host1,host2`), the password that is in no
//! URL, and parameters that sqlx does not know, whose values it would log.

use std::str::FromStr as _;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::failure::failed;
use super::warn_once;
use crate::store::StoreError;

/// Parameters that sqlx knows; `options[NAME]` too.
const KNOWN: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Those of them that name servers.
const NAME_SERVERS: [&str; 3] = ["host", "hostaddr", "port"];
/// Stands in a URL where a parameter names the server instead: a user without a host is no URL.
const NO_HOST: &str = "localhost";
/// The parameter that says which of several servers will do.
const WANTED: &str = "target_session_attrs";
/// Where an `@` stands after the servers, it was to stand before them.
const NOT_ESCAPED: &str = "there is an @ after the host. In a user's name and a password, write / as %2F, ? as %3F, # as \
    %23, @ as %40 and % as %25; or give the password in a file";
/// Longest name of a parameter that is shown: libpq's are shorter. A longer one is a part of something else.
const LONGEST_NAME: usize = 32;

/// Where a database's servers are.
#[derive(Clone)]
pub(super) struct Address {
    /// How each is reached, in the order in which they are tried.
    pub(super) servers: Vec<PgConnectOptions>,
    /// Which of them will do.
    pub(super) wanted: Wanted,
    /// Whether a password is known that may be sent.
    pub(super) has_password: bool,
}

// `PgConnectOptions` would print its password.
impl std::fmt::Debug for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Address")
            .field("servers", &self.servers.len())
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

/// Which server will do, as libpq has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Wanted {
    const NAMES: &str =
        "target_session_attrs is one of any, read-write, read-only, primary, standby and prefer-standby";

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "any" => Self::Any,
            "read-write" => Self::ReadWrite,
            "read-only" => Self::ReadOnly,
            "primary" => Self::Primary,
            "standby" => Self::Standby,
            "prefer-standby" => Self::PreferStandby,
            _ => return None,
        })
    }
}

impl Address {
    /// The same servers with another password.
    pub(super) fn set_password(&mut self, password: &SecretString) {
        for server in &mut self.servers {
            *server = server.clone().password(password.expose_secret());
        }
        self.has_password = true;
    }

    /// Reads a URL. The `password` given beside it is the one that counts.
    ///
    /// # Errors
    /// When it cannot be read. No error repeats any of it but names of servers.
    pub(super) fn read(url: &str, password: Option<&SecretString>) -> Result<Self, StoreError> {
        let (before, hosts, after) = split(url)?;
        let (path, query) = after.split_at(after.find(['?', '#']).unwrap_or(after.len()));
        if path.contains('@') {
            return Err(refused(NOT_ESCAPED));
        }
        let first = Url::parse(&format!("{before}{NO_HOST}{path}{query}"))
            .map_err(|error| refused(&error.to_string()))?;
        let pairs: Vec<(String, String)> = first.query_pairs().into_owned().collect();
        let value = |key: &str| pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| &**value);
        let wanted = match value(WANTED) {
            Some(text) => Wanted::read(text).ok_or_else(|| refused(Wanted::NAMES))?,
            None => Wanted::Any,
        };
        for (name, _) in pairs.iter().filter(|(name, _)| name != WANTED && !is_known(name)) {
            if name.contains('@') {
                return Err(refused(NOT_ESCAPED));
            }
            warn_of(name);
        }
        // As in libpq, the parameters may name the servers instead.
        let named = value("hostaddr").or_else(|| value("host")).map(|hosts| hosts.split(',').collect());
        let ports: Vec<&str> = value("port").map(|ports| ports.split(',').collect()).unwrap_or_default();
        let count = named.as_ref().unwrap_or(&hosts).len();
        if ports.len() > 1 && ports.len() != count {
            return Err(refused("it has not as many ports as hosts"));
        }
        let servers = (0..count).map(|number| {
            let host = if named.is_some() { NO_HOST } else { hosts[number] };
            let mut url =
                Url::parse(&format!("{before}{host}{path}")).map_err(|error| refused(&error.to_string()))?;
            let kept = pairs.iter().filter(|(name, _)| is_known(name) && !NAME_SERVERS.contains(&&**name));
            url.query_pairs_mut().extend_pairs(kept);
            if let Some(named) = &named {
                url.query_pairs_mut().append_pair("host", named[number]);
            }
            if let Some(port) = ports.get(number).or(ports.first()).filter(|port| !port.is_empty()) {
                url.query_pairs_mut().append_pair("port", port);
            }
            let mut options = PgConnectOptions::from_str(url.as_str())
                .map_err(failed("reading the database URL"))?
                .disable_statement_logging();
            // An IPv6 address is in brackets in a URL alone: a certificate has it without.
            let bare = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            if let Some(bare) = bare.map(str::to_owned) {
                options = options.host(&bare);
            }
            if let Some(password) = password {
                options = options.password(password.expose_secret());
            }
            Ok(options)
        });
        let servers = servers.collect::<Result<Vec<_>, StoreError>>()?;
        let has_password = password.is_some()
            || first.password().is_some()
            || value("password").is_some()
            || std::env::var_os("PGPASSWORD").is_some();
        Ok(Self { servers, wanted, has_password })
    }
}

/// What stands before the servers, the servers, and what stands after them.
fn split(url: &str) -> Result<(&str, Vec<&str>, &str), StoreError> {
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| refused("it does not begin with postgres://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let begin = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let before = &url[..scheme.len() + "://".len() + begin];
    Ok((before, rest[begin..end].split(',').collect(), &rest[end..]))
}

fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || name.starts_with("options[")
}

/// Says that a parameter is ignored, as libpq's others are.
fn warn_of(name: &str) {
    let is_name = name.len() <= LONGEST_NAME
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'));
    // Where a password was not escaped, its end looks like a name.
    let shown = if is_name { name } else { "whose name is none" };
    warn_once(&format!("the database URL has a parameter that is not known and ignored: {shown}"));
}

fn refused(why: &str) -> StoreError {
    failed("reading the database URL")(sqlx::Error::Configuration(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Address {
        Address::read(url, None).unwrap()
    }

    fn servers(url: &str) -> Vec<(String, u16)> {
        let server = |options: &PgConnectOptions| match options.get_socket() {
            Some(socket) => (socket.display().to_string(), options.get_port()),
            None => (options.get_host().to_owned(), options.get_port()),
        };
        read(url).servers.iter().map(server).collect()
    }

    fn refusal(url: &str) -> String {
        let refused = Address::read(url, None).unwrap_err();
        format!("{refused}: {:?} {refused:?}", std::error::Error::source(&refused).map(ToString::to_string))
    }

    #[test]
    fn one_server_is_reached_by_name_address_or_socket() {
        let one = |host: &str, port| vec![(host.to_owned(), port)];
        assert_eq!(servers("postgres://u:p@db.example:5433/stock"), one("db.example", 5433));
        assert_eq!(servers("postgresql://u@db/stock?sslmode=disable"), one("db", 5432));
        assert_eq!(servers("postgres://u:p@[::1]:5433/stock"), one("::1", 5433));
        assert_eq!(servers("postgres:///stock?host=/run/postgresql&user=u"), one("/run/postgresql", 5432));
        assert_eq!(
            servers("postgres://u@/stock?host=/run/postgresql&port=5433"),
            one("/run/postgresql", 5433)
        );
        assert_eq!(servers("postgres://u@%2Frun%2Fpostgresql/stock"), one("/run/postgresql", 5432));
        assert_eq!(servers("postgres:///stock?host=::1"), one("::1", 5432));
    }

    #[test]
    fn several_servers_are_tried_in_their_order() {
        let three = [("a", 5432), ("b", 5433), ("::1", 5434)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(servers("postgres://u:p@a,b:5433,[::1]:5434/stock"), three);
        assert_eq!(servers("postgres:///stock?host=a,b,::1&port=5432,5433,5434"), three);
        let same = [("a", 7), ("/tmp", 7)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(servers("postgres:///stock?host=a,/tmp&port=7"), same);
        assert_eq!(read("postgres://a,b/stock").wanted, Wanted::Any);
        assert_eq!(read("postgres://a,b/stock?target_session_attrs=read-write").wanted, Wanted::ReadWrite);
        assert!(refusal("postgres://a,b/stock?target_session_attrs=master").contains("prefer-standby"));
        assert!(refusal("postgres:///stock?host=a,b,c&port=1,2").contains("as many ports"));
    }

    #[test]
    fn every_server_has_user_database_and_the_rest() {
        for options in
            read("postgres://shop:p@a,b/stock?sslmode=verify-full&options=-c%20work_mem%3D8MB").servers
        {
            assert_eq!((options.get_username(), options.get_database()), ("shop", Some("stock")));
            assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
            assert_eq!(options.get_options(), Some("-c work_mem=8MB"));
        }
    }

    #[test]
    fn a_password_beside_the_url_is_taken_as_it_is() {
        let password = SecretString::from("a%41/b @ü");
        let address = Address::read("postgres:///stock?host=/tmp", Some(&password)).unwrap();
        // Nothing else says which it has.
        assert!(format!("{:?}", address.servers[0]).contains("a%41/b @ü"));
        assert!(address.has_password && !format!("{address:?}").contains("a%41"));
    }

    #[test]
    fn a_url_that_is_refused_is_not_repeated() {
        for url in [
            "postgres://u:hunter2@db:port/stock",
            "postgres://u:hunter2@db:1:2/stock",
            "postgres:u:hunter2@db",
            "postgres://u:12/hunter2@db:x/stock",
            "postgres://u:hunter2@d b/stock",
            "postgres://u:hunter2@a,b:x/stock",
        ] {
            let refused = refusal(url);
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
