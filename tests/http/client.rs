//! Asks the read API, and holds each answer to the document that describes it.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request};

/// Longest wait for an answer: longer than any that the API lets itself take.
const LIMIT: Duration = Duration::from_secs(60);

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null where it is no JSON.
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Asks one server.
#[derive(Clone)]
pub struct Client {
    pub base: String,
    agent: ureq::Agent,
    token: Option<String>,
}

impl Client {
    pub fn new(address: impl std::fmt::Display) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            // A connection kept would be closed by a server that is stopped and started again.
            .max_idle_connections(0)
            .proxy(None);
        Self { base: format!("http://{address}"), agent: config.build().into(), token: None }
    }

    /// The same with a token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Sends anything; `None` when nobody answers.
    pub fn try_send(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let sent = match body {
            Some((kind, text)) => {
                let request = request.header("content-type", kind).body(text.to_owned()).unwrap();
                self.agent.run(request)
            }
            None => self.agent.run(request.body(()).unwrap()),
        };
        let mut response = sent.ok()?;
        let text = response.body_mut().read_to_string().unwrap();
        let answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        };
        if !answer.text.is_empty() && !path.starts_with("/openapi.json") && answer.body != Value::Null {
            check(method, path, &answer);
        }
        Some(answer)
    }

    fn send(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Answer {
        self.try_send(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    pub fn other(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, Some(("application/json", body)))
    }

    pub fn post_as(&self, path: &str, kind: &str, body: &str) -> Answer {
        self.send("POST", path, Some((kind, body)))
    }
}

/// The document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_str(stock_verifier::http::openapi::document()).unwrap())
}

/// The address in the document that a path is of.
fn template(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap();
    let known = document()["paths"].as_object().unwrap().keys();
    known.map(String::as_str).find(|template| match template.split_once('{') {
        None => *template == path,
        Some((start, _)) => path.strip_prefix(start).is_some_and(|name| !name.contains('/')),
    })
}

/// Panics when an answer is not what the document says.
fn check(method: &str, path: &str, answer: &Answer) {
    let kind = answer.header("content-type").to_owned();
    let schema = match template(path) {
        None => json!({"$ref": "#/components/schemas/ProblemDocument"}),
        Some(template) => {
            let operation = &document()["paths"][template][method.to_lowercase()];
            let responses = &operation["responses"];
            let status = answer.status.to_string();
            let response =
                if responses[&status].is_null() { &responses["default"] } else { &responses[&status] };
            if operation.is_null() {
                json!({"$ref": "#/components/schemas/ProblemDocument"})
            } else {
                response["content"][&kind]["schema"].clone()
            }
        }
    };
    assert!(!schema.is_null(), "{method} {path}: {} with {kind} is not in the document", answer.status);
    let whole = json!({"allOf": [schema], "components": document()["components"]});
    if let Err(error) = jsonschema::validator_for(&whole).unwrap().validate(&answer.body) {
        panic!("{method} {path}: {} is not what the document says: {error}", answer.body);
    }
    if answer.status >= 400 && kind != "application/json" {
        assert_eq!(kind, "application/problem+json", "{method} {path}");
        assert_eq!(answer.body["status"], answer.status, "{method} {path}");
    }
}
