//! A schema registry of the tests' own: what of Confluent's REST API is asked for, and what that answers. The same tests run
//! on a real one, see `tests/registry/real.rs`.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use native_tls::TlsAcceptor;
use serde_json::{Value, json};

/// How long a client that says nothing is waited for.
const SILENCE: Duration = Duration::from_secs(10);

/// A registry on this machine, until dropped.
pub struct Registry {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The answers by their paths.
    answers: Mutex<HashMap<String, Value>>,
    /// What paths begin with that it does not have, and the text of its 404 there.
    lacking: Mutex<Vec<(&'static str, &'static str)>>,
    /// Whom to name, as the header says it.
    login: Option<String>,
    /// Whose certificate it shows.
    tls: Option<TlsAcceptor>,
    is_away: AtomicBool,
    asked: AtomicUsize,
    ended: AtomicBool,
}

impl Registry {
    /// Knows no schema yet. With a login, it lets nobody else in.
    pub fn start(login: Option<(&str, &str)>) -> Self {
        let login = login.map(|(user, password)| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        });
        Self::begin(State { login, ..State::default() })
    }

    /// The same over TLS, for who has this token.
    pub fn over_tls(token: &str, tls: TlsAcceptor) -> Self {
        Self::begin(State { login: Some(format!("Bearer {token}")), tls: Some(tls), ..State::default() })
    }

    fn begin(state: State) -> Self {
        let types = json!(["JSON", "PROTOBUF", "AVRO"]);
        state.answers.lock().expect("no panic").insert("/schemas/types".to_owned(), types);
        let state = Arc::new(state);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                for stream in listener.incoming() {
                    if state.ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || {
                        let stream = stream.expect("a connection");
                        stream.set_read_timeout(Some(SILENCE)).expect("a limit");
                        match &state.tls {
                            None => serve(stream, &state),
                            // Who does not trust the certificate goes away at once.
                            Some(tls) => drop(tls.accept(stream).map(|stream| serve(stream, &state))),
                        }
                    });
                }
            }
        });
        Self { address, state }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let scheme = if self.state.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Registers a schema under a number, as the first version of a subject, and under a GUID where one is given.
    pub fn add(&self, id: u32, subject: &str, kind: &str, schema: &str, references: &[(&str, &str)]) {
        let references: Vec<Value> = references
            .iter()
            .map(|(name, subject)| json!({"name": name, "subject": subject, "version": 1}))
            .collect();
        let mut answer = json!({"schema": schema});
        // As the real one: Avro's is left out, and so is a list of nothing.
        if kind != "AVRO" {
            answer["schemaType"] = json!(kind);
        }
        if !references.is_empty() {
            answer["references"] = json!(references);
        }
        let mut answers = self.state.answers.lock().expect("no panic");
        answers.insert(format!("/schemas/ids/{id}"), answer.clone());
        answer["id"] = json!(id);
        answers.insert(format!("/subjects/{subject}/versions/1"), answer);
    }

    /// Gives a schema a GUID besides.
    pub fn name(&self, id: u32, guid: &str) {
        let mut answers = self.state.answers.lock().expect("no panic");
        let answer = answers[&format!("/schemas/ids/{id}")].clone();
        answers.insert(format!("/schemas/guids/{guid}"), answer);
    }

    /// Does not have the paths that begin so: any question there is answered by a 404 of this text.
    pub fn lack(&self, paths: &'static str, text: &'static str) {
        self.state.lacking.lock().expect("no panic").push((paths, text));
    }

    /// Answers nobody, or goes on.
    pub fn set_away(&self, is_away: bool) {
        self.state.is_away.store(is_away, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes who waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

fn refusal(code: u32, message: &str) -> String {
    json!({"error_code": code, "message": message}).to_string()
}

/// What is said where nothing is. As the real one, it takes an id that is no `int` of Java for a path that it does not have.
fn not_found(path: &str) -> String {
    let is_id = path.strip_prefix("/schemas/ids/").is_some_and(|id| id.parse::<i32>().is_ok());
    if path.starts_with("/subjects/") {
        refusal(40401, "Subject not found")
    } else if is_id || path.starts_with("/schemas/guids/") {
        refusal(40403, "Schema not found")
    } else {
        refusal(404, "HTTP 404 Not Found")
    }
}

fn serve(stream: impl Read + Write, state: &State) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut login) = (String::new(), None);
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_empty() {
            line.clone_into(&mut first);
        } else if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            login = Some(value.to_owned());
        }
    }
    state.asked.fetch_add(1, Ordering::SeqCst);
    if state.is_away.load(Ordering::SeqCst) {
        return;
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let lacking = |(paths, text): &(&str, &'static str)| path.starts_with(*paths).then_some(*text);
    let lacking = state.lacking.lock().expect("no panic").iter().find_map(lacking);
    let (status, body) = if state.login.is_some() && login != state.login {
        ("401 Unauthorized", refusal(401, "Unauthorized"))
    } else if let Some(text) = lacking {
        ("404 Not Found", text.to_owned())
    } else {
        match state.answers.lock().expect("no panic").get(path) {
            Some(answer) => ("200 OK", answer.to_string()),
            None => ("404 Not Found", not_found(path)),
        }
    };
    // Nobody reads it where the client has gone.
    let _ = write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\ncontent-type: application/vnd.schemaregistry.v1+json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
}
