//! The Helm chart: taken by Helm and by the schemas of Kubernetes, and what it renders runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use stock_verifier::{gate, http};

use crate::gate::sale::{self, Sale, Shopper};
use crate::support::kafka::order;
use crate::support::postgres::with_lib;
use crate::support::process::{Verifier, program};
use crate::support::scene::Scene;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
const CHART: &str = "deploy/helm/stock-verifier";
/// How much sooner a process shall end by itself than it is killed.
const SLACK: Duration = Duration::from_secs(5);
/// Where the chart mounts secrets.
const SECRETS: &str = "/run/secrets/stock-verifier";
/// The Kubernetes that the chart begins at, and the newest that the checker knows; each with what must be set for it. No
/// pod sleeps by itself before 1.30.
const VERSIONS: [(&str, &[&str]); 2] = [("1.27", &["--set", "gate.preStopSleepSeconds=0"]), ("1.37", &[])];
/// What ci/most.yaml gives verifiers and gates besides: variables that are not of this program's page of settings.
const BESIDES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "RUST_LOG"];
/// The token that requests bring to what is rendered here.
const TOKEN: &str = "a-token-of-a-test";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART)
}

/// What a program says, and whether it succeeds.
fn run(command: &mut Command) -> (bool, String) {
    let done = command.output().expect("it runs");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).expect("UTF-8"))
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let (succeeded, said) = run(command);
    assert!(succeeded, "{command:?}: {said}");
    said
}

fn helm(words: &[&str]) -> Command {
    let mut command = Command::new(with_lib("ensure helm >&2; echo \"$HELM\""));
    command.args(words);
    command
}

/// To render for a Kubernetes that is not asked: Helm compiled from its module takes it for an old one otherwise.
const FOR_VERSION: [&str; 2] = ["--kube-version", "1.30.0"];

/// What is rendered of these values.
fn rendered(more: &[&str]) -> String {
    rendered_for(FOR_VERSION[1], more)
}

/// The same for this Kubernetes.
fn rendered_for(version: &str, more: &[&str]) -> String {
    let chart = chart();
    succeeds(
        helm(&["template", "shop", chart.to_str().expect("UTF-8"), "--namespace", "stock"])
            .args(["--kube-version", version])
            .args(more),
    )
}

/// The same as documents, by a reader of YAML that is not Helm's.
fn documents(text: &str) -> Vec<Value> {
    let python = with_lib("ensure kubernetes-validate >&2; echo \"$KUBERNETES_VALIDATE/bin/python\"");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let read =
        "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))";
    let said = succeeds(Command::new(python).args(["-c", read]).arg(file.path()));
    serde_json::from_str(&said).expect("JSON")
}

#[track_caller]
fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let mut found = documents.iter().filter(|document| document["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    one
}

/// The values of a list.
#[track_caller]
fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// The container of a workload.
fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

/// What a workload gives its process under this name.
#[track_caller]
fn variable<'a>(workload: &'a Value, name: &str) -> &'a str {
    let found = list(&container(workload)["env"]).iter().find(|variable| variable["name"] == name);
    found.and_then(|variable| variable["value"].as_str()).unwrap_or_else(|| panic!("no {name}"))
}

/// The files with values that the chart is tried with.
fn values() -> Vec<PathBuf> {
    ["least.yaml", "most.yaml"].map(|name| chart().join("ci").join(name)).to_vec()
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn helm_and_the_schemas_of_kubernetes_take_the_chart() {
    let checker =
        with_lib("ensure kubernetes-validate >&2; echo \"$KUBERNETES_VALIDATE/bin/kubernetes-validate\"");
    for values in values() {
        let values = values.to_str().expect("UTF-8");
        let linted = succeeds(helm(&["lint", "--strict", "--values", values]).arg(chart()));
        assert!(linted.contains("0 chart(s) failed"), "{linted}");
        for (version, settings) in VERSIONS {
            let text = rendered_for(version, &[&["--values", values][..], settings].concat());
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &text).expect("written");
            let said = succeeds(Command::new(&checker).args(["--strict", "-k", version]).arg(file.path()));
            let passed = said.lines().filter(|line| line.contains(" passed for resource ")).count();
            // The operators' own kinds it does not know; the next test looks at these.
            let others = said.lines().filter(|line| line.contains("Couldn't find schema")).count();
            let documents = documents(&text);
            let count = documents.len();
            assert_eq!((passed, passed + others), (count - others, count), "{said}");
            let own = documents
                .iter()
                .filter(|one| {
                    ["ScaledObject", "ServiceMonitor"].contains(&one["kind"].as_str().unwrap_or_default())
                })
                .count();
            assert_eq!(others, own, "{said}");
        }
    }
    // What the page says to type, of which nothing is installed here.
    let page =
        super::PAGE.split("```sh\n").find(|block| block.starts_with("helm install ")).expect("a command");
    let words =
        page.split("```").next().expect("its end").replace("\\\n", "").replace("helm install", "template");
    let mut command = helm(&words.split_whitespace().collect::<Vec<_>>());
    succeeds(command.args(FOR_VERSION).current_dir(env!("CARGO_MANIFEST_DIR")));
    // The checker would see a field that is not there.
    let wrong = rendered(&["--values", values()[0].to_str().expect("UTF-8")])
        .replace("minReadySeconds", "minReadySecs");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), wrong).expect("written");
    let (succeeded, said) =
        run(Command::new(&checker).args(["--strict", "-k", VERSIONS[1].0]).arg(file.path()));
    assert!(!succeeded && said.contains("minReadySecs"), "{said}");
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn the_operators_kinds_say_what_keda_and_prometheus_ask_for() {
    let documents = documents(&rendered(&["--values", values()[1].to_str().expect("UTF-8")]));
    let set = of_kind(&documents, "StatefulSet");
    let scaled = of_kind(&documents, "ScaledObject");
    assert_eq!(scaled["apiVersion"], "keda.sh/v1alpha1");
    assert_eq!(scaled["spec"]["scaleTargetRef"]["name"], set["metadata"]["name"]);
    assert_eq!(set["spec"]["replicas"], Value::Null, "two would say how many there are");
    let triggers = scaled["spec"]["triggers"].as_array().expect("triggers");
    let topics: Vec<_> = triggers.iter().map(|trigger| &trigger["metadata"]["topic"]).collect();
    assert_eq!(topics, ["orders", "stock-adjustments"]);
    for trigger in triggers {
        assert_eq!(trigger["type"], "kafka");
        assert_eq!(trigger["authenticationRef"]["name"], "kafka");
        let metadata = trigger["metadata"].as_object().expect("metadata");
        assert_eq!(metadata["consumerGroup"], "stock-verifier");
        assert_eq!(metadata["sasl"], "scram_sha512");
        // KEDA takes text alone.
        assert!(metadata.values().all(Value::is_string), "{metadata:?}");
        assert!(metadata["lagThreshold"].as_str().expect("text").parse::<u64>().is_ok(), "{metadata:?}");
    }
    for (name, job, secret) in [
        ("shop-stock-verifier", "stock-verifier", "http"),
        ("shop-stock-verifier-gate", "stock-verifier-gate", "gate-http"),
    ] {
        let mut monitors = documents.iter().filter(|one| one["kind"] == "ServiceMonitor");
        let monitor = monitors.find(|monitor| monitor["metadata"]["name"] == name).expect(name);
        let endpoint = &monitor["spec"]["endpoints"][0];
        assert_eq!((&endpoint["path"], &endpoint["port"]), (&"/metrics".into(), &"http".into()));
        assert_eq!(endpoint["authorization"]["credentials"]["name"], secret);
        assert_eq!(endpoint["relabelings"][0]["replacement"], job);
        assert!(super::RULES.contains(&format!("{{job=\"{job}\"}}")), "the alert rules call it otherwise");
        // It finds one service: each pod would count twice.
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
        let services = documents.iter().filter(|one| one["kind"] == "Service");
        let found = services.filter(|service| {
            wanted.iter().all(|(name, value)| &service["metadata"]["labels"][name] == value)
        });
        let found: Vec<_> = found.map(|service| &service["metadata"]["name"]).collect();
        assert_eq!(found, [name]);
    }
}

/// Whether a selector takes pods with these labels.
fn takes(selector: &Value, labels: &Value) -> bool {
    let mut named = selector["matchLabels"].as_object().into_iter().flatten();
    let mut listed = selector["matchExpressions"].as_array().into_iter().flatten();
    named.all(|(name, value)| &labels[name] == value)
        && listed.all(|one| {
            assert_eq!(one["operator"], "In");
            list(&one["values"]).contains(&labels[one["key"].as_str().expect("a key")])
        })
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn what_is_of_gates_takes_no_verifier_and_what_is_of_verifiers_no_gate() {
    let documents = documents(&rendered(&["--values", values()[1].to_str().expect("UTF-8")]));
    let labels = |kind| &of_kind(&documents, kind)["spec"]["template"]["metadata"]["labels"];
    let (verifier, gate, migration) = (labels("StatefulSet"), labels("Deployment"), labels("Job"));
    let mut looked = 0;
    for document in &documents {
        let spec = &document["spec"];
        let selector = match document["kind"].as_str().expect("a kind") {
            "Service" => json!({"matchLabels": spec["selector"]}),
            "StatefulSet" | "Deployment" | "PodDisruptionBudget" => spec["selector"].clone(),
            "NetworkPolicy" => spec["podSelector"].clone(),
            _ => continue,
        };
        looked += 1;
        let name = document["metadata"]["name"].as_str().expect("a name");
        let is_gates = name.ends_with("-gate");
        let taken = (takes(&selector, verifier), takes(&selector, gate));
        assert_eq!(taken, (!is_gates, is_gates), "{name}: {selector}");
        let is_policy = document["kind"] == "NetworkPolicy";
        assert_eq!(takes(&selector, migration), is_policy && !is_gates, "{name}: {selector}");
    }
    assert_eq!(looked, 9, "three services; of each of the two a set, a budget and a policy");
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn each_variable_is_one_that_the_command_reads_and_each_file_of_a_secret_is_mounted() {
    let values = values();
    let of_file = |index: usize| ["--values", values[index].to_str().expect("UTF-8")];
    let gate = ["--set", "gate.enabled=true", "--set", "gate.redis.url=redis://redis:6379/"];
    for (settings, secrets) in [([&of_file(0)[..], &gate].concat(), 0), (of_file(1).to_vec(), 4)] {
        let documents = documents(&rendered(&settings));
        for (kind, command) in [("Job", "migrate"), ("StatefulSet", "run"), ("Deployment", "gate")] {
            let workload = of_kind(&documents, kind);
            let container = container(workload);
            assert_eq!(container["args"], json!([command]));
            let known = super::variables_of(command);
            let mut named = BTreeSet::new();
            for variable in list(&container["env"]) {
                let name = variable["name"].as_str().expect("a name");
                assert!(known.contains(name) || BESIDES.contains(&name), "{command} reads no {name}");
                assert!(named.insert(name), "{command} is given {name} twice");
            }
            let files = secret_files(workload);
            if command == "gate" {
                assert_eq!(files.len(), secrets, "{files:?}");
            }
        }
    }
}

/// The files of secrets that a workload's process is told of, each with the Secret that it is mounted from.
fn secret_files(workload: &Value) -> Vec<(String, String)> {
    let pod = &workload["spec"]["template"]["spec"];
    let container = container(workload);
    let files = list(&container["env"]).iter().filter_map(|variable| variable["value"].as_str());
    let files = files.filter(|value| value.starts_with(SECRETS)).map(|path| {
        let (folder, file) = path.rsplit_once('/').expect("a path");
        let mount = list(&container["volumeMounts"]).iter().find(|mount| mount["mountPath"] == folder);
        let mount = mount.unwrap_or_else(|| panic!("{path} is not mounted"));
        let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]);
        let secret = &volume.unwrap_or_else(|| panic!("{mount} is of no volume"))["secret"];
        assert_eq!(secret["items"][0]["path"], file, "{path}");
        (path.to_owned(), secret["secretName"].as_str().expect("a Secret").to_owned())
    });
    files.collect()
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn a_gate_is_told_what_is_its_own_and_else_what_the_verifier_is_told() {
    let values = values();
    let most = ["--values", values[1].to_str().expect("UTF-8")];
    let documents = documents(&rendered(&most));
    let (gate, verifier) = (of_kind(&documents, "Deployment"), of_kind(&documents, "StatefulSet"));
    for same in ["BROKERS", "ORDERS_TOPIC", "ACCEPTED_TOPIC", "REJECTED_TOPIC", "LEVELS_TOPIC"] {
        let name = format!("STOCK_VERIFIER_{same}");
        assert_eq!(variable(gate, &name), variable(verifier, &name));
    }
    let properties: Vec<&str> = variable(gate, "STOCK_VERIFIER_PROPERTY").lines().collect();
    let expected = [
        "log.connection.close=false",
        "sasl.mechanism=SCRAM-SHA-512",
        "sasl.username=stock-gate",
        "security.protocol=sasl_ssl",
        "ssl.ca.location=/etc/stock-verifier/certificates/kafka-ca.pem",
    ];
    assert_eq!(properties, expected);
    assert!(variable(verifier, "STOCK_VERIFIER_PROPERTY").contains("log.connection.close=true"));
    assert!(variable(gate, "STOCK_VERIFIER_DATABASE_URL").starts_with("postgres://stock_auditor@"));
    assert_eq!(variable(gate, "STOCK_VERIFIER_WHEN_CACHE_IS_AWAY"), "admit");
    // Where nothing is said of its own, the verifier's.
    let settings = [
        "--set-string",
        "gate.kafka.passwordSecret.name=,gate.database.url=,gate.database.passwordSecret.name=",
        "--set-json",
        "gate.kafka.properties={}",
    ];
    let documents = self::documents(&rendered(&[&most[..], &settings].concat()));
    let (gate, verifier) = (of_kind(&documents, "Deployment"), of_kind(&documents, "StatefulSet"));
    let url = "STOCK_VERIFIER_DATABASE_URL";
    assert_eq!(variable(gate, url), variable(verifier, url));
    let of_both = |workload| {
        let files = secret_files(workload).into_iter();
        files.filter(|(path, _)| path.ends_with("/password") && !path.contains("redis")).collect::<Vec<_>>()
    };
    assert_eq!(of_both(gate), of_both(verifier));
    // The keys of these Secrets, which the mounts name.
    let keys = |workload: &Value| {
        let volumes = list(&workload["spec"]["template"]["spec"]["volumes"]).iter();
        volumes.map(|volume| volume["secret"]["items"][0]["key"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys(gate)[..3], keys(verifier)[..3]);
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn what_is_given_besides_is_passed_on_to_the_pods_it_is_for_and_to_both_policies() {
    let documents = documents(&rendered(&["--values", values()[1].to_str().expect("UTF-8")]));
    let (verifier, gate) = (of_kind(&documents, "StatefulSet"), of_kind(&documents, "Deployment"));
    let migration = of_kind(&documents, "Job");
    let volumes = |workload: &Value| -> Vec<String> {
        let volumes = list(&workload["spec"]["template"]["spec"]["volumes"]).iter();
        volumes.map(|volume| volume["name"].as_str().expect("a name").to_owned()).collect()
    };
    for (of, not_of, name, given, path) in [
        (verifier, gate, BESIDES[0], "mappings", "/etc/stock-verifier/mappings"),
        (verifier, gate, BESIDES[0], "registry", "/run/secrets/registry"),
        (gate, verifier, BESIDES[1], "files", "/etc/stock-verifier/files"),
    ] {
        assert!(!variable(of, name).is_empty());
        assert!(volumes(of).iter().any(|volume| volume == given), "{given}");
        let mut mounts = list(&container(of)["volumeMounts"]).iter();
        assert!(mounts.any(|mount| mount["name"] == given && mount["mountPath"] == path), "{given}");
        for other in [not_of, migration] {
            assert!(volumes(other).iter().all(|volume| volume != given), "{given}");
            assert!(list(&container(other)["env"]).iter().all(|variable| variable["name"] != name), "{name}");
        }
    }
    // What the verifier is told to read lies where something is mounted.
    for name in ["MAPPING", "SCHEMA_REGISTRY_PASSWORD_FILE"] {
        let file = variable(verifier, &format!("STOCK_VERIFIER_{name}"));
        let file = file.rsplit('=').next().expect("a path");
        let mut mounts = list(&container(verifier)["volumeMounts"]).iter();
        assert!(mounts.any(|mount| file.starts_with(mount["mountPath"].as_str().expect("a path"))), "{file}");
    }
    let collector = json!({
        "to": [{"podSelector": {"matchLabels": {"app": "collector"}}}],
        "ports": [{"protocol": "TCP", "port": 4318}],
    });
    let policies = documents.iter().filter(|document| document["kind"] == "NetworkPolicy");
    let last: Vec<_> = policies.map(|policy| list(&policy["spec"]["egress"]).last()).collect();
    assert_eq!(last, [Some(&collector), Some(&collector)]);
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn numbers_are_passed_on_as_they_are_written() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let values = "kafka: {brokers: 'kafka:9092', properties: {fetch.message.max.bytes: 2000000}}\n\
                  database: {url: 'postgres://stock@db/stock'}\n\
                  settings: {remembered-ids: 1000000, max-lag: 0.5, workers: 2, batch-max-age: 5ms}\n\
                  keda: {enabled: true, metadata: {activationLagThreshold: 3000000}}\n";
    std::fs::write(file.path(), values).expect("written");
    let documents = documents(&rendered(&["--values", file.path().to_str().expect("UTF-8")]));
    let verifier = of_kind(&documents, "StatefulSet");
    for (name, value) in [
        ("PROPERTY", "fetch.message.max.bytes=2000000"),
        ("REMEMBERED_IDS", "1000000"),
        ("MAX_LAG", "0.5"),
        ("WORKERS", "2"),
        ("BATCH_MAX_AGE", "5ms"),
    ] {
        assert_eq!(variable(verifier, &format!("STOCK_VERIFIER_{name}")), value);
    }
    let trigger = &of_kind(&documents, "ScaledObject")["spec"]["triggers"][0];
    assert_eq!(trigger["metadata"]["activationLagThreshold"], "3000000");
}

#[test]
#[ignore = "needs Helm: tests/run --all"]
fn values_that_are_wrong_or_would_show_a_secret_are_refused() {
    let least = values()[0].to_str().expect("UTF-8").to_owned();
    for (value, says) in [
        ("replicas=3", "replicas"),
        ("database.url=postgres://stock:secret@db/stock", "database/url"),
        // Helm names no place for a name that is refused, or a wrong one.
        ("kafka.properties.sasl\\.password=secret", "invalid propertyName 'sasl.password'"),
        ("kafka.brokers=", "kafka.brokers is required"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("graceSlackSeconds=0", "graceSlackSeconds"),
        ("gate.enabled=true", "gate.redis.url is required"),
        ("gate.redis.url=redis://:secret@redis:6379/", "gate/redis/url"),
        ("gate.database.url=postgres://gate:secret@db/stock", "gate/database/url"),
        ("gate.kafka.properties.sasl\\.password=secret", "invalid propertyName 'sasl.password'"),
        ("gate.group=gate", "group"),
        ("extraEnv[0].value=x", "extraEnv/0"),
        ("gate.extraVolumeMounts[0].name=x", "gate/extraVolumeMounts/0"),
    ] {
        let chart = chart();
        let words = ["template", "shop", chart.to_str().expect("UTF-8"), "--values", &least, "--set", value];
        let (succeeded, said) = run(helm(&words).args(FOR_VERSION));
        let said_so = said.contains(says) || said.contains(&says.replace('/', "."));
        assert!(!succeeded && said_so, "{value}: {said}");
    }
    // An older Kubernetes would leave the sleep out, or refuse the pod.
    let gate = "gate.enabled=true,gate.redis.url=redis://redis:6379/";
    let chart = chart();
    let words = ["template", "shop", chart.to_str().expect("UTF-8"), "--values", &least, "--set", gate];
    let (succeeded, said) = run(helm(&words).args(["--kube-version", "1.29.9"]));
    assert!(!succeeded && said.contains("gate.preStopSleepSeconds needs Kubernetes 1.30"), "{said}");
}

#[test]
fn the_chart_is_of_this_version() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).expect("the chart");
    assert!(text.contains(&format!("appVersion: \"{}\"", env!("CARGO_PKG_VERSION"))), "{text}");
}

/// The rendered container as a process here: its arguments, and its environment with what Kubernetes puts in.
fn process(workload: &Value, pod: &str, secrets: &Path) -> Command {
    let container = container(workload);
    let mut command = program();
    command.args(list(&container["args"]).iter().map(|word| word.as_str().expect("text")));
    for variable in list(&container["env"]) {
        let name = variable["name"].as_str().expect("a name");
        let value = match &variable["valueFrom"]["fieldRef"]["fieldPath"] {
            Value::String(path) if path == "metadata.name" => pod.to_owned(),
            _ => variable["value"].as_str().expect(name).replace(SECRETS, secrets.to_str().expect("UTF-8")),
        };
        command.env(name, value);
    }
    command
}

/// Documents of the chart with a scene's servers, group and topics, and these settings besides. Its secrets, with the
/// database's password and these, are files in the folder that is returned, and none is in what is rendered.
fn documents_of(scene: &Scene, secrets: &[(&str, &str, &str)], more: &[String]) -> (Vec<Value>, PathBuf) {
    let mut database = url::Url::parse(&scene.database.url()).expect("a URL");
    let password = database.password().expect("a password").to_owned();
    database.set_password(None).expect("a URL");
    let folder = scene.file("secrets");
    let all = [&[("database", "password", &*password)][..], secrets].concat();
    for (of, name, content) in &all {
        std::fs::create_dir_all(folder.join(of)).expect("a folder");
        std::fs::write(folder.join(of).join(name), content).expect("written");
    }
    let mut settings = vec![
        format!("kafka.brokers={}", scene.kafka.brokers),
        format!("database.url={database}"),
        "database.passwordSecret.name=database".to_owned(),
        format!("group={}", scene.group()),
    ];
    for (value, topic) in ["orders", "adjustments", "accepted", "rejected", "levels", "dead"]
        .map(|topic| (topic, scene.topic(topic)))
    {
        settings.push(format!("topics.{}={topic}", if value == "dead" { "deadLetters" } else { value }));
    }
    let settings = settings.iter().chain(more).flat_map(|setting| ["--set", setting]).collect::<Vec<_>>();
    let documents = documents(&rendered(&settings));
    let text = serde_json::to_string(&documents).expect("JSON");
    for (_, _, content) in all {
        assert!(!text.contains(content), "{text}");
    }
    (documents, folder)
}

/// A port that was free just now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port()
}

/// Waits until each probe of a workload is answered as it must be.
fn answers_its_probes(workload: &Value, process: &mut Verifier, port: u16) {
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container(workload)[probe]["httpGet"]["path"].as_str().expect("a path");
        wait::until(path, SOON, || {
            assert!(process.ended().is_none(), "{}", process.log());
            ureq::get(format!("http://127.0.0.1:{port}{path}")).call().is_ok()
        });
    }
}

/// The metrics, asked for as the service monitor does.
fn metrics_at(port: u16) -> String {
    let metrics = ureq::get(format!("http://127.0.0.1:{port}/metrics"))
        .header("Authorization", format!("Bearer {TOKEN}"))
        .call();
    metrics.expect("an answer").into_body().read_to_string().expect("text")
}

/// The time that a workload gives its pod to end, from the signal on, and the one that its process gives itself.
fn grace_and_bound(workload: &Value) -> (Duration, Duration) {
    let grace = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    let sleep = container(workload)["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
    let bound = variable(workload, "STOCK_VERIFIER_STOP_TIMEOUT").strip_suffix('s');
    let bound = bound.and_then(|value| value.parse::<u64>().ok()).expect("seconds");
    (Duration::from_secs(grace.expect("a number") - sleep), Duration::from_secs(bound))
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn what_the_chart_renders_runs_answers_its_probes_and_stops_within_its_grace() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 5)]);
    let port = free_port();
    let settings = [
        "http.tokenSecret.name=http".to_owned(),
        format!("http.port={port}"),
        "kafka.properties.session\\.timeout\\.ms=6000".to_owned(),
        "settings.batch-max-age=5ms".to_owned(),
    ];
    let (documents, secrets) = documents_of(&scene, &[("http", "token", TOKEN)], &settings);
    let set = of_kind(&documents, "StatefulSet");
    assert_eq!(secret_files(set).len(), 2);
    assert!(documents.iter().all(|one| one["kind"] != "Deployment"), "nobody asked for a gate");

    let command = process(set, "shop-stock-verifier-0", &secrets);
    let mut verifier = Verifier::start(command, "pod", scene.file("pod.log"));
    answers_its_probes(set, &mut verifier, port);
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    scene.done(SOON);
    let metrics = metrics_at(port);
    assert!(metrics.contains("stock_verifier_results_published_total"), "{metrics}");
    assert!(verifier.log().contains("shop-stock-verifier-0"), "{}", verifier.log());
    let (grace, bound) = grace_and_bound(set);
    assert!(bound + SLACK <= grace, "{bound:?} of {grace:?}");
    verifier.signal("TERM");
    assert_eq!(verifier.wait(grace).code(), Some(0), "{}", verifier.log());
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn the_gate_that_the_chart_renders_lets_orders_in_answers_its_probes_and_stops_within_its_grace() {
    const PASSWORD: &str = "a-password-of-a-test";
    let sale = Sale::new(&[("MUG", 3)]);
    let user = ["ACL", "SETUSER", "gate", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"];
    assert_eq!(sale.redis.command(&user).as_deref(), Some("OK"));
    let port = free_port();
    let settings = [
        "gate.enabled=true".to_owned(),
        format!("gate.redis.url=redis://gate@{}/", sale.redis.address()),
        "gate.redis.passwordSecret.name=redis".to_owned(),
        "gate.http.tokenSecret.name=http".to_owned(),
        format!("gate.http.port={port}"),
        format!("gate.settings.redis-prefix={}", sale.prefix),
    ];
    let secrets = [("redis", "password", PASSWORD), ("http", "token", TOKEN)];
    let (documents, secrets) = documents_of(&sale.scene, &secrets, &settings);
    let deployment = of_kind(&documents, "Deployment");
    assert_eq!(secret_files(deployment).len(), 3);

    let command = process(deployment, "", &secrets);
    let mut gate = Verifier::start(command, "gate", sale.scene.file("gate.log"));
    answers_its_probes(deployment, &mut gate, port);
    sale.filled();
    let shopper = Shopper::at(&format!("127.0.0.1:{port}"));
    let (order, token) = (sale::order(&sale::fresh(), &[("MUG", 1)]), format!("Bearer {TOKEN}"));
    assert_eq!(shopper.order(&order).status, 401, "without the token");
    let headers = [("content-type", "application/json"), ("authorization", &*token)];
    let answer = shopper.try_send("POST", "/v1/orders", &headers, &order.to_string()).expect("an answer");
    assert_eq!((answer.status, &answer.body["estimate"]), (202, &json!("enough")), "{answer:?}");
    assert_eq!(sale.sent(), 1);
    let metrics = metrics_at(port);
    assert!(metrics.contains("stock_verifier_gate_answers_total{answer=\"admitted\"} 1"), "{metrics}");
    // As the notes of the chart say to type, in a pod.
    let status = succeeds(process(deployment, "", &secrets).args(["status", "MUG"]));
    assert!(status.contains("1 entries wait for a result"), "{status}");
    let (grace, bound) = grace_and_bound(deployment);
    assert!(bound + SLACK <= grace, "{bound:?} of {grace:?}");
    assert!(http::STOP_LIMIT + gate::STOP_LIMIT <= bound, "{bound:?} cuts a stop short");
    gate.signal("TERM");
    assert_eq!(gate.wait(grace).code(), Some(0), "{}", gate.log());
}
