//! Where the ledger is, and its password.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use super::secret::{SecretParser, read_secret};

/// Where the ledger is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Where the ledger is.
    #[arg(long, help = "The ledger: postgres://USER@HOST/DB or sqlite://FILE; plain DATABASE_URL is read too",
          env = "STOCK_VERIFIER_DATABASE_URL", value_name = "URL", value_parser = SecretParser(parse_database_url),
          hide_env_values = true, hide_default_value = true)]
    pub database_url: Option<DatabaseUrl>,

    /// A file that holds the database password, so that it is in no URL
    #[arg(long, env = "STOCK_VERIFIER_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
}

/// A database's URL, and the password for it where that is in a file; neither is ever printed.
#[derive(Debug, Clone)]
pub struct DatabaseUrl {
    url: SecretString,
    password: Option<SecretString>,
}

pub(crate) fn parse_database_url(text: &str) -> Result<DatabaseUrl, String> {
    match text.split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql" | "sqlite") => {
            Ok(DatabaseUrl { url: SecretString::from(text), password: None })
        }
        _ => Err("expected postgres://… or sqlite://…".to_owned()),
    }
}

impl DatabaseUrl {
    /// The URL, as it was given.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    /// The password from its file.
    #[must_use]
    pub(crate) fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// The same with the password from this file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be read, or the database knows no passwords.
    pub(crate) fn with_password_of(&self, file: Option<&Path>) -> Result<Self> {
        let password = file.map(read_secret).transpose()?;
        if password.is_some() && self.expose().starts_with("sqlite:") {
            bail!("a SQLite ledger has no password, and a password file is given for it");
        }
        Ok(Self { url: self.url.clone(), password })
    }
}

impl DatabaseArgs {
    /// The URL, with the password from its file.
    ///
    /// # Errors
    /// When no URL is given, or the password file cannot be read.
    pub fn url(&self) -> Result<DatabaseUrl> {
        let Some(url) = &self.database_url else {
            bail!("no database is named: give --database-url, or set STOCK_VERIFIER_DATABASE_URL");
        };
        url.with_password_of(self.database_password_file.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_password_is_not_in_the_debug_text() {
        let url = parse_database_url("postgres://shop:hunter2@db/stock").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
