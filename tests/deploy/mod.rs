//! What docs/operations.md and deploy/ say, tried.

mod backup;
mod chart;
mod unit;
mod upgrade;

use std::collections::BTreeSet;

const RULES: &str = include_str!("../../deploy/prometheus/alerts.yml");
const PAGE: &str = include_str!("../../docs/operations.md");
const SETTINGS: &str = include_str!("../../docs/configuration.md");

/// The environment variables that a command reads, by the page of settings.
fn variables_of(command: &str) -> BTreeSet<&'static str> {
    let named = format!("`{command}`");
    let is_of = |heading: &str| heading == "All commands" || heading.split(", ").any(|one| one == named);
    let sections = SETTINGS.split("\n## ").filter(|section| section.lines().next().is_some_and(is_of));
    let words = sections.flat_map(|section| section.split('`'));
    words.filter(|word| word.starts_with("STOCK_VERIFIER_")).collect()
}

#[test]
fn each_alert_rule_names_its_place_in_the_runbook_and_each_place_is_of_a_rule() {
    let mut named = BTreeSet::new();
    let mut rules = RULES.split("- alert: ").skip(1);
    assert!(rules.clone().count() >= 10);
    assert!(rules.all(|rule| {
        let alert = rule.lines().next().expect("a name").trim();
        named.insert(alert);
        rule.contains(&format!("runbook: \"docs/operations.md#{}\"", alert.to_lowercase()))
    }));
    let section = PAGE.split("\n## ").find(|section| section.starts_with("Alerts")).expect("the runbook");
    let places: BTreeSet<&str> = section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(named, places);
    // Each says something.
    for place in section.split("\n### ").skip(1) {
        assert!(place.lines().skip(1).any(|line| line.len() > 40), "{place}");
    }
}
