//! The program itself, as its own process.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::servers::take_permit;
use super::wait;

/// Lines of a log that are shown when a test fails.
const SHOWN_LINES: usize = 60;
/// The signals that ask the program to stop, with their numbers.
const STOPPING: [(&str, u32); 2] = [("TERM", 15), ("INT", 2)];
/// Longest wait until it listens to them: it does moments after it said that it runs.
const LISTENS_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait until a process that was sent STOP stands still.
const STANDS_LIMIT: Duration = Duration::from_secs(30);

/// The program, with none of the test's own settings in its environment. A test that asks for it waits for a permit.
pub fn program() -> Command {
    take_permit();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stock-verifier"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_setting = name.starts_with("STOCK_VERIFIER_") || name.starts_with("OTEL_");
        if is_setting || name == "DATABASE_URL" || name == "RUST_LOG" {
            command.env_remove(&*name);
        }
    }
    command
}

/// A running (or ended) program. Killed when dropped.
pub struct Verifier {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Verifier {
    /// Starts it, with its log in this file.
    pub fn start(mut command: Command, name: &str, log: PathBuf) -> Self {
        let file = File::create(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Self { child, log, name: name.to_owned() }
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("the log is there")).into_owned()
    }

    /// The partitions of a topic that it reads now, by its log.
    pub fn reads(&self, topic: &str) -> BTreeSet<i32> {
        let mut read = BTreeSet::new();
        let named = format!("partition={topic}[");
        for line in self.log().lines() {
            let Some((_, rest)) = line.split_once(&named) else { continue };
            // The last line may not be written to its end yet.
            let Some(number) = rest.split_once(']').and_then(|(number, _)| number.parse().ok()) else {
                continue;
            };
            if line.contains(" reading ") {
                read.insert(number);
            } else if line.contains(" handed over ") {
                read.remove(&number);
            }
        }
        read
    }

    /// Waits until its log holds a text.
    #[track_caller]
    pub fn said(&mut self, text: &str, limit: Duration) {
        let what = format!("{} says {text:?}", self.name);
        wait::until(&what, limit, || {
            if self.log().contains(text) {
                return true;
            }
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert!(self.log().contains(text), "{} ended ({status}) without saying {text:?}", self.name);
            }
            false
        });
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("a child");
    }

    /// Whether it catches the signal of this number; also when it has ended, and catches nothing any more.
    fn listens_to(&self, number: u32) -> bool {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())) else {
            return true;
        };
        let caught = u64::from_str_radix(field(&status, "SigCgt:"), 16).expect("a mask of signals");
        field(&status, "State:").starts_with('Z') || (caught >> (number - 1)) & 1 == 1
    }

    /// Sends a signal by its name: TERM, INT, STOP, CONT. One that asks it to stop is sent once it listens: it may say
    /// that it runs a moment before, and would end by the signal itself.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        if let Some((_, number)) = STOPPING.iter().find(|(name, _)| *name == signal) {
            let what = format!("{} listens to {signal}", self.name);
            wait::until(&what, LISTENS_LIMIT, || self.listens_to(*number));
        }
        match signal {
            "STOP" => freeze(self.child.id()),
            _ => send(signal, self.child.id()),
        }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait::value(&what, limit, || self.child.try_wait().expect("a child"))
    }

    /// SIGTERM, and a good end.
    #[track_caller]
    pub fn stop(self) {
        self.stop_with(0);
    }

    /// SIGTERM, and the end of one that has stopped partitions: a person must look.
    #[track_caller]
    pub fn stop_with_stopped_partitions(self) {
        self.stop_with(3);
    }

    #[track_caller]
    fn stop_with(mut self, code: i32) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(40));
        assert_eq!(status.code(), Some(code), "{} was stopped", self.name);
    }

    /// SIGTERM in the middle of a rebalance: what it could not finish, whoever has the partitions then does.
    #[track_caller]
    pub fn stop_among_others(mut self) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(40));
        assert!(matches!(status.code(), Some(0 | 75)), "{} was stopped: {status}", self.name);
    }

    /// The most memory it ever had resident, in bytes.
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }
}

/// Sends a process a signal by its name.
#[track_caller]
fn send(signal: &str, id: u32) {
    let sent = Command::new("kill").args(["-s", signal, &id.to_string()]).status().expect("kill can be run");
    assert!(sent.success(), "no {signal} for {id}");
}

/// Stops a process, and returns when nothing of it goes on: STOP reaches one thread first, and on a busy machine the
/// others go on until that one runs, in which time a batch is written to its end.
#[track_caller]
pub fn freeze(id: u32) {
    send("STOP", id);
    wait::until(&format!("{id} stands still"), STANDS_LIMIT, || stands_still(id));
}

/// Whether each thread of a process is stopped.
fn stands_still(id: u32) -> bool {
    let threads =
        std::fs::read_dir(format!("/proc/{id}/task")).expect("Linux lists the threads of each process");
    threads.flatten().all(|thread| {
        // One that ended meanwhile does nothing.
        let Ok(status) = std::fs::read_to_string(thread.path().join("status")) else { return true };
        field(&status, "State:").starts_with('T')
    })
}

/// A field of what the kernel says of a process.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says it of each process").trim()
}

impl Drop for Verifier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            println!("---- the end of the log of {} ----\n{shown}", self.name);
        }
    }
}
