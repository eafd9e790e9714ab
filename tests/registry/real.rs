//! The same on a real registry: Apicurio's, which speaks Confluent's REST API besides its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{LINE, ORDER, PROTO, framed, guid, ids, in_avro, in_protobuf, ran};
use crate::support::brokers::free_port;
use crate::support::kafka::sent;
use crate::support::postgres::with_lib;
use crate::support::scene::Scene;
use crate::support::wait;

/// Longest wait until it has started, on a busy machine.
const STARTS: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

/// Apicurio's registry with its schemas in memory, until dropped.
struct Apicurio {
    child: Child,
    port: String,
}

impl Apicurio {
    fn start(scene: &Scene) -> Self {
        let home = PathBuf::from(with_lib("ensure apicurio >&2; echo \"$APICURIO_HOME\""));
        let directory = scene.file("apicurio");
        std::fs::create_dir(&directory).expect("a directory");
        let port = free_port(&directory);
        let log = File::create(scene.file("apicurio.log")).expect("a log file");
        let child = Command::new("java")
            .args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1"])
            .arg(format!("-Dquarkus.http.port={port}"))
            .arg("-jar")
            .arg(home.join("apicurio-registry-app-2.6.13.Final-runner.jar"))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("java runs");
        let registry = Self { child, port };
        wait::until("Apicurio's registry answers", STARTS, || {
            ureq::get(format!("{}/subjects", registry.url())).call().is_ok()
        });
        registry
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    /// Registers a schema, and gives its number.
    fn add(&self, subject: &str, kind: &str, schema: &str, references: &Value) -> u32 {
        let body = json!({"schema": schema, "schemaType": kind, "references": references}).to_string();
        let answer = ureq::post(format!("{}/subjects/{subject}/versions", self.url()))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .send(&body)
            .expect("registered");
        let answer = answer.into_body().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        u32::try_from(answer["id"].as_u64().expect("an id")).expect("four bytes")
    }
}

impl Drop for Apicurio {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs Apicurio Registry: tests/run --all"]
fn orders_by_the_schemas_of_a_real_registry_are_decided() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 100)]);
    let registry = Apicurio::start(&scene);
    registry.add("shop.Line", "AVRO", LINE, &json!([]));
    let line = json!([{"name": "shop.Line", "subject": "shop.Line", "version": 1}]);
    let avro = registry.add("orders-value", "AVRO", ORDER, &line);
    let proto = registry.add("orders-proto", "PROTOBUF", PROTO, &json!([]));
    scene.produce(&[
        sent("7", framed(avro, &in_avro(7))),
        sent("p-1", framed(proto, &in_protobuf("p-1"))),
        sent("unknown", framed(1_000_000, &in_avro(8))),
        sent("no number", framed(u32::MAX, &in_avro(8))),
        // This one has no GUIDs.
        sent("guid", [guid(), in_avro(8)].concat()),
        sent("9", framed(avro, &in_avro(9))),
    ]);
    let url = registry.url();
    let named = ["--schema-registry-url", &*url];
    let verifier = scene.start("a", &named);
    scene.done(SOON);
    verifier.stop();
    assert_eq!(ids(&scene, "accepted"), ["7", "9", "p-1"]);
    assert_eq!(scene.kafka.count(&scene.topic("dead")), 3);
    let (status, said) = ran(scene.tool(&["audit", "--topics"]), &named);
    assert_eq!(status, Some(0), "{said}");
}
