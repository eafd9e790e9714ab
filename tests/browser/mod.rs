//! The live page, as people see it: in a real Chromium, on a running verifier.

use std::path::Path;
use std::time::Duration;

use thirtyfour::Key;

use crate::gate::sale::{self, Sale};
use crate::http::running::{LISTEN, client};
use crate::support::browser::Browser;
use crate::support::kafka::{order, sent};
use crate::support::postgres::place;
use crate::support::process::{Verifier, program};
use crate::support::scene::Scene;
use crate::support::wait;

/// Longest wait for anything, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Where the pictures of the page go, where somebody wants them.
const PICTURES: &str = "STOCK_VERIFIER_PICTURES";

/// A verifier with one order accepted, one rejected and one record that is none, and its page in a browser.
struct Seen {
    scene: Scene,
    verifier: Verifier,
    browser: Browser,
}

impl Seen {
    fn open() -> Self {
        let scene = Scene::new(2);
        scene.stock(&[("MUG", 120), ("TSHIRT-M", 57)]);
        let mut verifier = scene.start("a", &LISTEN);
        let page = client(&mut verifier).base + "/";
        let browser = Browser::start();
        browser.open(&page);
        browser.shows("#link", "Live");
        scene.produce(&[
            order("o-1001", &[("TSHIRT-M", 2), ("MUG", 1)]).to(1),
            order("o-1002", &[("MUG", 500), ("MUGG", 1)]).to(1),
            sent("o-1003", "no order").to(1),
        ]);
        Self { scene, verifier, browser }
    }

    /// Nothing was wrong on the way.
    fn close(self) {
        assert_eq!(self.browser.complaints(), Vec::<String>::new());
        self.verifier.stop();
    }
}

#[test]
#[ignore = "needs a browser: tests/run --all"]
fn the_page_shows_what_happens_by_itself_and_where_it_stood() {
    let seen = Seen::open();
    let (scene, browser) = (&seen.scene, &seen.browser);
    browser.eval("window.notReloaded = true;");
    browser.shows("#accepted-more", "of 2 orders");
    assert_eq!(browser.text("#accepted"), "50.0 %");
    let orders = scene.orders();
    browser.shows("#rejections", &format!("{orders}[1]@1"));
    let rejected = browser.text("#rejections");
    for text in ["o-1002", "insufficient stock: MUG asked 500, there were 119", "unknown SKU: MUGG"] {
        assert!(rejected.contains(text), "{rejected}");
    }
    browser.shows("#letters", &format!("{orders}[1]@2"));
    browser.shows("#reasons", "insufficient stock");
    // What is asked for, also in vain, and what is left by the ledger.
    browser.shows("#hot tr:first-child", "MUG");
    browser.shows("#hot tr:first-child td:last-child", "119");
    browser.shows("#hot", "never stocked");
    browser.shows("#members", &format!("{orders}: 0, 1"));
    browser.shows("#members", "(this process)");
    browser.shows("#partitions", &format!("{orders}[0]"));
    assert!(browser.text("#about").contains(scene.group()), "{}", browser.text("#about"));
    // More comes, and is seen without any doing.
    scene.produce(&[order("o-1004", &[("MUG", 19)])]);
    browser.shows("#hot tr:first-child td:last-child", "100");
    browser.shows("#accepted-more", "of 3 orders");
    browser.shows("#stages", "Deciding");
    assert!(browser.is("window.notReloaded"));
    browser.until("document.getElementById('spark-line').getAttribute('d').length > 20");
    seen.close();
}

#[test]
#[ignore = "needs a browser: tests/run --all"]
fn an_order_and_a_sku_tell_their_story_line_by_line_to_who_has_only_a_keyboard() {
    let seen = Seen::open();
    let browser = &seen.browser;
    seen.scene.done(SOON);
    browser.press("/");
    assert!(browser.is("document.activeElement.id === 'query'"));
    browser.press("o-1001");
    browser.press(Key::Enter);
    browser.shows("#story-title", "Order o-1001");
    browser.shows("#story-title", "accepted");
    assert!(browser.is("document.activeElement.id === 'story-title'"), "the focus is where the news is");
    let story = browser.text("#story-body");
    let record = format!("{}[1]@0", seen.scene.orders());
    for text in [&*record, "order.created", "What it took", "TSHIRT-M", "\u{2d}2", "55", "\u{2d}1", "119"] {
        assert!(story.contains(text), "no {text:?} in {story}");
    }
    // From the order to what it took, and from a ledger line to the order that caused it.
    let focus = |text: &str| {
        let link =
            format!("[...document.querySelectorAll('#story-body a')].find((a) => a.innerText === '{text}')");
        wait::until("the focus reaches the link", SOON, || {
            browser.press(Key::Tab);
            browser.is(&format!("document.activeElement === {link}"))
        });
        browser.press(Key::Enter);
    };
    focus("MUG");
    browser.shows("#story-title", "SKU MUG");
    browser.shows("#story-body", "In the ledger, newest line first");
    browser.shows("#story-body", &record);
    focus("o-1001");
    browser.shows("#story-title", "Order o-1001");
    // One that was rejected, by the link in the list; and what is not known.
    browser.press(Key::Escape);
    browser.until("document.getElementById('story').hidden && document.activeElement.id === 'query'");
    browser.click("#rejections a");
    browser.shows("#story-title", "Order o-1002");
    browser.shows("#story-body", "insufficient stock: MUG");
    browser.press(Key::Escape);
    browser.press("nobody-knows");
    browser.press(Key::Enter);
    browser.shows("#story-body", "Nothing is known of it");
    // The browser itself says that an answer was 404, twice: the order's and the SKU's.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("404")) && complaints.len() <= 4, "{complaints:?}");
    seen.verifier.stop();
}

/// Names that would be more than text where a page took them for HTML.
const HOSTILE: [&str; 3] = [
    "<script>window.hacked=1</script>",
    "\"><img src=x onerror=\"window.hacked=2\">",
    "'+(window.hacked=3)+'&lt;b&gt;%3Cb%3E",
];

#[test]
#[ignore = "needs a browser: tests/run --all"]
fn names_that_look_like_html_stay_text_and_a_phone_shows_all_without_scrolling_sideways() {
    let seen = Seen::open();
    let (scene, browser) = (&seen.scene, &seen.browser);
    scene.stock(&HOSTILE.map(|sku| (sku, 50)));
    let long = "W".repeat(120);
    for (number, name) in HOSTILE.into_iter().chain([&*long]).enumerate() {
        scene.produce(&[
            order(name, &[(name, 1)]).to(0),
            order(&format!("o-{number}"), &[(name, 900)]).to(1),
            order(&format!("{name}-rejected"), &[(name, 900)]).to(0),
        ]);
    }
    browser.resize(360, 740);
    let fits = || {
        assert!(
            browser.is("document.documentElement.scrollWidth <= document.documentElement.clientWidth"),
            "{}", browser.eval("return [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .scrollx')).map((e) => e.outerHTML.slice(0, 120)).join('\\n')")
        );
    };
    for name in HOSTILE {
        browser.shows("#hot", name);
        browser.shows("#rejections", &format!("{name}-rejected"));
        fits();
        for kind in ["order", "sku"] {
            let address =
                url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20");
            browser.eval(&format!("location.hash = '#/{kind}/{address}';"));
            browser.shows("#story-title", name);
            browser.until("document.getElementById('story').getAttribute('aria-busy') === 'false'");
            browser.shows("#story-body", "In the ledger");
            fits();
        }
    }
    browser.eval(&format!("location.hash = '#/order/{long}';"));
    browser.shows("#story-body", "unknown SKU");
    fits();
    assert!(browser.is("window.hacked === undefined"));
    assert!(browser.is("document.querySelectorAll('main img, main script').length === 0"));
    // Fingers need room.
    assert!(browser.is("document.querySelector('#search button').getBoundingClientRect().height >= 40"));
    seen.close();
}

#[test]
#[ignore = "needs a browser: tests/run --all"]
fn a_page_whose_verifier_is_gone_says_since_when_and_goes_on_by_itself_when_it_is_back() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120)]);
    let (_place, port) = place();
    let listen = ["--http-listen".to_owned(), format!("127.0.0.1:{port}")];
    let listen: Vec<&str> = listen.iter().map(String::as_str).collect();
    let mut verifier = scene.start("a", &listen);
    let page = client(&mut verifier).base + "/";
    let browser = Browser::start();
    browser.open(&page);
    browser.shows("#link", "Live");
    assert!(browser.is("!document.getElementById('live').classList.contains('stale')"));
    verifier.kill();
    browser.shows("#link", "Cut since ");
    assert!(
        browser.is("document.getElementById('live').classList.contains('stale')"),
        "what is old looks old"
    );
    assert!(browser.is("document.getElementById('link').getAttribute('aria-live') === 'polite'"));
    let mut again = scene.start("a", &listen);
    client(&mut again);
    browser.shows("#link", "Live");
    scene.produce(&[order("o-1", &[("MUG", 1)])]);
    browser.shows("#accepted-more", "of 1 orders");
    // Frozen, it keeps the connection and says nothing.
    again.signal("STOP");
    browser.shows("#link", "Cut since ");
    again.signal("CONT");
    browser.shows("#link", "Live");
    again.stop();
}

#[test]
#[ignore = "needs a browser: tests/run --all"]
fn where_a_token_is_required_the_page_asks_for_it_and_keeps_it_in_its_tab() {
    let scene = Scene::new(1);
    scene.stock(&[("MUG", 120)]);
    let file = scene.file("token");
    std::fs::write(&file, "hunter2-token\n").unwrap();
    let mut verifier = scene.start("a", &[LISTEN[0], LISTEN[1], "--http-token-file", file.to_str().unwrap()]);
    let page = client(&mut verifier).base + "/";
    let browser = Browser::start();
    browser.open(&page);
    browser.shows("#ask", "A token is needed");
    browser.until("document.activeElement.id === 'token'");
    browser.press("hunter");
    browser.press(Key::Enter);
    browser.shows("#ask-why", "is not the one");
    browser.press("hunter2-token");
    browser.press(Key::Enter);
    browser.shows("#link", "Live");
    browser.until("document.getElementById('ask').hidden");
    browser.press("/");
    browser.press("MUG");
    browser.press(Key::Enter);
    browser.shows("#story-title", "SKU MUG");
    assert!(
        browser
            .is("!location.href.includes('hunter2') && localStorage.length === 0 && document.cookie === ''")
    );
    browser.open(&page);
    browser.shows("#link", "Live");
    verifier.stop();
}

#[test]
#[ignore = "needs a browser: tests/run --all"]
fn the_page_of_a_gate_shows_who_is_let_in_who_is_not_and_what_is_open() {
    let sale = Sale::new(&[("MUG", 3), (HOSTILE[0], 1)]);
    for sku in ["MUG", HOSTILE[0]] {
        sale.command(&["open", sku, "--buyer-limit", "2", "--buyer-window", "1h"]);
    }
    let token = sale.scene.file("token");
    std::fs::write(&token, "hunter2-token\n").unwrap();
    let (mut gate, shopper) = sale.gate("gate", &["--http-token-file", token.to_str().unwrap()]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", shopper.address()));
    browser.shows("#ask", "A token is needed");
    browser.press("hunter2-token");
    browser.press(Key::Enter);
    browser.shows("#link", "Live");
    browser.shows("#answers", "no orders yet");
    browser.shows("#drift", "0");
    let headers = [("content-type", "application/json"), ("authorization", "Bearer hunter2-token")];
    let buy = |pieces: i64| {
        let mut order = sale::order(&sale::fresh(), &[("MUG", pieces)]);
        order["buyer_id"] = serde_json::json!(sale::fresh());
        shopper.try_send("POST", "/v1/orders", &headers, &order.to_string()).expect("an answer").status
    };
    // Without a verifier what is let in stays open.
    assert_eq!([buy(2), buy(2)], [202, 409]);
    browser.shows("#answers tr:nth-child(1)", "admitted");
    browser.shows("#answers tr:nth-child(2)", "not enough");
    browser.shows("#admitted-more", "1 since");
    browser.shows("#refused-more", "1 since");
    browser.shows("#entries", "1");
    browser.shows("#entries-more", "1 wait for a result");
    browser.shows("#sales", HOSTILE[0]);
    browser.until(
        "[...document.querySelectorAll('#sales tr')].some((row) => /^MUG\\s+1\\s+2\\s+yes\\s+2$/.test(row.innerText.trim()))",
    );
    let verifier = sale.scene.start("a", &[]);
    browser.shows("#entries-more", "none waits");
    assert!(browser.is("window.hacked === undefined"));
    browser.resize(360, 740);
    assert!(
        browser.is("document.documentElement.scrollWidth <= document.documentElement.clientWidth"),
        "it scrolls sideways"
    );
    // The browser itself says that an answer was 401, once.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("401")) && complaints.len() <= 1, "{complaints:?}");
    gate.kill();
    browser.shows("#link", "Cut since ");
    verifier.stop();
}

/// The demo that goes on, and its page.
fn demo(directory: &Path) -> (Verifier, String) {
    let mut command = program();
    command.args(["demo", "--serve"]);
    let mut demo = Verifier::start(command, "demo", directory.join("log"));
    demo.said("Orders flow", SOON);
    let log = demo.log();
    let page = log.lines().next().unwrap().strip_prefix("Watch it: ").unwrap().to_owned();
    (demo, page)
}

#[test]
#[ignore = "needs a browser: tests/run --all"]
fn the_demo_fills_the_page_and_pictures_of_it_are_made_where_they_are_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut demo, page) = demo(directory.path());
    let browser = Browser::start();
    browser.open(&page);
    browser.shows("#link", "Live");
    browser.until("document.querySelectorAll('#hot tr').length >= 5");
    browser.shows("#rejections", "orders[");
    browser.shows("#letters", "orders[");
    browser.shows("#stages", "Publishing");
    browser.shows("#members", "cannot say who is in a group");
    if let Some(pictures) = std::env::var_os(PICTURES) {
        let pictures = Path::new(&pictures);
        // Until the line has something to show, and a sale is on.
        wait::until("the page has seen a minute", Duration::from_secs(120), || {
            browser.is(
                "/^(7\\d|8\\d|9\\d|1\\d\\d) s|2 min/.test(document.getElementById('spark-from').innerText)",
            )
        });
        for (name, scheme, width, height) in [
            ("live-page", "light", 1360, 1120),
            ("live-page-dark", "dark", 1360, 1120),
            ("live-page-phone", "light", 390, 844),
        ] {
            browser.prefer(scheme);
            browser.resize(width, height);
            browser.screenshot(&pictures.join(format!("{name}.png")));
        }
        let order = browser.eval("return document.querySelector('#rejections a')?.href ?? ''");
        browser.resize(1360, 900);
        browser.prefer("light");
        browser.open(order.as_str().unwrap());
        browser.shows("#story-body", "In the ledger");
        browser.screenshot(&pictures.join("live-page-order.png"));
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    demo.signal("INT");
    assert_eq!(demo.wait(SOON).code(), Some(0), "{}", demo.log());
}
