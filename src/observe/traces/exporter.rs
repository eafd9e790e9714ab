//! Where spans are exported to: by OTLP, where OpenTelemetry's own variables say so, and as its SDK reads them.
//!
//! Spans wait in a bounded queue for a thread of their own. Where the collector is away or slow they are dropped: nobody
//! else waits for them.

use std::env;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TIMEOUT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// How often the log says that spans cannot be exported.
const SAY: Duration = Duration::from_secs(60);
/// Longest wait for the collector, unless the variables say otherwise: OpenTelemetry's own.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of a collector, in bytes: as much as OpenTelemetry's own clients read.
const MOST_ANSWER_BYTES: u64 = 4 << 20;
/// The one protocol that is built in.
const PROTOCOL: &str = "http/protobuf";

const SDK_DISABLED: &str = "OTEL_SDK_DISABLED";
const TRACES_EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// The samplers that the SDK has.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];
const SERVICE_NAME: &str = "service.name";

/// A variable that is set and not empty: an empty one counts as not set, by OpenTelemetry's specification.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first of these that is set.
fn either(names: [&str; 2]) -> Option<String> {
    names.into_iter().find_map(variable)
}

/// Exports as the variables say; `None` where they ask for none, or it is not possible, which is then logged.
pub(super) fn from_environment(instance: &str) -> Option<(SdkTracerProvider, SdkTracer)> {
    let endpoint = either([OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT])?;
    if variable(SDK_DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable(TRACES_EXPORTER)
            .is_some_and(|exporters| exporters.split(',').all(|one| one.trim() == "none"))
    {
        return None;
    }
    let provider = match provider(instance) {
        Ok(provider) => provider,
        Err(why) => {
            // It may hold a user and a password.
            tracing::warn!("no spans are exported: {}", why.replace(&endpoint, "…"));
            return None;
        }
    };
    if let Some(sampler) = variable(SAMPLER).filter(|sampler| !SAMPLERS.contains(&&**sampler)) {
        tracing::warn!(
            "{SAMPLER}: {sampler:?} is no sampler of this program, which takes parentbased_always_on then; it has {}",
            SAMPLERS.join(", ")
        );
    }
    tracing::info!("exporting spans to {}", shown(&endpoint));
    let tracer = provider.tracer("stock-verifier");
    Some((provider, tracer))
}

/// An endpoint without what may be a secret in it.
fn shown(endpoint: &str) -> String {
    let Ok(url) = url::Url::parse(endpoint) else { return "an endpoint that is no URL".to_owned() };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn provider(instance: &str) -> Result<SdkTracerProvider, String> {
    let protocol = either([OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL]);
    if let Some(protocol) = protocol.filter(|protocol| protocol != PROTOCOL) {
        return Err(format!(
            "{OTEL_EXPORTER_OTLP_PROTOCOL} is {protocol:?}, and {PROTOCOL} is the one that this program speaks (a \
             collector listens to it at port 4318)"
        ));
    }
    let timeout = either([OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT]);
    let timeout = timeout.and_then(|text| text.parse().ok()).map_or(TIMEOUT, Duration::from_millis);
    let cause = Arc::default();
    let client = CollectorClient { agent: agent(timeout), cause: Arc::clone(&cause) };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .build()
        .map_err(|error| error.to_string())?;
    let exporter = QuietExporter { inner: exporter, cause, failures: Mutex::default() };
    let provider =
        SdkTracerProvider::builder().with_resource(resource(instance)).with_batch_exporter(exporter);
    Ok(provider.build())
}

/// What is exported of: this program, unless the variables name it otherwise.
fn resource(instance: &str) -> Resource {
    let detected = Resource::builder().build();
    let is_named = |name: &'static str| {
        detected
            .get(&Key::from_static_str(name))
            .is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let own = [
        (SERVICE_NAME, env!("CARGO_PKG_NAME").to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance.to_owned()),
    ];
    let own =
        own.into_iter().filter(|(name, _)| !is_named(name)).map(|(name, value)| KeyValue::new(name, value));
    Resource::builder().with_attributes(own).build()
}

fn agent(timeout: Duration) -> Agent {
    // OpenSSL, as for Kafka and PostgreSQL, with the roots that this machine has.
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier);
    Agent::config_builder()
        .timeout_global(Some(timeout))
        // The exporter looks at the status.
        .http_status_as_error(false)
        .tls_config(tls.build())
        .user_agent(concat!("stock-verifier/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Why the last request failed, since the exporter does not say.
type Cause = Arc<Mutex<Option<String>>>;

/// Sends what is exported. It blocks its thread, which is the exporter's own.
#[derive(Debug)]
struct CollectorClient {
    agent: Agent,
    cause: Cause,
}

impl CollectorClient {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let (parts, answer) = self.agent.run(Request::from_parts(parts, &*body))?.into_parts();
        let mut body = Vec::new();
        answer.into_reader().take(MOST_ANSWER_BYTES).read_to_end(&mut body)?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.send(request).map_err(|error| {
            *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            error.into()
        })
    }
}

/// Says seldom that spans cannot be exported, and how many were lost for it.
#[derive(Debug)]
struct QuietExporter {
    inner: opentelemetry_otlp::SpanExporter,
    cause: Cause,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    /// Spans lost since it was said last.
    spans: usize,
    said: Option<Instant>,
}

impl Failures {
    /// How many spans are to be said to be lost, if it is time to.
    fn lost(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.spans += spans;
        if self.said.is_some_and(|at| now.duration_since(at) < SAY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.spans))
    }
}

impl SpanExporter for QuietExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.inner.export(batch).await;
        if let Err(error) = &exported {
            let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).take();
            let lost =
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).lost(spans, Instant::now());
            if let Some(spans) = lost {
                let why = cause.unwrap_or_else(|| error.to_string());
                tracing::warn!(spans, "spans could not be exported, and are lost: {why}");
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_spans_are_lost_is_said_at_once_and_then_seldom_with_all_that_were() {
        let mut failures = Failures::default();
        let begun = Instant::now();
        assert_eq!(failures.lost(5, begun), Some(5));
        assert_eq!(failures.lost(7, begun + Duration::from_secs(5)), None);
        assert_eq!(failures.lost(1, begun + Duration::from_secs(59)), None);
        assert_eq!(failures.lost(2, begun + SAY), Some(10));
        assert_eq!(failures.lost(2, begun + SAY), None);
    }

    #[test]
    fn an_endpoint_is_shown_without_what_may_be_a_secret() {
        for endpoint in
            ["https://user:hunter2@otel.example:4318/v1?key=hunter2", "http://otel.example/hunter2"]
        {
            let shown = shown(endpoint);
            assert!(!shown.contains("hunter2") && shown.contains("otel.example"), "{shown}");
        }
        assert!(!shown("hunter2").contains("hunter2"));
    }
}
