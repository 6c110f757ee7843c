//! The dashboard's files, which `make ui` builds and the hub's binary holds. A hub that was built without them says so.

use axum::body::Bytes;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use rust_embed::RustEmbed;
use tonic::body::Body;

use super::{content, text};

#[derive(RustEmbed)]
#[folder = "ui/dist/site"]
#[allow_missing = true]
struct Files;

/// The page itself. It has no name of its own: every address without a file is one of its screens.
const INDEX: &str = "index.html";
/// Files in it have a hash of their content in their names.
const ASSETS: &str = "assets/";
const MISSING: &str = include_str!("missing.html");

/// The file or the page for a path.
pub fn answer(path: &str, headers: &HeaderMap) -> Response<Body> {
    let path = path.trim_start_matches('/');
    let name = match path {
        "" => INDEX,
        path if Files::get(path).is_some() => path,
        // A screen has no file; a file that is gone is not the page.
        path if path.starts_with(ASSETS) || path == "favicon.ico" => {
            return text(StatusCode::NOT_FOUND, "there is no such file");
        }
        _ => INDEX,
    };
    let Some(file) = Files::get(name) else {
        let page = Bytes::from_static(MISSING.as_bytes());
        return content(StatusCode::SERVICE_UNAVAILABLE, "text/html; charset=utf-8", page);
    };
    let packed = accepts_brotli(headers)
        .then(|| Files::get(&format!("{name}.br")))
        .flatten();
    let encoding = packed.is_some().then_some("br");
    let bytes = match packed.unwrap_or(file).data {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => bytes.into(),
    };
    let mut answer = content(StatusCode::OK, kind(name), bytes);
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    if name.starts_with(ASSETS) {
        let long = "public, max-age=31536000, immutable";
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(long));
    }
    answer
}

/// Whether the hub was built with the dashboard.
pub fn present() -> bool {
    Files::get(INDEX).is_some()
}

fn accepts_brotli(headers: &HeaderMap) -> bool {
    let value = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.split(',').any(|part| part.trim() == "br"))
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
