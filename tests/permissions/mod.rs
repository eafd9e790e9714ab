//! docs/permissions.md, applied to servers that allow nothing by themselves: each command works with what it gives. All of
//! it over TLS, with a look at who the servers are.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use sqlx::Connection as _;

use crate::gate::sale::Shopper;
use crate::support::database::{boolean_on, run_on};
use crate::support::kafka::{Cluster, order, sent};
use crate::support::postgres::give;
use crate::support::process::{Verifier, program};
use crate::support::redis::Redis;
use crate::support::servers::{Private, heavy, wait_for};
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "a-password-of-a-test";

/// Kafka allows nothing by itself, and who says who they are, says it over TLS.
const KAFKA: &str = "allow.everyone.if.no.acl.found=false\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,\
                     SASL:SASL_SSL,SSL:SSL,PROXY:PLAINTEXT,CONTROLLER:PLAINTEXT";

/// The code blocks of the page in this language, with lines joined that end in a backslash.
fn block(language: &str) -> String {
    block_of("docs/permissions.md", "", language)
}

/// The same of what stands under a heading of a page.
fn block_of(page: &str, heading: &str, language: &str) -> String {
    // Read when it runs, so that another page needs no other program.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let page = std::fs::read_to_string(page).expect("the page");
    let page = page.split("\n## ").filter(|section| section.starts_with(heading)).collect::<String>();
    let fence = format!("```{language}\n");
    let blocks: Vec<_> =
        page.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("a block")).collect();
    assert!(!blocks.is_empty(), "the page has no {language}");
    blocks.concat().replace("\\\n", "")
}

/// Servers with the page's grants and no others.
struct Shop {
    private: Private,
    kafka: Cluster,
}

impl Shop {
    fn open() -> Self {
        let private = Private::start_with(KAFKA);
        encrypt(&private);
        let shop = Self { kafka: Cluster::new(&private.servers().brokers), private };
        let (status, log) = Shop::done(&mut shop.command("", "owner", &["migrate"]));
        assert_eq!(status, Some(0), "{log}");
        let server = shop.private.servers().database_url;
        run_on(&server, &block("sql"));
        for role in ["stock_verifier", "stock_operator", "stock_auditor"] {
            run_on(&server, &format!("ALTER ROLE {role} PASSWORD '{PASSWORD}'"));
        }
        let lines = block("sh");
        let given = lines.lines().filter_map(|line| line.strip_prefix("kafka-acls "));
        let given: Vec<&str> =
            given.map(|line| line.strip_prefix("--bootstrap-server localhost:9092 ").expect(line)).collect();
        assert!(given.len() > 5, "{lines}");
        for line in given {
            let words: Vec<&str> = line.split_whitespace().collect();
            shop.private.kafka_tool(ACL_TOOL, &words);
        }
        shop
    }

    /// The program as this user of Kafka and this role of PostgreSQL.
    fn command(&self, user: &str, role: &str, words: &[&str]) -> Command {
        let mut command = program();
        let properties = [
            "security.protocol=sasl_ssl",
            &format!("ssl.ca.location={}", self.authority()),
            "sasl.mechanism=OAUTHBEARER",
            // Unsigned tokens, which only a test's broker takes.
            "enable.sasl.oauthbearer.unsecure.jwt=true",
            &format!("sasl.oauthbearer.config=principal={user}"),
        ];
        let mut database = url::Url::parse(&self.private.servers().database_url).expect("a URL");
        database.set_query(Some(&format!("sslmode=verify-full&sslrootcert={}", self.authority())));
        if role != "owner" {
            database.set_username(role).expect("a user");
            database.set_password(Some(PASSWORD)).expect("a password");
        }
        command
            .current_dir(self.private.directory())
            .args(words)
            .env("STOCK_VERIFIER_BROKERS", self.private.setting("KAFKA_SASL_BROKERS"))
            .env("STOCK_VERIFIER_PROPERTY", properties.join("\n"))
            .env("STOCK_VERIFIER_DATABASE_URL", database.as_str());
        command
    }

    /// Who signed the certificates of both servers.
    fn authority(&self) -> &str {
        self.private.setting("KAFKA_SSL_CA")
    }

    fn done(command: &mut Command) -> (Option<i32>, String) {
        let output = command.output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    }

    /// The command does its work.
    #[track_caller]
    fn works(&self, who: &str, words: &[&str]) -> String {
        let (user, role) = (format!("stock-{who}"), format!("stock_{who}"));
        let (status, log) = Self::done(&mut self.command(&user, &role, words));
        assert_eq!(status, Some(0), "{who} {words:?}: {log}");
        // Other lines of librdkafka's are about connections that end.
        assert!(!log.contains("uthorization failed"), "{who} {words:?}: {log}");
        log
    }

    /// What doctor says once it was answered in time, which on a busy machine it is not always: it says so then.
    fn looked(&self, who: &str, words: &[&str]) -> (Option<i32>, String) {
        let words = [&["doctor"][..], words].concat();
        let (user, role) = (format!("stock-{who}"), format!("stock_{who}"));
        wait::value("doctor is answered in time", SOON, || {
            let mut command = self.command(&user, &role, &words);
            let late = ["no answer within", "says nothing for", "imed out"];
            Some(Self::done(&mut command))
                .filter(|(_, looked)| !late.iter().any(|late| looked.contains(late)))
        })
    }

    /// PostgreSQL refuses the command, or this statement.
    #[track_caller]
    fn refused(&self, role: &str, sql: &str) {
        let mut url = url::Url::parse(&self.private.servers().database_url).expect("a URL");
        url.set_username(role).expect("a user");
        url.set_password(Some(PASSWORD)).expect("a password");
        let refused = wait_for(async {
            let mut connection = sqlx::PgConnection::connect(url.as_str()).await.expect("connected");
            sqlx::raw_sql(sql).execute(&mut connection).await.map(|_| ())
        });
        let refused = refused.expect_err(sql).to_string();
        let says = ["permission denied", "must be owner"];
        assert!(says.iter().any(|says| refused.contains(says)), "{role}: {sql}: {refused}");
    }
}

/// What the programs kafka-acls and kafka-configs run.
const ACL_TOOL: &str = "org.apache.kafka.tools.AclCommand";
const CONFIG_TOOL: &str = "kafka.admin.ConfigCommand";

/// Gives PostgreSQL the certificate that Kafka has.
fn encrypt(private: &Private) {
    let (authority, data) = (private.setting("KAFKA_SSL_CA"), Path::new(private.setting("PG_DATA")));
    for name in ["server.key", "server.crt"] {
        let file = data.join(name);
        std::fs::copy(Path::new(authority).with_file_name(name), &file).expect("tests/services made it");
        give(&file, 0o600);
    }
    let url = private.servers().database_url;
    run_on(&url, "ALTER SYSTEM SET ssl = on");
    run_on(&url, "SELECT pg_reload_conf()");
    wait::until("PostgreSQL encrypts", SOON, || boolean_on(&url, "SELECT current_setting('ssl')::boolean"));
}

/// The settings that docs/operations.md shows are enough for a verifier, with the user that it shows how to make.
fn the_settings_of_the_page_work(shop: &Shop) {
    let page = |language: &str| block_of("docs/operations.md", "Security", language);
    let command = page("sh").lines().find_map(|line| line.strip_prefix("kafka-configs ").map(str::to_owned));
    let command = command.expect("the page makes a user").replace("CHANGE-ME", PASSWORD).replace('\'', "");
    let make_user = command.strip_prefix("--bootstrap-server localhost:9092 ").expect("where");
    shop.private.kafka_tool(CONFIG_TOOL, &make_user.split_whitespace().collect::<Vec<_>>());
    let folder = shop.private.directory();
    for name in ["password", "kafka-password"] {
        std::fs::write(folder.join(name), PASSWORD).expect("written");
    }
    let database = url::Url::parse(&shop.private.servers().database_url).expect("a URL");
    let path = |name: &str| folder.join(name).display().to_string();
    let mut settings = page("toml");
    for (shown, there) in [
        ("kafka.example:9093", shop.private.setting("KAFKA_SASL_BROKERS").to_owned()),
        ("db.example", format!("127.0.0.1:{}", database.port().expect("a port"))),
        ("/etc/stock-verifier/kafka-ca.pem", shop.authority().to_owned()),
        ("/etc/stock-verifier/database-ca.pem", shop.authority().to_owned()),
        ("/run/secrets/database-password", path("password")),
        ("/run/secrets/kafka-password", path("kafka-password")),
    ] {
        assert!(settings.contains(shown), "{shown}: {settings}");
        settings = settings.replace(shown, &there);
    }
    std::fs::write(folder.join("stock-verifier.toml"), settings).expect("written");
    let mut command = program();
    command.args(["run", "--config", &path("stock-verifier.toml"), "--instance-id", "a"]);
    let mut verifier = Verifier::start(command, "secured", folder.join("secured.log"));
    verifier.said("verifying", SOON);
    let before = shop.kafka.count("stock.accepted");
    shop.kafka.produce("orders", &[order("secured", &[("MUG", 1)])]);
    wait::until("it decides and publishes", SOON, || {
        assert_eq!(verifier.ended(), None, "{}", verifier.log());
        shop.kafka.count("stock.accepted") == before + 1
    });
    let log = verifier.log();
    assert!(!log.contains("uthorization failed") && !log.contains("without encryption"), "{log}");
    kafkas_password_is_changed_while_it_runs(shop, &mut verifier, make_user);
    verifier.stop();
}

/// Where Kafka begins anew, so does every connection; who comes with the old password is refused.
fn kafkas_password_is_changed_while_it_runs(shop: &Shop, verifier: &mut Verifier, make_user: &str) {
    let anew = make_user.replace(PASSWORD, "another");
    shop.private.kafka_tool(CONFIG_TOOL, &anew.split_whitespace().collect::<Vec<_>>());
    std::fs::write(shop.private.directory().join("kafka-password"), "another").expect("written");
    verifier.signal("HUP");
    verifier.said("read again at SIGHUP", SOON);
    shop.private.kill("kafka");
    shop.private.restart();
    let before = shop.kafka.count("stock.accepted");
    shop.kafka.produce("orders", &[order("another", &[("MUG", 1)])]);
    wait::until("it decides and publishes with the new password", SOON, || {
        assert_eq!(verifier.ended(), None, "{}", verifier.log());
        shop.kafka.count("stock.accepted") == before + 1
    });
    assert!(!verifier.log().contains("invalid credentials"), "{}", verifier.log());
}

/// The verifier may do all that it has to. Another lacks something, and is told.
fn doctor_names_what_each_lacks(shop: &Shop) {
    let (status, looked) = shop.looked("verifier", &["--instance-id", "a"]);
    assert_eq!(status, Some(0), "{looked}");
    assert!(!looked.contains("uthorization failed"), "{looked}");
    for check in ["kafka.permissions", "kafka.transactional_id", "database.permissions"] {
        assert!(looked.lines().any(|line| line.starts_with("ok ") && line.contains(check)), "{looked}");
    }
    let (status, looked) = shop.looked("auditor", &[]);
    assert_eq!(status, Some(1), "{looked}");
    for line in [
        "error     this user lacks Write on orders, Write on stock.accepted, Write on stock.rejected, Write on \
         stock.levels, Write on orders.dlq (kafka.permissions)",
        "error     this user lacks Read on group stock-verifier (kafka.permissions)",
        "error     this user may not use the transactional id",
        "error     the role lacks INSERT on decisions",
        "note      cannot look at the brokers' own settings",
    ] {
        assert!(looked.contains(line), "{line:?} is not in {looked}");
    }
    // What Kafka does not tell is not taken for what is not set.
    let line = "note      cannot look at min.insync.replicas of orders: Kafka does not tell its settings";
    wait::until("doctor says that it is not told", SOON, || {
        Shop::done(&mut shop.command("stock-gate", "stock_auditor", &["doctor"])).1.contains(line)
    });
}

/// Beside a running verifier, which is stopped then.
fn a_gate_lets_orders_in(shop: &Shop, verifier: Verifier) {
    let redis = Redis::start();
    let user = block_of("docs/permissions.md", "Redis", "text");
    let user: Vec<&str> = user.split_whitespace().collect();
    assert_eq!(redis.command(&user).as_deref(), Some("OK"), "{user:?}");
    let url = redis.url().replace("redis://", "redis://gate:CHANGE-ME@");
    let words = ["gate", "--http-listen", "127.0.0.1:0", "--redis-url", &url];
    let command = shop.command("stock-gate", "stock_auditor", &words);
    let mut gate = Verifier::start(command, "gate", shop.private.directory().join("gate.log"));
    let shopper = Shopper::of(&mut gate);
    let bought = json!({"order_id": "g-1", "lines": [{"sku": "HAT", "quantity": 1}]});
    let verdict = shopper.verdict(&bought);
    assert!(verdict.is_accepted(), "{verdict:?}");
    let cache = redis.cache_of("stock:");
    wait::until("its entry is closed", SOON, || {
        wait_for(cache.status()).is_ok_and(|status| status.unsettled + status.accepted == 0)
    });
    assert!(!gate.log().contains("uthorization failed"), "{}", gate.log());
    for (who, words) in [
        ("operator", &["gate", "open", "HAT", "--at", "2026-01-02T03:04:05Z"][..]),
        ("operator", &["gate", "status"]),
        ("operator", &["gate", "close", "HAT"]),
        ("auditor", &["audit", "--cache"]),
        ("operator", &["audit", "--cache", "--repair"]),
    ] {
        shop.works(who, &[words, &["--redis-url", &url]].concat());
    }
    gate.stop();
    verifier.stop();
}

fn nobody_changes_what_was_decided(shop: &Shop) {
    for role in ["stock_verifier", "stock_operator"] {
        shop.refused(role, "UPDATE movements SET quantity = 0");
        shop.refused(role, "DELETE FROM decisions");
        shop.refused(role, "DELETE FROM levels");
        shop.refused(role, "DROP TABLE levels");
    }
    shop.refused("stock_auditor", "UPDATE levels SET available = 0");
    shop.refused("stock_operator", "UPDATE holds SET expires_at = now()");
}

#[test]
fn each_command_works_with_what_the_page_grants_and_an_auditor_only_reads() {
    heavy();
    let shop = Shop::open();
    let folder = shop.private.directory();
    std::fs::write(folder.join("stock.csv"), "sku,available\nMUG,10\nHAT,5\n").expect("written");
    std::fs::write(folder.join("patch.json"), r#"{"type":"order.created"}"#).expect("written");

    // The administrator has the tables already.
    let (status, log) =
        Shop::done(&mut shop.command("stock-admin", "owner", &["topics", "create", "--partitions", "1"]));
    assert_eq!(status, Some(0), "{log}");

    for words in [
        &["stock", "import", "stock.csv"][..],
        &["stock", "receive", "MUG", "5"],
        &["stock", "adjust", "MUG", "-1"],
        &["stock", "set", "TEE", "3"],
        &["stock", "limits", "TEE", "--backorder-limit", "2"],
    ] {
        shop.works("operator", words);
    }

    let value = |fields: serde_json::Value| sent("o-1", fields.to_string());
    let lines = json!([{"sku": "MUG", "quantity": 1}]);
    shop.kafka.produce(
        "stock-adjustments",
        &[sent(
            "TEE",
            json!({"type": "stock.received", "adjustment_id": "a-1", "sku": "TEE", "quantity": 1})
                .to_string(),
        )],
    );
    shop.kafka.produce(
        "orders",
        &[
            order("o-1", &[("MUG", 2)]),
            order("o-2", &[("NO-SUCH", 1)]),
            value(json!({"type": "order.returned", "order_id": "o-1", "return_id": "r-1", "lines": lines})),
            value(json!({"type": "order.created", "order_id": "h-1", "hold_seconds": 1, "lines": lines})),
            value(json!({"type": "order.created", "order_id": "h-2", "hold_seconds": 900, "lines": lines})),
            value(json!({"type": "order.confirmed", "order_id": "h-2"})),
            value(json!({"type": "order.cancelled", "order_id": "h-2"})),
            value(json!({"order_id": "o-3", "lines": lines})),
        ],
    );
    let run = shop.command("stock-verifier", "stock_verifier", &["run", "--instance-id", "a"]);
    let mut verifier = Verifier::start(run, "verifier", folder.join("verifier.log"));
    verifier.said("verifying", SOON);
    let count = |topic: &str| shop.kafka.count(topic);
    wait::until("everything is published, and the short hold has ended", SOON, || {
        assert_eq!(verifier.ended(), None, "{}", verifier.log());
        // Seven about orders, one about the adjustment, and the end of the hold.
        let results = count("stock.accepted") + count("stock.rejected");
        results == 9 && count("orders.dlq") == 1 && count("stock.levels") >= 3
    });
    let log = verifier.log();
    assert!(!log.contains("uthorization failed") && !log.contains("cannot check"), "{log}");
    a_gate_lets_orders_in(&shop, verifier);

    the_settings_of_the_page_work(&shop);
    doctor_names_what_each_lacks(&shop);
    for words in [
        &["audit"][..],
        &["audit", "--topics", "--offsets"],
        &["orders", "show", "o-1"],
        &["stock", "get"],
        &["stock", "export"],
        &["stock", "import", "stock.csv", "--dry-run"],
        &["replay", "diff"],
        &["replay", "republish"],
        &["replay", "reprocess", "--dead-letters", "--patch", "patch.json"],
        &["replay", "simulate", "--levels", "stock.csv"],
        &["replay", "rebuild", "--into", "sqlite://rebuilt.db"],
        &["replay", "rebuild", "--into", "sqlite://rebuilt.db", "--execute"],
        &["topics", "check"],
    ] {
        shop.works("auditor", words);
    }
    let (status, log) = Shop::done(&mut shop.command("", "stock_auditor", &["stock", "set", "MUG", "1"]));
    assert!(status == Some(1) && log.contains("permission denied"), "{log}");

    for words in [
        &["audit", "--topics", "--repair"][..],
        &["replay", "republish", "--execute"],
        &["replay", "reprocess", "--dead-letters", "--patch", "patch.json", "--execute"],
        &["topics", "check"],
    ] {
        shop.works("operator", words);
    }

    // A topic that nobody may see is not said to be missing: it is there.
    shop.kafka.create("secret", 1);
    for (who, status, words) in [
        ("verifier", 1, &["run", "--instance-id", "a", "--orders-topic", "secret"][..]),
        ("auditor", 1, &["topics", "check", "--orders-topic", "secret"]),
        ("auditor", 2, &["replay", "diff", "--orders-topic", "secret"]),
    ] {
        let mut command = shop.command(&format!("stock-{who}"), &format!("stock_{who}"), words);
        let (ended, log) = Shop::done(&mut command);
        assert_eq!(ended, Some(status), "{words:?}: {log}");
        assert!(log.contains("this user may not see") && log.contains("secret"), "{words:?}: {log}");
        assert!(!log.contains("missing") && !log.contains("topics create"), "{words:?}: {log}");
    }

    nobody_changes_what_was_decided(&shop);
}
