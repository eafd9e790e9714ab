//! What is wrong is said in problem documents, whatever it is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::{Value, json};
use stock_verifier::http::bounds::{MAX_BODY_BYTES, MAX_ITEMS};
use stock_verifier::store::Store;
use tokio_util::sync::CancellationToken;

use super::client::{Answer, Client, document};
use super::{Metrics, Token, api, ask, serve, start};
use crate::support::TestDatabase;

async fn memory() -> Arc<dyn Store> {
    TestDatabase::memory().ledger().await
}

fn problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.text);
    let kind =
        if kind.is_empty() { "about:blank".to_owned() } else { format!("urn:stock-verifier:problem:{kind}") };
    assert_eq!(answer.body["type"], kind.as_str(), "{}", answer.text);
    assert_eq!(answer.body["status"], status);
    assert!(!answer.body["title"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_request_is_answered_by_a_problem_document() {
    let store = memory().await;
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        problem(&client.get("/nothing"), 404, "");
        problem(&client.get("/v1/stock"), 404, "");
        problem(&client.get("/metrics"), 404, "");
        let wrong_method = client.other("DELETE", "/v1/stock/MUG");
        problem(&wrong_method, 405, "");
        assert_eq!(wrong_method.header("allow"), "GET,HEAD");
        problem(&client.get("/v1/precheck"), 405, "");
        for path in [
            "/v1/stock/MUG?place=BERLIN",
            "/v1/stock/%00",
            "/v1/stock/%FF",
            "/v1/stock/MUG?location=%01",
            "/v1/orders/o-1?wait=5",
            "/v1/orders/o-1?wait=31s",
            "/v1/orders/%0A",
            "/v1/movements",
            "/v1/movements?sku=",
            "/v1/movements?sku=MUG&sku=HAT",
            "/v1/movements?sku=MUG&limit=0",
            "/v1/movements?sku=MUG&limit=501",
            "/v1/movements?sku=MUG&limit=-1",
            "/v1/movements?sku=MUG&before=x",
        ] {
            problem(&client.get(path), 400, "invalid-parameter");
        }
        problem(&client.get(&format!("/v1/stock/{}", "x".repeat(129))), 400, "invalid-parameter");
        for (body, status) in [
            ("", 400),
            ("{", 400),
            ("[]", 422),
            ("null", 422),
            ("{}", 422),
            (r#"{"lines":[]}"#, 422),
            (r#"{"lines":[["MUG",null,1]]}"#, 422),
            (r#"{"lines":[{"sku":"MUG","quantity":0}]}"#, 422),
            (r#"{"lines":[{"sku":"MUG","quantity":1.5}]}"#, 422),
            (r#"{"lines":[{"sku":"MUG","quantity":null}]}"#, 422),
            (r#"{"lines":[{"sku":"MUG","quantity":"1"}]}"#, 422),
            (r#"{"lines":[{"sku":"","quantity":1}]}"#, 422),
            (r#"{"lines":[{"sku":"MUG","quantity":1,"price":2}]}"#, 422),
            (r#"{"lines":[{"sku":"MUG","sku":"HAT","quantity":1}]}"#, 422),
            (r#"{"lines":[{"sku":"MUG","quantity":1}],"policy":"some"}"#, 422),
            (r#"{"lines":[{"sku":"MUG","quantity":1}],"policy":{"partial":null}}"#, 422),
        ] {
            problem(&client.post_text("/v1/precheck", body), status, "invalid-body");
        }
        let lines = |count: usize| vec![json!({"sku": "MUG", "quantity": 1}); count];
        let items = |count: usize| vec![json!({"sku": "MUG"}); count];
        problem(&client.post("/v1/precheck", &json!({"lines": lines(MAX_ITEMS + 1)})), 422, "invalid-body");
        problem(
            &client.post("/v1/stock:batch", &json!({"items": items(MAX_ITEMS + 1)})),
            422,
            "invalid-body",
        );
        assert_eq!(client.post("/v1/precheck", &json!({"lines": lines(MAX_ITEMS)})).status, 200);
        assert_eq!(client.post("/v1/stock:batch", &json!({"items": items(MAX_ITEMS)})).status, 200);
        let large = format!("{}{{}}", " ".repeat(MAX_BODY_BYTES));
        problem(&client.post_text("/v1/precheck", &large), 413, "");
        problem(&client.post_as("/v1/precheck", "text/plain", "{}"), 415, "");
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_all_but_the_probes_which_are_open() {
    let store = memory().await;
    let metrics = Metrics { render: Arc::new(|| "up 1\n".to_owned()), content_type: "text/plain" };
    let guarded = super::Api { token: Some(Token::new("hunter2")), metrics: Some(metrics), ..api(store) };
    let (server, client) = start(guarded).await;
    ask(&client, |client: Client| {
        let closed = [
            "/v1/stock/MUG",
            "/v1/orders/o-1",
            "/v1/movements?sku=MUG",
            "/v1/live",
            "/metrics",
            "/openapi.json",
        ];
        for path in closed {
            for asked in [client.clone(), client.with_token("hunter"), client.with_token("")] {
                let refused = asked.get(path);
                problem(&refused, 401, "unauthorized");
                assert_eq!(refused.header("www-authenticate"), "Bearer");
                assert!(!refused.text.contains("hunter2"));
            }
            assert_ne!(client.with_token("hunter2").get(path).status, 401, "{path}");
        }
        problem(&client.post("/v1/precheck", &json!({})), 401, "unauthorized");
        assert_eq!(client.with_token("hunter2").get("/metrics").text, "up 1\n");
        // The page asks for it.
        assert_eq!(client.get("/").status, 200);
        assert_eq!(client.get("/livez").status, 200);
        assert!([200, 503].contains(&client.get("/readyz").status));
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_and_every_address_in_it_is_there() {
    let store = memory().await;
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        assert_eq!(&client.get("/openapi.json").body, document());
        assert!(document()["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = document()["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 9);
        for (path, operations) in paths {
            let address = path.replace("{sku}", "MUG").replace("{id}", "o-1");
            for method in operations.as_object().unwrap().keys() {
                assert!(
                    ["get", "post"].contains(&method.as_str()),
                    "{method} {path}: nothing is written here"
                );
                let answer = client.other(&method.to_uppercase(), &address);
                assert_ne!(answer.status, 405, "{method} {path}");
                let nothing = answer.body["detail"].as_str().unwrap_or("").starts_with("there is nothing");
                assert!(!nothing, "{method} {path}: {}", answer.text);
            }
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_each_dependency_and_liveness_depends_on_none() {
    let store = memory().await;
    let broken =
        super::Api { kafka: Box::new(|| Box::pin(async { anyhow::bail!("away") })), ..api(store.clone()) };
    let (server, client) = start(broken).await;
    ask(&client, |client: Client| {
        let down = crate::support::wait::value("Kafka is known to be down", LIMIT, || {
            let answer = client.get("/readyz");
            (answer.body["dependencies"][1]["state"] == "down").then_some(answer)
        });
        assert_eq!((down.status, &down.body["ready"]), (503, &json!(false)));
        assert_eq!(client.get("/livez").status, 200);
    })
    .await;
    server.stop().await;
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        let ready = crate::support::wait::value("it is ready", LIMIT, || {
            Some(client.get("/readyz")).filter(|answer| answer.status == 200)
        });
        let named: Vec<&Value> =
            ready.body["dependencies"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(named, ["database", "kafka"]);
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_to_stop_is_not_ready_and_answers_all_the_same() {
    let stopping = CancellationToken::new();
    let store = memory().await;
    let (server, client) = start(super::Api { stopping: stopping.clone(), ..api(store.clone()) }).await;
    ask(&client, |client: Client| {
        let ready = crate::support::wait::value("it is ready", LIMIT, || {
            Some(client.get("/readyz")).filter(|answer| answer.status == 200)
        });
        assert_eq!(ready.body["stopping"], false);
    })
    .await;
    stopping.cancel();
    ask(&client, |client: Client| {
        let answer = client.get("/readyz");
        assert_eq!((answer.status, &answer.body["stopping"]), (503, &json!(true)), "{}", answer.text);
        assert_eq!(answer.body["dependencies"][0]["state"], "up");
        assert_eq!(client.get("/livez").status, 200);
        assert_eq!(client.get("/v1/movements?sku=MUG").status, 200);
    })
    .await;
    server.stop().await;
}

/// Longest wait for what a probe says.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_or_no_http_ends_its_connection_and_no_other() {
    let store = memory().await;
    let (server, client) = serve(&store).await;
    ask(&client, |client: Client| {
        let address = client.base.strip_prefix("http://").unwrap().to_owned();
        let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
        for sent in [head.as_bytes(), b"\x16\x03\x01 no http\r\n\r\n"] {
            let mut connection = TcpStream::connect(&address).unwrap();
            // It may be closed before all was sent.
            let _ = connection.write_all(sent);
            let mut answer = Vec::new();
            let _ = connection.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
        assert_eq!(client.get("/livez").status, 200);
    })
    .await;
    server.stop().await;
}
