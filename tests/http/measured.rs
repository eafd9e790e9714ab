//! A running verifier, scraped by a real Prometheus: what deploy/ asks of it returns something.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::running::{LISTEN, client};
use crate::gate::sale::{self as gate, Sale};
use crate::support::kafka::{Sent, order, sent};
use crate::support::prometheus::Prometheus;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(60);
const RULES: &str = include_str!("../../deploy/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/dashboard.json");

/// The expressions of the rules, each without its comparison: with it there is a series only when something is wrong.
fn rules() -> Vec<&'static str> {
    let expressions = RULES.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    expressions
        .map(|whole| whole.rsplit_once(['>', '=']).expect("a comparison").0.trim_end_matches([' ', '=']))
        .collect()
}

/// The queries of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m"))
        .collect()
}

#[test]
#[ignore = "needs Prometheus: tests/run --all"]
fn a_real_prometheus_scrapes_it_and_every_query_of_the_dashboard_and_the_alerts_returns_a_series() {
    let sale = Sale::new(&[("MUG", 3)]);
    let scene = &sale.scene;
    let mut verifier = scene.start("a", &LISTEN);
    let target = client(&mut verifier).base.replace("http://", "");
    let (gate, shopper) = sale.gate("gate", &[]);
    let prometheus =
        Prometheus::start(&[("stock-verifier", &target), ("stock-verifier-gate", shopper.address())]);
    let value = |query: &str| prometheus.query(query).first().map(|(_, value)| *value);
    // Counted from zero before anything happens: or the first would have no rate.
    wait::until("it is scraped", SOON, || {
        value("stock_verifier_dead_letters_total{error=\"not_json\"}") == Some(0.0)
    });
    let mut records: Vec<Sent> =
        (0..5).map(|number| order(&format!("o-{number}"), &[("MUG", 1)]).to(0)).collect();
    records.push(sent("o-x", "no JSON").to(1));
    scene.produce(&records);
    for (query, expected) in [
        ("sum(stock_verifier_results_published_total{outcome=\"accepted\"})", 3.0),
        ("sum(stock_verifier_decisions_total{reason=\"insufficient_stock\"})", 2.0),
        ("sum(stock_verifier_dead_letters_total)", 1.0),
        ("sum(kafka_consumergroup_group_lag)", 0.0),
        ("count(kafka_consumergroup_group_lag_seconds)", 4.0),
        ("sum(stock_verifier_produced_to_published_seconds_count)", 6.0),
        ("sum(up)", 2.0),
    ] {
        wait::until(query, SOON, || value(query) == Some(expected));
    }
    // What a gate does is seen too: one refused, since nothing is left.
    wait::until("the gate knows what is left", SOON, || sale.cached("MUG") == Some(0));
    assert_eq!(shopper.order(&gate::order("o-y", &[("MUG", 1)])).status, 409);
    for (query, expected) in [
        ("sum(stock_verifier_gate_answers_total{answer=\"not_enough\"})", 1.0),
        ("sum(stock_verifier_gate_answer_seconds_count)", 1.0),
        ("sum(stock_verifier_gate_entries)", 0.0),
        ("stock_verifier_gate_cache_filled", 1.0),
    ] {
        wait::until(query, SOON, || value(query) == Some(expected));
    }
    let (rules, queries) = (rules(), queries());
    assert!(rules.len() >= 13 && queries.len() >= 27, "{rules:?} {queries:?}");
    for query in rules.into_iter().map(str::to_owned).chain(queries) {
        wait::until(&query, SOON, || !prometheus.query(&query).is_empty());
    }
    assert_eq!(prometheus.alerts().len(), RULES.matches("- alert:").count());
    gate.stop();
    verifier.stop();
}

#[test]
#[ignore = "needs Prometheus: tests/run --all"]
fn the_alert_rules_fire_when_they_should() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    crate::support::postgres::with_lib("ensure prometheus >&2");
    let tested = Command::new("promtool")
        .args(["test", "rules", "alerts_test.yml"])
        .current_dir(directory)
        .output()
        .expect("promtool comes with Prometheus");
    let said = String::from_utf8_lossy(&tested.stdout) + String::from_utf8_lossy(&tested.stderr);
    assert!(tested.status.success(), "{said}");
}
