//! The servers of the tests themselves, after a crash.

use std::collections::HashSet;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::support::servers::Private;
use crate::support::wait;

/// Longest wait for a port.
const SOON: Duration = Duration::from_secs(30);

/// For how long a dying process keeps its sockets here: longer than a start needs to look at all ports.
const DYING: Duration = Duration::from_secs(2);

#[test]
fn a_server_comes_back_on_its_ports_though_the_one_killed_still_keeps_them_for_a_moment() {
    let servers = Private::start();
    let before = servers.services(&["env"]);
    servers.kill("kafka");
    servers.kill("postgres");
    // It is gone a moment before all of its threads are, and its sockets with them.
    let kept = wait::value("the port of the one killed", SOON, || {
        TcpListener::bind(servers.setting("KAFKA_BROKERS")).ok()
    });
    let dies = std::thread::spawn(move || {
        std::thread::sleep(DYING);
        drop(kept);
    });
    servers.restart();
    dies.join().expect("it ends");
    assert_eq!(servers.services(&["env"]), before);
}

#[test]
fn two_ports_promised_to_one_start_differ_whatever_chance_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = r#". tests/lib.sh
        for _ in 1 2 3; do RANDOM=5; free_port "$1"; done"#;
    let done = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(directory.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("bash can be run");
    let ports = String::from_utf8(done.stdout).expect("numbers");
    let different: HashSet<&str> = ports.lines().collect();
    assert_eq!(different.len(), 3, "{ports}{}", String::from_utf8_lossy(&done.stderr));
}
