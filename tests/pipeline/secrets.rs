//! Secrets: put wherever one can be, and looked for in all that any command says, right and wrong.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::database::{run_on, unique};
use crate::support::process::program;
use crate::support::scene::Scene;
use crate::support::servers::{Servers, setting};

/// Longest a command may take: one that waits for a server is ended then, and has said what it says.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest that is waited for what it must say.
const NEEDED_LIMIT: Duration = Duration::from_secs(120);
/// Most commands at once: most of each one's time is spent waiting.
const AT_ONCE: usize = 12;
/// No server listens here.
const NOBODY: &str = "127.0.0.1:1";
/// Every secret has this in it, and nothing else does.
const MARK: &str = "hunter2";

/// What a command needs on its command line besides settings; no other command needs anything.
fn arguments(scene: &Scene, path: &str) -> Vec<String> {
    let texts: &[&str] = match path {
        "stock import" => &["levels.csv"],
        "replay simulate" => &["--levels", "levels.csv"],
        "stock set" => &["MUG", "3"],
        "stock limits" => &["MUG"],
        "mapping show" => &["shopify"],
        "mapping test" => &["levels.csv", "--mapping", "preset:shopify"],
        "replay rebuild" => &["--into", "sqlite://rebuilt.db?mode=rwc"],
        "demo" => &["--orders", "10"],
        _ => &[],
    };
    let in_scene = |text: &str| match text {
        "levels.csv" => scene.file(text).display().to_string(),
        "sqlite://rebuilt.db?mode=rwc" => format!("sqlite://{}?mode=rwc", scene.file("rebuilt.db").display()),
        text => text.to_owned(),
    };
    texts.iter().map(|text| in_scene(text)).collect()
}

/// The commands of the program, by asking it.
fn commands() -> Vec<String> {
    fn gather(path: &str, found: &mut Vec<String>) {
        let help = program().args(path.split_whitespace()).arg("--help").output().expect("it runs").stdout;
        let help = String::from_utf8(help).expect("UTF-8");
        let inner: Vec<&str> = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .collect();
        if inner.is_empty() {
            found.push(path.to_owned());
        }
        for name in inner {
            gather(format!("{path} {name}").trim(), found);
        }
    }
    let mut found = Vec::new();
    gather("", &mut found);
    assert!(found.len() >= 15, "{found:?}");
    found
}

/// One way to give secrets, to be tried with every command.
struct Case {
    /// What it is, for who reads of its failure.
    name: &'static str,
    /// What comes after the command's own arguments.
    flags: Vec<String>,
    /// Its environment.
    environment: Vec<(&'static str, String)>,
    /// The commands that it is tried with.
    with: fn(&str) -> bool,
    /// What `run` says of it: the case is what it seems.
    said: &'static str,
}

impl Case {
    fn new(name: &'static str, said: &'static str) -> Self {
        Self { name, flags: Vec::new(), environment: Vec::new(), with: |_| true, said }
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    fn environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn with(mut self, with: fn(&str) -> bool) -> Self {
        self.with = with;
        self
    }

    fn command(&self, scene: &Scene, path: &str) -> Command {
        let mut command = program();
        // At its most talkative.
        command.env("RUST_LOG", "debug");
        command.args(path.split_whitespace()).args(arguments(scene, path)).args(&self.flags);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for (variable, topic) in [
            ("ORDERS_TOPIC", "orders"),
            ("ADJUSTMENTS_TOPIC", "adjustments"),
            ("ACCEPTED_TOPIC", "accepted"),
            ("REJECTED_TOPIC", "rejected"),
            ("LEVELS_TOPIC", "levels"),
            ("DEAD_LETTER_TOPIC", "dead"),
        ] {
            command.env(format!("STOCK_VERIFIER_{variable}"), scene.topic(topic));
        }
        command.env("STOCK_VERIFIER_GROUP", scene.group());
        command
    }
}

fn talks_to_database(path: &str) -> bool {
    !talks_to_nobody(path) && path != "topics create"
}

fn talks_to_kafka(path: &str) -> bool {
    !talks_to_nobody(path) && path != "migrate" && !path.starts_with("stock ")
}

fn talks_to_nobody(path: &str) -> bool {
    matches!(path, "demo" | "schema" | "settings")
}

/// Everything a command says until it ends, or has said enough.
fn all_output(scene: &Scene, mut command: Command, needed: &str) -> String {
    let log = scene.file(&unique("output"));
    let file = File::create(&log).expect("a file");
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file)
        .spawn()
        .expect("it starts");
    end_of(child, &log, needed)
}

/// Not before it has said what is needed, which it may be slow to on a busy machine.
fn end_of(mut child: Child, log: &PathBuf, needed: &str) -> String {
    let said = || String::from_utf8_lossy(&std::fs::read(log).expect("the log")).into_owned();
    let begun = Instant::now();
    loop {
        let took = begun.elapsed();
        let is_late = took > LIMIT && said().contains(needed) || took > NEEDED_LIMIT;
        let over = is_late || said().contains(" reading partition=");
        if over {
            let _ = child.kill();
        }
        if child.try_wait().expect("a child").is_some() {
            return said();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn cases(scene: &Scene) -> Vec<Case> {
    let url = |rest: &str| format!("postgres://shop:{MARK}-user-info@{rest}");
    let wrong_scheme = format!("postgress://shop:{MARK}-scheme@db/stock");
    let good = scene.database.url();
    let file = |name: &str, text: &str| {
        let file = scene.file(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    };
    let password_file = file("password", &format!("{MARK}-file\n"));
    let settings = file(
        "settings.toml",
        &format!(
            "database-url = \"{}\"\n[property]\n\"sasl.password\" = \"{MARK}-file-property\"\n\
             \"ssl.key.password\" = \"{MARK}-file-key\"\n",
            url("127.0.0.1:1/stock")
        ),
    );
    let broken = file("broken.toml", &format!("database-url = \"{}\n", url("db/stock")));
    let scheme_in_file = file("scheme.toml", &format!("database-url = \"{wrong_scheme}\"\n"));
    let property_in_file =
        file("property.toml", &format!("[property]\n\"sasl.pasword\" = \"{MARK}-typo\"\n"));
    let properties = [
        format!("sasl.password={MARK}-property"),
        format!("ssl.key.password={MARK}-key"),
        format!("ssl.keystore.password={MARK}-keystore"),
        format!("ssl.key.pem={MARK}-pem"),
        format!("sasl.oauthbearer.client.secret={MARK}-client-secret"),
        format!("sasl.oauthbearer.config={MARK}-config"),
    ];
    let good_kafka = |case: Case| case.environment("STOCK_VERIFIER_BROKERS", scene.kafka.brokers.clone());
    let good_database =
        |case: Case| good_kafka(case).environment("STOCK_VERIFIER_DATABASE_URL", good.clone());
    // Not where a text is expected: a file that cannot be read is named.
    let stray = |text: &str| {
        Case::new("a stray text", "")
            .flags(&[text])
            .with(|path| !matches!(path, "schema" | "stock get" | "mapping test"))
    };
    let to_nowhere = |case: Case| case.environment("STOCK_VERIFIER_BROKERS", NOBODY);
    vec![
        Case::new("help, with secrets in the environment", "Usage: stock-verifier run")
            .flags(&["--help"])
            .environment("STOCK_VERIFIER_DATABASE_URL", url("db/stock"))
            .environment("STOCK_VERIFIER_INTO", url("db/new"))
            .environment("STOCK_VERIFIER_PROPERTY", properties.join("\n")),
        Case::new("help, with secrets in the file", "Usage: stock-verifier run")
            .flags(&["-h", "--config", &settings]),
        Case::new("help, with other tools' variable", "Usage: stock-verifier run")
            .flags(&["--help"])
            .environment("DATABASE_URL", url("db/stock")),
        Case::new("another scheme, in a flag", "expected postgres://")
            .flags(&["--database-url", &wrong_scheme])
            .with(talks_to_database),
        Case::new("another scheme, in the environment", "expected postgres://")
            .environment("STOCK_VERIFIER_DATABASE_URL", wrong_scheme.clone())
            .environment("STOCK_VERIFIER_INTO", wrong_scheme.clone()),
        Case::new("another scheme, in other tools' variable", "expected postgres://")
            .environment("DATABASE_URL", wrong_scheme.clone()),
        Case::new("another scheme, in the file", "expected postgres://")
            .flags(&["--config", &scheme_in_file]),
        Case::new("a file that is no TOML", "is not TOML").flags(&["--config", &broken]),
        Case::new("a server that is not there", "connecting to PostgreSQL")
            .environment("STOCK_VERIFIER_DATABASE_URL", url("127.0.0.1:1/stock?password=hunter2-query")),
        Case::new("the same by file", "connecting to PostgreSQL").flags(&["--config", &settings]),
        Case::new("a password that is wrong", "password authentication failed")
            .environment("STOCK_VERIFIER_DATABASE_URL", with_user(&good, "stock", &format!("{MARK}-wrong"))),
        Case::new("a password file that is wrong", "password authentication failed")
            .environment("STOCK_VERIFIER_DATABASE_URL", good.clone())
            .environment("STOCK_VERIFIER_DATABASE_PASSWORD_FILE", password_file.clone()),
        Case::new("a parameter of the URL that does not exist", "pasword").environment(
            "STOCK_VERIFIER_DATABASE_URL",
            format!("{good}?sslmode=nonsense&pasword={MARK}-parameter"),
        ),
        Case::new("a registry's URL with a password", "--schema-registry-user").environment(
            "STOCK_VERIFIER_SCHEMA_REGISTRY_URL",
            format!("http://ann:{MARK}-registry@127.0.0.1:1"),
        ),
        Case::new("a URL with a port that is none", "URL")
            .environment("STOCK_VERIFIER_DATABASE_URL", format!("postgres://shop:12?{MARK}-port@db/stock")),
        good_database(Case::new("a property that does not exist, in a flag", "sasl.pasword"))
            .flags(&["-X", &format!("sasl.pasword={MARK}-typo")])
            .with(talks_to_kafka),
        good_database(Case::new("a property that does not exist, in the environment", "sasl.pasword"))
            .environment("STOCK_VERIFIER_PROPERTY", format!("sasl.pasword={MARK}-typo")),
        good_database(Case::new("a property that does not exist, in the file", "sasl.pasword"))
            .flags(&["--config", &property_in_file]),
        good_database(Case::new("a property without its name", "expected KEY=VALUE"))
            .flags(&["-X", &format!("{MARK}-alone")])
            .with(talks_to_kafka),
        good_database(Case::new("a property with another's value", "security.protocol"))
            .environment("STOCK_VERIFIER_PROPERTY", format!("security.protocol={MARK}-swapped")),
        good_database(Case::new("a property that may not be changed", "is set by the verifier itself"))
            .environment("STOCK_VERIFIER_PROPERTY", format!("transactional.id={MARK}-own")),
        good_database(Case::new("a property that is not in this build", "sasl.oauthbearer.client.secret"))
            .environment("STOCK_VERIFIER_PROPERTY", properties.join("\n")),
        good_database(Case::new("a key that is none", "ssl")).environment(
            "STOCK_VERIFIER_PROPERTY",
            format!("security.protocol=ssl\n{}", properties[..4].join("\n")),
        ),
        to_nowhere(Case::new("brokers that are not there", ""))
            .environment("STOCK_VERIFIER_DATABASE_URL", good.clone())
            .environment("STOCK_VERIFIER_KAFKA_PASSWORD_FILE", password_file.clone())
            .environment(
                "STOCK_VERIFIER_PROPERTY",
                "security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nsasl.username=stock\ndebug=conf,security",
            ),
        // Much, and the same by every command.
        to_nowhere(Case::new("brokers that are not there, and all that the client can say of it", ""))
            .environment("STOCK_VERIFIER_DATABASE_URL", good.clone())
            .environment("STOCK_VERIFIER_KAFKA_PASSWORD_FILE", password_file)
            .environment(
                "STOCK_VERIFIER_PROPERTY",
                "security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nsasl.username=stock\ndebug=all",
            )
            .with(|path| matches!(path, "run" | "doctor")),
        Case::new("SASL with a wrong password", "")
            .environment("STOCK_VERIFIER_DATABASE_URL", good.clone())
            .environment("STOCK_VERIFIER_BROKERS", setting("KAFKA_SASL_BROKERS"))
            .environment(
                "STOCK_VERIFIER_PROPERTY",
                format!(
                    "security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nsasl.username=stock\n\
                     sasl.password={MARK}-sasl"
                ),
            )
            .with(|path| path == "run"),
        Case::new("a flag that does not exist", "unexpected argument")
            .flags(&[&format!("--databse-url={wrong_scheme}")]),
        Case::new("a flag that does not exist, and its value", "unexpected argument")
            .flags(&["--databse-url", &wrong_scheme]),
        stray(&wrong_scheme),
        stray(&format!("sasl.password={MARK}-stray")),
        Case::new("a switch with a value", "--migrate").flags(&[&format!("--migrate={wrong_scheme}")]),
        Case::new("another flag's value", "--log-format").flags(&["--log-format", &wrong_scheme]),
    ]
}

fn with_user(url: &str, user: &str, password: &str) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    url.set_username(user).expect("a user");
    url.set_password(Some(password)).expect("a password");
    url.into()
}

/// Tries each command with each case, and names what shows a secret.
fn try_all(scene: &Scene, cases: &[Case], secrets: &[String]) {
    std::fs::write(scene.file("levels.csv"), "sku,available\nMUG,3\n").expect("written");
    let all = commands();
    let tries: Vec<(&Case, &String)> = cases
        .iter()
        .flat_map(|case| all.iter().filter(|path| (case.with)(path)).map(move |path| (case, path)))
        .collect();
    let (next, shown) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((case, path)) = tries.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let needed = if path.as_str() == "run" { case.said } else { "" };
                    let output = all_output(scene, case.command(scene, path), needed);
                    let mut wrong = Vec::new();
                    for line in output.lines() {
                        if secrets.iter().any(|secret| line.contains(secret)) {
                            wrong.push(format!("shows a secret: {line}"));
                        }
                    }
                    if path.as_str() == "run" && !output.contains(case.said) {
                        wrong.push(format!("does not say {:?}: {output}", case.said));
                    }
                    let named = wrong.into_iter().map(|what| format!("{}, {path}: {what}", case.name));
                    shown.lock().expect("no other has panicked").extend(named);
                }
            });
        }
    });
    let shown = shown.into_inner().expect("nobody panicked");
    assert!(shown.is_empty(), "{} of {} tries:\n{}", shown.len(), tries.len(), shown.join("\n"));
}

#[test]
fn no_command_shows_a_secret_whatever_is_wrong() {
    let scene = Scene::new(1);
    try_all(&scene, &cases(&scene), &[MARK.to_owned()]);
}

#[test]
fn no_command_shows_a_secret_when_all_is_right() {
    let scene = Scene::new(1);
    let role = unique("role");
    let secret = format!("{MARK}{}", unique("secret"));
    run_on(
        &Servers::shared().database_url,
        &format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{secret}'"),
    );
    let kafka_secret = setting("KAFKA_SASL_PASSWORD");
    let file = |name: &str, text: &str| {
        let file = scene.file(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    };
    let url = with_user(&scene.database.url(), &role, &secret);
    let sasl =
        "security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nsasl.username=stock\ndebug=conf,security";
    let case = |name| {
        Case::new(name, "verifying").environment("STOCK_VERIFIER_BROKERS", setting("KAFKA_SASL_BROKERS"))
    };
    let right = [
        case("by the environment")
            .environment("STOCK_VERIFIER_DATABASE_URL", url.clone())
            .environment("STOCK_VERIFIER_PROPERTY", format!("{sasl}\nsasl.password={kafka_secret}")),
        case("by files")
            .environment("STOCK_VERIFIER_DATABASE_URL", with_user(&url, &role, "no"))
            .environment("STOCK_VERIFIER_DATABASE_PASSWORD_FILE", file("password", &format!("{secret}\n")))
            .environment("STOCK_VERIFIER_KAFKA_PASSWORD_FILE", file("kafka", &format!("{kafka_secret}\n")))
            .environment("STOCK_VERIFIER_PROPERTY", sasl),
    ];
    try_all(&scene, &right, &[secret, kafka_secret]);
    run_on(&Servers::shared().database_url, &format!("DROP ROLE {role}"));
}

#[test]
fn the_new_ledgers_password_can_come_from_a_file() {
    let scene = Scene::new(1);
    let fresh = crate::support::database::Database::empty(&Servers::shared().database_url);
    let file = scene.file("password");
    let right = url::Url::parse(&fresh.url()).expect("a URL").password().expect("a password").to_owned();
    std::fs::write(&file, right + "\n").expect("written");
    let mut command =
        scene.tool(&["replay", "rebuild", "--into-password-file", file.to_str().expect("UTF-8")]);
    command.env("STOCK_VERIFIER_INTO", with_user(&fresh.url(), "stock", "wrong"));
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}
