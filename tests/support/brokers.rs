//! More brokers for a private Kafka: each a process of its own, to be killed and brought back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::servers::Private;

/// A broker beside the first, without a say in the quorum.
pub struct Broker {
    directory: PathBuf,
    java: Java,
    child: Child,
}

impl Broker {
    /// Starts it, under this node id.
    pub fn start(private: &Private, node: u8, properties: &str) -> Self {
        let directory = private.directory().join(format!("broker-{node}"));
        std::fs::create_dir(&directory).expect("a directory");
        let port = free_port(&directory);
        let text = format!(
            "process.roles=broker\nnode.id={node}\ncontroller.quorum.voters=1@{controller}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listeners=PLAINTEXT://127.0.0.1:{port}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={data}\nauto.create.topics.enable=false\nbroker.session.timeout.ms=3000\n\
             broker.heartbeat.interval.ms=500\ngroup.min.session.timeout.ms=1000\n\
             group.initial.rebalance.delay.ms=0\n{properties}\n",
            controller = private.setting("KAFKA_CONTROLLER"),
            data = directory.join("data").display(),
        );
        std::fs::write(directory.join("server.properties"), text).expect("written");
        let setting = |name| private.setting(name).to_owned();
        let java = Java {
            libs: setting("KAFKA_LIBS"),
            log4j: setting("KAFKA_LOG4J"),
            classes: setting("KAFKA_CLASSES"),
        };
        // What formatting writes for a broker alone, without Java's two seconds. Its directory's id it chooses itself.
        let cluster = private.setting("KAFKA_CLUSTER_ID");
        std::fs::create_dir(directory.join("data")).expect("a directory");
        std::fs::write(
            directory.join("data/meta.properties"),
            format!("version=1\nnode.id={node}\ncluster.id={cluster}\n"),
        )
        .expect("written");
        let child = run(&java, &directory);
        Self { directory, java, child }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
    }

    /// Brings it back with its data.
    pub fn restart(&mut self) {
        self.child = run(&self.java, &self.directory);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            println!(
                "---- the end of a broker's log ----\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

/// A port that no other start on this machine is promised as long as this directory is there, and that no outgoing
/// connection takes, neither before the broker listens nor while it is killed.
pub fn free_port(directory: &Path) -> String {
    let done = Command::new("bash")
        .args(["-c", r#". "$0" && free_port "$1""#])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lib.sh"))
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("a number").trim().to_owned()
}

/// Java as tests/services runs what is short-lived.
struct Java {
    libs: String,
    log4j: String,
    classes: String,
}

impl Java {
    fn command(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-XX:SharedArchiveFile={}", self.classes))
            .arg("-Djava.net.preferIPv4Stack=true")
            .arg(format!("-Dlog4j2.configurationFile={}", self.log4j))
            .args(["-cp", &format!("{}/*", self.libs), class])
            .stdin(Stdio::null());
        command
    }
}

fn run(java: &Java, directory: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).expect("a log");
    java.command("kafka.Kafka")
        .arg(directory.join("server.properties"))
        .current_dir(directory)
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("java runs")
}
