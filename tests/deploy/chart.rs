//! The Helm chart: taken by Helm and by the schemas of Kubernetes, and what it renders runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::kafka::order;
use crate::support::postgres::with_lib;
use crate::support::process::{Verifier, program};
use crate::support::scene::Scene;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
const CHART: &str = "deploy/helm/stock-verifier";
/// Where the chart mounts secrets.
const SECRETS: &str = "/run/secrets/stock-verifier";
/// The Kubernetes that the chart begins at, and the newest that the checker knows.
const VERSIONS: [&str; 2] = ["1.27", "1.37"];

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
    let chart = chart();
    succeeds(
        helm(&["template", "shop", chart.to_str().expect("UTF-8"), "--namespace", "stock"])
            .args(FOR_VERSION)
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

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let mut found = documents.iter().filter(|document| document["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none() || kind == "Service", "more than one {kind}");
    one
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
        let text = rendered(&["--values", values]);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("written");
        for version in VERSIONS {
            let said = succeeds(Command::new(&checker).args(["--strict", "-k", version]).arg(file.path()));
            let passed = said.lines().filter(|line| line.contains(" passed for resource ")).count();
            // The operators' own kinds it does not know; the next test looks at these.
            let others = said.lines().filter(|line| line.contains("Couldn't find schema")).count();
            let count = documents(&text).len();
            assert_eq!((passed, passed + others), (count - others, count), "{said}");
            let own = documents(&text)
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
        run(Command::new(&checker).args(["--strict", "-k", VERSIONS[1]]).arg(file.path()));
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
    let monitor = of_kind(&documents, "ServiceMonitor");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["path"], &endpoint["port"]), (&"/metrics".into(), &"http".into()));
    assert_eq!(endpoint["authorization"]["credentials"]["name"], "http");
    assert_eq!(endpoint["relabelings"][0]["replacement"], "stock-verifier", "the job of the alert rules");
    // It finds one of the two services: each pod would count twice.
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    let services = documents.iter().filter(|one| one["kind"] == "Service");
    let found = services
        .filter(|service| wanted.iter().all(|(name, value)| &service["metadata"]["labels"][name] == value));
    assert_eq!(found.count(), 1);
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
    ] {
        let chart = chart();
        let words = ["template", "shop", chart.to_str().expect("UTF-8"), "--values", &least, "--set", value];
        let (succeeded, said) = run(helm(&words).args(FOR_VERSION));
        let said_so = said.contains(says) || said.contains(&says.replace('/', "."));
        assert!(!succeeded && said_so, "{value}: {said}");
    }
}

#[test]
fn the_chart_is_of_this_version() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).expect("the chart");
    assert!(text.contains(&format!("appVersion: \"{}\"", env!("CARGO_PKG_VERSION"))), "{text}");
}

/// The rendered container as a process here: its arguments, and its environment with what Kubernetes puts in.
fn process(set: &Value, pod: &str, secrets: &Path) -> Command {
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let mut command = program();
    command.args(
        container["args"].as_array().expect("arguments").iter().map(|word| word.as_str().expect("text")),
    );
    for variable in container["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        let value = match &variable["valueFrom"]["fieldRef"]["fieldPath"] {
            Value::String(path) if path == "metadata.name" => pod.to_owned(),
            _ => variable["value"].as_str().expect(name).replace(SECRETS, secrets.to_str().expect("UTF-8")),
        };
        command.env(name, value);
    }
    command
}

#[test]
#[ignore = "needs Helm and Python: tests/run --all"]
fn what_the_chart_renders_runs_answers_its_probes_and_stops_within_its_grace() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 5)]);
    let mut database = url::Url::parse(&scene.database.url()).expect("a URL");
    let password = database.password().expect("a password").to_owned();
    database.set_password(None).expect("a URL");
    let secrets = scene.file("secrets");
    for (folder, name, content) in
        [("database", "password", &*password), ("http", "token", "a-token-of-a-test")]
    {
        std::fs::create_dir_all(secrets.join(folder)).expect("a folder");
        std::fs::write(secrets.join(folder).join(name), content).expect("written");
    }
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let mut settings = vec![
        format!("kafka.brokers={}", scene.kafka.brokers),
        format!("database.url={database}"),
        "database.passwordSecret.name=database".to_owned(),
        "http.tokenSecret.name=http".to_owned(),
        format!("http.port={port}"),
        format!("group={}", scene.group()),
        "kafka.properties.session\\.timeout\\.ms=6000".to_owned(),
        "settings.batch-max-age=5ms".to_owned(),
    ];
    for (value, topic) in ["orders", "adjustments", "accepted", "rejected", "levels", "dead"]
        .map(|topic| (topic, scene.topic(topic)))
    {
        settings.push(format!("topics.{}={topic}", if value == "dead" { "deadLetters" } else { value }));
    }
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let documents = documents(&rendered(&settings));
    let set = of_kind(&documents, "StatefulSet");
    let pod = &set["spec"]["template"]["spec"];
    // Nothing secret is in what is rendered, and what is named as a secret's file is mounted.
    let text = serde_json::to_string(&documents).expect("JSON");
    assert!(!text.contains(&password), "{text}");
    let container = &pod["containers"][0];
    let mounts: Vec<&str> = container["volumeMounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter_map(|one| one["mountPath"].as_str())
        .collect();
    for variable in container["env"].as_array().expect("variables") {
        if let Some(file) = variable["value"].as_str().filter(|value| value.starts_with(SECRETS)) {
            let folder = file.rsplit_once('/').expect("a path").0;
            assert!(mounts.contains(&folder), "{file} is not mounted: {mounts:?}");
        }
    }

    let command = process(set, "shop-stock-verifier-0", &secrets);
    let mut verifier = Verifier::start(command, "pod", scene.file("pod.log"));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        wait::until(path, SOON, || {
            assert!(verifier.ended().is_none(), "{}", verifier.log());
            ureq::get(format!("http://127.0.0.1:{port}{path}")).call().is_ok()
        });
    }
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    scene.done(SOON);
    // As the service monitor asks.
    let metrics = ureq::get(format!("http://127.0.0.1:{port}/metrics"))
        .header("Authorization", "Bearer a-token-of-a-test")
        .call();
    let metrics = metrics.expect("an answer").into_body().read_to_string().expect("text");
    assert!(metrics.contains("stock_verifier_results_published_total"), "{metrics}");
    assert!(verifier.log().contains("shop-stock-verifier-0"), "{}", verifier.log());
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let bound = container["env"].as_array().expect("variables").iter();
    let bound =
        bound.clone().find(|one| one["name"] == "STOCK_VERIFIER_STOP_TIMEOUT").expect("the bound")["value"]
            .as_str()
            .and_then(|value| value.strip_suffix('s')?.parse::<u64>().ok());
    assert!(bound.expect("seconds") + 5 <= grace, "{bound:?} of {grace} s");
    verifier.signal("TERM");
    assert_eq!(verifier.wait(Duration::from_secs(grace)).code(), Some(0), "{}", verifier.log());
}
