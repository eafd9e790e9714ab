//! The servers of the tests themselves, after a crash.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::servers::Private;

/// For how long a dying process keeps its sockets here: longer than a start needs to look at all ports.
const DYING: Duration = Duration::from_secs(2);

#[test]
fn a_server_comes_back_on_its_ports_though_the_one_killed_still_keeps_them_for_a_moment() {
    let servers = Private::start();
    let before = servers.services(&["env"]);
    servers.kill("kafka");
    servers.kill("postgres");
    let kept = TcpListener::bind(servers.setting("KAFKA_BROKERS")).expect("the port is free");
    let dies = std::thread::spawn(move || {
        std::thread::sleep(DYING);
        drop(kept);
    });
    servers.restart();
    dies.join().expect("it ends");
    assert_eq!(servers.services(&["env"]), before);
}
