//! A collector of OpenTelemetry's: takes spans by OTLP over HTTP, and keeps them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::wait;

/// What came of one span, and of who made it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The span.
    pub span: Span,
    /// The attributes of what it is of.
    pub resource: Vec<KeyValue>,
}

/// A collector on this machine, until dropped.
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _stop: oneshot::Sender<()>,
}

impl Collector {
    /// Takes spans from here on.
    pub fn start() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let kept = Arc::clone(&received);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                tell.send(listener.local_addr().expect("an address")).expect("somebody waits");
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, kept) => {}
                }
            });
        });
        let address = told.recv().expect("it listens");
        Self { address, received, _stop: stop }
    }

    /// What the variables name.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// Waits for the first span that is so.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration, is_it: impl Fn(&Span) -> bool) -> Received {
        wait::value(what, limit, || self.received().into_iter().find(|received| is_it(&received.span)))
    }
}

async fn serve(listener: TcpListener, kept: Arc<Mutex<Vec<Received>>>) {
    let take = move |body: Bytes| async move {
        let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
        let mut kept = kept.lock().expect("no panic");
        for of_one in request.resource_spans {
            let resource = of_one.resource.map(|resource| resource.attributes).unwrap_or_default();
            let spans = of_one.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| Received { span, resource: resource.clone() }));
        }
        // An empty message: everything was taken.
        StatusCode::OK
    };
    let router = Router::new().route("/v1/traces", post(take));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The value of an attribute, as text.
pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()? {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text.clone()),
        AnyValue { value: Some(Value::IntValue(number)) } => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

/// Bytes as the hexadecimal digits of a `traceparent`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
