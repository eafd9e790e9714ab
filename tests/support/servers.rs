//! The servers the tests run on: those of the environment, or an instance of one's own to be killed at will.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;

/// A setting that tests/run puts into the environment. A test that asks waits for a permit.
///
/// # Panics
/// When it is not there.
pub fn setting(name: &str) -> String {
    take_permit();
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run the tests with tests/run, which provides Kafka and PostgreSQL")
    })
}

/// Where Kafka and PostgreSQL are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// A database of PostgreSQL whose user may create others.
    pub database_url: String,
}

impl Servers {
    /// Those of the environment.
    pub fn shared() -> Self {
        Self { brokers: setting("KAFKA_BROKERS"), database_url: setting("DATABASE_URL") }
    }
}

/// Runs a future of the database or the admin client.
pub fn wait_for<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime")
        })
        .block_on(future)
}

/// Tests at work at once that use servers or the program. What each does within its time-outs depends on it. Threads there
/// are more (tests/run): one that waits for a permit has one too.
const ORDINARY: usize = 4;

/// Besides those: tests at work at once that start servers of their own or keep several instances busy. Mostly they wait for a
/// session to end or a server to come back, so two take little longer than one.
const HEAVY: usize = 2;

/// A heavy test has the places of so many ordinary ones: one more begins in theirs while no ordinary one waits, and they begin
/// in its place once no heavy one waits any more. At the end of a run only some of one kind are left.
const PLACES_OF_HEAVY: usize = 2;

/// Where the processor was idle for this share of the last second, one more begins, as long as no more than so many are at
/// work.
const IDLE: f64 = 0.15;
const MOST_AT_WORK: usize = 12;
/// How often that is looked at.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// A test at work for longer hangs: it ends the run, which would else never end and say nothing of any test that failed.
const HANGS_AFTER: Duration = Duration::from_secs(30 * 60);
/// How often that is looked for.
const WATCHED_EVERY: Duration = Duration::from_secs(10);

/// Who is at work and since when, and who waits, each kind in the order they came: a test of minutes that others overtook
/// would be the last, alone.
struct AtWork {
    ordinary: usize,
    heavy: usize,
    ordinary_waiting: BTreeSet<u64>,
    heavy_waiting: BTreeSet<u64>,
    /// How many came.
    came: u64,
    /// Whether a heavy test has begun: before that none waits since none was started yet.
    heavy_begun: bool,
    /// Whether the processor has room for one more.
    is_idle: bool,
    since: BTreeMap<String, Instant>,
}

impl AtWork {
    /// Places of ordinary tests that heavy ones have.
    fn lent(&self) -> usize {
        self.heavy.saturating_sub(HEAVY) * PLACES_OF_HEAVY
    }

    /// Places for ordinary tests that heavy ones leave.
    fn left(&self) -> usize {
        let are_over = self.heavy_begun && self.heavy_waiting.is_empty();
        if are_over { HEAVY.saturating_sub(self.heavy) * PLACES_OF_HEAVY } else { 0 }
    }

    fn may_begin(&mut self, weight: Weight, place: u64) -> bool {
        let free = (ORDINARY + self.left()).saturating_sub(self.ordinary + self.lent());
        let has_place = match weight {
            Weight::Ordinary => free > 0,
            Weight::Heavy => {
                self.heavy < HEAVY
                    || self.heavy == HEAVY && self.ordinary_waiting.is_empty() && free >= PLACES_OF_HEAVY
            }
        };
        // A heavy one first: it takes longer.
        let fills = self.is_idle && (weight == Weight::Heavy || self.heavy_waiting.is_empty());
        (has_place || fills) && self.waiting(weight).first() == Some(&place)
    }

    fn of(&mut self, weight: Weight) -> &mut usize {
        match weight {
            Weight::Ordinary => &mut self.ordinary,
            Weight::Heavy => &mut self.heavy,
        }
    }

    fn waiting(&mut self, weight: Weight) -> &mut BTreeSet<u64> {
        match weight {
            Weight::Ordinary => &mut self.ordinary_waiting,
            Weight::Heavy => &mut self.heavy_waiting,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Ordinary,
    Heavy,
}

static AT_WORK: Mutex<AtWork> = Mutex::new(AtWork {
    ordinary: 0,
    heavy: 0,
    ordinary_waiting: BTreeSet::new(),
    heavy_waiting: BTreeSet::new(),
    came: 0,
    heavy_begun: false,
    is_idle: false,
    since: BTreeMap::new(),
});
static CHANGED: Condvar = Condvar::new();

fn at_work() -> MutexGuard<'static, AtWork> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test's permit, until its thread ends.
struct Permit {
    weight: Weight,
    test: String,
}

impl Permit {
    /// Waits for one.
    fn take(weight: Weight) -> Self {
        let mut now = at_work();
        let place = now.came;
        now.came += 1;
        now.waiting(weight).insert(place);
        now = CHANGED
            .wait_while(now, |now| !now.may_begin(weight, place))
            .unwrap_or_else(PoisonError::into_inner);
        now.waiting(weight).remove(&place);
        *now.of(weight) += 1;
        now.is_idle = false;
        now.heavy_begun |= weight == Weight::Heavy;
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        now.since.insert(test.clone(), Instant::now());
        drop(now);
        // There may be a place for the next too.
        CHANGED.notify_all();
        watch();
        Self { weight, test }
    }
}

/// Ticks of all processors: idle ones, and all. `None` where the system does not say.
fn processor_ticks() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    // user, nice, system, idle, iowait, and what interrupts and other machines took
    let ticks: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).take(8).map_while(|tick| tick.parse().ok()).collect();
    Some((ticks.get(3)? + ticks.get(4)?, ticks.iter().sum()))
}

/// Lets one more begin whenever the processor was idle.
fn fill_idle_processor() {
    let mut before = processor_ticks();
    while let Some((idle_before, all_before)) = before {
        std::thread::sleep(IDLE_LOOK);
        let now = processor_ticks();
        if let Some((idle, all)) = now {
            let share =
                idle.saturating_sub(idle_before) as f64 / all.saturating_sub(all_before).max(1) as f64;
            let mut at_work = at_work();
            at_work.is_idle = share > IDLE && at_work.ordinary + at_work.heavy < MOST_AT_WORK;
            drop(at_work);
            CHANGED.notify_all();
        }
        before = now;
    }
}

/// Ends the run when a test hangs, from now on, and keeps the processor busy.
fn watch() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        std::thread::spawn(fill_idle_processor);
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(WATCHED_EVERY);
                for (name, since) in &at_work().since {
                    if since.elapsed() > HANGS_AFTER {
                        // Not by a macro: what those print is a test's, and shown when that ends.
                        let _ = writeln!(std::io::stderr(), "{name} hangs: at work for {HANGS_AFTER:?}");
                        std::process::exit(101);
                    }
                }
            }
        });
    });
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut now = at_work();
        *now.of(self.weight) -= 1;
        now.since.remove(&self.test);
        drop(now);
        CHANGED.notify_all();
    }
}

thread_local! {
    static PERMIT: RefCell<Option<Permit>> = const { RefCell::new(None) };
}

/// Waits until this test may use servers and the program. Threads that a test starts go with it: those of tests have their
/// names.
pub fn take_permit() {
    let is_of_test = std::thread::current().name().is_some_and(|name| name.contains("::"));
    if is_of_test && PERMIT.with_borrow(Option::is_none) {
        PERMIT.set(Some(Permit::take(Weight::Ordinary)));
    }
}

/// Waits until this test, which is a heavy one, may begin.
///
/// # Panics
/// When the test has begun already: it would keep another from beginning while it waits.
pub fn heavy() {
    assert!(PERMIT.with_borrow(Option::is_none), "heavy() comes first in a test");
    PERMIT.set(Some(Permit::take(Weight::Heavy)));
}

/// As [`heavy`], for tests that use the one address of Kafka's that leads through a proxy: one at a time.
pub fn heavy_behind_kafkas_proxy() -> MutexGuard<'static, ()> {
    static ADDRESS: Mutex<()> = Mutex::new(());
    // The address first: who waits for it keeps no permit meanwhile.
    let guard = ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    heavy();
    guard
}

/// Kafka and PostgreSQL of one test, which kills them as it likes. They are gone when it is dropped.
pub struct Private {
    directory: tempfile::TempDir,
    properties: &'static str,
    environment: Vec<(&'static str, PathBuf)>,
    settings: HashMap<String, String>,
}

impl Private {
    /// Starts both.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts both, with these properties of Kafka.
    pub fn start_with(properties: &'static str) -> Self {
        Self::start_in(properties, &[])
    }

    /// Starts both, which go by this clock.
    pub fn start_by(clock: &Clock) -> Self {
        Self::start_in("", &clock.environment())
    }

    fn start_in(properties: &'static str, environment: &[(&'static str, PathBuf)]) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        take_permit();
        let directory =
            tempfile::Builder::new().prefix("stock-verifier-private.").tempdir().expect("a directory");
        // The user postgres must reach its directory in it.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))
            .expect("permissions");
        let mut private =
            Self { directory, properties, environment: environment.to_vec(), settings: HashMap::new() };
        private.restart();
        let lines = private.services(&["env"]);
        private.settings = lines
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace('\\', "")))
            .collect();
        private
    }

    /// Runs tests/services on them.
    pub fn services(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services");
        let done = Command::new(script)
            .args(arguments)
            .env("STOCK_VERIFIER_SERVICES_DIR", self.directory.path())
            .env("STOCK_VERIFIER_KAFKA_PROPERTIES", self.properties)
            .env("STOCK_VERIFIER_SHORT_LIVED", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("tests/services can be run");
        assert!(
            done.status.success(),
            "tests/services {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).expect("UTF-8")
    }

    /// What `tests/services env` says of them.
    pub fn setting(&self, name: &str) -> &str {
        &self.settings[name]
    }

    /// A place for a test's own files beside theirs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends one of them (`kafka`, `postgres`) without warning.
    pub fn kill(&self, server: &str) {
        self.services(&["kill", server]);
    }

    /// Brings back what was killed, with its data and on its ports.
    pub fn restart(&self) {
        self.services(&["start"]);
    }

    /// Runs one of Kafka's own tools, by its class, on this Kafka.
    pub fn kafka_tool(&self, class: &str, arguments: &[&str]) {
        let done = Command::new("java")
            // It lives for a moment: what makes a long run fast makes its start slow.
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-XX:SharedArchiveFile={}", self.setting("KAFKA_TOOLS_CLASSES")))
            .args(["-cp", &format!("{}/*", self.setting("KAFKA_LIBS")), class])
            .args(["--bootstrap-server", self.setting("KAFKA_BROKERS")])
            .args(arguments)
            .output()
            .expect("java can be run");
        assert!(
            done.status.success(),
            "{class} {arguments:?}: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Where they are.
    pub fn servers(&self) -> Servers {
        Servers {
            brokers: self.settings["KAFKA_BROKERS"].clone(),
            database_url: self.settings["DATABASE_URL"].clone(),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let stop = || self.services(&["stop", "--wipe"]);
        // A second panic would end all tests.
        if std::thread::panicking() {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(stop));
        } else {
            stop();
        }
    }
}
