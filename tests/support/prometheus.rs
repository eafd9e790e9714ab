//! A Prometheus of one test.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::wait;

/// Longest time until it answers.
const STARTS_LIMIT: Duration = Duration::from_secs(60);
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts.yml");

/// Its process, in a directory of its own. Both are gone when it is dropped.
pub struct Prometheus {
    child: Child,
    directory: tempfile::TempDir,
    address: String,
}

impl Prometheus {
    /// Scrapes these addresses every second, each as a job, which the rules that it evaluates expect by name.
    pub fn start(jobs: &[(&str, &str)]) -> Self {
        let program = super::postgres::with_lib("ensure prometheus >&2; command -v prometheus");
        let (directory, port) = super::postgres::place();
        let home = directory.path();
        let address = format!("127.0.0.1:{port}");
        let config = home.join("prometheus.yml");
        let mut text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{RULES}]\nscrape_configs:\n"
        );
        text.extend(jobs.iter().map(|(job, target)| {
            format!("  - job_name: {job}\n    static_configs:\n      - targets: ['{target}']\n")
        }));
        fs::write(&config, text).expect("written");
        let log = fs::File::create(home.join("log")).expect("a log file");
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", home.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let mut prometheus = Self { child, directory, address };
        wait::until("Prometheus is ready", STARTS_LIMIT, || {
            let ended = prometheus.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{}", prometheus.log());
            prometheus.get("/-/ready").is_some()
        });
        prometheus
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What it answers; `None` where it does not, or not well.
    fn get(&self, path: &str) -> Option<String> {
        let answer = ureq::get(format!("http://{}{path}", self.address)).call().ok()?;
        answer.into_body().read_to_string().ok()
    }

    /// The series that a query gives now, with their values.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let text: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = self.get(&format!("/api/v1/query?query={text}"));
        let answer = answer.unwrap_or_else(|| panic!("Prometheus refuses the query {query}"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let series = answer["data"]["result"].as_array().expect("series");
        let value = |series: &Value| series["value"][1].as_str().and_then(|text| text.parse().ok());
        series.iter().map(|one| (one["metric"].clone(), value(one).expect("a number"))).collect()
    }

    /// The names of the alerts that it evaluates without an error.
    pub fn alerts(&self) -> Vec<String> {
        let answer: Value =
            serde_json::from_str(&self.get("/api/v1/rules").expect("an answer")).expect("JSON");
        let groups = answer["data"]["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        let good = rules.filter(|rule| rule["health"] == "ok");
        good.map(|rule| rule["name"].as_str().expect("a name").to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("---- the log of Prometheus ----\n{}", self.log());
        }
    }
}
