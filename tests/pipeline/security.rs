//! Ways to reach Kafka that production uses: TLS, SASL, compression.

use std::time::Duration;

use crate::support::kafka::{Sent, order};
use crate::support::preloaded::compile;
use crate::support::scene::Scene;
use crate::support::servers::setting;

const SOON: Duration = Duration::from_secs(60);

/// Verifies a few orders through these brokers with these properties.
fn works(scene: &Scene, brokers: &str, more: &[&str], properties: &[&str]) {
    let mut arguments = vec!["--brokers", brokers];
    arguments.extend(more);
    for property in properties {
        arguments.extend(["-X", property]);
    }
    let records = scene.kafka.ends(&scene.orders(), "read_committed").iter().sum::<i64>();
    let orders: Vec<Sent> =
        (records..records + 20).map(|number| order(&format!("o-{number}"), &[("MUG", 1)])).collect();
    scene.produce(&orders);
    let verifier = scene.launch(scene.command_without_brokers("a", &arguments), "secure");
    scene.done(SOON);
    verifier.stop();
}

fn scene() -> Scene {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 10_000)]);
    scene
}

#[test]
fn tls_works_and_a_certificate_of_a_stranger_is_refused() {
    let scene = scene();
    let brokers = setting("KAFKA_SSL_BROKERS");
    let authority = format!("ssl.ca.location={}", setting("KAFKA_SSL_CA"));
    works(&scene, &brokers, &[], &["security.protocol=ssl", &authority]);
    scene.prove();
    let stranger = ["--brokers", &brokers, "-X", "security.protocol=ssl"];
    let mut verifier = scene.launch(scene.command_without_brokers("a", &stranger), "stranger");
    assert_eq!(verifier.wait(SOON).code(), Some(1));
    let log = verifier.log();
    assert!(log.contains("certificate") && log.contains("ssl.*"), "{log}");
}

#[test]
fn openssl_is_there_until_a_process_is_gone_so_that_a_thread_still_closing_connections_does_not_crash_it() {
    let scene = Scene::new(1);
    let library = scene.file("at_the_end.so");
    compile(&library, "openssl_at_the_end.c");
    let authority = format!("ssl.ca.location={}", setting("KAFKA_SSL_CA"));
    let mut command = scene.topics(&["topics", "check", "-X", "security.protocol=ssl", "-X", &authority]);
    // The last of a flag counts.
    command.args(["--brokers", &setting("KAFKA_SSL_BROKERS")]).env("LD_PRELOAD", &library);
    let done = command.output().expect("it runs");
    let log = String::from_utf8_lossy(&done.stderr);
    // Whether it found something does not matter here.
    assert!(
        done.status.code().is_some() && log.contains("OpenSSL at the end: usable"),
        "{:?}: {log}",
        done.status
    );
}

#[test]
fn sasl_plain_scram_and_oauthbearer_work() {
    let scene = scene();
    let brokers = setting("KAFKA_SASL_BROKERS");
    let user = format!("sasl.username={}", setting("KAFKA_SASL_USER"));
    let password = setting("KAFKA_SASL_PASSWORD");
    let given = format!("sasl.password={password}");
    let protocol = "security.protocol=sasl_plaintext";
    works(&scene, &brokers, &[], &[protocol, "sasl.mechanism=PLAIN", &user, &given]);
    works(&scene, &brokers, &[], &[protocol, "sasl.mechanism=SCRAM-SHA-256", &user, &given]);
    // The password from a file.
    let file = scene.file("password");
    std::fs::write(&file, format!("{password}\n")).expect("written");
    let from_file = ["--kafka-password-file", file.to_str().expect("UTF-8")];
    works(&scene, &brokers, &from_file, &[protocol, "sasl.mechanism=PLAIN", &user]);
    // Unsigned tokens, which only a test's broker takes.
    let token = ["enable.sasl.oauthbearer.unsecure.jwt=true", "sasl.oauthbearer.config=principal=stock"];
    works(&scene, &brokers, &[], &[protocol, "sasl.mechanism=OAUTHBEARER", token[0], token[1]]);
    assert_eq!(scene.prove().accepted, 80);
}

#[test]
fn every_codec_is_read_and_written() {
    let scene = scene();
    for codec in ["zstd", "lz4", "snappy", "gzip", "none"] {
        let property = format!("compression.type={codec}");
        let orders: Vec<Sent> =
            (0..200).map(|number| order(&format!("{codec}-{number}"), &[("MUG", 1)])).collect();
        scene.kafka.produce_with(&scene.orders(), &orders, &[("compression.type", codec)]);
        let verifier = scene.start("a", &["-X", &property]);
        scene.done(SOON);
        verifier.stop();
    }
    assert_eq!(scene.prove().accepted, 1_000);
}
