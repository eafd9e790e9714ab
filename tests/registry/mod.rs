//! Values that are written by a schema registry's schemas, decided, audited and replayed.

mod real;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value, json};
use stock_verifier::config::RegistryArgs;
use stock_verifier::event::{Record, SchemaId};

use crate::support::database::Database;
use crate::support::kafka::{header, order, sent};
use crate::support::registry::Registry;
use crate::support::scene::Scene;
use crate::support::servers::Servers;
use crate::support::wait;

/// Longest wait for anything, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// The order's lines are a schema of their own.
pub const LINE: &str = r#"{"type":"record","name":"shop.Line","fields":[{"name":"sku","type":"string"},
    {"name":"quantity","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":4}}]}"#;
pub const ORDER: &str = r#"{"type":"record","name":"shop.Order","fields":[{"name":"type","type":"string"},
    {"name":"order_id","type":"long"},{"name":"placed_at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"lines","type":{"type":"array","items":"shop.Line"}}]}"#;
pub const PROTO: &str = r#"syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto";
    message Order { string type = 1; string order_id = 2; repeated Line lines = 3; google.protobuf.Timestamp placed_at = 4; }
    message Line { string sku = 1; int32 quantity = 2; }"#;
pub const JSON: &str = r#"{"type":"object","properties":{"order_id":{"type":"string"}}}"#;
const GUID: &str = "7644e129-105a-4c2b-9b4b-0f6c11335577";

/// An order of two mugs in Avro, its quantity 2.0000 in two's complement.
pub fn in_avro(id: i64) -> Vec<u8> {
    let line = vec![
        ("sku".to_owned(), "MUG".into()),
        ("quantity".to_owned(), Avro::Decimal(vec![0x4e, 0x20].into())),
    ];
    let order = Avro::Record(vec![
        ("type".to_owned(), "order.created".into()),
        ("order_id".to_owned(), Avro::Long(id)),
        ("placed_at".to_owned(), Avro::TimestampMillis(1_795_869_900_123)),
        ("lines".to_owned(), Avro::Array(vec![Avro::Record(line)])),
    ]);
    let schemata = apache_avro::Schema::parse_list([LINE, ORDER]).unwrap();
    let writer = GenericDatumWriter::builder(&schemata[1]).schemata(schemata.iter().collect()).unwrap();
    writer.build().unwrap().write_value_to_vec(order).unwrap()
}

/// The same in Protobuf, with the index of its message before it.
pub fn in_protobuf(id: &str) -> Vec<u8> {
    let field =
        |number: u8, value: &[u8]| [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat();
    let line = [field(1, b"MUG"), vec![2 << 3, 2]].concat();
    [vec![0], field(1, b"order.created"), field(2, id.as_bytes()), field(3, &line)].concat()
}

pub fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], value].concat()
}

fn guid() -> Vec<u8> {
    let digits = GUID.replace('-', "");
    let bytes = (0..16).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap());
    std::iter::once(1).chain(bytes).collect()
}

/// The ids of what was published, sorted.
pub fn ids(scene: &Scene, which: &str) -> Vec<String> {
    let mut ids: Vec<String> = scene
        .published(which)
        .iter()
        .map(|event| event["order_id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids
}

/// What a dead letter says, by its key.
fn said(letters: &[Record], key: &str) -> (String, String) {
    let letter = letters.iter().find(|letter| letter.key.as_deref() == Some(key.as_bytes()));
    let letter = letter.unwrap_or_else(|| panic!("no dead letter of {key}"));
    let header = |name| header(letter, name).expect("a header").to_owned();
    (header("__connect.errors.exception.class.name"), header("__connect.errors.exception.message"))
}

/// A command's exit status, and all that it says.
pub fn ran(mut command: Command, more: &[&str]) -> (Option<i32>, String) {
    let done = command.args(more).output().expect("it runs");
    let text = [&done.stdout[..], b"\n", &done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn orders_by_a_registrys_schemas_are_decided_audited_and_replayed() {
    let registry = Registry::start(Some(("ann", "hunter2")));
    registry.add(1, "shop.Line", "AVRO", LINE, &[]);
    registry.add(2, "orders-value", "AVRO", ORDER, &[("shop.Line", "shop.Line")]);
    registry.name(2, GUID);
    registry.add(3, "orders-proto", "PROTOBUF", PROTO, &[]);
    registry.add(4, "orders-json", "JSON", JSON, &[]);
    registry.add(5, "orders-torn", "AVRO", ORDER, &[("shop.Line", "nowhere")]);

    let scene = Scene::new(2);
    scene.stock(&[("MUG", 100)]);
    let json = order("j-1", &[("MUG", 2)]).value.unwrap();
    let faulty = r#"{"type":"order.created","order_id":"j-2","lines":[{"sku":"MUG","quantity":0}]}"#;
    scene.produce(&[
        sent("7", framed(2, &in_avro(7))).to(0),
        sent("9007199254740993", [guid(), in_avro(9_007_199_254_740_993)].concat()).to(0),
        sent("8", in_avro(8)).header("__value_schema_id", &guid()).to(1),
        sent("p-1", framed(3, &in_protobuf("p-1"))).to(1),
        // Protobuf whose header says which message it is.
        sent("p-2", in_protobuf("p-2")[1..].to_vec()).header("__value_schema_id", b"\0\0\0\0\x03\0").to(0),
        sent("j-1", framed(4, &json)).to(0),
        sent("j-2", framed(4, faulty.as_bytes())).to(1),
        order("plain", &[("MUG", 2)]).to(1),
        sent("unknown", framed(99, &in_avro(10))).to(0),
        sent("torn", framed(5, &in_avro(11))).to(0),
        sent("short", framed(2, &in_avro(12)[..20])).to(1),
        sent("other", framed(3, &in_avro(13))).to(1),
        sent("after", framed(2, &in_avro(14))).to(0),
    ]);
    let password = scene.file("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let url = registry.url();
    let named = [
        "--schema-registry-url",
        &url,
        "--schema-registry-user",
        "ann",
        "--schema-registry-password-file",
        password.to_str().unwrap(),
    ];
    let verifier = scene.start("a", &named);
    scene.done(SOON);
    let log = verifier.log();
    verifier.stop();
    assert!(!log.contains("hunter2"), "{log}");
    assert_eq!(ids(&scene, "accepted"), ["14", "7", "8", "9007199254740993", "j-1", "p-1", "p-2", "plain"]);
    assert_eq!(ids(&scene, "rejected"), ["j-2"]);
    let letters = scene.kafka.read(&scene.topic("dead"));
    assert_eq!(letters.len(), 4);
    for (key, class, says) in [
        ("unknown", "not_utf8", "framed with schema id 99, which the schema registry does not know"),
        (
            "torn",
            "bad_envelope",
            "schema 5, which the value is written by, cannot be used: it refers to shop.Line",
        ),
        ("short", "bad_envelope", "the value is not the Avro of schema 2: placed_at: it ends too early"),
        ("other", "bad_envelope", "the value is not the Protobuf of schema 3"),
    ] {
        let (class_name, message) = said(&letters, key);
        assert!(message.contains(says), "{key}: {class_name}: {message}");
        assert_eq!(class_name, class, "{key}: {message}");
    }
    // Each schema was asked for once, what it refers to too, and what is not there a few times.
    assert!(registry.asked() < 20, "{}", registry.asked());

    // Who looks again needs the registry, and says so.
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &named);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &[]);
    assert!(status == Some(2) && said.contains("--schema-registry-url"), "{status:?} {said}");
    let (status, said) = ran(scene.tool(&["replay", "diff"]), &named);
    assert_eq!(status, Some(0), "{said}");
    let other = Database::fresh(&Servers::shared().database_url);
    let rebuild = scene.tool(&["replay", "rebuild", "--into", &other.url(), "--execute"]);
    let (status, said) = ran(rebuild, &named);
    assert_eq!(status, Some(0), "{said}");
    look_again_with_and_without(&scene, &named);

    // What was unknown is read once it is registered.
    registry.add(99, "orders-late", "AVRO", ORDER, &[("shop.Line", "shop.Line")]);
    let again = scene.tool(&["replay", "reprocess", "--dead-letters", "--execute"]);
    let (status, said) = ran(again, &named);
    assert!(status.is_some_and(|status| status < 2), "{said}");
    let verifier = scene.start("b", &named);
    scene.done(SOON);
    verifier.stop();
    assert!(ids(&scene, "accepted").contains(&"10".to_owned()));
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &named);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = ran(scene.tool(&["replay", "republish", "--order-id", "7", "--execute"]), &named);
    assert_eq!(status, Some(0), "{said}");
    let published = ids(&scene, "accepted");
    assert_eq!(published.iter().filter(|id| *id == "7").count(), 2, "{published:?}");
}

/// Replays that publish, simulate and decide by the topics alone read by the registry's schemas; without it they refuse what
/// they cannot read, unless they are told that there is none.
fn look_again_with_and_without(scene: &Scene, named: &[&str]) {
    let decided = [&["--json"], named].concat();
    let report = |words: &[&str], more: &[&str]| -> Value {
        let done = scene.tool(words).args(more).output().expect("it runs");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).expect("JSON")
    };
    let looked = report(&["replay", "republish"], &decided);
    assert_eq!((&looked["accepted"], &looked["rejected"]), (&json!(8), &json!(1)), "{looked:#}");

    let levels = scene.file("levels.csv");
    std::fs::write(&levels, "sku,available\nMUG,3\n").unwrap();
    let simulate = ["replay", "simulate", "--levels", levels.to_str().unwrap()];
    let simulated = report(&simulate, &decided);
    assert_eq!(
        (&simulated["accepted_then"], &simulated["accepted_now"]),
        (&json!(8), &json!(1)),
        "{simulated:#}"
    );

    let alone = Database::fresh(&Servers::shared().database_url);
    let url = alone.url();
    let rebuild = ["replay", "rebuild", "--from-topics-alone", "--execute", "--into", &url];
    for words in [&["replay", "republish"][..], &simulate, &rebuild] {
        let (status, said) = ran(scene.tool(words), &[]);
        assert!(status == Some(2) && said.contains("--schema-registry-url"), "{words:?}: {status:?} {said}");
    }
    // Said to be without one, they are dead letters.
    let without = ["--json", "--without-schema-registry"];
    let looked = report(&["replay", "republish"], &without);
    assert_eq!((&looked["accepted"], &looked["rejected"]), (&json!(2), &json!(1)), "{looked:#}");
    let (status, said) = ran(scene.tool(&rebuild), named);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(alone.number("SELECT count(*) FROM decisions WHERE id IN ('7', 'p-1')"), 2);
    let (status, said) = ran(scene.tool(&rebuild), &[named, &["--without-schema-registry"]].concat());
    assert!(status == Some(2) && said.contains("cannot be used with"), "{status:?} {said}");
}

/// The certificate and the key of a server on 127.0.0.1, and the authority that vouches for it, in files of the scene.
fn certificates(scene: &Scene) -> [std::path::PathBuf; 3] {
    let file = |name: &str| scene.file(name);
    let new =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let openssl = |more: &[&str]| {
        let done = Command::new("openssl").args(new).args(more).output().expect("openssl runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let [authority, authority_key, certificate, key] =
        ["ca.pem", "ca.key", "registry.pem", "registry.key"].map(file);
    let [ca, ca_key, leaf, leaf_key] =
        [&authority, &authority_key, &certificate, &key].map(|file| file.to_str().expect("UTF-8"));
    openssl(&["-subj", "/CN=an authority of our own", "-keyout", ca_key, "-out", ca]);
    let names = ["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"];
    let signed = ["-addext", "basicConstraints=critical,CA:FALSE", "-CA", ca, "-CAkey", ca_key];
    openssl(&[&names[..], &signed, &["-keyout", leaf_key, "-out", leaf]].concat());
    [certificate, key, authority]
}

#[test]
fn a_registry_that_an_authority_of_ones_own_vouches_for_lets_in_who_has_the_token() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    let [certificate, key, authority] = certificates(&scene);
    let read = |file: &std::path::Path| std::fs::read(file).expect("a file");
    let identity = native_tls::Identity::from_pkcs8(&read(&certificate), &read(&key)).expect("an identity");
    let registry = Registry::over_tls("hunter2", native_tls::TlsAcceptor::new(identity).expect("TLS"));
    registry.add(1, "shop.Line", "AVRO", LINE, &[]);
    registry.add(2, "orders-value", "AVRO", ORDER, &[("shop.Line", "shop.Line")]);
    scene.produce(&[sent("7", framed(2, &in_avro(7)))]);
    let (url, token) = (registry.url(), scene.file("token"));
    std::fs::write(&token, "hunter1\n").unwrap();
    let named = ["--schema-registry-url", &url, "--schema-registry-token-file", token.to_str().unwrap()];
    let trusting = [&named[..], &["--schema-registry-ca-file", authority.to_str().unwrap()]].concat();

    // Nobody on this machine knows that authority.
    let mut verifier = scene.start("a", &named);
    verifier.said("waiting for schema 2", SOON);
    assert!(verifier.log().contains("certificate verify failed"), "{}", verifier.log());
    assert_eq!(registry.asked(), 0);
    verifier.kill();

    // The token is read again for each request.
    let mut verifier = scene.start("a", &trusting);
    verifier.said("answers 401", SOON);
    std::fs::write(&token, "hunter2\n").unwrap();
    scene.done(SOON);
    let log = verifier.log();
    verifier.stop();
    assert!(!log.contains("hunter"), "{log}");
    assert_eq!(ids(&scene, "accepted"), ["7"]);
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &trusting);
    assert_eq!(status, Some(0), "{said}");

    // What vouches for nobody is said before anything is read.
    let plain = url.replace("https", "http");
    for (args, says) in [
        ([&named[..], &["--schema-registry-ca-file", "/nowhere.pem"]].concat(), "cannot read /nowhere.pem"),
        (
            [&named[..], &["--schema-registry-ca-file", token.to_str().unwrap()]].concat(),
            "no certificate in PEM",
        ),
        ([&["--schema-registry-url", &plain][..], &trusting[4..]].concat(), "begins with https://"),
    ] {
        let (status, said) = ran(scene.tool(&["audit", "--topics"]), &args);
        assert!(status == Some(2) && said.contains(says), "{args:?}: {status:?} {said}");
    }
}

#[test]
fn what_a_registrys_schemas_wrote_is_mapped_decided_and_replayed() {
    let registry = Registry::start(None);
    registry.add(1, "shop.Line", "AVRO", LINE, &[]);
    registry.add(2, "orders-value", "AVRO", ORDER, &[("shop.Line", "shop.Line")]);
    registry.add(3, "orders-proto", "PROTOBUF", PROTO, &[]);
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    scene.produce(&[
        sent("7", framed(2, &in_avro(7))),
        sent("9007199254740993", framed(2, &in_avro(9_007_199_254_740_993))),
        sent("p-1", framed(3, &in_protobuf("p-1"))),
        sent("p-2", framed(3, &in_protobuf("skip"))),
        sent("unknown", framed(99, &in_avro(10))),
        order("plain", &[("MUG", 2)]),
    ]);
    let program = scene.file("shop.jq");
    let text = r#"if .order_id == "skip" then empty else {type, order_id: "shop-\(.order_id)", lines} end"#;
    std::fs::write(&program, text).unwrap();
    let mapping = format!("{}={}", scene.orders(), program.display());
    let url = registry.url();
    let named = ["--schema-registry-url", &url];
    let verifier = scene.start("a", &[&named[..], &["--mapping", &mapping]].concat());
    scene.done(SOON);
    verifier.stop();
    assert_eq!(ids(&scene, "accepted"), ["shop-7", "shop-9007199254740993", "shop-p-1", "shop-plain"]);
    let letters = scene.kafka.read(&scene.topic("dead"));
    assert_eq!(letters.len(), 1);
    assert!(said(&letters, "unknown").1.contains("schema id 99"));

    // The ledger has the program, the registry the schemas.
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &named);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = ran(scene.tool(&["replay", "diff"]), &named);
    assert_eq!(status, Some(0), "{said}");
    let other = Database::fresh(&Servers::shared().database_url);
    let rebuild = scene.tool(&["replay", "rebuild", "--into", &other.url(), "--execute"]);
    let (status, said) = ran(rebuild, &named);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn what_no_registry_can_know_is_a_dead_letter_and_holds_nothing_up() {
    let registry = Registry::start(None);
    registry.lack("/schemas/guids/", "Not Found");
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    scene.produce(&[
        sent("guid", [guid(), in_avro(7)].concat()),
        sent("number", framed(u32::MAX, &in_avro(8))),
        order("after", &[("MUG", 1)]),
    ]);
    let url = registry.url();
    let named = ["--schema-registry-url", &url];
    let verifier = scene.start("a", &named);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(ids(&scene, "accepted"), ["after"]);
    let letters = scene.kafka.read(&scene.topic("dead"));
    assert_eq!(letters.len(), 2);
    for (key, id) in [("guid", GUID), ("number", "4294967295")] {
        let (class, message) = said(&letters, key);
        let says = format!("schema id {id}, which the schema registry does not know");
        assert!(class == "not_utf8" && message.contains(&says), "{key}: {class}: {message}");
    }
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &named);
    assert_eq!(status, Some(0), "{said}");
}

/// A client of the registry at a URL.
fn client(url: &str) -> Arc<stock_verifier::registry::Registry> {
    let url = Some(url::Url::parse(url).expect("a URL"));
    let args = RegistryArgs { schema_registry_url: url, ..RegistryArgs::default() };
    stock_verifier::registry::Registry::named(&args).expect("it reads no file").expect("one is named")
}

#[test]
fn a_guid_is_unknown_to_a_registry_without_guids_and_to_no_other_server() {
    let guid = SchemaId::Guid(*b"sixteen of bytes");
    let is_away = |url: &str| {
        let away = client(url).fetch(guid).expect_err("nothing is known of it").to_string();
        assert!(away.contains("not as a schema registry does"), "{away}");
    };
    for text in [r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#, "Not Found"] {
        let registry = Registry::start(None);
        registry.lack("/schemas/guids/", text);
        // It says which types it has.
        client(&registry.url()).fetch(guid).expect("it is unknown");
        // It does not say that either, as no other server does, nor a proxy in its place, whatever was answered before.
        registry.lack("/schemas/types", text);
        is_away(&registry.url());
        registry.add(7, "orders-value", "JSON", JSON, &[]);
        let client = client(&registry.url());
        client.fetch(SchemaId::Number(7)).expect("it is known");
        client.fetch(guid).expect_err("it may be that it is only away");
        is_away(&(registry.url() + "/elsewhere"));
    }
}

#[test]
fn while_a_registry_is_away_its_partition_waits_alone() {
    let registry = Registry::start(None);
    registry.add(1, "shop.Line", "AVRO", LINE, &[]);
    registry.add(2, "orders-value", "AVRO", ORDER, &[("shop.Line", "shop.Line")]);
    registry.set_away(true);
    let scene = Scene::new(2);
    scene.stock(&[("MUG", 100)]);
    scene.produce(&[
        order("before", &[("MUG", 1)]).to(0),
        sent("7", framed(2, &in_avro(7))).to(0),
        order("behind", &[("MUG", 1)]).to(0),
        order("beside", &[("MUG", 1)]).to(1),
    ]);
    let url = registry.url();
    let mut verifier = scene.start("a", &["--schema-registry-url", &url, "--http-listen", "127.0.0.1:0"]);
    verifier.said("waiting for schema 2", SOON);
    let client = crate::http::running::client(&mut verifier);
    let answer = wait::value("it is not ready, and says so", SOON, || {
        let answer = client.try_send("GET", "/readyz", None)?;
        (answer.status == 503 && answer.body["stopped_partitions"][0]["partition"] == 0).then_some(answer)
    });
    assert_eq!(answer.body["stopped_partitions"].as_array().map(Vec::len), Some(1), "{}", answer.text);
    // The other partition goes on, also with what comes now.
    scene.produce(&[order("later", &[("MUG", 1)]).to(1)]);
    wait::until("the other partition goes on", SOON, || {
        let ids = ids(&scene, "accepted");
        ["before", "beside", "later"].iter().all(|id| ids.iter().any(|found| found == id))
    });
    assert_eq!(ids(&scene, "accepted"), ["before", "beside", "later"]);

    registry.set_away(false);
    scene.done(SOON);
    wait::until("it is ready again", SOON, || {
        client.try_send("GET", "/readyz", None).is_some_and(|answer| answer.status == 200)
    });
    verifier.stop();
    assert_eq!(ids(&scene, "accepted"), ["7", "before", "behind", "beside", "later"]);
    let in_order = "SELECT count(*) FROM decisions one, decisions other
        WHERE one.id = '7' AND other.id = 'behind' AND one.seq < other.seq";
    assert_eq!(scene.database.try_number(in_order).unwrap(), 1, "decided in the order of the records");
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &["--schema-registry-url", &url]);
    assert_eq!(status, Some(0), "{said}");
}
