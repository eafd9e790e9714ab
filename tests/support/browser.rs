//! A Chromium of one test, driven by `WebDriver`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::prelude::{CapabilitiesHelper as _, TypingData};
use thirtyfour::{By, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver};

use super::servers::wait_for;
use super::wait;

/// Longest time until the driver answers, on a busy machine.
const STARTS_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for something on a page: a snapshot comes each second.
const SOON: Duration = Duration::from_secs(30);

/// Chromium and its driver. Both are gone when it is dropped.
pub struct Browser {
    driver: WebDriver,
    chromedriver: Child,
    /// The profile and the log.
    directory: tempfile::TempDir,
}

impl Browser {
    /// Starts it, without a window on any screen.
    pub fn start() -> Self {
        let program = super::postgres::with_lib("ensure chromium >&2; command -v chromedriver");
        let (directory, port) = super::postgres::place();
        let home = directory.path();
        let log = fs::File::create(home.join("log")).expect("a log file");
        let chromedriver = Command::new(program)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("chromedriver starts");
        let mut wanted = DesiredCapabilities::chrome();
        let profile = format!("--user-data-dir={}", home.join("profile").display());
        // A sandbox needs rights that a container does not have; what is opened is the test's own page.
        for argument in
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &profile]
        {
            wanted.add_arg(argument).expect("an argument");
        }
        wanted.set("goog:loggingPrefs", json!({"browser": "ALL"})).expect("a capability");
        let url = format!("http://127.0.0.1:{port}");
        let driver = wait::value("the browser starts", STARTS_LIMIT, || {
            wait_for(WebDriver::new(url.as_str(), wanted.clone())).ok()
        });
        let browser = Self { driver, chromedriver, directory };
        browser.resize(1360, 900);
        browser
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        wait_for(self.driver.goto(url)).expect("it is opened");
    }

    /// The screen has so many pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// The person likes it `dark` or `light`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    fn devtools(&self, method: &str, arguments: Value) {
        wait_for(self.driver.cdp().send_raw(method, arguments)).expect("the browser does it");
    }

    /// What a script returns.
    #[track_caller]
    pub fn eval(&self, script: &str) -> Value {
        let done = wait_for(self.driver.execute(script, Vec::<Value>::new()));
        done.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// Whether this JavaScript is true.
    #[track_caller]
    pub fn is(&self, condition: &str) -> bool {
        self.eval(&format!("return Boolean({condition});")) == true
    }

    /// Waits until this JavaScript is true.
    #[track_caller]
    pub fn until(&self, condition: &str) {
        let is_so = wait::is_soon(SOON, || self.is(condition));
        assert!(is_so, "waited {SOON:?} in vain: {condition}\n{}", self.text("body"));
    }

    /// The text that a person sees of an element; empty where there is none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? '';", json!(selector));
        self.eval(&script).as_str().expect("text").to_owned()
    }

    /// Waits until an element shows a text.
    #[track_caller]
    pub fn shows(&self, selector: &str, text: &str) {
        let is_so = wait::is_soon(SOON, || self.text(selector).contains(text));
        assert!(is_so, "{selector} does not show {text:?} within {SOON:?}, but:\n{}", self.text(selector));
    }

    /// Presses keys where the focus is.
    pub fn press(&self, keys: impl Into<TypingData>) {
        wait_for(self.driver.action_chain().send_keys(keys).perform()).expect("keys are pressed");
    }

    /// Clicks an element with the mouse.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let clicked = wait_for(async { self.driver.find(By::Css(selector)).await?.click().await });
        clicked.unwrap_or_else(|error| panic!("{selector} cannot be clicked: {error}"));
    }

    /// Writes what the screen shows into a PNG.
    pub fn screenshot(&self, file: &Path) {
        fs::create_dir_all(file.parent().expect("a folder")).expect("the folder is there");
        wait_for(self.driver.screenshot(file)).expect("a screenshot");
    }

    /// What the console said since it was last asked, of errors and warnings.
    pub fn complaints(&self) -> Vec<String> {
        let log = wait_for(self.driver.browser_log()).expect("the console's log");
        let bad = log.into_iter().filter(|entry| ["WARNING", "SEVERE"].contains(&&*entry.level));
        bad.map(|entry| entry.message).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium too.
        let _ = wait_for(self.driver.clone().quit());
        let _ = self.chromedriver.kill();
        let _ = self.chromedriver.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            println!("---- the log of chromedriver ----\n{log}");
        }
    }
}
