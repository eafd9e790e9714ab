//! The live page: its files, and the stream that fills it.
//!
//! The files are part of the program and hold nothing secret, so they are served without a token; the page asks for one
//! where the API does. Nothing is loaded from elsewhere, and the browser is told to refuse it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::Sse;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::unfold;

use super::live::Viewer;
use super::problem::{Kind, Named, Problem, ProblemDocument};
use super::state::ApiState;

/// What the page may load and do: files and data of this address, nothing else. No text of an event can become a script:
/// neither inline scripts nor inline styles run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of a page.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) text: &'static str,
}

/// A file in the folder `page` beside the source.
macro_rules! embedded {
    ($name:literal, $media_type:literal) => {
        $crate::http::File {
            name: $name,
            media_type: $media_type,
            text: include_str!(concat!("page/", $name)),
        }
    };
}
pub(crate) use embedded;

/// A page: its own files, and those that all pages share.
pub(crate) struct Page {
    pub(crate) index: File,
    pub(crate) files: &'static [File],
}

/// The page of a verifier.
pub(super) static VERIFIER: Page = Page {
    index: embedded!("index.html", "text/html; charset=utf-8"),
    files: &[
        embedded!("main.js", "text/javascript; charset=utf-8"),
        embedded!("live.js", "text/javascript; charset=utf-8"),
        embedded!("story.js", "text/javascript; charset=utf-8"),
    ],
};

const SHARED: [File; 6] = [
    embedded!("base.css", "text/css; charset=utf-8"),
    embedded!("page.css", "text/css; charset=utf-8"),
    embedded!("icon.svg", "image/svg+xml"),
    embedded!("dom.js", "text/javascript; charset=utf-8"),
    embedded!("api.js", "text/javascript; charset=utf-8"),
    embedded!("ask.js", "text/javascript; charset=utf-8"),
];

fn answer(file: &File) -> Response {
    let mut headers = HeaderMap::new();
    let mut set =
        |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_TYPE, file.media_type);
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(REFERRER_POLICY, "no-referrer");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Of this version of the program: the next one's may differ.
    set(CACHE_CONTROL, "no-cache");
    (headers, file.text).into_response()
}

/// The page.
pub(super) fn index(page: &'static Page) -> Response {
    answer(&page.index)
}

/// A file that it loads.
pub(super) fn file(page: &'static Page, Named(name): Named) -> Result<Response, Problem> {
    let file = page.files.iter().chain(&SHARED).find(|file| file.name == name);
    file.map(answer)
        .ok_or_else(|| Problem::new(Kind::Plain(StatusCode::NOT_FOUND), "the page has no such file"))
}

/// What this process does now, again each second, as server-sent events: each is named `snapshot`, and its data is a
/// `LiveView`. The page at `/` shows it. All but the group and the levels is of this process alone.
#[utoipa::path(get, path = "/v1/live", tag = "live", operation_id = "live",
    responses(
        (status = 200, description = "The stream. Each event is named `snapshot`; its data is a `LiveView` in one line.",
         body = String, content_type = "text/event-stream"),
        (status = "default", description = "A problem.", body = ProblemDocument,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn live(State(api): State<Arc<ApiState>>) -> Result<Response, Problem> {
    let Some(hub) = &api.live else {
        return Err(Problem::new(Kind::Plain(StatusCode::NOT_FOUND), "nothing is watched here"));
    };
    let mut response = Sse::new(unfold(hub.enter()?, Viewer::next)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy must not keep events back: nginx heeds this, and those that follow it.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
