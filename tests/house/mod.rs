//! The house: which room may use which, and which library is used where. A new arrow is a line in [`ALLOWED`], and so a
//! decision that somebody makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of src/, each with those that it may use. A room stands below all that use it, so there are no circles.
const ALLOWED: [(&str, &[&str]); 20] = [
    ("causes", &[]),
    ("ledger", &[]),
    // jq programs; which of them reads which record.
    ("mapping", &["ledger"]),
    ("event", &["ledger", "mapping"]),
    ("live", &["ledger"]),
    ("feed", &["ledger"]),
    ("store", &["causes", "ledger"]),
    // The most that a batch may have is the store's to say.
    ("config", &["store"]),
    ("console", &[]),
    ("registry", &["config", "event", "ledger"]),
    // Who reads a topic again decodes what it reads.
    ("kafka", &["config", "event", "ledger", "registry"]),
    ("background", &["causes", "config", "event", "kafka", "ledger", "store"]),
    ("http", &["event", "ledger", "live", "store"]),
    ("gate", &["causes", "config", "event", "http", "kafka", "ledger", "store"]),
    // It says which levels moved.
    (
        "pipeline",
        &["background", "causes", "config", "event", "kafka", "ledger", "mapping", "registry", "store"],
    ),
    // It wraps what the others have.
    ("observe", &["background", "config", "event", "gate", "kafka", "ledger", "live", "pipeline", "store"]),
    ("replay", &["config", "event", "kafka", "ledger", "mapping", "registry", "store"]),
    (
        "demo",
        &[
            "config", "console", "event", "http", "kafka", "ledger", "mapping", "observe", "pipeline",
            "replay", "store",
        ],
    ),
    (
        "cli",
        &[
            "causes", "config", "console", "event", "feed", "kafka", "ledger", "demo", "gate", "http",
            "mapping", "observe", "pipeline", "replay", "store",
        ],
    ),
    ("main", &["cli"]),
];

/// Libraries that have rooms of their own: nothing outside knows their types.
const LIBRARIES: [(&str, &[&str]); 20] = [
    ("rdkafka", &["kafka"]),
    ("redis", &["gate"]),
    ("sqlx", &["store"]),
    ("clap", &["cli", "config"]),
    ("prometheus_client", &["observe"]),
    ("opentelemetry", &["observe"]),
    ("opentelemetry_http", &["observe"]),
    ("opentelemetry_otlp", &["observe"]),
    ("opentelemetry_sdk", &["observe"]),
    ("ureq", &["observe", "registry"]),
    ("apache_avro", &["registry"]),
    ("prost_reflect", &["registry"]),
    ("protox", &["registry"]),
    ("axum", &["gate", "http"]),
    ("hyper", &["http"]),
    ("utoipa", &["gate", "http"]),
    ("encoding_rs", &["feed"]),
    ("jaq_core", &["mapping"]),
    ("jaq_std", &["mapping"]),
    ("jaq_json", &["mapping"]),
];

/// A file of src/ without its comments and its tests.
struct Source {
    path: PathBuf,
    code: String,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).expect("a source file");
        let code: Vec<&str> = text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        Self { path, code: code.join("\n") }
    }

    /// The path in src/, without its end.
    fn module(&self) -> String {
        let path = self.path.strip_prefix(src()).expect("in src/").with_extension("");
        path.to_str().expect("UTF-8").trim_end_matches("/mod").to_owned()
    }

    fn room(&self) -> String {
        self.module().split('/').next().expect("a name").to_owned()
    }

    /// The names that come right after this one and `::`, also in braces.
    fn after(&self, start: &str) -> BTreeSet<String> {
        let start = format!("{start}::");
        let mut names = BTreeSet::new();
        for (at, _) in self.code.match_indices(&start) {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                continue;
            }
            let rest = &self.code[at + start.len()..];
            let listed = rest.strip_prefix('{').map_or(rest, |list| {
                // Nested braces end it early, which loses names of the libraries only.
                list.split('}').next().unwrap_or(list)
            });
            let words = if rest.starts_with('{') { listed.split(',').collect() } else { vec![listed] };
            for word in words {
                let name: String = word
                    .trim_start()
                    .chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect();
                names.insert(name);
            }
        }
        names
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let (mut found, mut folders) = (Vec::new(), vec![src()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(Source::read(path));
            }
        }
    }
    assert!(found.len() > 100, "the sources are not where they were");
    found
}

#[test]
fn each_room_uses_only_rooms_that_it_may() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    let mut unused: BTreeSet<(&str, &str)> =
        ALLOWED.iter().flat_map(|(room, uses)| uses.iter().map(|used| (*room, *used))).collect();
    for source in sources() {
        let room = source.room();
        let own = if room == "main" { "stock_verifier" } else { "crate" };
        if room == "lib" {
            continue;
        }
        let may =
            allowed.get(&*room).unwrap_or_else(|| panic!("{room} is a new room: give it a line in ALLOWED"));
        for used in source.after(own) {
            let is_room = allowed.contains_key(&*used);
            assert!(
                !is_room || used == room || may.contains(&&*used),
                "{} uses {used}, which {room} may not",
                source.path.display()
            );
            unused.retain(|arrow| *arrow != (&*room, &*used));
        }
    }
    assert!(unused.is_empty(), "allowed, and not used any more: {unused:?}");
}

#[test]
fn no_two_rooms_use_each_other() {
    // Each stands after all that it uses.
    for (number, (room, uses)) in ALLOWED.iter().enumerate() {
        for used in *uses {
            let at = ALLOWED.iter().position(|(other, _)| other == used).expect("a room");
            assert!(at < number, "{room} uses {used}, which stands after it");
        }
    }
}

#[test]
fn each_library_with_a_room_of_its_own_is_used_there_alone() {
    for source in sources() {
        let room = source.room();
        for (library, rooms) in LIBRARIES {
            assert!(
                source.after(library).is_empty() || rooms.contains(&&*room),
                "{} uses {library}, which {rooms:?} alone may",
                source.path.display()
            );
        }
    }
}

#[test]
fn kafkas_mock_and_its_faults_are_made_in_kafkas_room_alone_for_tests_too() {
    for source in sources().iter().filter(|source| source.room() != "kafka") {
        let text = fs::read_to_string(&source.path).expect("a source file");
        for word in ["rdkafka::mocking", "rdkafka::types", "request_errors"] {
            assert!(!text.contains(word), "{} has {word}", source.path.display());
        }
    }
}

#[test]
fn no_two_files_of_a_room_use_each_other() {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(Source::module).collect();
    let mut arrows: BTreeSet<(String, String)> = BTreeSet::new();
    for source in &sources {
        let module = source.module();
        let Some((folder, _)) = module.rsplit_once('/') else { continue };
        let through_crate = format!("crate::{}", folder.replace('/', "::"));
        for used in source.after("super").into_iter().chain(source.after(&through_crate)) {
            let used = format!("{folder}/{used}");
            if used != module && modules.contains(&used) {
                arrows.insert((module.clone(), used));
            }
        }
    }
    assert!(arrows.len() > 20, "nothing is found any more");
    for (one, other) in &arrows {
        assert!(!arrows.contains(&(other.clone(), one.clone())), "{one} and {other} use each other");
    }
}
