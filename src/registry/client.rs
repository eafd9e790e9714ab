//! Asks a schema registry, by the REST API that Confluent's has, and others too.

use std::fmt::Display;
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
/// What a registry calls a subject, a version or a schema that it does not know. Another 404 is another server's, or that of a
/// path that this registry does not have.
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

/// What came back for a question, whatever it is.
struct Said {
    /// Where it was asked.
    url: Url,
    status: StatusCode,
    text: String,
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
        let text = id.to_string();
        let answer = match id {
            SchemaId::Number(_) => self.ask(&["schemas", "ids", &text], false)?,
            // Karapace has no GUIDs, and older ones of Redpanda and Confluent neither.
            SchemaId::Guid(_) => self.ask(&["schemas", "guids", &text], true)?,
        };
        let Some(answer) = answer else { return Ok(Found::Absent) };
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
            let number = version.to_string();
            let Some(answer) = self.ask(&["subjects", &subject, "versions", &number], false)? else {
                let what = format!("{name}, version {version} of subject {subject}");
                return Ok(Referred::Absent(what));
            };
            asked.push(name.clone());
            steps.push(Step::Add(name, answer.schema));
            steps.extend(answer.references.unwrap_or_default().into_iter().rev().map(Step::Look));
        }
        Ok(Referred::All)
    }

    /// One answer; `None` when the registry says that it does not know this. Where it may lack the whole path, any 404 of a
    /// registry says that.
    fn ask(&self, path: &[&str], may_lack: bool) -> Result<Option<Answer>, Away> {
        let Said { url, status, text } = self.get(path)?;
        let away = |why: &dyn Display| Away(format!("{url}: {why}"));
        match status {
            StatusCode::OK => {
                let answer = serde_json::from_str(&text);
                answer.map(Some).map_err(|error| away(&format_args!("its answer is no schema: {error}")))
            }
            StatusCode::NOT_FOUND => {
                let refusal = serde_json::from_str::<Refusal>(&text);
                let is_said = refusal.is_ok_and(|refusal| NOT_FOUND.contains(&refusal.error_code));
                let is_unknown = is_said || (may_lack && self.is_registry()?);
                if !is_unknown {
                    return Err(away(&"answers 404, and not as a schema registry does: is the URL right?"));
                }
                Ok(None)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(away(&format_args!(
                "answers {status}: see --schema-registry-user and --schema-registry-token-file"
            ))),
            status => Err(away(&format_args!("answers {status}"))),
        }
    }

    /// Whether it is a schema registry that answers now: it says which types of schemas it has. Else the URL may be wrong, or a
    /// proxy answers in its place, which must not make dead letters of good records.
    fn is_registry(&self) -> Result<bool, Away> {
        let Said { status, text, .. } = self.get(&["schemas", "types"])?;
        let types = serde_json::from_str::<Vec<String>>(&text);
        Ok(status == StatusCode::OK && types.is_ok_and(|types| !types.is_empty()))
    }

    /// Asks for what is at a path.
    fn get(&self, path: &[&str]) -> Result<Said, Away> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Away("its URL takes no path".to_owned()))?
            .pop_if_empty()
            .extend(path);
        let away = |why: &dyn Display| Away(format!("{url}: {why}"));
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
        Ok(Said { url, status: head.status, text })
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
