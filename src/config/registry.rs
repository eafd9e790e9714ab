//! How to reach a schema registry.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use secrecy::SecretString;
use url::Url;

use super::secret::{SecretParser, read_secret, read_secret_of};

/// Where schemas are looked up that values are written by.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Schema registry")]
pub struct RegistryArgs {
    /// A schema registry that speaks Confluent's REST API: values framed by its schemas (Avro, Protobuf, JSON Schema) are
    /// decoded. Audits and replays of such records need it too
    #[arg(long, env = "STOCK_VERIFIER_SCHEMA_REGISTRY_URL", value_name = "URL",
          value_parser = SecretParser(parse_registry_url), hide_env_values = true, hide_default_value = true)]
    pub schema_registry_url: Option<Url>,

    /// The user to name to the schema registry
    #[arg(
        long,
        env = "STOCK_VERIFIER_SCHEMA_REGISTRY_USER",
        value_name = "NAME",
        requires = "schema_registry_password_file"
    )]
    pub schema_registry_user: Option<String>,

    /// A file that holds that user's password; it is read again for each request
    #[arg(
        long,
        env = "STOCK_VERIFIER_SCHEMA_REGISTRY_PASSWORD_FILE",
        value_name = "FILE",
        requires = "schema_registry_user"
    )]
    pub schema_registry_password_file: Option<PathBuf>,

    /// A file that holds a bearer token for the schema registry; it is read again for each request
    #[arg(
        long,
        env = "STOCK_VERIFIER_SCHEMA_REGISTRY_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "schema_registry_user"
    )]
    pub schema_registry_token_file: Option<PathBuf>,

    /// A file with the certificates (PEM) of the authorities that may vouch for the schema registry, in place of those that
    /// this machine trusts. It is read at the start
    #[arg(
        long,
        env = "STOCK_VERIFIER_SCHEMA_REGISTRY_CA_FILE",
        value_name = "FILE",
        requires = "schema_registry_url"
    )]
    pub schema_registry_ca_file: Option<PathBuf>,
}

/// Whom to name to a schema registry.
#[derive(Debug)]
pub enum RegistryLogin {
    /// Nobody.
    Anonymous,
    /// A user, by a password.
    User(String, SecretString),
    /// Whoever this token stands for.
    Token(SecretString),
}

impl RegistryArgs {
    /// Whom to name, as the files have it now.
    ///
    /// # Errors
    /// When a file cannot be read, or is empty.
    pub fn login(&self) -> Result<RegistryLogin> {
        if let Some(file) = &self.schema_registry_token_file {
            return Ok(RegistryLogin::Token(read_secret_of("token", file)?));
        }
        Ok(match (&self.schema_registry_user, &self.schema_registry_password_file) {
            (Some(user), Some(file)) => RegistryLogin::User(user.clone(), read_secret(file)?),
            _ => RegistryLogin::Anonymous,
        })
    }

    /// What the file of authorities holds; `None` where this machine's count.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn authorities(&self) -> Result<Option<Vec<u8>>> {
        let Some(file) = &self.schema_registry_ca_file else { return Ok(None) };
        let read = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Some(read))
    }
}

/// What is refused is not repeated: it may hold a password.
fn parse_registry_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("expected http://HOST[:PORT][/PATH] or https://…".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "it names a user: give --schema-registry-user and --schema-registry-password-file, so that no \
                    password is on a command line"
                .to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or a fragment, which no path can be added to".to_owned());
    }
    // What is joined to a path without it takes its last part's place.
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_url_keeps_its_path_and_holds_no_secret() {
        let read = |text| parse_registry_url(text).map(String::from);
        assert_eq!(read("http://registry:8081").unwrap(), "http://registry:8081/");
        assert_eq!(read("https://registry/apis/ccompat/v7").unwrap(), "https://registry/apis/ccompat/v7/");
        for (text, says) in [
            ("registry:8081", "expected http://"),
            ("registry", "no URL"),
            ("ftp://registry", "expected http://"),
            ("http://ann:hunter2@registry", "--schema-registry-user"),
            ("http://registry/?key=hunter2", "query"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(says) && !said.contains("hunter2"), "{text}: {said}");
        }
    }
}
