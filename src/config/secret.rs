//! How secrets are read, from a flag or a file: what is refused is never repeated.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use secrecy::SecretString;

/// Reads what is or holds a secret. What it refuses is not repeated in the error, which clap's own parsers do.
#[derive(Debug)]
pub(crate) struct SecretParser<T>(pub(crate) fn(&str) -> Result<T, String>);

// Not derived, which would ask the same of what is read.
impl<T> Clone for SecretParser<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for SecretParser<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        text.and_then(self.0).map_err(|why| {
            let flag = arg.map(|arg| format!(" for '{arg}'")).unwrap_or_default();
            clap::Error::raw(ErrorKind::ValueValidation, format!("invalid value{flag}: {why}\n"))
                .with_cmd(command)
        })
    }
}

/// A password from a file: all of it but one line's end, which is the editor's.
pub(super) fn read_secret(file: &Path) -> Result<SecretString> {
    read_secret_of("password", file)
}

/// The same of another kind of secret, which errors name.
pub(super) fn read_secret_of(what: &str, file: &Path) -> Result<SecretString> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the {what} file {}", file.display()))?;
    let secret = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        bail!("the {what} file {} is empty", file.display());
    }
    Ok(SecretString::from(secret))
}
