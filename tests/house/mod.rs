//! The house: which room may use which, and which library is used where. A new arrow is a line in [`ALLOWED`], and so a
//! decision that somebody makes.

mod circles;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use self::source::{Source, is_comment, sources, sources_in, src, tests};

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
const LIBRARIES: [(&str, &[&str]); 21] = [
    ("openssl_sys", &["main"]),
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

/// Tests that do without a library: they stand on seams that know nothing of it.
const WITHOUT: [(&str, &[&str]); 1] = [("simulation", &["rdkafka"])];

/// The files that may have unsafe code: what rdkafka has no safe call for, and the allocator's settings.
const UNSAFE: [&str; 9] = [
    "kafka/admin_request.rs",
    "kafka/groups.rs",
    "kafka/member_id.rs",
    "kafka/partitioner.rs",
    "kafka/password.rs",
    // A test of it, which breaks a producer.
    "kafka/sender.rs",
    "kafka/topic_ids.rs",
    "kafka/transactional/lane.rs",
    "main.rs",
];

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
fn tests_on_a_seam_do_without_the_libraries_behind_it() {
    for (folder, libraries) in WITHOUT {
        let sources = sources_in(&tests().join(folder));
        assert!(sources.len() > 2, "{folder} is not where it was");
        for source in sources {
            for library in libraries {
                assert!(source.after(library).is_empty(), "{} uses {library}", source.path.display());
            }
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
fn unsafe_code_is_where_it_is_listed_alone() {
    // The compiler denies it where this word is not; lib.rs says so.
    let has_some = |source: &&Source| {
        let text = fs::read_to_string(&source.path).expect("a source file");
        source.room() != "lib" && text.lines().any(|line| !is_comment(line) && line.contains("unsafe_code"))
    };
    let sources = sources();
    let mut found: Vec<&Path> = sources
        .iter()
        .filter(has_some)
        .map(|source| source.path.strip_prefix(src()).expect("in src/"))
        .collect();
    found.sort_unstable();
    assert_eq!(found, UNSAFE.map(Path::new));
}
