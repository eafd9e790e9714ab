//! Asks a schema registry, by the REST API that Confluent's has, and others too.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use url::Url;

use crate::config::{RegistryArgs, RegistryLogin};
use crate::event::SchemaId;

/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: far more than any schema that people write.
const MOST_ANSWER_BYTES: u64 = 4 << 20;
/// Most schemas that one refers to, and those refer to, all together.
const MOST_REFERENCES: usize = 200;
/// What a schema is that names no type.
const DEFAULT_FORMAT: &str = "AVRO";
/// What a registry calls a subject, a version or a schema that it does not know. Another 404 is another server's.
const NOT_FOUND: std::ops::RangeInclusive<u32> = 40401..=40403;

/// The registry does not say now. It may later.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Away(String);

/// A schema as the registry has it.
pub(super) struct Source {
    /// AVRO, PROTOBUF or JSON.
    pub(super) format: String,
    /// Its text.
    pub(super) text: String,
    /// All that it refers to, and those do, each after what it refers to itself: the name it is referred to by, and its text.
    pub(super) references: Vec<(String, String)>,
}

/// What a registry knows of an id.
pub(super) enum Found {
    Schema(Source),
    /// A schema that nothing can be decoded by, and why.
    Unusable(String),
    /// A schema that refers to what it does not know, which this names.
    Incomplete(String),
    /// Nothing.
    Absent,
}

/// What became of what a schema refers to.
enum Referred {
    All,
    /// This one is not there.
    Absent(String),
    TooMany,
}

/// One answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    schema_type: Option<String>,
    references: Option<Vec<Reference>>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: u32,
}

pub(super) struct Client {
    agent: Agent,
    url: Url,
    args: RegistryArgs,
}

impl Client {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When the authorities that are to be trusted cannot be read, or nobody would ask for a certificate.
    pub(super) fn new(url: Url, args: RegistryArgs) -> Result<Self> {
        let roots = match args.authorities().context("--schema-registry-ca-file")? {
            None => RootCerts::PlatformVerifier,
            Some(_) if url.scheme() != "https" => {
                bail!("--schema-registry-ca-file is for a URL that begins with https://, and {url} does not")
            }
            Some(pem) => RootCerts::from(certificates(&pem).context("--schema-registry-ca-file")?),
        };
        // OpenSSL, as for Kafka and PostgreSQL.
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots);
        let agent = Agent::config_builder()
            .timeout_global(Some(ANSWER_LIMIT))
            // An error's body says what is not found.
            .http_status_as_error(false)
            // A secret is for the one who was named.
            .max_redirects(0)
            .tls_config(tls.build())
            .user_agent(concat!("stock-verifier/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, url, args })
    }

    /// A schema with all that it refers to.
    pub(super) fn schema(&self, id: SchemaId) -> Result<Found, Away> {
        let path = match id {
            SchemaId::Number(id) => vec!["schemas".to_owned(), "ids".to_owned(), id.to_string()],
            SchemaId::Guid(_) => vec!["schemas".to_owned(), "guids".to_owned(), id.to_string()],
        };
        let Some(answer) = self.ask(&path)? else { return Ok(Found::Absent) };
        let mut references = Vec::new();
        match self.references(answer.references.unwrap_or_default(), &mut references)? {
            Referred::All => {}
            Referred::Absent(what) => return Ok(Found::Incomplete(what)),
            Referred::TooMany => {
                let why = format!("it refers to more than {MOST_REFERENCES} others");
                return Ok(Found::Unusable(why));
            }
        }
        let format = answer.schema_type.unwrap_or_else(|| DEFAULT_FORMAT.to_owned());
        Ok(Found::Schema(Source { format, text: answer.schema, references }))
    }

    /// Adds what is referred to, each once and after what it refers to itself.
    fn references(&self, of: Vec<Reference>, to: &mut Vec<(String, String)>) -> Result<Referred, Away> {
        // Each is looked at twice: first for what it refers to, then to be added.
        enum Step {
            Look(Reference),
            Add(String, String),
        }
        let (mut asked, mut steps) = (Vec::new(), Vec::new());
        steps.extend(of.into_iter().rev().map(Step::Look));
        while let Some(step) = steps.pop() {
            let reference = match step {
                Step::Add(name, text) => {
                    to.push((name, text));
                    continue;
                }
                Step::Look(reference) if asked.contains(&reference.name) => continue,
                Step::Look(reference) => reference,
            };
            if asked.len() == MOST_REFERENCES {
                return Ok(Referred::TooMany);
            }
            let Reference { name, subject, version } = reference;
            let path = ["subjects", &subject, "versions", &version.to_string()].map(str::to_owned);
            let Some(answer) = self.ask(&path)? else {
                let what = format!("{name}, version {version} of subject {subject}");
                return Ok(Referred::Absent(what));
            };
            asked.push(name.clone());
            steps.push(Step::Add(name, answer.schema));
            steps.extend(answer.references.unwrap_or_default().into_iter().rev().map(Step::Look));
        }
        Ok(Referred::All)
    }

    /// One answer; `None` when the registry says that it does not know this.
    fn ask(&self, path: &[String]) -> Result<Option<Answer>, Away> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Away("its URL takes no path".to_owned()))?
            .pop_if_empty()
            .extend(path);
        let away = |why: &dyn std::fmt::Display| Away(format!("{url}: {why}"));
        let mut request = self
            .agent
            .get(url.as_str())
            .header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        match self.args.login().map_err(|error| away(&format_args!("{error:#}")))? {
            RegistryLogin::Anonymous => {}
            RegistryLogin::User(user, password) => {
                let both = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
                request = request.header("authorization", format!("Basic {both}"));
            }
            RegistryLogin::Token(token) => {
                request = request.header("authorization", format!("Bearer {}", token.expose_secret().trim()));
            }
        }
        let (head, body) = request.call().map_err(|error| away(&error))?.into_parts();
        let mut text = String::new();
        let read = body.into_reader().take(MOST_ANSWER_BYTES).read_to_string(&mut text);
        read.map_err(|error| away(&error))?;
        match head.status {
            StatusCode::OK => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| away(&format_args!("its answer is no schema: {error}"))),
            StatusCode::NOT_FOUND
                if serde_json::from_str::<Refusal>(&text)
                    .is_ok_and(|refusal| NOT_FOUND.contains(&refusal.error_code)) =>
            {
                Ok(None)
            }
            StatusCode::NOT_FOUND => {
                Err(away(&"answers 404, and not as a schema registry does: is the URL right?"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(away(&format_args!(
                "answers {}: see --schema-registry-user and --schema-registry-token-file",
                head.status
            ))),
            status => Err(away(&format_args!("answers {status}"))),
        }
    }
}

/// The certificates of a file in PEM.
fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.context("the file is no PEM")? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("the file holds no certificate in PEM (-----BEGIN CERTIFICATE-----)");
    }
    Ok(found)
}
